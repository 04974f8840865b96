"""Shared parts of the tools: start-up, exit codes, printing, progress bars, and options that several tools have.

Each tool imports this module before any third-party package, so that a missing environment, or Ctrl-C while torch is
imported, ends without a traceback.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

ROOT = Path(__file__).resolve().parent.parent
PROTOTXT = ROOT / "prototxt"
WEIGHTS = ROOT / "weights"
NOT_CHECKED = 3  # exit code of a tool that found no error but could not check everything
PACKAGES = ("torch", "numpy", "pillow", "scipy")

if Path(sys.argv[0]).resolve().parent == ROOT / "tools":  # a tool runs, rather than a test that imports this module
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # ``run`` replaces this handler
sys.path.append(str(ROOT))

try:
    from tqdm import tqdm

    from reproduction.caffe import tested_devices
    from reproduction.caffe.errors import ReproductionError, printable, shorten_warnings
    from reproduction.caffe.typing import Progress
    from reproduction.fast import precisions
except ImportError as error:
    had = f"Python {platform.python_version()}" if sys.version_info < (3, 11) else f"no {error.name}"
    sys.exit(f"error: this environment is not set up; got {had}. Run `make setup`, then `. .venv/bin/activate`.")

if TYPE_CHECKING:
    from reproduction.caffe.net.net import Net
    from reproduction.fcn.scoring.evaluate import Scorer

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


def positive(text: str) -> int:
    """Parse an integer from 1 on, as an argparse type.

    Raises:
        ArgumentTypeError: If the text is not an integer of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


class _MaxPixels(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from reproduction.caffe.formats import image_files

        image_files.set_max_pixels(values)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--max-pixels``, which limits the size of the images that are opened."""
    parser.add_argument(
        "--max-pixels", type=positive, action=_MaxPixels, default=argparse.SUPPRESS, metavar="N",
        help="open images of up to N pixels; default: 100 million, which may take 1.6 GB",
    )  # fmt: skip


class Lines:
    """A file that tqdm can draw on: each update of a bar becomes a line, for logs rather than terminals."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write the visible part of ``text`` as a line; write nothing if it is blank."""
        if shown := text.strip():
            self.file.write(f"{shown}\n")

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def bar(what: str, total: int | None, unit: str = "B", done: int = 0, *, quiet: bool = False) -> tqdm[NoReturn]:
    """Start a progress bar on standard error; in a log file, it prints one line every 30 seconds.

    Args:
        what: The label in front of the bar.
        total: The number of units, or None if it is not known.
        unit: The name of a unit; ``B`` is shown with prefixes, as kB, MB, GB.
        done: The units that are done already; the speed counts only the others.
        quiet: Whether to show nothing.
    """
    screen = sys.stderr.isatty()
    return tqdm(
        desc=printable(what), total=total, initial=done, unit=unit, unit_scale=unit == "B", leave=False, disable=quiet,
        file=sys.stderr if screen else Lines(sys.stderr), mininterval=0.2 if screen else 30.0, miniters=1, delay=1.0,
    )  # fmt: skip


class Bars:
    """A display of one progress bar at a time.

    Args:
        quiet: Whether to show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.bar: tqdm[NoReturn] | None = None
        self._quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, what: str, unit: str = "B") -> Progress:
        """Prepare a bar and return the function that moves it; the bar appears at the first move."""
        self.close()

        def move(done: int, total: int | None) -> None:
            if self.bar is None:  # a resumed download starts where it stopped
                self.bar = bar(what, total, unit, done, quiet=self._quiet)
            self.bar.update(done - self.bar.n)

        return move

    def close(self) -> None:
        """Close the current bar, if there is one."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def add_device(parser: argparse.ArgumentParser, choices: Sequence[str] | None = None) -> None:
    """Add the option ``--device``; its help states whether CUDA was tested."""
    remark = tested_devices.untested_note()
    text = "cpu (default) or cuda" + (f" ({remark})" if remark else "")
    parser.add_argument("--device", default="cpu", choices=choices, metavar="DEVICE", help=text)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--precision``, which selects how the net is computed."""
    described = "; ".join(f"{name}: {text}" for name, text in precisions.DESCRIPTIONS.items())
    parser.add_argument(
        "--precision", choices=precisions.DESCRIPTIONS, default="exact",
        help=f"default: exact. {described}. If the device does not support it, the next more exact one is used",
    )  # fmt: skip


def add_legacy_crop(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--legacy-crop``, for nets whose Crop layers rely on the Caffe of 2015."""
    parser.add_argument(
        "--legacy-crop", action="store_true",
        help="give Crop layers without an offset that of the Caffe of 2015, which aligns their bottoms; Caffe 1.0"
        " takes 0",
    )  # fmt: skip


def precision(args: argparse.Namespace) -> str:
    """Return the precision that the chosen device computes in, and store it in ``args``.

    Prints a note, once, if it is not the precision that the user chose.
    """
    if args.precision != "plain":
        device = args.device.split(":")[0]
        used = precisions.supported_precision(args.precision, device)
        if used != args.precision:
            note(f"note: this {device} does not compute in {args.precision}; {used} is used.")
        args.precision = used
    return str(args.precision)


def compiled(net: Net, precision: str) -> Scorer:
    """Return the net compiled, which frees its weights, or the net itself if ``precision`` is ``plain``."""
    if precision == "plain":
        return net
    from reproduction.fast import compiler

    return compiler.compile(net, precision, discard=True)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, by name."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
