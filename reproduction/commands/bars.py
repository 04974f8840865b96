"""Progress bars on standard error, and lines above them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn, Self, TextIO

from tqdm import tqdm

from reproduction.caffe.errors import printable
from reproduction.caffe.typing import Progress
from reproduction.commands.terminal import fail, say

if TYPE_CHECKING:
    Bar = tqdm[NoReturn]
else:
    Bar = tqdm  # which is generic in its type stubs only


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


def bar(what: str, total: int | None, unit: str = "B", done: int = 0, *, quiet: bool = False) -> Bar:
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
        self._bar: Bar | None = None
        self._quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, what: str, unit: str = "B") -> Progress:
        """Prepare a bar and return the function that moves it; the bar appears at the first move."""
        self.close()

        def move(done: int, total: int | None) -> None:
            if self._bar is None:  # a resumed download starts where it stopped
                self._bar = bar(what, total, unit, done, quiet=self._quiet)
            self._bar.update(done - self._bar.n)

        return move

    def close(self) -> None:
        """Close the current bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class TerminalScreen(Bars):
    """The output of a run: bars and errors on standard error, messages on ``out``."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def note(self, text: str) -> None:
        """Print a message."""
        self.close()
        say(text, file=self._out)

    def error(self, text: str) -> None:
        """Print an error."""
        self.close()
        fail(text)


def say_above(text: str) -> None:
    """Print one or more lines on standard output, above the progress bar."""
    tqdm.write("\n".join(map(printable, text.split("\n"))))
    sys.stdout.flush()
