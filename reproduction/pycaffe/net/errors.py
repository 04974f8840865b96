"""Errors that a program written for pycaffe can catch as it catches pycaffe's."""

from __future__ import annotations

from pathlib import Path

from reproduction.caffe.errors import NetError, ReproductionError, StrPath


class CaffeError(ReproductionError, RuntimeError):
    """What pycaffe raises as a RuntimeError: a file that cannot be opened, arrays that do not fit."""


def check_file(path: StrPath) -> None:
    """Make sure that a file can be opened.

    Raises:
        CaffeError: it cannot.

    Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L76-L83 (CheckFile).
    """
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaffeError(f"the file cannot be opened: {reason}", place=str(path)) from None


class as_raised:
    """Let the error of a Python layer be caught as what the layer raised, too, as in pycaffe.

    ``with as_raised():`` around what runs layers. The error is of both types, and its message keeps the layer's place.
    """

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Change the error that comes by."""
        if isinstance(error, NetError):
            cause = error.__cause__
            if isinstance(cause, Exception) and not isinstance(error, type(cause)):
                raise _both(error, type(cause)) from cause


def _both(error: NetError, kind: type[Exception]) -> NetError:
    """Copy an error into a type that is also ``kind``; where Python can make no such type, return it as it is."""
    try:
        both: type[NetError] = type(kind.__name__, (NetError, kind), {"__module__": kind.__module__})
        copied: NetError = kind.__new__(both)
    except TypeError:
        return error
    copied.__dict__.update(error.__dict__)
    copied.args = error.args
    return copied
