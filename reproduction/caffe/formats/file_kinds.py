"""Recognition of Caffe's kinds of files by content, for errors about a file that was passed in place of another.

Only files that could not be read are examined, so reading a correct file costs nothing.

Source: BVLC/caffe@9b89154 src/caffe/proto/caffe.proto (the fields of BlobProto, NetParameter and SolverState).
"""

from __future__ import annotations

import re
from pathlib import Path

from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath
from reproduction.caffe.formats import files, hdf5
from reproduction.caffe.formats.wire_reader import WireReader
from reproduction.caffe.schema import BlobProto, Message, NetParameter, SolverState
from reproduction.caffe.schema.scalar_types import FIXED32, LENGTH, VARINT

WEIGHTS, STATE, MEAN = "a caffemodel", "a solver's state", "an image mean"
NET, SOLVER = "a net's prototxt", "a solver's prototxt"
_ARRAY, _IMAGE = "a NumPy array", "an image"

_MAGIC = (
    (b"\x93NUMPY", _ARRAY),
    (b"\x89PNG\r\n", _IMAGE),
    (b"\xff\xd8\xff", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"BM", _IMAGE),
    (b"II*\0", _IMAGE),
    (b"MM\0*", _IMAGE),
)
_NO_STATE = "A state is a binary file, .solverstate, that a snapshot wrote."
_TEXT_BYTES = 2**16  # bytes of a text that are examined
_FIELDS = 4096  # fields of a binary message that are examined
_NET_TEXT = re.compile(rb"^\s*(layers?\s*[:{]|input\s*:|input_(dim|shape)\b|force_backward\s*:)", re.MULTILINE)
_SOLVER_TEXT = re.compile(
    rb"^\s*((train_|test_)?net(_param)?\s*[:{]|base_lr\s*:|lr_policy\s*:|max_iter\s*:|snapshot\w*\s*:)", re.MULTILINE
)

_REMEDIES = {
    (STATE, WEIGHTS): "They are in the .caffemodel of the same name.",
    (NET, WEIGHTS): "Name the binary file; a prototxt contains no weights.",
    (SOLVER, WEIGHTS): "Name the binary file; a prototxt contains no weights.",
    (MEAN, WEIGHTS): "A mean is subtracted from images.",
    (NET, STATE): _NO_STATE,
    (SOLVER, STATE): _NO_STATE,
}


def _field_tags(message: type[Message]) -> set[tuple[int, int]]:
    """Return the pairs (field number, wire type) that a message may contain."""
    fields = message.fields.values()
    return {
        (field.number, wire) for field in fields for wire in ((field.wire, LENGTH) if field.repeated else (field.wire,))
    }


_MESSAGES = {STATE: _field_tags(SolverState), MEAN: _field_tags(BlobProto), WEIGHTS: _field_tags(NetParameter)}
# Fields of which such a message has at least one: the iteration, the values, the layers.
_SIGNS = {
    STATE: {(1, VARINT)},
    MEAN: {(5, LENGTH), (5, FIXED32), (8, LENGTH)},
    WEIGHTS: {(2, LENGTH), (100, LENGTH)},
}


def recognize(path: StrPath) -> str | None:
    """Return a phrase for the kind of one of Caffe's files, by its content; None if the kind is not recognized.

    The phrase is one of ``WEIGHTS``, ``STATE``, ``MEAN``, ``NET`` and ``SOLVER``, or that of an image or array.

    Raises:
        OSError: If the file cannot be opened.
    """
    try:
        data = files.map_file(path)
    except CaffemodelError:
        return None
    for magic, name in _MAGIC:
        if data[: len(magic)] == magic:
            return name
    found = files.kind(data)
    if found == files.HDF5:
        return _recognize_hdf5(path)
    if found in (None, files.TEXT) and not files.has_control_bytes(data[:_TEXT_BYTES]):
        for text, name in ((_SOLVER_TEXT, SOLVER), (_NET_TEXT, NET)):
            if text.search(data[:_TEXT_BYTES]):
                return name
    return _recognize_message(WireReader(data, path)) if found is None else None


def wrong_kind_error(path: StrPath, wanted: str) -> ReproductionError | None:
    """Return the error for a file of another kind than expected, such as weights passed as a solver's state.

    Args:
        path: a file that could not be read.
        wanted: the expected kind, ``WEIGHTS`` or ``STATE``.

    Returns:
        The error, which names the kind of the file; None if the file is of the expected kind or not recognized.

    Raises:
        OSError: If the file cannot be opened.
    """
    found = recognize(path)
    if found is None or found == wanted:
        return None
    what = {WEIGHTS: "weights"}.get(wanted, wanted)
    remedy = _state_remedy(path) if (found, wanted) == (WEIGHTS, STATE) else _REMEDIES.get((found, wanted), "")
    return CaffemodelError(f"this is {found}, not {what}", path=path, remedy=remedy)


def _state_remedy(path: StrPath) -> str:
    """Return the remedy for a caffemodel passed as a state: the name of its ``.solverstate``."""
    name = Path(path).name
    state = name.replace(".caffemodel", ".solverstate")
    if state != name and files.is_file(Path(path).with_name(state)):
        return f"The state is {state!r}, in the same folder."
    return "A state is in the .solverstate of the same name; weights without one are copied, not restored."


def _recognize_hdf5(path: StrPath) -> str | None:
    try:
        members = set(hdf5.HDF5Reader(path).root.links)
    except ReproductionError:
        return None
    if {"iter", "history"} <= members:
        return STATE
    return WEIGHTS if "data" in members else None


def _recognize_message(reader: WireReader) -> str | None:
    """Return the kind of a binary message by its first fields, at most 4096; None if it is not recognized."""
    found: set[tuple[int, int]] = set()
    pos = 0
    try:
        for _ in range(_FIELDS):
            if pos >= reader.size:
                break
            number, wire, after = reader.read_tag(pos, reader.size)
            pos = reader.skip_field(number, wire, pos, after, reader.size, 0)
            found.add((number, wire))
    except CaffemodelError:
        pass  # a damaged file is still recognized by the fields before the damage
    return next((name for name, fields in _MESSAGES.items() if _SIGNS[name] & found and found <= fields), None)
