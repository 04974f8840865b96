"""Files of named arrays: ``.safetensors``, ``.npz`` and PyTorch's ``.pt``. They know no layers; ``weights`` does.

Arrays are float32 or float64, in any shape, and stay so bit by bit. Every reader refuses a file that declares more
than it holds before it allocates anything, and runs nothing that a file says.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from reproduction.caffe import files
from reproduction.caffe.blobs import MAX_AXES, Array
from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath

Progress = Callable[[int], object] | None

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
_FLOATS = "float32 or float64"
_DAMAGED = "The file is damaged: download or write it again."


def read_safetensors(path: StrPath) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file: its arrays by name, as views of the mapped file, and its metadata.

    Raises:
        CaffemodelError: the file is damaged, or holds other types than floats.
        OSError: it cannot be opened.

    Source: huggingface/safetensors, README "Format".
    """
    data = files.mapped(path)
    if files.kind(data) != files.SAFETENSORS:
        raise CaffemodelError("this is not a safetensors file", path=path, remedy=_DAMAGED)
    start = 8 + struct.unpack_from("<Q", data)[0]
    header = _json(data[8:start], path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CaffemodelError("the metadata is not a table of strings", path=path, offset=8, remedy=_DAMAGED)
    arrays: dict[str, Array] = {}
    spans = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry, path)
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
    arrays: Mapping[str, Array], path: StrPath, metadata: Mapping[str, str] | None = None, progress: Progress = None
) -> None:
    """Write a safetensors file: the header, then every array from its own memory.

    Raises:
        ReproductionError: a name is not UTF-8, or the file cannot be written.

    Source: huggingface/safetensors, README "Format".
    """
    _check_names(arrays, path)
    # Doubles first, so that every array lies on a multiple of its own size.
    order = sorted(arrays, key=lambda name: arrays[name].dtype.itemsize, reverse=True)
    entries, position = {}, 0
    for name in order:
        end = position + arrays[name].nbytes
        shape, dtype = list(arrays[name].shape), "F32" if arrays[name].dtype == np.float32 else "F64"
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    header |= {name: entries[name] for name in arrays}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with files.atomic(path, progress) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_octets(arrays[name]))


def read_npz(path: StrPath) -> dict[str, Array]:
    """Read a NumPy archive, compressed or not.

    Raises:
        CaffemodelError: the file is damaged, declares far more than it holds, or holds other things than floats.
        OSError: it cannot be opened.
    """
    files.mapped(path)
    arrays: dict[str, Array] = {}
    with _damage(path, "NumPy archive"), zipfile.ZipFile(path) as archive:
        files.check_declared(sum(info.file_size for info in archive.infolist()), path)
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in arrays:
                raise CaffemodelError(f"{info.filename!r} is not an array of its own", path=path, want="NAME.npy")
            with archive.open(info) as member:
                arrays[name] = _npy(member, info.file_size, name, path)
    return arrays


def write_npz(arrays: Mapping[str, Array], path: StrPath, progress: Progress = None) -> None:
    """Write an uncompressed NumPy archive, as ``np.savez`` does, without a second copy of any array.

    Raises:
        ReproductionError: a name is not UTF-8, or the file cannot be written.
    """
    _check_names(arrays, path)
    with files.atomic(path, progress) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            # A fixed date, so that the same weights are the same file.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                head = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
                np.lib.format.write_array_header_1_0(member, head)
                member.write(_octets(values))


def read_torch(path: StrPath) -> dict[str, Array]:
    """Read a state dict that ``torch.save`` wrote, or a checkpoint that has one; nothing in the file is run.

    Raises:
        CaffemodelError: the file is damaged, holds anything but tensors, or objects that would have to be run.
        OSError: it cannot be opened.
    """
    import torch

    found = files.kind(files.mapped(path))
    with _damage(path, "PyTorch file"), torch.serialization.safe_globals(_numpy_scalars()):
        # Mapped, torch checks every tensor against the file; only files older than torch 1.6 cannot be.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=found == files.ZIP)
    for key in ("model_state_dict", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CaffemodelError("this is not a state dict", path=path, got=type(state).__name__, want="a dict of tensors")
    tensors: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.float32, torch.float64):
            kind = getattr(value, "dtype", type(value).__name__)
            raise CaffemodelError(f"entry {name!r} is not weights", path=path, got=kind, want=f"a tensor of {_FLOATS}")
        tensors[name] = value
    with _damage(path, "PyTorch file"):
        files.check_declared(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path)
        return {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}


def write_torch(arrays: Mapping[str, Array], path: StrPath, progress: Progress = None) -> None:
    """Write a state dict that ``torch.load(path, weights_only=True)`` opens.

    Raises:
        ReproductionError: a name is not UTF-8, or the file cannot be written.
    """
    import torch

    _check_names(arrays, path)
    with warnings.catch_warnings():
        # The arrays are views of a file that is mapped for reading; torch.save does not write to them.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        state = {name: torch.from_numpy(np.asarray(values, order="C")) for name, values in arrays.items()}
    with files.atomic(path, progress) as file:
        torch.save(state, file)


def _numpy_scalars() -> list[Any]:
    """List what a number of numpy's in a checkpoint, such as pytorch-fcn's best_mean_iu, is made of."""
    scalar = np.float64(0).__reduce__()[0]
    return [
        *((scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")),
        np.dtype,
        type(np.dtype(np.float64)),
    ]


def _octets(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _check_names(arrays: Mapping[str, Array], path: StrPath) -> None:
    for name in arrays:
        if "\0" in name or not files.is_utf8(name):
            raise CaffemodelError(f"a file of this kind cannot hold the name {name!r}", path=path)


@contextlib.contextmanager
def _damage(path: StrPath, what: str) -> Iterator[None]:
    """Word as one error the many that the libraries raise on damaged files."""
    try:
        yield
    except ReproductionError:
        raise
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise CaffemodelError(f"the {what} cannot be read: {text}", path=path, remedy=_DAMAGED) from None


def _json(text: bytes, path: StrPath) -> dict[str, Any]:
    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name comes twice")
        return found

    try:
        header = json.loads(text, object_pairs_hook=table)
    except (ValueError, RecursionError) as error:
        raise CaffemodelError(f"the header is not JSON: {error}", path=path, offset=8, remedy=_DAMAGED) from None
    if not isinstance(header, dict):
        raise CaffemodelError("the header is not a table", path=path, offset=8, remedy=_DAMAGED)
    return header


def _entry(name: str, entry: Any, path: StrPath) -> tuple[np.dtype[Any], list[int], int, int]:
    """Return type, shape, first and last byte of one tensor, checked against each other."""
    place = f"{path}: tensor {name!r}"
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets, dtype = _counts(entry.get("shape")), _counts(entry.get("data_offsets")), entry.get("dtype")
    kept = _DTYPES.get(dtype) if isinstance(dtype, str) else None
    if kept is None:
        remedy = "Convert it with .float() and save it again."
        raise CaffemodelError("these are not Caffe's numbers", path=place, got=dtype, want="F32 or F64", remedy=remedy)
    if shape is None or offsets is None or len(shape) > MAX_AXES or len(offsets) != 2:
        raise CaffemodelError("the header's entry is damaged", path=place, remedy=_DAMAGED)
    if offsets[1] - offsets[0] != math.prod(shape) * kept.itemsize:
        raise CaffemodelError("shape and size disagree", path=place, got=f"{shape} at {offsets}", remedy=_DAMAGED)
    return kept, shape, offsets[0], offsets[1]


def _counts(value: Any) -> list[int] | None:
    if isinstance(value, list) and all(type(number) is int and number >= 0 for number in value):
        return value
    return None


def _npy(member: IO[bytes], size: int, name: str, path: StrPath) -> Array:
    """Read one array of an archive; its header's size is held against the archive's before it is allocated."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise CaffemodelError(f"array {name!r} is not weights", path=path, got=dtype, want=_FLOATS)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - member.tell():
        raise CaffemodelError(f"array {name!r}: shape and size disagree", path=path, got=shape, remedy=_DAMAGED)
    values = np.frombuffer(member.read(), dtype).astype(dtype.newbyteorder("<"), copy=False)
    return values.reshape(shape, order="F" if fortran else "C")
