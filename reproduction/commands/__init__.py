"""The console command ``fcn`` and its sub-commands, one module each; the only room that prints.

1. ``program``   the table of sub-commands; ``fcn`` and ``python -m reproduction`` start here
2. ``start``     exit codes, Ctrl-C, and warnings and errors of one line
3. ``terminal``  lines on standard output and standard error; ``bars`` shows progress
4. ``parsers``   the arguments of each sub-command; ``options`` has those that several sub-commands have

A module of a sub-command has ``main(arguments)``, which returns the exit code, or None for 0. Its docstring is the
help, which is printed without importing the module.
"""
