"""Files and string buffers that take text and bytes alike, as Python 2's ``str`` was both.

Text is the UTF-8 of its bytes, and bytes that are no UTF-8 travel in it as surrogates, so that either can be made of
the other without loss.

Source: docs.python.org/2.7/library/stringio.html; docs.python.org/2.7/library/functions.html (open, file).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ENCODING, _ERRORS = "utf-8", "surrogateescape"


def as_bytes(value: Any) -> Any:
    """Return the bytes of a text; any other value as it is."""
    return value.encode(_ENCODING, _ERRORS) if isinstance(value, str) else value


def as_text(value: Any) -> Any:
    """Return the text of bytes; any other value as it is."""
    return value.decode(_ENCODING, _ERRORS) if isinstance(value, bytes) else value


class StringIO(io.BytesIO):
    """``StringIO.StringIO`` and ``cStringIO.StringIO``.

    While it holds nothing but text, it returns text; as soon as bytes, or text that is no UTF-8, were put in, bytes.

    Args:
        buf: what it holds at first, text or bytes.
    """

    def __init__(self, buf: str | bytes = ""):
        super().__init__(as_bytes(buf))
        self._text = True
        self._note(buf)

    def _note(self, value: Any) -> None:
        if self._text and not isinstance(value, str):
            self._text = False
        elif self._text and not value.isascii():
            self._text = not any("\udc80" <= character <= "\udcff" for character in value)

    def _shown(self, found: bytes) -> Any:
        return as_text(found) if self._text else found

    def write(self, value: Any) -> int:
        """Write text or bytes."""
        self._note(value)
        return super().write(as_bytes(value))

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write several texts or bytes."""
        for line in lines:
            self.write(line)

    def read(self, size: int | None = -1) -> Any:
        """Read to the end, or so many bytes."""
        return self._shown(super().read(size))

    def readline(self, size: int | None = -1) -> Any:
        """Read a line."""
        return self._shown(super().readline(size))

    def readlines(self, hint: int | None = -1) -> list[Any]:
        """Read the lines that are left."""
        return [self._shown(line) for line in super().readlines(hint)]

    def __next__(self) -> Any:
        return self._shown(super().__next__())

    def getvalue(self) -> Any:
        """Return all that it holds."""
        return self._shown(super().getvalue())

    def reset(self) -> None:
        """Go back to the start."""
        self.seek(0)

    @property
    def len(self) -> int:
        """The number of bytes."""
        return self.getbuffer().nbytes

    buf = property(getvalue)
    pos = property(io.BytesIO.tell)


class _TextFile(io.TextIOWrapper):
    """A text file that also takes bytes."""

    def write(self, value: Any) -> int:
        if isinstance(value, str):
            return super().write(value)
        self.flush()
        buffer: Any = self.buffer
        return int(buffer.write(value))


class _BinaryFile(io.BufferedWriter):
    """A file open for writing bytes, which also takes text."""

    def write(self, value: Any) -> int:
        return super().write(as_bytes(value))

    def writelines(self, lines: Iterable[Any]) -> None:
        super().writelines(as_bytes(line) for line in lines)


class _BothWays(io.BufferedRandom):
    """A file open for reading and writing bytes, which also takes text."""

    def write(self, value: Any) -> int:
        return super().write(as_bytes(value))


def open_file(name: Any, mode: str = "r", buffering: int = -1) -> Any:
    """Open a file as Python 2's ``open`` does: no line ends are changed but with ``U``, and both kinds are written."""
    wanted = mode.replace("U", "") or "r"
    if "b" not in wanted:
        newline = None if "U" in mode else "\n"
        file = open_file(name, f"{wanted}b")
        text = _TextFile(file, _ENCODING, _ERRORS, newline, line_buffering=buffering in (0, 1))
        text.mode = mode  # type: ignore[misc]  # as Python's own open() sets it
        return text
    if set(wanted).isdisjoint("wa+"):
        return Path(name).open(wanted)
    raw = io.FileIO(name, wanted)
    return _BothWays(raw) if "+" in wanted else _BinaryFile(raw)


def binary(file: Any) -> Any:
    """Return what of an open file reads and writes bytes: the file itself, or a text file's own buffer."""
    if isinstance(file, io.TextIOWrapper):
        file.flush()
        return file.buffer
    return file
