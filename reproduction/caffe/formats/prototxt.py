"""Prototxt: protobuf's text format, read and written.

``loads`` and ``load`` take any text that Caffe's own parser takes, for every message of the schema; ``dumps`` and
``dump`` write what Caffe's own printer writes. ``load_net`` and ``load_solver`` also bring old forms up to date.

Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L34-50, upgrade_proto.cpp L88-93 and L1100-1125; protobuf's C++
TextFormat.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from reproduction.caffe.errors import PrototxtError, ReproductionError, StrPath
from reproduction.caffe.formats import crops, file_kinds, files, upgrade
from reproduction.caffe.formats.text_reader import Reader
from reproduction.caffe.schema import Field, Message, NetParameter, SolverParameter
from reproduction.caffe.schema.message import BOOL, BYTES, FLOAT, STRING

M = TypeVar("M", bound=Message)

_LARGEST = 64 << 20  # bytes of a text; the largest of Caffe's are 0.3 MB
_HEAD = 4096  # bytes that tell whether a file is text
_BINARY = "a binary file"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_FLT_MIN = 2.0**-126
_OCTETS = [chr(octet) if 32 <= octet < 127 else f"\\{octet:03o}" for octet in range(256)]
for _octet, _escape in {10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"', 39: "\\'", 92: "\\\\"}.items():
    _OCTETS[_octet] = _escape


def loads(text: str, message: type[M], path: StrPath = "<prototxt>") -> M:
    """Read a message from text.

    Args:
        text: the prototxt; a byte order mark before it is skipped.
        message: the class to read, such as ``NetParameter``.
        path: the place to name in errors.

    Returns:
        The message; it and each message in it know the ``line`` at which they began.

    Raises:
        PrototxtError: the text is not a prototxt of this message.

    Source: protobuf's C++ TextFormat::Parser::Parse.
    """
    found = message()
    found.line = 1
    Reader(text.removeprefix("\ufeff"), path).read(found)
    return found


def load(path: StrPath, message: type[M]) -> M:
    """Read a message from a text file; see ``loads``.

    Raises:
        PrototxtError: the file is not text, or not a prototxt of this message.
        OSError: the file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L34-42.
    """
    return loads(_text_of(path), message, path)


def load_net(path: StrPath, *, legacy_crop: bool = False) -> tuple[NetParameter, list[str]]:
    """Read a net and bring it to today's form.

    Args:
        path: the net's prototxt.
        legacy_crop: give Crop layers without an offset the one that the Caffe of 2015 took, which follows from the
            layers between their bottoms; Caffe 1.0 takes 0.

    Returns:
        The net, and sentences that say what was upgraded.

    Raises:
        PrototxtError: the file is not a net; for a solver, the remedy names its net.
        NetError: the net is in an old form that cannot be upgraded, or an offset cannot be known.
        OSError: the file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/util/upgrade_proto.cpp L88-93.
    """
    net = _load_one(path, NetParameter, SolverParameter, _its_net)
    try:
        notes = upgrade.upgrade_net(net)
        return net, notes + (crops.set_offsets(net.layer) if legacy_crop else [])
    except ReproductionError as error:
        raise error.at(os.fspath(path)) from None


def load_solver(path: StrPath) -> SolverParameter:
    """Read a solver and bring it to today's form.

    As in Caffe, a ``snapshot_prefix`` that is not set becomes the file's path without its ending, and one that is a
    folder becomes a path in that folder, with the file's name.

    Raises:
        PrototxtError: the file is not a solver.
        NetError: the solver is in an old form that cannot be upgraded.
        OSError: the file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/util/upgrade_proto.cpp L1100-1125.
    """
    solver = _load_one(path, SolverParameter, NetParameter, lambda net: "A solver names its net in 'net:'.")
    try:
        upgrade.upgrade_solver(solver)
    except ReproductionError as error:
        raise error.at(os.fspath(path)) from None
    prefix = Path(solver.snapshot_prefix)
    if not solver.has("snapshot_prefix"):
        solver.snapshot_prefix = str(Path(path).with_suffix(""))
    elif prefix.is_dir():
        solver.snapshot_prefix = str(prefix / Path(path).stem)
    return solver


def dumps(message: Message) -> str:
    """Write a message as Caffe's printer does: fields in the order of their numbers, blocks indented by two spaces.

    Fields that the schema does not know leave a comment.

    Raises:
        ReproductionError: a string of the message cannot be written as UTF-8.

    Source: protobuf's C++ TextFormat::Printer.
    """
    return "".join(_lines(message, ""))


def dump(message: Message, path: StrPath) -> None:
    """Write a message to a text file, which appears whole or not at all; see ``dumps``.

    Raises:
        ReproductionError: a string of the message is no text, or the file cannot be written.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L44-50.
    """
    text = dumps(message)
    with files.atomic(path) as file:
        file.write(text.encode())


def _text_of(path: StrPath) -> str:
    with files.open_regular(path, PrototxtError) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST:
            raise PrototxtError("the file is too large", path=path, want=f"at most {_LARGEST >> 20} MiB of text")
        head = file.read(_HEAD)
        kind = files.kind(head)
        if not head.strip():
            raise PrototxtError("the file is empty", path=path)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PrototxtError("the file is UTF-16", path=path, want="UTF-8", remedy="Save it as UTF-8.")
        if kind not in (None, files.TEXT) or _CONTROL.search(head):
            got = file_kinds.of(path) or kind or _BINARY
            remedy = "A caffemodel holds weights; the net that they are for is in a prototxt."
            remedy = remedy if got in (file_kinds.WEIGHTS, _BINARY) else ""
            raise PrototxtError("this is not a prototxt", path=path, got=got, remedy=remedy)
        file.seek(0)
        # Bytes that are not UTF-8 pass in comments, as in Caffe; the reader finds them elsewhere.
        return file.read().decode("utf-8", "surrogateescape")


def _load_one(path: StrPath, message: type[M], other: type[Message], remedy: Callable[[Any], str]) -> M:
    """Read a file as ``message``; where it is the ``other`` one, say so."""
    text = _text_of(path)
    try:
        return loads(text, message, path)
    except PrototxtError as error:
        try:
            found = loads(text, other, path)
        except PrototxtError:
            raise error from None
        names = {NetParameter: "a net", SolverParameter: "a solver"}
        raise PrototxtError(
            f"this is {names[type(found)]}, not {names[message]}", path=path, remedy=remedy(found)
        ) from None


def _its_net(solver: SolverParameter) -> str:
    named = [name for name in (solver.net, solver.train_net, *solver.test_net) if name]
    return f"Its net is {' or '.join(map(repr, named))}." if named else "Give the file of its net."


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.set_fields():
        for item in value if field.repeated else (value,):
            if field.message:
                yield f"{indent}{field.name} {{\n"
                yield from _lines(item, f"{indent}  ")
                yield f"{indent}}}\n"
            else:
                yield f"{indent}{field.name}: {_shown(field, item)}\n"
    if message.unknown:
        yield f"{indent}# and {len(message.unknown)} bytes of fields that Caffe does not know\n"


def _shown(field: Field[Any], value: Any) -> str:
    if field.enum:
        return str(value.name)
    if field.kind is BOOL:
        return "true" if value else "false"
    if field.kind in (STRING, BYTES):
        return f'"{_escaped(field, value)}"'
    if field.kind is not None and field.kind.dtype is not None:
        return _single(value) if field.kind is FLOAT else _double(value)
    return str(value)


def _single(value: float) -> str:
    """Print with 6 digits where these say the number, else with 9, which say any; numbers below FLT_MIN have 9."""
    short = f"{value:.6g}"
    return short if FLOAT.check(float(short)) == value and not 0 < abs(value) < _FLT_MIN else f"{value:.9g}"


def _double(value: float) -> str:
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"


def _escaped(field: Field[Any], value: str | bytes) -> str:
    try:
        octets = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise field.error(ascii(value), "text that UTF-8 can hold") from None
    return "".join([_OCTETS[octet] for octet in octets])
