"""Runs Python 2 sources in Python 3 with Python 2's semantics; sources are translated in memory when they are imported.

1. ``version_detection`` detects which Python a source was written for.
2. ``translate`` translates it to Python 3: fissix translates the syntax; this project translates tabs, division, slices
   and line numbers.
3. ``python2_builtins`` defines the builtins and the import rules, ``standard_library`` the modules that differ, and
   ``numeric`` division, rounding and array sizes.
4. ``streams`` has files and string buffers that accept text and bytes; ``removed_methods`` replaces removed methods.
5. ``import_hook`` applies this to every module that a program imports.

These differences from Python 2 remain: literals with bytes above 127 are text, not bytes; data read from a file in mode
``"rb"``, packed by ``struct`` or received from a socket is Python 3's ``bytes``; ``print`` shows all digits of a float;
numpy's scalars keep their type where numpy 1 widened them.
"""
