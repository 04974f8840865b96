"""Python 2 sources, run by Python 3 as Python 2 ran them; translated when they are imported, never on disk.

1. ``dialect`` tells which Python a source was written for.
2. ``translate`` makes Python 3 of it: syntax by fissix; tabs, division, slices and line numbers here.
3. ``names`` holds Python 2's builtins and imports, ``library`` its modules, ``arrays`` its division and numpy.
4. ``streams`` holds files and string buffers, for text and bytes alike; ``methods`` finds methods that are gone.
5. ``imports`` does this for every module of a program that is imported.

What it does not restore: literals with bytes above 127 are text, not bytes; what is read from a file in mode
``"rb"``, packed by ``struct`` or received from a socket is Python 3's ``bytes``; ``print`` shows all digits of a float;
scalars of numpy keep their type where numpy 1 widened them.
"""
