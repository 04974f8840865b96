"""What a file of Caffe's is, told by its content, for errors that name a file given in the place of another.

Only what failed to be read is looked at, so that reading what is right costs nothing.

Source: BVLC/caffe@9b89154 src/caffe/proto/caffe.proto (the fields of BlobProto, NetParameter and SolverState).
"""

from __future__ import annotations

import re
from pathlib import Path

from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath
from reproduction.caffe.formats import files, hdf5
from reproduction.caffe.formats.wire_reader import Reader
from reproduction.caffe.schema import BlobProto, Message, NetParameter, SolverState
from reproduction.caffe.schema.message import FIXED32, LENGTH, VARINT

WEIGHTS, STATE, MEAN = "a caffemodel", "a solver's state", "an image mean"
NET, SOLVER = "a net's prototxt", "a solver's prototxt"
_ARRAY, _PICTURE = "a NumPy array", "a picture"

_MAGIC = (
    (b"\x93NUMPY", _ARRAY),
    (b"\x89PNG\r\n", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"GIF8", _PICTURE),
    (b"BM", _PICTURE),
    (b"II*\0", _PICTURE),
    (b"MM\0*", _PICTURE),
)
_NO_STATE = "A state is a binary file, .solverstate, that a snapshot wrote."
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HEAD = 2**16  # bytes of a text that are looked at
_FIELDS = 4096  # fields of a binary message that are looked at
_NET_TEXT = re.compile(rb"^\s*(layers?\s*[:{]|input\s*:|input_(dim|shape)\b|force_backward\s*:)", re.MULTILINE)
_SOLVER_TEXT = re.compile(
    rb"^\s*((train_|test_)?net(_param)?\s*[:{]|base_lr\s*:|lr_policy\s*:|max_iter\s*:|snapshot\w*\s*:)", re.MULTILINE
)

_REMEDIES = {
    (STATE, WEIGHTS): "They are in the .caffemodel of the same name.",
    (NET, WEIGHTS): "Name the binary file; a prototxt holds no weights.",
    (SOLVER, WEIGHTS): "Name the binary file; a prototxt holds no weights.",
    (MEAN, WEIGHTS): "A mean is subtracted from images.",
    (NET, STATE): _NO_STATE,
    (SOLVER, STATE): _NO_STATE,
}


def _fields(message: type[Message]) -> set[tuple[int, int]]:
    """Return the numbers of a message's fields with the wire types that each may have."""
    fields = message.fields.values()
    return {
        (field.number, wire) for field in fields for wire in ((field.wire, LENGTH) if field.repeated else (field.wire,))
    }


_MESSAGES = {STATE: _fields(SolverState), MEAN: _fields(BlobProto), WEIGHTS: _fields(NetParameter)}
# Fields, one of which such a message has: the iteration; values; layers.
_SIGNS = {
    STATE: {(1, VARINT)},
    MEAN: {(5, LENGTH), (5, FIXED32), (8, LENGTH)},
    WEIGHTS: {(2, LENGTH), (100, LENGTH)},
}


def of(path: StrPath) -> str | None:
    """Return what a file is, such as ``"a caffemodel"``; None where its content does not say.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        data = files.mapped(path)
    except CaffemodelError:
        return None
    for magic, name in _MAGIC:
        if data[: len(magic)] == magic:
            return name
    found = files.kind(data)
    if found == files.HDF5:
        return _of_hdf5(path)
    if found in (None, files.TEXT) and not _CONTROL.search(data[:_HEAD]):
        for text, name in ((_SOLVER_TEXT, SOLVER), (_NET_TEXT, NET)):
            if text.search(data[:_HEAD]):
                return name
    return _of_message(Reader(data, path)) if found is None else None


def mistaken(path: StrPath, wanted: str) -> ReproductionError | None:
    """Return an error that names what a file is, if it is not what is wanted; None where it is, or is not known.

    Args:
        path: the file.
        wanted: ``WEIGHTS`` or ``STATE``.
    """
    found = of(path)
    if found is None or found == wanted:
        return None
    what = {WEIGHTS: "weights"}.get(wanted, wanted)
    remedy = _state_beside(path) if (found, wanted) == (WEIGHTS, STATE) else _REMEDIES.get((found, wanted), "")
    return CaffemodelError(f"this is {found}, not {what}", path=path, remedy=remedy)


def _state_beside(path: StrPath) -> str:
    """Name the state of a snapshot by its model."""
    name = Path(path).name
    state = name.replace(".caffemodel", ".solverstate")
    if state != name and files.is_file(Path(path).with_name(state)):
        return f"The state is {state!r}, beside it."
    return "A state is in the .solverstate of the same name; weights without one are copied, not restored."


def _of_hdf5(path: StrPath) -> str | None:
    try:
        members = set(hdf5.Reader(path).root.links)
    except ReproductionError:
        return None
    if {"iter", "history"} <= members:
        return STATE
    return WEIGHTS if "data" in members else None


def _of_message(reader: Reader) -> str | None:
    """Tell a binary message by the fields that it begins with."""
    found: set[tuple[int, int]] = set()
    pos = 0
    try:
        for _ in range(_FIELDS):
            if pos >= reader.size:
                break
            number, wire, after = reader.tag(pos, reader.size)
            pos = reader.skip(number, wire, pos, after, reader.size, 0)
            found.add((number, wire))
    except CaffemodelError:
        pass  # what came before says what the file is
    return next((name for name, fields in _MESSAGES.items() if _SIGNS[name] & found and found <= fields), None)
