"""Python 2 sources, run by Python 3 as Python 2 ran them; translated when they are imported, never on disk.

1. ``dialect`` tells which Python a source was written for.
2. ``translate`` makes Python 3 of it: syntax by fissix, division and line numbers here.
3. ``names`` holds Python 2's builtins, its division, its rounding and its random numbers.
4. ``imports`` does this for every module of a program that is imported.
"""
