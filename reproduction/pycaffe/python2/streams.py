"""Files and string buffers that accept both text and bytes, since Python 2's ``str`` was both.

Text and bytes are converted by UTF-8 with the error handler ``surrogateescape``, so that any bytes can be converted to
text and back without loss.

Source: docs.python.org/2.7/library/stringio.html; docs.python.org/2.7/library/functions.html (open, file).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ENCODING, _ERRORS = "utf-8", "surrogateescape"


def as_bytes(value: Any) -> Any:
    """Encode text as UTF-8; return any other value, such as bytes, unchanged."""
    return value.encode(_ENCODING, _ERRORS) if isinstance(value, str) else value


def as_text(value: Any) -> Any:
    """Decode bytes as UTF-8; return any other value, such as text, unchanged."""
    return value.decode(_ENCODING, _ERRORS) if isinstance(value, bytes) else value


class StringIO(io.BytesIO):
    """A buffer that is used like a file: Python 2's ``StringIO.StringIO`` and ``cStringIO.StringIO``.

    It returns text until a program writes bytes, or text with escaped bytes, to it; then it returns bytes.

    Args:
        buf: The initial contents, text or bytes.
    """

    def __init__(self, buf: str | bytes = ""):
        super().__init__(as_bytes(buf))
        self._text = True
        self._detect_bytes(buf)

    def _detect_bytes(self, value: Any) -> None:
        if self._text and not isinstance(value, str):
            self._text = False
        elif self._text and not value.isascii():
            self._text = not any("\udc80" <= character <= "\udcff" for character in value)

    def _decode_text(self, found: bytes) -> Any:
        return as_text(found) if self._text else found

    def write(self, value: Any) -> int:
        """Write text or bytes, and return the number of bytes."""
        self._detect_bytes(value)
        return super().write(as_bytes(value))

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write each item of ``lines``, text or bytes, without adding line ends."""
        for line in lines:
            self.write(line)

    def read(self, size: int | None = -1) -> Any:
        """Read up to ``size`` bytes, or to the end if ``size`` is negative or None."""
        return self._decode_text(super().read(size))

    def readline(self, size: int | None = -1) -> Any:
        """Read a line, or at most ``size`` bytes of it."""
        return self._decode_text(super().readline(size))

    def readlines(self, hint: int | None = -1) -> list[Any]:
        """Read the remaining lines; stop after ``hint`` bytes if it is positive."""
        return [self._decode_text(line) for line in super().readlines(hint)]

    def __next__(self) -> Any:
        return self._decode_text(super().__next__())

    def getvalue(self) -> Any:
        """Return the whole contents, as text or bytes."""
        return self._decode_text(super().getvalue())

    def reset(self) -> None:
        """Set the position to the start, as ``seek(0)`` does."""
        self.seek(0)

    @property
    def len(self) -> int:
        """The size of the contents in bytes."""
        return self.getbuffer().nbytes

    buf = property(getvalue)
    pos = property(io.BytesIO.tell)


class _TextFile(io.TextIOWrapper):
    """A text file that also accepts bytes."""

    def write(self, value: Any) -> int:
        if isinstance(value, str):
            return super().write(value)
        self.flush()
        buffer: Any = self.buffer
        return int(buffer.write(value))


class _BinaryFile(io.BufferedWriter):
    """A binary file open for writing that also accepts text."""

    def write(self, value: Any) -> int:
        return super().write(as_bytes(value))

    def writelines(self, lines: Iterable[Any]) -> None:
        super().writelines(as_bytes(line) for line in lines)


class _ReadWriteFile(io.BufferedRandom):
    """A binary file open for reading and writing that also accepts text."""

    def write(self, value: Any) -> int:
        return super().write(as_bytes(value))


def open_file(name: Any, mode: str = "r", buffering: int = -1) -> Any:
    r"""Open a file as Python 2's ``open`` does.

    Line ends are not converted, except to ``\n`` when reading in a mode with ``U``. Files open for writing accept text
    and bytes.

    Args:
        name: The file.
        mode: Python 2's mode, such as ``r``, ``wb`` or ``rU``.
        buffering: In text mode, 0 or 1 selects line buffering; other values have no effect.
    """
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
    return _ReadWriteFile(raw) if "+" in wanted else _BinaryFile(raw)


def get_binary_file(file: Any) -> Any:
    """Return the binary file that a text file writes to, after flushing the text; return a binary file unchanged."""
    if isinstance(file, io.TextIOWrapper):
        file.flush()
        return file.buffer
    return file
