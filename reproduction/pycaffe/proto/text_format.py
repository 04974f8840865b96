"""``google.protobuf.text_format`` for Caffe's messages; those of protobuf's own go to protobuf, where it is installed.

Source: protobuf.dev/reference/python; googleapis.dev/python/protobuf google.protobuf.text_format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from reproduction.caffe.errors import PrototxtError
from reproduction.caffe.formats import prototxt
from reproduction.pycaffe.proto import google
from reproduction.pycaffe.proto.message import ProtoMessage, plain

#: What a text that is no such message raises.
ParseError = PrototxtError


def Merge(text: str | bytes, message: Any, **options: Any) -> Any:
    """Read a text into a message, over what it holds, and return it.

    Raises:
        PrototxtError: the text is not a prototxt of this message.
    """
    if not isinstance(message, ProtoMessage):
        return google.text_format().Merge(text, message, **options)
    decoded = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    mine = plain(message)
    mine.merge(prototxt.loads(decoded, type(mine)))
    mine.present = True
    return message


def Parse(text: str | bytes, message: Any, **options: Any) -> Any:
    """Read a text into a message; see ``Merge``."""
    return Merge(text, message, **options)


def MergeLines(lines: Iterable[str | bytes], message: Any, **options: Any) -> Any:
    """Read lines, as of an open file, into a message; see ``Merge``."""
    texts = [line.decode("utf-8", "surrogateescape") if isinstance(line, bytes) else line for line in lines]
    return Merge("".join(text if text.endswith("\n") else f"{text}\n" for text in texts), message, **options)


ParseLines = MergeLines


def MessageToString(message: Any, as_one_line: bool = False, **options: Any) -> str:
    """Write a message as text: one field a line, or all on one."""
    if not isinstance(message, ProtoMessage):
        return str(google.text_format().MessageToString(message, as_one_line=as_one_line, **options))
    text = prototxt.dumps(plain(message))
    return " ".join(line.strip() for line in text.splitlines()) if as_one_line else text


def PrintMessage(message: Any, out: TextIO, **options: Any) -> None:
    """Write a message as text to an open file."""
    out.write(MessageToString(message, **options))


def __getattr__(name: str) -> Any:
    return getattr(google.text_format(), name)
