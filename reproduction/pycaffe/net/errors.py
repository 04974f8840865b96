"""Errors that are also instances of the types that pycaffe raises, so that programs can catch them."""

from __future__ import annotations

from pathlib import Path

from reproduction.caffe.errors import NetError, ReproductionError, StrPath


class CaffeError(ReproductionError, RuntimeError):
    """An error that pycaffe raises as a RuntimeError, such as for a file that cannot be opened; here it is one, too."""


def check_file(path: StrPath) -> None:
    """Check that a file can be opened for reading.

    Raises:
        CaffeError: If it cannot be opened.

    Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L76-L83 (CheckFile).
    """
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaffeError(f"the file cannot be opened: {reason}", place=str(path)) from None


class original_error_types:  # noqa: N801 - a class, since a generator with @contextmanager cannot raise StopIteration
    """A context manager that lets a program catch a Python layer's error by its original type, as in pycaffe.

    Inside ``with original_error_types():``, a NetError caused by another exception is raised again as an instance of
    both types; the message still names the layer.
    """

    def __enter__(self) -> None:
        """Enter the context."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise a NetError again as an instance of its cause's type too; other errors pass unchanged."""
        if isinstance(error, NetError):
            cause = error.__cause__
            if isinstance(cause, Exception) and not isinstance(error, type(cause)):
                raise _combine_types(error, type(cause)) from cause


def _combine_types(error: NetError, kind: type[Exception]) -> NetError:
    """Return a copy of an error that is also an instance of ``kind``, or the error if Python allows no such type."""
    try:
        both: type[NetError] = type(kind.__name__, (NetError, kind), {"__module__": kind.__module__})
        copied: NetError = kind.__new__(both)  # without __init__, whose arguments are unknown
    except TypeError:
        return error
    copied.__dict__.update(error.__dict__)
    copied.args = error.args
    return copied
