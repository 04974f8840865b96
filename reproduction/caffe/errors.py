"""Error and warning classes, whose messages all have the same form.

``place: what is wrong; got X, want Y. Remedy.`` The place is a file with line and column, a file with a
byte offset, or a layer. The code that detects a problem raises the error; a caller that knows the place adds it.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict, Unpack

StrPath = str | os.PathLike[str]


def printable(text: object) -> str:
    r"""Return untrusted text as one printable line, which is safe to show in a terminal, a table or a drawing.

    Control characters, newlines, marks of the writing direction and undecodable bytes are escaped in Python's
    notation, such as ``\x1b``.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)


class ReproductionError(ValueError):
    """An error in the user's input, with a message that says how to correct it.

    Tools print ``error: `` and the message, and exit with status 1. Any other exception is a bug in this package and
    keeps its traceback.

    Args:
        problem: what is wrong, in lower case, without a full stop.
        place: where, such as ``net.prototxt:3:5``; empty if the caller adds it.
        got: what was found, printed after ``; got``; None to omit it.
        want: what was expected, printed after ``, want``; None to omit it.
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
        """Put ``place`` in front of the place of this error, and return the error itself, to be raised again.

        For a caller that knows the file or layer: ``raise error.at("net.prototxt")``.
        """
        self.place = f"{place}: {self.place}" if self.place else place
        self.args = (str(self),)
        return self

    def advise(self, remedy: str) -> ReproductionError:
        """Set the remedy, the last sentence of the message, and return the error itself, to be raised again."""
        self.remedy = remedy
        self.args = (str(self),)
        return self


class _Details(TypedDict, total=False):
    """The arguments of every error; see ``ReproductionError``."""

    got: object
    want: object
    remedy: str


class ReproductionWarning(UserWarning):
    """A warning about input that has no effect, or that may not mean what its author intended.

    It is issued by ``warn``. Tools print it as one line after ``warning: ``.
    """


def warn(problem: ReproductionError) -> None:
    """Issue a ``ReproductionWarning``.

    Args:
        problem: an error object, which is not raised. Its message becomes the text of the warning.
    """
    warnings.warn(ReproductionWarning(str(problem)), stacklevel=3)


def shorten_warnings() -> None:
    """Make Python print a ``ReproductionWarning`` as ``warning: TEXT``, without file name and source line.

    This holds for the whole process; other warnings are printed as before.
    """
    warnings.formatwarning = _formatted


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if issubclass(category, ReproductionWarning):
        return f"warning: {message}\n"
    return _usual_format(message, category, filename, lineno, line)


_usual_format = warnings.formatwarning


class PrototxtError(ReproductionError):
    """The error for a prototxt that does not parse or does not fit the schema; the place is ``path:line:column``.

    Args:
        problem: what is wrong, in lower case, without a full stop.
        path: the prototxt file.
        line: the line, counted from 1; 0 if unknown.
        column: the column, counted from 1; 0 if unknown.
        **details: ``got``, ``want`` and ``remedy`` of ``ReproductionError``.
    """

    def __init__(
        self, problem: str, *, path: StrPath = "", line: int = 0, column: int = 0, **details: Unpack[_Details]
    ):
        self.path, self.line, self.column = os.fspath(path) or "<prototxt>", line, column
        place = ":".join(str(part) for part in (self.path, line, column) if part)
        super().__init__(problem, place=place, **details)


class CaffemodelError(ReproductionError):
    """The error for a binary file that is damaged or of another kind; the place is ``path, byte N``.

    Args:
        problem: what is wrong, in lower case, without a full stop.
        path: the file.
        offset: the byte offset N of the problem; None if unknown.
        **details: ``got``, ``want`` and ``remedy`` of ``ReproductionError``.
    """

    def __init__(self, problem: str, *, path: StrPath = "", offset: int | None = None, **details: Unpack[_Details]):
        self.path, self.offset = os.fspath(path) or "<bytes>", offset
        place = self.path if offset is None else f"{self.path}, byte {offset}"
        super().__init__(problem, place=place, **details)


class NetError(ReproductionError):
    """The error for a net that Caffe would reject, or that this package cannot run; the place is the layer.

    Args:
        problem: what is wrong, in lower case, without a full stop.
        layer: the name of the layer; empty if a caller adds it.
        type: the type of the layer, such as ``Convolution``.
        line: the line of the layer in its prototxt; 0 if unknown.
        **details: ``got``, ``want`` and ``remedy`` of ``ReproductionError``.
    """

    def __init__(self, problem: str, *, layer: str = "", type: str = "", line: int = 0, **details: Unpack[_Details]):
        self.layer, self.type, self.line = layer, type, line
        place = f"layer {layer!r}" if layer else ""
        if type:
            place += f" ({type})" if place else type
        if line:
            place += f", line {line}"
        super().__init__(problem, place=place, **details)


class _FileError(ReproductionError):
    def __init__(self, problem: str, *, path: StrPath = "", **details: Unpack[_Details]):
        self.path = os.fspath(path)
        super().__init__(problem, place=self.path, **details)


class DataError(_FileError):
    """The error for an image, label or data set that cannot be used; the place is the file."""


class WeightsError(_FileError):
    """The error for weights that do not fit their net, or are not those that were published; the place is the file."""


def cannot_write(error: OSError, path: StrPath) -> ReproductionError:
    """Return the error to raise when writing a file or folder failed.

    Args:
        error: the exception of the system, such as "No space left on device".
        path: the file or folder.
    """
    reason = (error.strerror or str(error)).lower()
    return ReproductionError(f"cannot be written: {reason}", place=os.fspath(path))


def cannot_read(error: OSError, what: str, path: StrPath, want: object = None) -> DataError:
    """Return the error to raise when a file of the user could not be read.

    Args:
        error: the exception of the system, such as "No such file or directory".
        what: what the file is, such as ``the palette``.
        path: the file.
        want: what was expected; None to omit it.
    """
    return DataError(f"{what} cannot be read ({(error.strerror or str(error)).lower()})", path=path, want=want)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the remedy ``Did you mean 'NEAR'?`` for an unknown name, or an empty string if no known name is similar.

    A known name that begins with ``name`` is preferred to one that is merely similar. Case is ignored.

    Args:
        name: the unknown name.
        known: the valid names.
    """
    names = {each.lower(): each for each in known}
    whole = _completed(name, names)
    near = whole or difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"Did you mean {names[near[0]]!r}?" if near else ""


def spelling_hint(name: str, known: Iterable[str]) -> str:
    """Return the remedy ``Did you mean 'NEAR'?`` if a name is a known name with a typing error, else an empty string.

    Stricter than ``did_you_mean``, for names that a fork of Caffe may have added: ``ReLU6`` is not a misspelt ``ReLU``.
    A typing error is a truncated name, other capitals, or one letter (two in names of 8 or more) that is missing,
    added, changed or swapped with its neighbour. The first letter and all digits must agree.

    Args:
        name: the unknown name.
        known: the valid names.
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
    """Return the names that consist of ``name``, of at least 3 characters, and further letters."""
    return [each for each in names if len(name) > 2 and re.fullmatch(re.escape(name.lower()) + "[a-z]+", each)]


def _distance(one: str, other: str) -> int:
    """Return the edit distance of two words; a swap of neighbouring letters counts as one edit."""
    before, last = list[int](), list(range(len(other) + 1))
    for i, a in enumerate(one):
        row = [i + 1]
        for j, b in enumerate(other):
            row.append(min(row[j] + 1, last[j + 1] + 1, last[j] + (a != b)))
            if i and j and a == other[j - 1] and b == one[i - 1]:
                row[-1] = min(row[-1], before[j - 1] + 1)
        before, last = last, row
    return last[-1]


def missing_package(package: str, extra: str, remark: str = "") -> ReproductionError:
    """Return the error for a package that is not installed.

    Args:
        package: the name of the package.
        extra: the extra of this project that installs it.
        remark: what the user can do instead, as the end of the remedy's sentence.
    """
    remedy = f"Install it by `pip install 'fcn-reproduction[{extra}]'`{remark}."
    return ReproductionError(f"the package {package} is not installed", remedy=remedy)


def join_first(items: Sequence[object], most: int) -> str:
    """Join items with commas; beyond the first ``most`` they are only counted, as in ``a, b and 3 more``."""
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def append_unknown_names(remedy: str, others: Mapping[str, Sequence[int]]) -> str:
    """Return a remedy, followed by a sentence such as ``Also unknown: 'foo' (line 12), 'bar' (lines 14, 20).``.

    Args:
        remedy: the remedy for the first unknown name; may be empty.
        others: the other unknown names, with the numbers of the lines on which each occurs.
    """
    if not others:
        return remedy
    listed = [f"{what} (line{'s' if len(lines) > 1 else ''} {join_first(lines, 3)})" for what, lines in others.items()]
    return f"{remedy} Also unknown: {join_first(listed, 20)}.".lstrip()


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, or a phrase if that fails: Python cannot format an integer of more than 4,300 digits."""
    try:
        return repr(value)
    except ValueError:
        return "an integer of thousands of digits"
