"""Read and write prototxt, protobuf's text format.

``loads`` and ``load`` accept the same text as Caffe's parser, for every message of the schema; ``dumps`` and ``dump``
write the same text as Caffe's printer. ``load_net`` and ``load_solver`` also upgrade old forms.

Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L34-50, upgrade_proto.cpp L88-93 and L1100-1125; protobuf's C++
TextFormat.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from reproduction.caffe.errors import PrototxtError, ReproductionError, StrPath
from reproduction.caffe.formats import file_kinds, files, upgrade
from reproduction.caffe.formats.text_reader import TextReader
from reproduction.caffe.schema import Field, Message, NetParameter, SolverParameter
from reproduction.caffe.schema.scalar_types import BOOL, BYTES, FLOAT, STRING

M = TypeVar("M", bound=Message)

_LARGEST = 64 << 20  # limit of a text in bytes; the largest prototxt of Caffe has 0.3 MB
_CHECKED_BYTES = 4096  # bytes that are examined to see whether a file is text
_BINARY = "a binary file"
_FLT_MIN = 2.0**-126
_OCTETS = [chr(octet) if 32 <= octet < 127 else f"\\{octet:03o}" for octet in range(256)]
for _octet, _letters in {10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"', 39: "\\'", 92: "\\\\"}.items():
    _OCTETS[_octet] = _letters


def loads(text: str, message: type[M], path: StrPath = "<prototxt>") -> M:
    """Parse prototxt text, and return it as a message.

    Args:
        text: the prototxt; a leading byte order mark is skipped.
        message: the class of the message, such as ``NetParameter``.
        path: the place to name in errors.

    Returns:
        The message. The attribute ``line`` of it and of each sub-message is the line at which it begins.

    Raises:
        PrototxtError: If the text is not a valid prototxt of this message.

    Source: protobuf's C++ TextFormat::Parser::Parse.
    """
    found = message()
    found.line = 1
    TextReader(text.removeprefix("\ufeff"), path).read(found)
    return found


def load(path: StrPath, message: type[M]) -> M:
    """Load a message of the class ``message`` from a prototxt file. It is not upgraded; see ``load_net``.

    Raises:
        PrototxtError: If the file is not text, or not a valid prototxt of this message.
        OSError: If the file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L34-42.
    """
    return loads(_read_text(path), message, path)


def load_net(
    path: StrPath, *, legacy_crop: bool = False, dialect: str = "", weights: NetParameter | None = None
) -> tuple[NetParameter, list[str]]:
    """Load a net from a prototxt, and upgrade it from an older form to the current one.

    Args:
        path: the net's prototxt.
        legacy_crop: derive the offsets of Crop layers as the Caffe of 2015 did; see ``upgrade.upgrade_net``.
        dialect: the fork of Caffe that the net is for, where several have layers of one type; see
            ``upgrade.upgrade_net``.
        weights: the weights that the net will have, which may tell the dialect too.

    Returns:
        The net, and sentences that describe what was upgraded.

    Raises:
        PrototxtError: If the file is not a net; for a solver, the remedy names its net.
        NetError: If the net is in an old form that cannot be upgraded, or the offset of a Crop layer cannot be derived.
        OSError: If the file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/util/upgrade_proto.cpp L88-93.
    """
    net = _load_one(path, NetParameter, SolverParameter, _net_remedy)
    try:
        return net, upgrade.upgrade_net(net, legacy_crop=legacy_crop, dialect=dialect, weights=weights)
    except ReproductionError as error:
        raise error.at(os.fspath(path)) from None


def load_solver(path: StrPath) -> SolverParameter:
    """Load a solver from a prototxt, and upgrade it from an older form to the current one.

    As in Caffe, a ``snapshot_prefix`` that is not set becomes the path of the solver file without its ending. One that
    is a folder is extended by the name of the solver file without its ending.

    Raises:
        PrototxtError: If the file is not a solver.
        NetError: If the solver is in an old form that cannot be upgraded.
        OSError: If the file cannot be read.

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
    """Return a message as prototxt, formatted as by Caffe: fields sorted by number, blocks indented by two spaces.

    Unknown fields are not written; a comment states how many bytes they have.

    Raises:
        ReproductionError: If a string of the message cannot be encoded as UTF-8.

    Source: protobuf's C++ TextFormat::Printer.
    """
    return "".join(_format_lines(message, ""))


def dump(message: Message, path: StrPath) -> None:
    """Write a message to a prototxt file, atomically; see ``dumps``.

    Raises:
        ReproductionError: If a string of the message cannot be encoded as UTF-8, or the file cannot be written.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L44-50.
    """
    files.write_text(path, dumps(message))


def _read_text(path: StrPath) -> str:
    with files.open_regular(path, PrototxtError) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST:
            raise PrototxtError("the file is too large", path=path, want=f"at most {_LARGEST >> 20} MiB of text")
        head = file.read(_CHECKED_BYTES)
        kind = files.kind(head)
        if not head.strip():
            raise PrototxtError("the file is empty", path=path)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PrototxtError("the file is UTF-16", path=path, want="UTF-8", remedy="Save it as UTF-8.")
        if kind not in (None, files.TEXT) or files.has_control_bytes(head):
            got = file_kinds.recognize(path) or kind or _BINARY
            remedy = "A caffemodel contains weights; their net is in a prototxt."
            remedy = remedy if got in (file_kinds.WEIGHTS, _BINARY) else ""
            raise PrototxtError("this is not a prototxt", path=path, got=got, remedy=remedy)
        file.seek(0)
        # As in Caffe, bytes that are not UTF-8 are allowed in comments; elsewhere the text reader rejects them.
        return file.read().decode("utf-8", "surrogateescape")


def _load_one(path: StrPath, message: type[M], other: type[Message], remedy: Callable[[Any], str]) -> M:
    """Load a file as ``message``; if it is a valid ``other`` message instead, raise an error that names it."""
    text = _read_text(path)
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


def _net_remedy(solver: SolverParameter) -> str:
    named = [name for name in (solver.net, solver.train_net, *solver.test_net) if name]
    return f"Its net is {' or '.join(map(repr, named))}." if named else "Give the file of its net."


def _format_lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.set_fields():
        for item in value if field.repeated else (value,):
            if field.message:
                yield f"{indent}{field.name} {{\n"
                yield from _format_lines(item, f"{indent}  ")
                yield f"{indent}}}\n"
            else:
                yield f"{indent}{field.name}: {_format_value(field, item)}\n"
    if message.unknown:
        yield f"{indent}# and {len(message.unknown)} bytes of fields that Caffe does not know\n"


def _format_value(field: Field[Any], value: Any) -> str:
    if field.enum:
        return str(value.name)
    if field.kind is BOOL:
        return "true" if value else "false"
    if field.kind in (STRING, BYTES):
        return f'"{_escape(field, value)}"'
    if field.kind is not None and field.kind.dtype is not None:
        return _format_float(value) if field.kind is FLOAT else _format_double(value)
    return str(value)


def _format_float(value: float) -> str:
    """Format a float with 6 digits if these are exact, else with 9; denormal numbers always have 9, as in Caffe."""
    short = f"{value:.6g}"
    return short if FLOAT.check(float(short)) == value and not 0 < abs(value) < _FLT_MIN else f"{value:.9g}"


def _format_double(value: float) -> str:
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"


def _escape(field: Field[Any], value: str | bytes) -> str:
    try:
        octets = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise field.error(ascii(value), "text that UTF-8 can hold") from None
    return "".join([_OCTETS[octet] for octet in octets])
