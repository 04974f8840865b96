"""Read and write weights in five file formats; in memory they are a NetParameter whose layers have names and blobs.

A conversion between formats does not change the bytes of the floats. In files of named arrays, parameter 0 of a layer
is named ``<layer>.weight``, parameter 1 ``<layer>.bias`` and any other ``<layer>.<i>``, similar to a state dict of
PyTorch; the name of a layer may contain dots. A safetensors file also stores the net as prototxt in its metadata, so
that it can be converted back to a complete caffemodel. A PyTorch file of another project can be read if its modules
have the names of Caffe's layers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath, WeightsError, did_you_mean
from reproduction.caffe.formats import blobs, caffemodel, file_kinds, files, hdf5, prototxt, tensors, torch_file
from reproduction.caffe.formats.upgrade import upgrade_net
from reproduction.caffe.formats.zip_archive import Archive
from reproduction.caffe.schema import LayerParameter, NetParameter
from reproduction.caffe.typing import Floats, Progress

FORMATS = {
    ".caffemodel": "caffemodel V2",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".safetensors": "safetensors",
    ".npz": "NumPy",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
}
_SUFFIXES = ("weight", "bias")
_PROTOTXT = "caffe.prototxt"  # the key of the net in the metadata of a safetensors file
_OWN = ("format", _PROTOTXT)  # the keys that ``write`` adds to that metadata


@dataclass
class Weights:
    """The weights of a net. Iteration yields ``(layer name, list of arrays)`` for each layer with parameters.

    Attributes:
        net: the layers with names and blobs, upgraded to the current form; the other fields are set if the file has
            them.
        notes: sentences that describe what was upgraded.
        format: the file's format, such as ``"caffemodel V1"`` or ``"safetensors"``.
        path: the file, named in errors.
        metadata: strings by name, which are stored in safetensors files only.
    """

    net: NetParameter
    notes: list[str] = field(default_factory=list)
    format: str = ""
    path: str = "<weights>"
    metadata: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, list[Floats]]]:
        for layer in self.net.layer:
            if layer.blobs:
                yield layer.name, [self._array(layer, i) for i in range(len(layer.blobs))]

    def arrays(self) -> dict[str, Floats]:
        """Return every parameter as an array by its key, such as ``conv1.weight``, in the order of the layers.

        The arrays are float32 or float64 views, in the shapes of Caffe 1.0. A parameter that the file does not contain
        because it is shared with another layer is omitted.

        Raises:
            WeightsError: If two layers with weights have the same name.
            CaffemodelError: If the shape of a blob does not fit its data.
        """
        found: dict[str, Floats] = {}
        for layer in self.net.layer:
            for i, blob in enumerate(layer.blobs):
                if blob.is_empty():
                    continue
                name = parameter_key(layer.name, i)
                if name in found:
                    raise WeightsError(f"two layers are called {layer.name!r}", path=self.path, remedy="Rename one.")
                found[name] = self._array(layer, i)
        return found

    def summary(self) -> dict[str, Any]:
        """Return a description of the weights that can be written as JSON.

        Returns:
            The file, its format, the net's name, what was upgraded, the layers with their types, shapes and dtypes, and
            the numbers of parameters and bytes.
        """
        types = {layer.name: layer.type for layer in self.net.layer}
        layers = [
            {
                "name": name,
                "type": types[name],
                "shapes": [list(values.shape) for values in arrays],
                "dtypes": [str(values.dtype) for values in arrays],
            }
            for name, arrays in self
        ]
        arrays = self.arrays().values()
        return {
            "file": self.path,
            "format": self.format,
            "net": self.net.name,
            "upgrades": self.notes,
            "layers": layers,
            "parameters": sum(values.size for values in arrays),
            "bytes": sum(values.nbytes for values in arrays),
        }

    def drop(self, layers: Iterable[str]) -> None:
        """Remove the layers with these names, and their weights.

        Raises:
            WeightsError: If there is no layer of such a name, or it has no weights.
        """
        names, layers = [name for name, _ in self], list(layers)
        for layer in layers:
            if layer not in names:
                remedy = did_you_mean(layer, names)
                raise WeightsError(f"there is no layer {layer!r} with weights to omit", path=self.path, remedy=remedy)
        self.net.layer = [layer for layer in self.net.layer if layer.name not in layers]  # type: ignore[assignment]

    def _array(self, layer: LayerParameter, i: int) -> Floats:
        blob = layer.blobs[i]
        if blob.is_empty():
            return np.empty(0, np.float32)
        values = blobs.to_array(blob, f"{self.path}: layer {layer.name!r} blob {i}")
        return values.reshape(blobs.modern_shape(blob, layer.type, i))


def parameter_key(layer: str, i: int) -> str:
    """Return the key of parameter ``i`` of a layer in files of named arrays: ``conv1.weight``, ``conv1.bias``, ..."""
    return f"{layer}.{_SUFFIXES[i] if i < len(_SUFFIXES) else i}"


def read(path: StrPath) -> Weights:
    """Read weights from a file of any format in ``FORMATS``.

    The content determines the format; where it does not, the file's ending does.

    Raises:
        CaffemodelError: If the file is of another kind, damaged, or contains no weights.
        NetError: If its net is in an old form that cannot be upgraded.
        WeightsError: If the name of an array is not that of a parameter.
        OSError: If the file cannot be opened.
    """
    try:
        return _read(path)
    except ReproductionError as error:
        raise file_kinds.wrong_kind_error(path, file_kinds.WEIGHTS) or error from None


def _read(path: StrPath) -> Weights:
    name = os.fspath(path)
    form = _format_of(path)
    if form == "caffemodel":
        found = _read_caffemodel(path)
    elif form == "HDF5":
        found = Weights(hdf5.load(path), format=form, path=name)
    elif form == "safetensors":
        arrays, metadata = tensors.read_safetensors(path)
        net = _load_embedded_net(metadata, name)
        kept = {key: text for key, text in metadata.items() if key not in _OWN}
        found = Weights(_add_blobs(net, arrays, name), format=form, path=name, metadata=kept)
    else:
        arrays = _strip_module_prefix(torch_file.read(path)) if form == "PyTorch" else tensors.read_npz(path)
        found = Weights(_add_blobs(NetParameter(), arrays, name), format=form, path=name)
    if not any(layer.blobs for layer in found.net.layer):
        raise CaffemodelError(
            "the file contains no weights",
            path=path,
            got=f"{len(found.net.layer)} layers without parameters",
            remedy="Pass the trained model, not the net's definition or the solver's state.",
        )
    return found


def write(weights: Weights, path: StrPath, progress: Progress | None = None) -> None:
    """Write weights atomically to a file, in the format of its ending.

    Args:
        weights: the weights.
        path: the file; its ending is a key of ``FORMATS``, such as ``.caffemodel``, ``.caffemodel.h5``,
            ``.safetensors``, ``.pt`` or ``.npz``.
        progress: called after each write with the number of bytes written so far, and those of all arrays.

    Raises:
        WeightsError: If the ending is unknown, two layers with weights have the same name, or a caffemodel is written
            and a shared parameter is missing.
        ReproductionError: If a name is not valid in the format, or the file cannot be written.
    """
    form, report = format_for(path), None
    if progress:
        total = sum(values.nbytes for values in weights.arrays().values())

        def report(done: int, _: int | None) -> None:
            progress(min(done, total), total)

    if form == "HDF5":
        hdf5.dump(_with_modern_shapes(weights), path, report)
    elif form == "safetensors":
        metadata = weights.metadata | {"format": "pt", _PROTOTXT: prototxt.dumps(_without_blobs(weights.net))}
        tensors.write_safetensors(weights.arrays(), path, metadata, report)
    elif form == "PyTorch":
        tensors.write_torch(weights.arrays(), path, report)
    elif form == "NumPy":
        tensors.write_npz(weights.arrays(), path, report)
    else:
        _check_complete(weights)
        caffemodel.dump(weights.net, path, report)


def format_for(path: StrPath) -> str:
    """Return the format, a value of ``FORMATS``, in which ``write`` writes a file with the ending of ``path``.

    Raises:
        WeightsError: If the ending is not a key of ``FORMATS``.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise WeightsError(
            "the ending is not that of a format of weights",
            path=path,
            got=repr(suffix),
            want=", ".join(sorted(FORMATS)),
        )
    return FORMATS[suffix]


def _format_of(path: StrPath) -> str:
    """Return the format of a file by its content; a zip archive is PyTorch or NumPy by its members."""
    data = files.map_file(path)
    found = files.kind(data)
    known = {files.HDF5: "HDF5", files.SAFETENSORS: "safetensors", files.TORCH: "PyTorch"}
    if found == files.ZIP:
        return "PyTorch" if any(name.endswith("data.pkl") for name in Archive(data, path).members) else "NumPy"
    if found is None:
        return FORMATS.get(Path(path).suffix.lower(), "caffemodel").split()[0]
    return known.get(found, "caffemodel")


def _read_caffemodel(path: StrPath) -> Weights:
    net = caffemodel.load(path, NetParameter)
    version = "V2"
    if net.layers:
        version = "V0" if any(layer.has("layer") for layer in net.layers) else "V1"
    try:
        notes = upgrade_net(net)
    except ReproductionError as error:
        raise error.at(os.fspath(path)) from None
    return Weights(net, notes, f"caffemodel {version}", os.fspath(path))


def _strip_module_prefix(arrays: dict[str, Floats]) -> dict[str, Floats]:
    """Remove the prefix ``module.``, which DataParallel of torch adds, if all names have it."""
    prefix = "module."
    if arrays and all(name.startswith(prefix) for name in arrays):
        return {name.removeprefix(prefix): values for name, values in arrays.items()}
    return arrays


def _load_embedded_net(metadata: Mapping[str, str], path: str) -> NetParameter:
    net = prototxt.loads(metadata.get(_PROTOTXT, ""), NetParameter, f"{path}: {_PROTOTXT}")
    for layer in net.layer:
        layer.clear("blobs")
    return net


def _add_blobs(net: NetParameter, arrays: Mapping[str, Floats], path: str) -> NetParameter:
    """Add arrays as blobs to the layers of a net by their keys; create the layers that the net lacks."""
    layers: dict[str, dict[int, Floats]] = {}
    for name, values in arrays.items():
        layer, i = _parse_key(name, path)
        layers.setdefault(layer, {})[i] = values
    by_name = {layer.name: layer for layer in net.layer}
    for name, numbered in layers.items():
        target = by_name.get(name)
        if target is None:
            target = net.layer.add(name=name)
        target.blobs.extend(blobs.from_numbered_arrays(numbered, f"{path}: layer {name!r}"))
    return net


def _parse_key(name: str, path: str) -> tuple[str, int]:
    layer, _, suffix = name.rpartition(".")
    if layer and suffix in _SUFFIXES:
        return layer, _SUFFIXES.index(suffix)
    if layer and suffix.isascii() and suffix.isdigit() and len(suffix) < 9 and int(suffix) >= len(_SUFFIXES):
        return layer, int(suffix)
    raise WeightsError(
        f"array {name!r} is not a parameter of a layer", path=path, want="LAYER.weight, LAYER.bias, LAYER.2 and so on"
    )


def _without_blobs(net: NetParameter) -> NetParameter:
    bare = net.copy()
    for layer in bare.layer:
        layer.clear("blobs")
    return bare


def _check_complete(weights: Weights) -> None:
    for layer in weights.net.layer:
        for i, blob in enumerate(layer.blobs):
            if blob.is_empty():
                raise WeightsError(
                    f"parameter {i} of layer {layer.name!r} is not in the file; another layer owns it",
                    path=weights.path,
                    remedy="A caffemodel contains every parameter: write .h5, .safetensors, .pt or .npz.",
                )


def _with_modern_shapes(weights: Weights) -> NetParameter:
    """Return a copy of the net in which every blob has the shape of Caffe 1.0, as in Caffe's own HDF5 files."""
    net = weights.net.copy()
    for layer in net.layer:
        for i, blob in enumerate(layer.blobs):
            if blobs.is_legacy(blob):
                blobs.set_shape(blob, blobs.modern_shape(blob, layer.type, i))
    return net
