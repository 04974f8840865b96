"""The one family of errors, and the one form of their messages.

``place: what is wrong; got X, want Y. Remedy.`` The place is a file with line and column, a file with a
byte offset, or a layer. The code that knows *what* is wrong raises; the code that knows *where* adds the place.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence

StrPath = str | os.PathLike[str]


def printable(text: object) -> str:
    r"""Return text from elsewhere as one line that a terminal, a table or a drawing shows and does not obey.

    Control characters, newlines, marks of the writing direction, and bytes that are not text are escaped as Python
    writes them, such as ``\x1b``.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)


class ReproductionError(ValueError):
    """A mistake in the input, worded for the person who can mend it.

    Tools print ``error: `` and the message and exit 1. Every other exception is our bug and keeps its traceback.

    Args:
        problem: what is wrong, in lower case, without a full stop.
        place: where, as a person would click on it; empty when the caller will add it.
        got: what was found; shown with ``; got``.
        want: what was expected; shown with ``, want``.
        remedy: a sentence on what to do, with its full stop or question mark.
    """

    def __init__(self, problem: str, *, place: str = "", got: object = None, want: object = None, remedy: str = ""):
        self.problem = problem
        self.place = place
        self.got = got
        self.want = want
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.place}: {self.problem}" if self.place else self.problem
        if self.got is not None:
            text += f"; got {self.got}"
        if self.want is not None:
            text += f"{', ' if self.got is not None else '; '}want {self.want}"
        return printable(f"{text}. {self.remedy}" if self.remedy else f"{text}.")

    def at(self, place: str) -> ReproductionError:
        """Return this error with ``place`` put before the place that it already has."""
        self.place = f"{place}: {self.place}" if self.place else place
        self.args = (str(self),)
        return self

    def advise(self, remedy: str) -> ReproductionError:
        """Return this error with another remedy."""
        self.remedy = remedy
        self.args = (str(self),)
        return self


class ReproductionWarning(UserWarning):
    """Input that is accepted but has no effect, or may not mean what its author meant; see ``warn``.

    Tools print it as one line after ``warning: ``.
    """


def warn(problem: ReproductionError) -> None:
    """Issue a ``ReproductionWarning`` with the text of an error that is not raised."""
    warnings.warn(ReproductionWarning(str(problem)), stacklevel=3)


def shorten_warnings() -> None:
    """Show each ``ReproductionWarning`` of this process as the line ``warning: TEXT``, without Python's source line."""
    warnings.formatwarning = _formatted


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if issubclass(category, ReproductionWarning):
        return f"warning: {message}\n"
    return _usual_format(message, category, filename, lineno, line)


_usual_format = warnings.formatwarning


class PrototxtError(ReproductionError):
    """A prototxt that does not parse or does not fit the schema; ``path:line:column`` is its place."""

    def __init__(
        self,
        problem: str,
        *,
        path: StrPath = "",
        line: int = 0,
        column: int = 0,
        got: object = None,
        want: object = None,
        remedy: str = "",
    ):
        self.path, self.line, self.column = os.fspath(path) or "<prototxt>", line, column
        place = ":".join(str(part) for part in (self.path, line, column) if part)
        super().__init__(problem, place=place, got=got, want=want, remedy=remedy)


class CaffemodelError(ReproductionError):
    """A binary file that is not what its name says; the place is ``path, byte N``."""

    def __init__(
        self,
        problem: str,
        *,
        path: StrPath = "",
        offset: int | None = None,
        got: object = None,
        want: object = None,
        remedy: str = "",
    ):
        self.path, self.offset = os.fspath(path) or "<bytes>", offset
        place = self.path if offset is None else f"{self.path}, byte {offset}"
        super().__init__(problem, place=place, got=got, want=want, remedy=remedy)


class NetError(ReproductionError):
    """A net that Caffe would refuse, or that cannot run here; the place is the layer."""

    def __init__(
        self,
        problem: str,
        *,
        layer: str = "",
        type: str = "",
        line: int = 0,
        got: object = None,
        want: object = None,
        remedy: str = "",
    ):
        self.layer, self.type, self.line = layer, type, line
        place = f"layer {layer!r}" if layer else ""
        if type:
            place += f" ({type})" if place else type
        if line:
            place += f", line {line}"
        super().__init__(problem, place=place, got=got, want=want, remedy=remedy)


class DataError(ReproductionError):
    """An image, label or data set that cannot be used; the place is the file."""

    def __init__(self, problem: str, *, path: StrPath = "", got: object = None, want: object = None, remedy: str = ""):
        self.path = os.fspath(path)
        super().__init__(problem, place=self.path, got=got, want=want, remedy=remedy)


class WeightsError(ReproductionError):
    """Weights that do not fit the net, or are not the published ones; the place is the file."""

    def __init__(self, problem: str, *, path: StrPath = "", got: object = None, want: object = None, remedy: str = ""):
        self.path = os.fspath(path)
        super().__init__(problem, place=self.path, got=got, want=want, remedy=remedy)


def cannot_write(error: OSError, path: StrPath) -> ReproductionError:
    """Return the error for a file or a folder that the system does not let us write."""
    reason = (error.strerror or str(error)).lower()
    return ReproductionError(f"cannot be written: {reason}", place=os.fspath(path))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'NEAR'?`` for the nearest known name, or nothing; see ``remedy``.

    A word that was cut short is nearest to the whole word, then what resembles it; capitals do not matter.
    """
    names = {each.lower(): each for each in known}
    whole = _completed(name, names)
    near = whole or difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"Did you mean {names[near[0]]!r}?" if near else ""


def misspelt(name: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'NEAR'?`` where a name is a known one with a typing error, or nothing; see ``remedy``.

    This is for names of which forks of Caffe have more than are known: ``ReLU6`` is not a misspelt ``ReLU``. A typing
    error is a word cut short, other capitals, or a letter (two in words of 8 or more) that is missing, added, changed
    or swapped with its neighbour. It is not in the first letter, and not in a digit.
    """
    word = name.lower().removesuffix("_param")
    names = {each.lower(): each for each in known}
    allowed = 0 if len(word) < 4 else 1 if len(word) < 8 else 2
    near = _completed(name, names)
    for each in names:
        other = each.removesuffix("_param")
        if each.endswith("_param") == name.lower().endswith("_param") and word[:1] == other[:1]:
            same_digits = re.sub(r"\D", "", word) == re.sub(r"\D", "", other)
            if same_digits and abs(len(word) - len(other)) <= allowed and _distance(word, other) <= allowed:
                near.append(each)
    return f"Did you mean {names[min(near, key=lambda each: _distance(word, each))]!r}?" if near else ""


def _completed(name: str, names: Iterable[str]) -> list[str]:
    """List the names that begin with ``name`` and go on with letters."""
    return [each for each in names if len(name) > 2 and re.fullmatch(re.escape(name.lower()) + "[a-z]+", each)]


def _distance(one: str, other: str) -> int:
    """Count the letters to add, remove, change or swap with a neighbour between two words."""
    before, last = list[int](), list(range(len(other) + 1))
    for i, a in enumerate(one):
        row = [i + 1]
        for j, b in enumerate(other):
            row.append(min(row[j] + 1, last[j + 1] + 1, last[j] + (a != b)))
            if i and j and a == other[j - 1] and b == one[i - 1]:
                row[-1] = min(row[-1], before[j - 1] + 1)
        before, last = last, row
    return last[-1]


def few(items: Sequence[object], most: int) -> str:
    """Join the first items with commas, and count the others."""
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def also_unknown(remedy: str, others: Mapping[str, Sequence[int]]) -> str:
    """Return a remedy, followed by what else is unknown: each thing with the lines at which it is."""
    if not others:
        return remedy
    listed = [f"{what} (line{'s' if len(lines) > 1 else ''} {few(lines, 3)})" for what, lines in others.items()]
    return f"{remedy} Also unknown: {few(listed, 20)}.".lstrip()


def shown(value: object) -> str:
    """Return a value as errors show it; Python converts no integer of more than 4,300 digits to text."""
    try:
        return repr(value)
    except ValueError:
        return "an integer of thousands of digits"
