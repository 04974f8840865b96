"""Read and write weights in Caffe's HDF5 layout, ``.caffemodel.h5``.

``data/<layer>/<i>`` is parameter i of a layer, and ``diff/<layer>/<i>`` its gradient. Files are written with h5py, but
read without the HDF5 library; see ``hdf5_file``. Arrays are read as views of the mapped file, so a file cannot
cause the allocation of much more memory than its size. The name of a layer may contain ``/``, which in HDF5 gives
nested groups; Caffe itself cannot write such a file.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L789-842, L856-917; src/caffe/util/hdf5.cpp.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from reproduction.caffe.errors import CaffemodelError, StrPath, missing_package
from reproduction.caffe.formats import blobs, files
from reproduction.caffe.formats.hdf5_file.messages import ANY_LENGTH, HDF5Dataset
from reproduction.caffe.formats.hdf5_file.objects import ELSEWHERE, HDF5File, HDF5Group
from reproduction.caffe.formats.hdf5_file.values import read_string, view_values
from reproduction.caffe.schema import BlobProto, LayerParameter, NetParameter
from reproduction.caffe.typing import Array, Floats, Progress

if TYPE_CHECKING:
    import h5py

_MAX_DEPTH = 32
_MAX_STRING = 2**16


class HDF5Reader:
    """A reader of Caffe's HDF5 files, whose float arrays are views of the mapped file.

    Args:
        path: the file.

    Attributes:
        root: the root group of the file.

    Raises:
        CaffemodelError: If the file is not an HDF5 file, or is damaged.
        OSError: If the file cannot be opened.
    """

    def __init__(self, path: StrPath):
        data = files.map_file(path)
        found = files.kind(data)
        if found != files.HDF5:
            raise CaffemodelError("this is not an HDF5 file", path=path, got=found or "something else")
        self.file, self.path = HDF5File(data, path), path
        self.root = self.file.root
        self.seen: set[int] = set()
        self.total = 0

    def member(self, name: str) -> HDF5Group | HDF5Dataset | None:
        """Return the group or dataset of this name in the root group, or None if there is none.

        Raises:
            CaffemodelError: If the member is a link to another place, or damaged.
        """
        # A group with this link only, so that the other members of the root are not read.
        only = HDF5Group("/", {each: at for each, at in self.root.links.items() if each == name})
        return next((member for _, member in self.members(only)), None)

    def members(self, group: HDF5Group) -> Iterator[tuple[str, HDF5Group | HDF5Dataset]]:
        """Yield ``(name, group or dataset)`` for each member of a group, sorted by name as in Caffe.

        Raises:
            CaffemodelError: If a member is a link to another place or file, is neither a group nor a dataset, or was
                already read under another name.
        """
        for name, address in sorted(group.links.items()):
            if address == ELSEWHERE:
                raise self.error("this is a link to another place", group, name, "Copy its target into the file.")
            member = None if address in self.seen else self.file.object(address, f"{group.name.rstrip('/')}/{name}")
            if member is None:
                raise self.error("this is not a group or dataset, or it has a second name", group, name)
            self.seen.add(address)
            yield name, member

    def array(self, dataset: HDF5Group | HDF5Dataset) -> Floats:
        """Return the values of a dataset of numbers as an array of its shape, float32 or float64.

        An array of little-endian float32 or float64 is a view of the file. Others are converted: 64-bit floats to
        float64, and all other numbers to float32, as in Caffe.

        Raises:
            CaffemodelError: If the dataset is not of numbers, is compressed or chunked, or exceeds the file.

        Source: BVLC/caffe@9b89154 src/caffe/util/hdf5.cpp L10-86.
        """
        values = self._view(dataset, "fiu", "this is not a dataset of numbers")
        assert isinstance(dataset, HDF5Dataset)
        assert dataset.shape is not None
        kept = np.dtype("<f8" if values.dtype.kind == "f" and values.dtype.itemsize == 8 else "<f4")
        if values.dtype != kept:
            self.total += values.size * kept.itemsize
            files.check_declared_size(self.total, self.path)
        return blobs.view_as(values.astype(kept, copy=False), dataset.shape, f"{self.path}: {dataset.name}")

    def integer(self, dataset: HDF5Group | HDF5Dataset) -> int:
        """Return the integer in a dataset of one value, such as the iteration of a solver state.

        Raises:
            CaffemodelError: If the dataset is not one number, or the number does not fit in 32 bits.
        """
        values = self._view(dataset, "fiu", "this is not a dataset of numbers")
        if values.size != 1 or not abs(float(values[0])) < 2**31:
            got = f"{values.size} values" if values.size != 1 else values[0]
            raise self.error("this is not an iteration", dataset, got=got, want="one integer")
        return int(values[0])

    def string(self, dataset: HDF5Group | HDF5Dataset) -> bytes:
        """Return the string in a dataset as bytes, up to its first zero byte.

        Raises:
            CaffemodelError: If the dataset is not one string, or the string is longer than 65,536 bytes.

        Source: BVLC/caffe@9b89154 src/caffe/util/hdf5.cpp L95-L109.
        """
        if isinstance(dataset, HDF5Dataset) and dataset.kind == ANY_LENGTH:  # Caffe writes strings of fixed length
            found = read_string(self.file, dataset, _MAX_STRING)
        else:
            values = self._view(dataset, "S", "this is not a string")
            found = values.tobytes() if values.size == 1 and values.dtype.itemsize <= _MAX_STRING else None
        if found is None:
            raise self.error("this is not a string", dataset, want=f"one of at most {_MAX_STRING} bytes")
        return found.split(b"\0")[0]

    def number(self, name: str, member: HDF5Group | HDF5Dataset) -> int:
        """Return the index of a parameter, which is the name of its dataset, as an integer.

        Args:
            name: the name.
            member: the dataset, for errors.

        Raises:
            CaffemodelError: If the name is not a decimal number of at most 9 digits, without leading zeros.
        """
        if name.isascii() and name.isdigit() and str(int(name[:9])) == name:
            return int(name)
        raise self.error("the name of a parameter must be its number", member)

    def error(
        self,
        problem: str,
        where: HDF5Group | HDF5Dataset,
        name: str = "",
        remedy: str = "",
        got: object = None,
        want: object = None,
    ) -> CaffemodelError:
        """Return an error whose place is in this file.

        Args:
            problem: what is wrong.
            where: the group or dataset that is the place; with ``name``, the group that has the place as a member.
            name: the name of the member, or an empty string.
            remedy: a sentence on what to do; by default that Caffe does not write such files.
            got: what was found.
            want: what was expected.
        """
        place = f"{where.name.rstrip('/')}/{name}" if name else where.name
        remedy = remedy or "Caffe writes no such file."
        return CaffemodelError(problem, path=f"{self.path}: {place}", got=got, want=want, remedy=remedy)

    def _view(self, dataset: HDF5Group | HDF5Dataset, kinds: str, problem: str) -> Array:
        if not isinstance(dataset, HDF5Dataset):
            raise self.error(problem, dataset, got="a group")
        if dataset.dtype is None or dataset.dtype.kind not in kinds or dataset.shape is None:
            raise self.error(problem, dataset, got=dataset.type)
        values = view_values(self.file, dataset)
        if values is None:
            remedy = "Run `h5repack -l CONTI -f NONE` on the file first."
            raise self.error("this is not stored in one piece, as Caffe stores it", dataset, remedy=remedy)
        return values


@contextlib.contextmanager
def open_for_writing(path: StrPath, progress: Progress | None = None) -> Iterator[h5py.File]:
    """Context manager that creates an HDF5 file, open in h5py, and writes it atomically; see ``files.open_atomic``.

    Args:
        path: the file to write.
        progress: called after each write with the number of bytes written so far.
    """
    with files.open_atomic(path, progress) as raw, create_in(raw) as file:
        yield file


def create_in(raw: BinaryIO) -> h5py.File:
    """Create an HDF5 file inside an open file, and return it. The caller must close it before it closes ``raw``.

    Args:
        raw: a file open for binary reading and writing.

    Raises:
        ReproductionError: If the package h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise missing_package("h5py", "hdf5") from None
    return h5py.File(raw, "w")


def load(path: StrPath) -> NetParameter:
    """Load the weights of a net from ``.caffemodel.h5``, and the gradients if the file has them.

    Returns:
        A net whose layers have only a name and blobs, sorted by name. Caffe stores a shared parameter only in the layer
        that owns it; in the other layers it is an empty blob if a parameter with a higher index follows.

    Raises:
        CaffemodelError: If the file is not in Caffe's layout, or is damaged.
        OSError: If the file cannot be opened.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L789-842.
    """
    reader = HDF5Reader(path)
    data = reader.member("data")
    if data is None:
        raise CaffemodelError(
            "the HDF5 file has no group 'data'",
            path=path,
            got=", ".join(map(repr, sorted(reader.root.links)[:4])) or "nothing in it",
            remedy="Caffe stores weights in data/LAYER/0, 1 and so on.",
        )
    net = NetParameter()
    for name, arrays in _read_layers(reader, data):
        net.layer.append(LayerParameter(name=name, blobs=blobs.from_numbered_arrays(arrays, f"{path}: data/{name}")))
    gradients = reader.member("diff")
    if gradients is not None:
        diffs = dict(_read_layers(reader, gradients))
        for layer in net.layer:
            _add_diffs(layer, diffs.get(layer.name, {}))
    return net


def dump(net: NetParameter, path: StrPath, progress: Progress | None = None) -> None:
    """Write the weights of a net atomically in Caffe's layout: a group for each layer, a dataset for each parameter.

    A shared parameter is written only in the layer that owns it. If any blob has a gradient, the gradients are written
    into the group ``diff``.

    Args:
        net: a net in the current form, whose layers have names and blobs.
        path: the file.
        progress: called after each write with the number of bytes written so far.

    Raises:
        ReproductionError: If two layers have the same name, a name is not valid in HDF5, or the file cannot be written.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L856-917.
    """
    with open_for_writing(path, progress) as file:
        write(net, file, path)


def write(net: NetParameter, file: h5py.File, path: StrPath) -> None:
    """Write the weights of a net into an open HDF5 file, in the layout that ``dump`` describes.

    Args:
        net: a net in the current form, whose layers have names and blobs.
        file: the file, open in h5py.
        path: the file's path, named in errors.
    """
    _check_names(net, path)
    owners: dict[str, BlobProto] = {}
    with_diffs = any(_gradient(blob) is not None for layer in net.layer for blob in layer.blobs)
    data = file.create_group("data")
    diffs = file.create_group("diff") if with_diffs else None
    for layer in net.layer:
        group = data.require_group(layer.name)
        diff_group = diffs.require_group(layer.name) if diffs is not None else None
        for i, blob in enumerate(layer.blobs):
            if blob.is_empty():
                continue
            if not _is_shared(layer, i, blob, owners):
                group.create_dataset(str(i), data=blobs.to_array(blob, f"layer {layer.name!r} blob {i}"))
            diff = _gradient(blob)
            if diff_group is not None and diff is not None:
                diff_group.create_dataset(str(i), data=diff.reshape(blobs.shape(blob)))


def _read_layers(reader: HDF5Reader, top: HDF5Group | HDF5Dataset) -> Iterator[tuple[str, dict[int, Floats]]]:
    waiting: deque[tuple[str, HDF5Group]] = deque()
    if not isinstance(top, HDF5Group):
        raise reader.error("this is a dataset, not a group of layers", top)
    for name, member in reader.members(top):
        if not isinstance(member, HDF5Group):
            raise reader.error("this is a dataset, not a group of one layer's parameters", member)
        waiting.append((name, member))
    while waiting:
        layer, group = waiting.popleft()
        arrays: dict[int, Floats] = {}
        inner: list[tuple[str, HDF5Group]] = []
        for name, member in reader.members(group):
            if isinstance(member, HDF5Group):
                inner.append((f"{layer}/{name}", member))
            else:
                arrays[reader.number(name, member)] = reader.array(member)
        if layer.count("/") > _MAX_DEPTH:
            raise reader.error(f"groups are nested more than {_MAX_DEPTH} deep", group)
        if arrays or not inner:
            yield layer, arrays
        waiting.extendleft(reversed(inner))


def _add_diffs(layer: LayerParameter, diffs: dict[int, Floats]) -> None:
    for i, blob in enumerate(layer.blobs):
        found = diffs.get(i)
        if found is not None and not blob.is_empty() and found.shape == blobs.shape(blob):
            setattr(blob, "diff" if found.dtype == np.float32 else "double_diff", found)


def _gradient(blob: BlobProto) -> Floats | None:
    return next((getattr(blob, name) for name in ("double_diff", "diff") if blob.has(name)), None)


def _is_shared(layer: LayerParameter, i: int, blob: BlobProto, owners: dict[str, BlobProto]) -> bool:
    """Return True if an earlier layer owns this parameter: one with the same parameter name and equal values.

    The first parameter of each name is recorded in ``owners``.
    """
    name = layer.param[i].name if i < len(layer.param) else ""
    if not name:
        return False
    owner = owners.setdefault(name, blob)
    return owner is not blob and np.array_equal(blobs.to_array(owner), blobs.to_array(blob), equal_nan=True)


def _check_names(net: NetParameter, path: StrPath) -> None:
    if net.layers:
        raise CaffemodelError("the net is of an old format", path=path, remedy="Upgrade it first.")
    names: set[str] = set()
    for layer in net.layer:
        parts = layer.name.split("/")
        if any(part in ("", ".") or "\0" in part for part in parts) or not files.is_utf8(layer.name):
            raise CaffemodelError(f"layer {layer.name!r} has a name that HDF5 cannot hold", path=path)
        if layer.name in names:
            raise CaffemodelError(f"two layers are called {layer.name!r}", path=path, remedy="Rename one.")
        names.add(layer.name)
    for layer in net.layer:
        parts = layer.name.split("/")
        for i, part in enumerate(parts):
            owner = "/".join(parts[:i])
            if part.isdigit() and owner in names:
                raise CaffemodelError(f"layer {layer.name!r} has the name of a parameter of layer {owner!r}", path=path)
