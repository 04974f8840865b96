"""Files of compiled nets: the net as prototxt, its weights, and the weights in the form that the kernels use.

They are safetensors files, which contain data only, and are mapped into memory: to open one, no weight is filled,
copied or converted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe import fillers
from reproduction.caffe.errors import NetError, ReproductionError, StrPath, WeightsError
from reproduction.caffe.formats import files, json_file, prototxt, tensors
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.typing import Array
from reproduction.fast.compiler import CompiledNet
from reproduction.fast.engines import check_engine
from reproduction.fast.precisions import supported_precision

#: Number of the form of these files and of the order in which kernels store weights; to be increased by each change.
VERSION = 1

_SETTINGS, _NET = tensors.COMPILED_NET, "caffe.prototxt"  # keys of the file's metadata
_AGAIN = "Compile the net again, and save it."

ZeroImages = Mapping[Hashable, Mapping[str, Tensor]]


def write(compiled: CompiledNet, path: StrPath) -> None:
    """Write a compiled net to a file, atomically; see ``CompiledNet.save``.

    Args:
        compiled: The compiled net, whose weights are those that its net has now.
        path: The file.

    Raises:
        ReproductionError: If the net has Python layers, or the file cannot be written.
    """
    net, discarded, converted = compiled.net, compiled._discarded, compiled._converted
    zero_images: ZeroImages = compiled._planner.zero_images
    if net.device.type != "cpu":  # a saved net is opened on the CPU
        converted, zero_images = {}, {}
    net_param = net.to_proto(blobs=False)
    net_param.state, net_param.force_backward = net.graph.state, net.graph.force_backward
    for layer_param in net_param.layer:
        if layer_param.type == "Python":
            raise NetError("a net with Python layers cannot be saved").at(layer_param.place)
    arrays: dict[str, Tensor] = {
        f"weights:{name}": blob for name, blob in net.named_parameters() if name not in discarded
    }
    arrays |= {f"converted:{name}": weight for name, weight in converted.items()}
    arrays |= {f"zeros{i}:{name}": x for i, each in enumerate(zero_images.values()) for name, x in each.items()}
    settings = compiled._options | {
        "version": VERSION,
        "discarded": sorted(discarded),
        "inputs": {name: net.blob_shapes[name] for name in net.inputs},
        "dialects": [layer_param.dialect for layer_param in net_param.layer],
        "zero_images": list(zero_images),
        "blas_order": any(layer.in_blas_order for layer in net.layers.values()),
    }
    metadata = {"format": "pt", _SETTINGS: json.dumps(settings), _NET: prototxt.dumps(net_param)}
    tensors.write_safetensors({name: _to_array(x) for name, x in arrays.items()}, path, metadata, align=True)


def load_compiled(path: StrPath) -> CompiledNet:
    """Open a compiled net that ``CompiledNet.save`` has written; it is on the CPU, and computes the same scores.

    The file is mapped into memory, from which the system reads what a call needs. It must not be changed as long as the
    net is used, but may be replaced or deleted. Changing a parameter of the net does not change the file.

    If the processor does not support the net's precision, the next more exact one is used, and the weights are
    converted again.

    Args:
        path: The file.

    Raises:
        ReproductionError: If the file is not a compiled net, is damaged or was written by another version; if its
            engine is not installed; or if the processor does not support its precision and weights were freed.
        OSError: If the file cannot be opened.
    """
    kind = files.kind(files.map_file(path))
    arrays, metadata = tensors.map_safetensors(path) if kind == files.SAFETENSORS else ({}, {})
    if _SETTINGS not in metadata:
        got = "weights" if arrays else kind or "something else"
        remedy = "CompiledNet.save() writes such files."
        raise WeightsError("this is not the file of a compiled net", path=path, got=got, remedy=remedy)
    try:
        settings = json_file.parse(metadata[_SETTINGS].encode())
        if settings["version"] != VERSION:
            problem, got = "another version of this program has saved this compiled net", settings["version"]
            raise WeightsError(problem, path=path, got=got, want=VERSION, remedy=_AGAIN)
        precision, discarded = settings["precision"], set(settings["discarded"])
        check_engine(settings["engine"])
        used = supported_precision(precision, "cpu")
        net = _build(path, metadata[_NET], settings, arrays, discarded)
        zero_images: ZeroImages = {
            (tuple((name, tuple(shape)) for name, shape in shapes), tuple(blobs)): {
                name: _to_tensor(arrays[f"zeros{i}:{name}"]) for name in blobs
            }
            for i, (shapes, blobs) in enumerate(settings["zero_images"])
        }
    except ReproductionError:
        raise
    except (KeyError, TypeError, ValueError, json_file.NotJsonError) as error:
        got = f"{type(error).__name__}: {error}"
        raise WeightsError("the file of this compiled net is damaged", path=path, got=got, remedy=_AGAIN) from None
    if discarded and used != precision:
        problem = f"this processor does not compute in {precision}, and other weights were freed"
        raise WeightsError(problem, path=path, remedy="Compile the net without discard, and save it.")
    begin = "converted:"
    converted = {name.removeprefix(begin): _to_tensor(x) for name, x in arrays.items() if name.startswith(begin)}
    options = {"steady": bool(settings["steady"]), "engine": settings["engine"], "discard": bool(discarded)}
    compiled = CompiledNet(net, used, **options, converted=converted, zero_images=zero_images)
    if compiled._discarded.keys() != discarded:
        missing = sorted(discarded.symmetric_difference(compiled._discarded))
        raise WeightsError("the file lacks weights of this compiled net", path=path, got=missing, remedy=_AGAIN)
    return compiled


def _build(
    path: StrPath, text: str, settings: dict[str, Any], arrays: Mapping[str, Array], discarded: Collection[str]
) -> Net:
    """Build the net of a file, whose parameters are the file's arrays; those that were freed are NaN."""
    net_param = prototxt.loads(text, NetParameter, f"{path}: net")
    for layer_param, dialect in zip(net_param.layer, settings["dialects"], strict=True):
        layer_param.dialect = dialect
    with fillers.postpone():
        inputs = {name: tuple(shape) for name, shape in settings["inputs"].items()}
        net = Net(net_param, None, inputs=inputs, blas_order=bool(settings["blas_order"]))
    for name, blob in net.named_parameters():
        if name in discarded:
            blob.data = blob.data.new_full((1,), math.nan).expand(blob.shape)
            continue
        values = _to_tensor(arrays[f"weights:{name}"])
        if values.shape != blob.shape:
            raise ValueError(f"{name} has the shape {tuple(values.shape)}")
        blob.data = values
    return net


def _to_array(tensor: Tensor) -> Array:
    """Return a tensor as an array that shares its memory if possible; bfloat16 as uint16."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype is torch.bfloat16 else tensor.numpy()


def _to_tensor(array: Array) -> Tensor:
    is_short = array.dtype == np.uint16
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if is_short else torch.from_numpy(array)
