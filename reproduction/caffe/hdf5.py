"""Caffe's HDF5 layout, ``.caffemodel.h5``: ``data/<layer>/<i>`` is parameter i of a layer, ``diff`` its gradient.

Arrays are read as views of the mapped file, so a file cannot make us allocate more than it holds. A layer's name may
hold ``/``, which HDF5 reads as groups in groups; Caffe itself cannot write such a file.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L789-842, L856-917; src/caffe/util/hdf5.cpp.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from reproduction.caffe import blobs, files
from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath
from reproduction.caffe.schema import BlobProto, LayerParameter, NetParameter

if TYPE_CHECKING:
    import h5py

_MAX_DEPTH = 32


class Reader:
    """An HDF5 file open for reading; every array it returns is a view of the file.

    Args:
        file: the file as h5py opened it.
        data: the same file, mapped.
        path: its name, for errors.
    """

    def __init__(self, file: h5py.File, data: mmap.mmap, path: StrPath):
        self.file, self.data, self.path = file, data, path
        self.seen: set[Any] = set()

    def members(self, group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        """Yield the groups and datasets in a group with their names, sorted by name as Caffe reads them.

        Raises:
            CaffemodelError: a member is a link to another place or file, or was met before.
        """
        import h5py

        for name in sorted(group):
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise self.error("this is a link to another place", group, name, "Copy what it names into the file.")
            member = group[name]
            address = h5py.h5o.get_info(member.id).addr
            if address in self.seen or not isinstance(member, h5py.Group | h5py.Dataset):
                raise self.error("this is no group or dataset of its own", group, name)
            self.seen.add(address)
            yield name, member

    def array(self, dataset: h5py.Dataset) -> blobs.Array:
        """Return a dataset of numbers as a view: float32 or float64; other numbers become float32, as in Caffe.

        Raises:
            CaffemodelError: it holds no numbers, is compressed, or lies outside the file.

        Source: BVLC/caffe@9b89154 src/caffe/util/hdf5.cpp L10-86.
        """
        dtype, shape = dataset.dtype, dataset.shape
        if dtype.kind not in "fiu" or dtype.itemsize > 8 or shape is None:
            raise self.error("this holds no numbers", dataset, got=dtype)
        size = math.prod(shape)
        offset, plain = dataset.id.get_offset(), dataset.chunks is None and not dataset.external
        if size and (offset is None or not plain or dataset.is_virtual):
            remedy = "Run `h5repack -l CONTI -f NONE` on the file first."
            raise self.error("this is not stored in one piece, as Caffe stores it", dataset, remedy=remedy)
        missing = offset + size * dtype.itemsize - len(self.data) if size else 0
        if missing > 0:
            raise self.error(f"this runs past the end of the file by {missing} bytes", dataset)
        values = np.ndarray((size,), dtype, self.data, offset) if size else np.empty(0, dtype)
        kept = "<f8" if dtype.kind == "f" and dtype.itemsize == 8 else "<f4"
        place = f"{self.path}: {dataset.name}"
        return blobs.shaped(values.astype(kept, copy=False), shape, place)

    def error(
        self, problem: str, where: h5py.Group, name: str = "", remedy: str = "", got: object = None
    ) -> CaffemodelError:
        """Make an error about a member of the file."""
        place = f"{where.name}/{name}" if name else where.name
        return CaffemodelError(
            problem, path=f"{self.path}: {place}", got=got, remedy=remedy or "No file of Caffe's is like this."
        )


@contextlib.contextmanager
def reading(path: StrPath) -> Iterator[Reader]:
    """Open an HDF5 file for reading.

    Raises:
        CaffemodelError: it is not an HDF5 file, or is damaged; also what the HDF5 library raises while it is read.
        OSError: it cannot be opened.
    """
    import h5py

    data = files.mapped(path)
    found = files.kind(data)
    if found != files.HDF5:
        raise CaffemodelError("this is not an HDF5 file", path=path, got=found or "something else")
    try:
        with h5py.File(path, "r") as file:
            yield Reader(file, data, path)
    except (ReproductionError, GeneratorExit):
        raise
    except Exception as error:
        # The HDF5 library words damage as any of half a dozen exceptions.
        raise CaffemodelError(
            f"the HDF5 file cannot be read: {_first_line(error)}", path=path, remedy="It was cut off or is damaged."
        ) from None


@contextlib.contextmanager
def writing(path: StrPath, progress: Callable[[int], object] | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for writing that appears under its name only when it is whole; see ``files.atomic``."""
    with files.atomic(path, progress) as raw, into(raw) as file:
        yield file


def into(raw: BinaryIO) -> h5py.File:
    """Begin an HDF5 file in a file that is open for reading and writing; to be closed before that is."""
    import h5py

    return h5py.File(raw, "w")


def load(path: StrPath) -> NetParameter:
    """Read the weights of a net: layers in the order of their names, with name and blobs.

    A parameter that a layer shares is stored with its owner alone; here it is a blob that holds nothing. Gradients
    are read where the file has them.

    Raises:
        CaffemodelError: the file is not in Caffe's layout, or is damaged.
        OSError: it cannot be opened.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L789-842.
    """
    with reading(path) as reader:
        if "data" not in reader.file:
            raise CaffemodelError(
                "the HDF5 file has no group 'data'",
                path=path,
                got=", ".join(map(repr, list(reader.file)[:4])) or "nothing in it",
                remedy="Caffe keeps weights in data/LAYER/0 and on.",
            )
        net = NetParameter()
        layers = dict(_layers(reader, "data"))
        for name, arrays in layers.items():
            net.layer.append(LayerParameter(name=name, blobs=blobs.from_numbered(arrays, f"{path}: data/{name}")))
        if "diff" in reader.file:
            diffs = dict(_layers(reader, "diff"))
            for layer in net.layer:
                _add_diffs(layer, diffs.get(layer.name, {}))
    return net


def dump(net: NetParameter, path: StrPath, progress: Callable[[int], object] | None = None) -> None:
    """Write the weights of a net as Caffe does: every layer is a group, every parameter that is not shared a dataset.

    Gradients are written, into ``diff``, when any blob has them.

    Args:
        net: layers with names and blobs, of today's format.
        path: the file; it appears only when it is whole.
        progress: called with the number of bytes after each write.

    Raises:
        ReproductionError: two layers share a name, a name is not possible in HDF5, or the file cannot be written.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L856-917.
    """
    with writing(path, progress) as file:
        write(net, file, path)


def write(net: NetParameter, file: h5py.File, path: StrPath) -> None:
    """Write the weights of a net into an open file, whose path errors name; see ``dump``."""
    _check_names(net, path)
    owners: dict[str, BlobProto] = {}
    with_diffs = any(_diff(blob) is not None for layer in net.layer for blob in layer.blobs)
    data = file.create_group("data")
    diffs = file.create_group("diff") if with_diffs else None
    for layer in net.layer:
        group = data.require_group(layer.name)
        diff_group = diffs.require_group(layer.name) if diffs is not None else None
        for i, blob in enumerate(layer.blobs):
            if blob.is_empty():
                continue
            if not _is_shared(layer, i, blob, owners):
                group.create_dataset(str(i), data=blobs.array(blob, f"layer {layer.name!r} blob {i}"))
            diff = _diff(blob)
            if diff_group is not None and diff is not None:
                diff_group.create_dataset(str(i), data=diff.reshape(blobs.shape(blob)))


def _layers(reader: Reader, root: str) -> Iterator[tuple[str, dict[int, blobs.Array]]]:
    import h5py

    waiting: deque[tuple[str, h5py.Group]] = deque()
    top = reader.file[root]
    if not isinstance(top, h5py.Group):
        raise reader.error("this is a dataset, not a group of layers", top)
    for name, member in reader.members(top):
        if not isinstance(member, h5py.Group):
            raise reader.error("this is a dataset, not a group of one layer's parameters", member)
        waiting.append((name, member))
    while waiting:
        layer, group = waiting.popleft()
        arrays: dict[int, blobs.Array] = {}
        inner: list[tuple[str, h5py.Group]] = []
        for name, member in reader.members(group):
            if isinstance(member, h5py.Group):
                inner.append((f"{layer}/{name}", member))
            elif name.isascii() and name.isdigit() and str(int(name[:9])) == name:
                arrays[int(name)] = reader.array(member)
            else:
                raise reader.error("a parameter's name is its number", member)
        if layer.count("/") > _MAX_DEPTH:
            raise reader.error(f"groups are nested more than {_MAX_DEPTH} deep", group)
        if arrays or not inner:
            yield layer, arrays
        waiting.extendleft(reversed(inner))


def _add_diffs(layer: LayerParameter, diffs: dict[int, blobs.Array]) -> None:
    for i, blob in enumerate(layer.blobs):
        found = diffs.get(i)
        if found is not None and not blob.is_empty() and found.shape == blobs.shape(blob):
            setattr(blob, "diff" if found.dtype == np.float32 else "double_diff", found)


def _diff(blob: BlobProto) -> blobs.Array | None:
    for name in ("double_diff", "diff"):
        if blob.has(name):
            found: blobs.Array = getattr(blob, name)
            return found
    return None


def _is_shared(layer: LayerParameter, i: int, blob: BlobProto, owners: dict[str, BlobProto]) -> bool:
    """Say whether an earlier layer owns this parameter: its name is the same, and so are its values."""
    name = layer.param[i].name if i < len(layer.param) else ""
    if not name:
        return False
    owner = owners.setdefault(name, blob)
    return owner is not blob and np.array_equal(blobs.array(owner), blobs.array(blob), equal_nan=True)


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


def _first_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")
