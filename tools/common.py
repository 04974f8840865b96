"""What every tool shares: how it begins and ends, how it shows progress, where the project's files are.

Tools import it before anything that is not Python's own, so that an environment that is not set up, and a Ctrl-C while
torch is loaded, end in one line.
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
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

ROOT = Path(__file__).resolve().parent.parent
PROTOTXT = ROOT / "prototxt"
WEIGHTS = ROOT / "weights"
NOT_CHECKED = 3  # the exit code of a tool that found nothing wrong, but did not check all that it shows
PACKAGES = ("torch", "numpy", "pillow", "scipy")

if Path(sys.argv[0]).resolve().parent == ROOT / "tools":  # and not a test that looks at this module
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # until ``run``
sys.path.append(str(ROOT))

try:
    from tqdm import tqdm

    from reproduction.caffe import tested_devices
    from reproduction.caffe.errors import ReproductionError, printable, shorten_warnings
    from reproduction.fcn.fetch.archives import Progress
except ImportError as error:
    had = f"Python {platform.python_version()}" if sys.version_info < (3, 11) else f"no {error.name}"
    sys.exit(f"error: this environment is not set up; got {had}. Run `make setup`, then `. .venv/bin/activate`.")

if TYPE_CHECKING:
    import torch

    from reproduction.caffe.net.net import Net
    from reproduction.fcn.scoring.evaluate import Scorer

# Threads that wait for each other spin by default; beside another program that makes small nets many times slower. Read
# when torch is loaded, which none of the imports above does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run(main: Callable[[], int | None]) -> None:
    """Run a tool to its exit code.

    A user's mistake (ReproductionError, a file that cannot be read or written) is one line on standard error and
    exit code 1; argparse exits 2 for wrong usage; 3 is ``NOT_CHECKED``; Ctrl-C is 130; a closed pipe is silent.
    Anything else is our bug and keeps its traceback. A warning is one line on standard error.
    """
    shorten_warnings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks
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
    """Print lines. Whatever is in them, each is one line, and none of them a command to the terminal.

    All that a tool prints goes through here, since names come from files, archives and servers.
    """
    print("\n".join(map(printable, lines)), file=file or sys.stdout, flush=True)


def say_json(value: object) -> None:
    """Print a value as JSON, in letters that any terminal has."""
    say(*json.dumps(value, indent=2).split("\n"))


def note(text: object) -> None:
    """Print a line on standard error."""
    say(text, file=sys.stderr)


def fail(problem: object, code: int = 1) -> int:
    """Print an error on standard error; returns the exit code."""
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{red}error:{plain} {printable(problem)}", file=sys.stderr, flush=True)
    return code


def positive(text: str) -> int:
    """Read an option that counts, for argparse.

    Raises:
        ArgumentTypeError: it is no number from 1 on.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


class _MaxPixels(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from reproduction.caffe.formats import image_files

        image_files.set_max_pixels(values)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the option that sets how many pixels the pictures that are opened may have."""
    parser.add_argument(
        "--max-pixels", type=positive, action=_MaxPixels, default=argparse.SUPPRESS, metavar="N",
        help="open pictures of up to N pixels; default: 100 million, which may take 1.6 GB",
    )  # fmt: skip


class Lines:
    """A log file as tqdm's screen: what is drawn over on a terminal is a line each time here."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write what would be seen, if anything."""
        if shown := text.strip():
            self.file.write(f"{shown}\n")

    def flush(self) -> None:
        """Let it be read."""
        self.file.flush()


def bar(what: str, total: int | None, unit: str = "B", done: int = 0, *, quiet: bool = False) -> tqdm[NoReturn]:
    """Begin a progress bar with what remains, on standard error; in a log file, one line in half a minute.

    Args:
        what: stands before it.
        total: how many there are, where it is known.
        unit: of what; bytes are shown as kB, MB, GB.
        done: how many are done already; the speed is that of the rest.
        quiet: show nothing.
    """
    screen = sys.stderr.isatty()
    return tqdm(
        desc=printable(what), total=total, initial=done, unit=unit, unit_scale=unit == "B", leave=False, disable=quiet,
        file=sys.stderr if screen else Lines(sys.stderr), mininterval=0.2 if screen else 30.0, miniters=1, delay=1.0,
    )  # fmt: skip


class Bars:
    """One progress bar at a time."""

    def __init__(self) -> None:
        self.bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, what: str, unit: str = "B") -> Progress:
        """Begin a bar of bytes or of other things, which is shown once it moves; returns what moves it."""
        self.close()

        def move(done: int, total: int | None) -> None:
            if self.bar is None:  # a download that goes on starts where it was
                self.bar = bar(what, total, unit, done)
            self.bar.update(done - self.bar.n)

        return move

    def close(self) -> None:
        """End the bar that is shown."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def add_device(parser: argparse.ArgumentParser, choices: Sequence[str] | None = None) -> None:
    """Add the option ``--device``; its help says what was not tested."""
    remark = tested_devices.remark()
    text = "cpu (default) or cuda" + (f" ({remark})" if remark else "")
    parser.add_argument("--device", default="cpu", choices=choices, metavar="DEVICE", help=text)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Let a tool's user choose how the net is computed."""
    parser.add_argument(
        "--precision", choices=("exact", "winograd", "tf32", "bf16", "plain"), default="exact",
        help="exact (default): compiled, the same but for rounding; winograd: within 1e-4, on the CPU; tf32: within"
        " 1e-2, on cuda; bf16: within 3e-2, where the device multiplies it; plain: layer by layer",
    )  # fmt: skip


def add_legacy_crop(parser: argparse.ArgumentParser) -> None:
    """Add the option with which a user's net is cropped as by the Caffe of 2015."""
    parser.add_argument(
        "--legacy-crop", action="store_true",
        help="give Crop layers without an offset that of the Caffe of 2015, which aligns their bottoms; Caffe 1.0"
        " takes 0",
    )  # fmt: skip


def precision(args: argparse.Namespace) -> str:
    """Name the precision that the chosen device computes in; says so, once, if it is not the chosen one."""
    if args.precision != "plain":
        from reproduction.fast import ops

        device = args.device.split(":")[0]
        used = ops.in_effect(args.precision, device)
        if used != args.precision:
            note(f"note: this {device} does not compute in {args.precision}; {used} is taken.")
        args.precision = used
    return str(args.precision)


def compiled(net: Net, precision: str) -> Scorer:
    """Compile a net, which is given up for it, unless it is wanted as it is."""
    if precision == "plain":
        return net
    from reproduction.fast import compiler

    return compiler.compile(net, precision, discard=True)


def describe(device: torch.device) -> str:
    """Say what a net runs on."""
    import torch

    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {platform.machine()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """List what a result depends on, with versions."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
