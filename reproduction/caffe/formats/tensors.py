"""Read and write files of named arrays: ``.safetensors``, ``.npz`` and PyTorch's ``.pt``.

``weights`` maps the names to layers. PyTorch files are only written here; ``torch_file`` reads them.

Arrays are float32 or float64, of any shape, and are preserved bit by bit. Each reader checks the declared sizes against
the size of the file before it allocates memory, and never executes code from a file.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import struct
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.zip_archive import Archive
from reproduction.caffe.geometry import MAX_AXES
from reproduction.caffe.typing import Array, Floats, Progress

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
_COMPILED_DTYPES = _DTYPES | {"BF16": np.dtype("<u2")}
_ALIGNED = 64  # bytes
COMPILED_NET = "compiled_net"  # key of the metadata of a compiled net, which is not a file of weights
_FLOATS = "float32 or float64"
_HEADER_BYTES = 2 << 20  # limit of safetensors' JSON: about 20,000 tensors; parsed, it takes 20 times as much memory
_NPY_HEAD = 2048  # limit of the header of an array, in bytes
_DAMAGED = "The file is damaged: download or write it again."


def read_safetensors(path: StrPath) -> tuple[dict[str, Floats], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        The arrays by name, as views of the mapped file; and the file's metadata, strings by name.

    Raises:
        CaffemodelError: If the file is damaged, or contains a tensor that is not float32 or float64.
        OSError: If the file cannot be opened.

    Source: huggingface/safetensors, README "Format".
    """
    arrays, metadata = _parse_safetensors(path, files.map_file(path), _DTYPES)
    return arrays, metadata


def map_safetensors(path: StrPath) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file of a compiled net, as ``read_safetensors`` does.

    The arrays can be changed, which does not change the file, and may have bfloat16 values, which are read as uint16.

    Raises:
        CaffemodelError: If the file is damaged, or contains a tensor of another type.
        OSError: If the file cannot be opened.
    """
    return _parse_safetensors(path, files.map_file(path, writable=True), _COMPILED_DTYPES)


def _parse_safetensors(
    path: StrPath, data: mmap.mmap, dtypes: Mapping[str, np.dtype[Any]]
) -> tuple[dict[str, Array], dict[str, str]]:
    if files.kind(data) != files.SAFETENSORS:
        raise CaffemodelError("this is not a safetensors file", path=path, remedy=_DAMAGED)
    start = 8 + struct.unpack_from("<Q", data)[0]
    if start - 8 > _HEADER_BYTES:
        raise CaffemodelError(
            "the header is too large", path=path, offset=8, got=start - 8, want=f"at most {_HEADER_BYTES} bytes"
        )
    header = _parse_header(data[8:start], path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CaffemodelError("the metadata is not a table of strings", path=path, offset=8, remedy=_DAMAGED)
    if dtypes is _DTYPES and COMPILED_NET in metadata:
        remedy = "reproduction.load_compiled() opens it."
        raise CaffemodelError("this is a compiled net, not a file of weights", path=path, remedy=remedy)
    arrays: dict[str, Array] = {}
    spans = []
    for name, entry in header.items():
        dtype, shape, begin, end = _parse_entry(name, entry, path, dtypes)
        spans.append((begin, end))
        if end > len(data) - start:
            missing = end - (len(data) - start)
            raise CaffemodelError(
                f"tensor {name!r} runs past the end of the file; {missing} bytes are missing",
                path=path,
                remedy="The file was cut off: download or copy it again.",
            )
        values = np.frombuffer(data, dtype, math.prod(shape), start + begin) if end > begin else np.empty(0, dtype)
        arrays[name] = values.reshape(shape)
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise CaffemodelError("tensors overlap or leave a gap", path=path, offset=start + begin, remedy=_DAMAGED)
        position = end
    return arrays, metadata


def write_safetensors(
    arrays: Mapping[str, Array],
    path: StrPath,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    *,
    align: bool = False,
) -> None:
    """Write a safetensors file atomically, without a second copy of contiguous arrays.

    Args:
        arrays: the arrays by name, float32 or float64; uint16 is written as bfloat16.
        path: the file.
        metadata: strings by name, stored in the file's header.
        progress: called after each write with the number of bytes written so far.
        align: whether arrays whose sizes are multiples of 64 bytes begin at such positions.

    Raises:
        ReproductionError: If a name has a zero byte or cannot be encoded as UTF-8, or the file cannot be written.

    Source: huggingface/safetensors, README "Format".
    """
    _check_names(arrays, path)
    # Doubles first, so that every array is aligned to the size of its elements.
    order = sorted(arrays, key=lambda name: arrays[name].dtype.itemsize, reverse=True)
    if align:
        order.sort(key=lambda name: arrays[name].nbytes % _ALIGNED != 0)
    codes = {dtype: code for code, dtype in _COMPILED_DTYPES.items()}
    entries, position = {}, 0
    for name in order:
        end = position + arrays[name].nbytes
        shape, code = list(arrays[name].shape), codes[arrays[name].dtype]
        entries[name] = {"dtype": code, "shape": shape, "data_offsets": [position, end]}
        position = end
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    header |= {name: entries[name] for name in arrays}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % (_ALIGNED if align else 8))
    with files.open_atomic(path, progress) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_bytes_of(arrays[name]))


def read_npz(path: StrPath) -> dict[str, Floats]:
    """Read the arrays of a NumPy archive ``.npz``, compressed or not.

    Returns:
        The arrays by name; those that are not compressed are views of the mapped file.

    Raises:
        CaffemodelError: If the file is damaged, its arrays need far more memory than the file has bytes, or it contains
            anything but arrays of float32 or float64.
        OSError: If the file cannot be opened.
    """
    data = files.map_file(path)
    if files.kind(data) != files.ZIP:
        raise CaffemodelError("this is not a NumPy archive", path=path, got=files.kind(data) or "something else")
    archive, arrays = Archive(data, path), {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        if name == member:
            raise CaffemodelError(f"{member!r} is not an array", path=path, want="NAME.npy")
        arrays[name] = _parse_npy(archive.read(member), name, path)
    return arrays


def write_npz(arrays: Mapping[str, Floats], path: StrPath, progress: Progress | None = None) -> None:
    """Write an uncompressed NumPy archive ``.npz`` atomically, without a second copy of contiguous arrays.

    Args:
        arrays: the arrays by name, float32 or float64.
        path: the file.
        progress: called after each write with the number of bytes written so far.

    Raises:
        ReproductionError: If a name has a zero byte or cannot be encoded as UTF-8, or the file cannot be written.
    """
    _check_names(arrays, path)
    with files.open_atomic(path, progress) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            # ZipInfo has a fixed date, so that the same weights always give the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                head = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
                np.lib.format.write_array_header_1_0(member, head)
                member.write(_bytes_of(values))


def write_torch(arrays: Mapping[str, Floats], path: StrPath, progress: Progress | None = None) -> None:
    """Write arrays as a state dict of PyTorch, atomically; ``torch.load(path, weights_only=True)`` loads it.

    Args:
        arrays: the arrays by name, float32 or float64.
        path: the file.
        progress: called after each write with the number of bytes written so far.

    Raises:
        ReproductionError: If a name has a zero byte or cannot be encoded as UTF-8, or the file cannot be written.
    """
    import torch

    _check_names(arrays, path)
    with warnings.catch_warnings():
        # The arrays may be read-only views of a mapped file. torch warns of this, but torch.save does not modify them.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        state = {name: torch.from_numpy(np.asarray(values, order="C")) for name, values in arrays.items()}
    with files.open_atomic(path, progress) as file:
        torch.save(state, file)


def _bytes_of(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _check_names(arrays: Mapping[str, Array], path: StrPath) -> None:
    for name in arrays:
        if "\0" in name or not files.is_utf8(name):
            raise CaffemodelError(f"a file of this kind cannot hold the name {name!r}", path=path)


def _parse_header(text: bytes, path: StrPath) -> dict[str, Any]:
    try:
        header = json_file.parse(text)
    except json_file.NotJsonError as error:
        raise CaffemodelError(f"the header is not JSON: {error}", path=path, offset=8, remedy=_DAMAGED) from None
    if not isinstance(header, dict):
        raise CaffemodelError("the header is not a table", path=path, offset=8, remedy=_DAMAGED)
    return header


def _parse_entry(
    name: str, entry: Any, path: StrPath, dtypes: Mapping[str, np.dtype[Any]]
) -> tuple[np.dtype[Any], list[int], int, int]:
    """Return the dtype and shape of a tensor and its start and end offsets, after a check that they are consistent."""
    place = f"{path}: tensor {name!r}"
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets, dtype = _as_counts(entry.get("shape")), _as_counts(entry.get("data_offsets")), entry.get("dtype")
    kept = dtypes.get(dtype) if isinstance(dtype, str) else None
    if kept is None:
        remedy = "Convert it with .float() and save it again."
        raise CaffemodelError(
            "the tensor is of a type that Caffe does not have",
            path=place,
            got=dtype,
            want=" or ".join(dtypes),
            remedy=remedy,
        )
    if shape is None or offsets is None or len(shape) > MAX_AXES or len(offsets) != 2:
        raise CaffemodelError("the header's entry is damaged", path=place, remedy=_DAMAGED)
    if offsets[1] - offsets[0] != math.prod(shape) * kept.itemsize:
        raise CaffemodelError("shape and size disagree", path=place, got=f"{shape} at {offsets}", remedy=_DAMAGED)
    return kept, shape, offsets[0], offsets[1]


def _as_counts(value: Any) -> list[int] | None:
    if isinstance(value, list) and all(type(number) is int and number >= 0 for number in value):
        return value
    return None


def _parse_npy(content: memoryview, name: str, path: StrPath) -> Floats:
    """Parse the content of a ``.npy`` file; the array is a view of it, unless its byte order is converted."""
    head = io.BytesIO(bytes(content[:_NPY_HEAD]))
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(head, _NPY_HEAD)
    except Exception as error:  # NumPy evaluates a Python literal in the header, which may raise many types of error
        text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise CaffemodelError(f"array {name!r} cannot be read: {text}", path=path, remedy=_DAMAGED) from None
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise CaffemodelError(f"array {name!r} is not weights", path=path, got=dtype, want=_FLOATS)
    if (
        len(shape) > MAX_AXES
        or min(shape, default=0) < 0
        or math.prod(shape) * dtype.itemsize != len(content) - head.tell()
    ):
        raise CaffemodelError(f"array {name!r}: shape and size disagree", path=path, got=shape, remedy=_DAMAGED)
    values = np.frombuffer(content, dtype, offset=head.tell()) if len(content) > head.tell() else np.empty(0, dtype)
    return values.astype(dtype.newbyteorder("<"), copy=False).reshape(shape, order="F" if fortran else "C")
