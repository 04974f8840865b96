"""Reader of PyTorch's ``.pt`` and ``.pth`` files: a pickle that describes tensors, and the storages with their values.

Tensors are views of the mapped file. ``torch.load`` is not used: it executes the calls that it allows, among them
constructors of NumPy, which may allocate any amount of memory or crash the process.

Source: torch 2.11, torch/serialization.py (_save, _legacy_save, _load, _legacy_load), torch/_utils.py
(_rebuild_tensor_v2, _rebuild_parameter).
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.formats.unpickle import Call, Global, Persistent, PickleError, Unpickler, name_of
from reproduction.caffe.formats.zip_archive import Archive
from reproduction.caffe.geometry import MAX_AXES
from reproduction.caffe.typing import Floats

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two values of files before torch 1.6
_STATES = ("model_state_dict", "state_dict")
_WRAPPERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_MAX_WRAPPERS = 8
_WANT = "a tensor of float32 or float64"
_REMEDY = "The file is damaged: download or write it again."
# The storage types of torch: the dtype of the values, and its size in bytes.
_STORAGES = {
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage as a pickle describes it: the dtype, the bytes of a value, its key, and the number of values."""

    dtype: str
    itemsize: int
    key: str
    count: int


def read(path: StrPath) -> dict[str, Floats]:
    """Read the weights of a PyTorch file: a state dict, or a checkpoint that contains one.

    The state dict of a checkpoint is its entry ``model_state_dict`` or ``state_dict``. Other entries may be of any
    type; no objects are created from them, and no code is executed.

    Returns:
        The arrays by name, float32 or float64, little-endian and read-only. Contiguous little-endian tensors are views
        of the file; others are copies.

    Raises:
        CaffemodelError: If the file is damaged, contains no state dict, or one with anything but float32 and float64
            tensors.
        OSError: If the file cannot be opened.
    """
    data = files.map_file(path)
    try:
        found, contents, order = _from_zip(data, path) if files.kind(data) == files.ZIP else _from_pickles(data)
        return _arrays(_find_state_dict(found, path), contents, order, path)
    except PickleError as error:
        raise CaffemodelError(f"the PyTorch file cannot be read: {error}", path=path, remedy=_REMEDY) from None


def _from_zip(data: mmap.mmap, path: StrPath) -> tuple[Any, dict[str, memoryview], str]:
    """Return the value of the pickle in a zip archive, the bytes of its storages by key, and their byte order."""
    archive = Archive(data, path)
    pickled = next((name for name in archive.members if name.endswith("data.pkl")), None)
    if pickled is None:
        raise PickleError("it has no data.pkl")
    folder = pickled.removesuffix("data.pkl")
    order = ""
    if f"{folder}byteorder" in archive.members:
        order = bytes(archive.read(f"{folder}byteorder")[:16]).decode("latin-1")
    reader = Unpickler(archive.read(pickled), room=len(data))
    found = reader.load()
    contents = {}
    for reference in reader.persistent:
        storage = _parse_storage(reference)
        name = f"{folder}data/{storage.key}"
        if storage.key not in contents and name in archive.members:
            contents[storage.key] = archive.read(name, checked=False)
    return found, contents, ">" if order == "big" else "<"


def _from_pickles(data: mmap.mmap) -> tuple[Any, dict[str, memoryview], str]:
    """Return the same for the format before torch 1.6: five pickles, followed by the storages."""
    view, at = memoryview(data), 0
    values = []
    for want in (_MAGIC, _VERSION, None, None, None):
        reader = Unpickler(view, at, len(data))
        values.append(reader.load())
        if want is not None and values[-1] != want:
            raise PickleError("it does not begin like a file of torch")
        at = reader.at
        if len(values) == 4:  # the state dict; only this pickle refers to storages
            storages = {storage.key: storage for storage in map(_parse_storage, reader.persistent)}
    _, _, system, found, keys = values
    contents = {}
    for key in keys if isinstance(keys, list) else []:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise PickleError("it has a storage that no tensor uses")
        size = 8 + storage.count * storage.itemsize
        if size > len(view) - at or struct.unpack_from("<q", view, at)[0] != storage.count:
            raise PickleError(f"its storage {key!r} is cut off, or not of the size that a tensor states")
        contents[storage.key] = view[at + 8 : at + size]
        at += size
    big = isinstance(system, dict) and system.get("little_endian") is False
    return found, contents, ">" if big else "<"


def _parse_storage(reference: Any) -> _Storage:
    """Convert a persistent ID to a storage, after a check of its types."""
    parts = reference.key if isinstance(reference, Persistent) else None
    if isinstance(parts, tuple) and len(parts) in (5, 6) and parts[0] == "storage":
        _, kind, key, _, count, *view = parts
        if view not in ([], [None]):
            raise PickleError("it has storages that are parts of others, as torch before 0.4 wrote")
        name = kind.name.rpartition(".")[2] if isinstance(kind, Global) else ""
        if isinstance(key, str) and type(count) is int and 0 <= count < 2**48:
            dtype, size = _STORAGES.get(name, (name or "unknown", 1))
            return _Storage(dtype, size, key, count)
    raise PickleError("it refers to something that is not a storage")


def _find_state_dict(found: Any, path: StrPath) -> dict[str, Any]:
    for key in _STATES:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        remedy = "Save the model's state_dict(), not the model." if isinstance(found, Call) else ""
        raise CaffemodelError(
            "this is not a state dict", path=path, got=name_of(found), want="a dict of tensors", remedy=remedy
        )
    return found


def _arrays(state: dict[str, Any], contents: dict[str, memoryview], order: str, path: StrPath) -> dict[str, Floats]:
    tensors = {}
    for name, value in state.items():
        inner = value
        for _ in range(_MAX_WRAPPERS):
            if name_of(inner) in _WRAPPERS and isinstance(inner, Call) and isinstance(inner.args, tuple) and inner.args:
                inner = inner.args[0]
        if not (isinstance(inner, Call) and name_of(inner) in _TENSORS):
            raise CaffemodelError(f"entry {name!r} is not weights", path=path, got=name_of(inner), want=_WANT)
        if not isinstance(inner.args, tuple) or len(inner.args) < 4:
            raise PickleError(f"entry {name!r} is not a tensor")
        storage = _parse_storage(inner.args[0])
        if storage.dtype not in ("float32", "float64"):
            got = f"torch.{storage.dtype}"
            raise CaffemodelError(f"entry {name!r} is not weights", path=path, got=got, want=_WANT)
        tensors[name] = (storage, _check_place(name, *inner.args[1:4]))
    copied = (found for found in tensors.values() if not _is_contiguous(*found[1][1:]))
    files.check_declared_size(
        sum(math.prod(shape) * storage.itemsize for storage, (_, shape, _) in copied), path, ratio=1
    )
    return {name: _array(name, *found, contents, order) for name, found in tensors.items()}


def _check_place(name: str, offset: Any, shape: Any, strides: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return the offset, shape and strides of a tensor in its storage, after a check of their types."""
    numbers = [offset]
    for part in (shape, strides):
        numbers += part if isinstance(part, tuple) and len(part) <= MAX_AXES else [None]
    if not all(type(number) is int and 0 <= number < 2**48 for number in numbers) or len(shape) != len(strides):
        raise PickleError(f"entry {name!r} has an invalid shape")
    return offset, shape, strides


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return 0 in shape
        step *= size
    return True


def _array(
    name: str,
    storage: _Storage,
    place: tuple[int, tuple[int, ...], tuple[int, ...]],
    contents: dict[str, memoryview],
    order: str,
) -> Floats:
    """Return a tensor as a read-only array, after a check that it does not exceed its storage."""
    offset, shape, strides = place
    dtype = np.dtype(f"{order}f{storage.itemsize}")
    if 0 in shape:
        return np.empty(shape, dtype.newbyteorder("<"))
    content = contents.get(storage.key)
    if content is None:
        raise PickleError(f"the storage of entry {name!r} is missing")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= storage.count or storage.count * storage.itemsize > len(content):
        raise PickleError(f"entry {name!r} reaches past the end of its storage")
    steps = [stride * storage.itemsize for stride in strides]
    values = np.ndarray(shape, dtype, content, offset * storage.itemsize, steps)
    values = np.asarray(values, dtype.newbyteorder("<"), order="C")
    values.flags.writeable = False
    return values
