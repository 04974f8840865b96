"""Run a program that was written for Caffe's Python interface.

python -m reproduction.pycaffe SCRIPT [ARGUMENTS]

The program runs as with ``python SCRIPT ARGUMENTS``, but ``import caffe`` imports this project. Python 2 sources are
translated in memory when they are imported; the command writes no files. Example:

    cd voc-fcn8s && python -m reproduction.pycaffe net.py
"""

from __future__ import annotations

import argparse
import sys

from reproduction.pycaffe.run import run_script


def main() -> None:
    """Parse the command line and run the script that it names."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.pycaffe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-2", "--python2", action="store_true", help="treat sources that fit both Python 2 and Python 3 as Python 2"
    )
    parser.add_argument("script", metavar="SCRIPT", help="the program")
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="the arguments of the program")
    args = parser.parse_args()
    try:
        with open(args.script, "rb"):  # noqa: PTH123
            pass
    except OSError as error:
        sys.stderr.write(f"error: {args.script}: the program cannot be read: {(error.strerror or '').lower()}.\n")
        sys.exit(2)
    run_script.run_script(args.script, args.arguments, python2=args.python2)


if __name__ == "__main__":
    main()
