"""Shared parts of the tools: start-up, exit codes and printing. ``options`` and ``bars`` are for those that have them.

Each tool imports this package before any third-party package, so that a missing environment, or Ctrl-C while torch is
imported, ends without a traceback.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
PROTOTXT = ROOT / "prototxt"
WEIGHTS = ROOT / "weights"
NOT_CHECKED = 3  # exit code of a tool that found no error but could not check everything
PACKAGES = ("torch", "numpy", "pillow", "scipy")

if Path(sys.argv[0]).resolve().parent == ROOT / "tools":  # a tool runs, rather than a test that imports this module
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # ``run`` replaces this handler
sys.path.append(str(ROOT))

try:
    import tqdm  # noqa: F401 (that it is missing is found here)

    from reproduction.caffe.errors import ReproductionError, printable, shorten_warnings
except ImportError as error:
    had = f"Python {platform.python_version()}" if sys.version_info < (3, 11) else f"no {error.name}"
    sys.exit(f"error: this environment is not set up; got {had}. Run `make setup`, then `. .venv/bin/activate`.")

# By default, OpenMP threads spin while they wait for each other, which makes small nets many times slower when another
# program uses the CPU. OpenMP reads this variable when torch is imported, which none of the imports above does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit with its exit code.

    A user's mistake (ReproductionError, a file that cannot be read or written) prints one line on standard error and
    exits with 1. argparse exits with 2 for wrong usage, a tool with 3 for ``NOT_CHECKED``, Ctrl-C with 130. A closed
    pipe exits with 1 and prints nothing. Any other exception is a bug of this project and keeps its traceback. Each
    warning is one line on standard error.
    """
    shorten_warnings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks
    try:
        code = main() or 0
        sys.stdout.flush()
    except ReproductionError as error:
        code = fail(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        code = fail(f"{where}{(error.strerror or str(error)).lower()}.")
    except KeyboardInterrupt:
        code = fail("stopped.", code=130)
    sys.exit(code)


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print each of ``lines`` as one line, with control characters escaped.

    All output of the tools goes through this function, because names come from files, archives and servers and may hold
    terminal commands.
    """
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


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, by name."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
