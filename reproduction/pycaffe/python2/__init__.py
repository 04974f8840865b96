"""Runs Python 2 sources in Python 3 with Python 2's semantics; sources are translated in memory when imported.

1. ``dialect`` detects which Python a source was written for.
2. ``translate`` translates it to Python 3: fissix the syntax; this project tabs, division, slices and line numbers.
3. ``names`` defines Python 2's builtins and imports, ``library`` its modules, ``arrays`` its division and numpy.
4. ``streams`` has files and string buffers that accept text and bytes; ``methods`` finds removed methods.
5. ``imports`` applies this to every module that a program imports.

These differences from Python 2 remain: literals with bytes above 127 are text, not bytes; data read from a file in mode
``"rb"``, packed by ``struct`` or received from a socket is Python 3's ``bytes``; ``print`` shows all digits of a float;
numpy's scalars keep their type where numpy 1 widened them.
"""
