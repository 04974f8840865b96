"""How a command starts and ends: Ctrl-C, exit codes, and warnings and errors of one line."""

from __future__ import annotations

import io
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, shorten_warnings
from reproduction.commands.terminal import fail

NOT_CHECKED = 3  # exit code of a command that found no error but could not check everything
PACKAGES = ("torch", "numpy", "pillow", "scipy")


def begin() -> None:
    """Prepare the process before torch is imported, which takes seconds.

    Until ``run`` replaces the handler, Ctrl-C ends the process without a traceback. By default, OpenMP threads spin
    while they wait for each other, which makes small nets many times slower when another program uses the CPU; OpenMP
    reads the variable that prevents it when torch is imported.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks


def run(main: Callable[[], int | None]) -> None:
    """Run a command's ``main`` and exit with its exit code.

    A user's mistake (ReproductionError, a file that cannot be read or written) prints one line on standard error and
    exits with 1. argparse exits with 2 for wrong usage, a command with 3 for ``NOT_CHECKED``, Ctrl-C with 130. A closed
    pipe exits with 1 and prints nothing. Any other exception is a bug of this project and keeps its traceback. Each
    warning is one line on standard error.
    """
    shorten_warnings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def program_name(command: str = "") -> str:
    """Return how this program was called, for usage lines: ``fcn infer``, or ``python -m reproduction infer``."""
    called = Path(sys.argv[0])
    if called.parent.name == "tools":
        return called.name  # a script of a checkout, which is one command
    name = "python -m reproduction" if called.parts[-2:] == ("reproduction", "__main__.py") else "fcn"
    return f"{name} {command}".rstrip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, by name."""
    import importlib.metadata  # 40 ms, which `fcn --help` does not need

    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
