"""Lines on standard output and standard error.

All output goes through these functions, because names come from files, archives and servers and may hold terminal
commands: control characters are escaped.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from reproduction.caffe.errors import printable


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print each of ``lines`` as one line, with control characters escaped."""
    print("\n".join(map(printable, lines)), file=file or sys.stdout, flush=True)


def say_json(value: object) -> None:
    """Print a value as indented JSON, in ASCII."""
    say(*json.dumps(value, indent=2).split("\n"))


def note(text: object) -> None:
    """Print a line on standard error."""
    say(text, file=sys.stderr)


def fail(problem: object, code: int = 1) -> int:
    """Print an error on standard error and return the exit code."""
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{red}error:{plain} {printable(problem)}", file=sys.stderr, flush=True)
    return code
