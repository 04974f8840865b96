"""Checks of a weights file's conversion: that the weights fit a net, and that its blobs are equal before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reproduction.caffe.errors import ReproductionError, StrPath, WeightsError, join_first
from reproduction.caffe.formats import blobs, prototxt
from reproduction.caffe.formats.weights import Weights
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import BlobShape, LayerParameter, NetParameter, Phase
from reproduction.caffe.typing import Float32
from reproduction.fcn.datasets import voc
from reproduction.fcn.images import decode
from reproduction.fcn.nets import surgery

_SIDE = 500  # height and width of an input whose data layer determines the size
_DATA_LAYERS = ("Python", "Data", "ImageData", "HDF5Data", "MemoryData", "WindowData")
_CHANNELS = {"data": 3, "color": 3, "hha": 3}  # of these inputs; others, such as labels, have one channel


def check_weights(
    path: Path, weights: Weights, input_shapes: Mapping[str, Shape], *, legacy_crop: bool = False
) -> tuple[NetParameter, dict[str, Shape]]:
    """Check that weights have every parameter of a net and no others, without the memory that the net would need.

    Args:
        path: the net's prototxt.
        weights: the weights; constant Scale layers that they lack are added to them.
        input_shapes: the shapes of inputs by name, where the prototxt does not state them.
        legacy_crop: whether Crop layers without an offset align their bottoms, as in the Caffe of 2015.

    Returns:
        The net as a message, with Input layers in place of its data layers, and the shapes of its inputs by name.

    Raises:
        WeightsError: If a parameter of the net is missing, or if the file has weights of other layers.
    """
    net_param = _replace_data_layers(prototxt.load_net(path, legacy_crop=legacy_crop)[0])
    try:
        with torch.device("meta"):
            net = Net(net_param, Phase.TEST, inputs=input_shapes)
    except ReproductionError as error:
        raise error.at(str(path)) from None
    report = net.copy_from(weights.net, weights.path)
    _, wrong = surgery.list_misfits(net, report)
    if wrong:
        raise WeightsError(f"these are not the weights of {path}", path=weights.path, got=wrong)
    for name in report.untouched:  # Scale layers with a constant filler, which other programs keep in their code
        layer_param = net.layers[name].layer_param
        value = layer_param.scale_param.filler.value
        array = np.full(tuple(net.params[name][0].shape), value, np.float32)
        weights.net.layer.add(name=name, type=layer_param.type, blobs=[blobs.from_array(array)])
        weights.notes.append(f"{name}: {value:g} everywhere, as the prototxt states")
    return net_param, {name: net.blob_shapes[name] for name in net.inputs}


def _replace_data_layers(net_param: NetParameter) -> NetParameter:
    """Return a copy of the net with its data layers replaced by Input layers of typical shapes."""
    net_param = net_param.copy()
    for i, layer in enumerate(net_param.layer):
        if layer.type in _DATA_LAYERS and not layer.bottom:
            shapes = [BlobShape(dim=[1, _CHANNELS.get(top, 1), _SIDE, _SIDE]) for top in layer.top]
            new = LayerParameter(name=layer.name, type="Input", top=layer.top, input_param={"shape": shapes})
            new.include, new.exclude = layer.include, layer.exclude
            net_param.layer[i] = new
    return net_param


def make_inputs(image: StrPath, shapes: Mapping[str, Shape]) -> dict[str, Float32]:
    """Return an array for every input of a net, made from one image that is resized to the input's height and width.

    Inputs of three channels get the colours in BGR minus the mean; other inputs get 1 for bright pixels and 0 for dark
    ones. Inputs that do not have four axes are zero.

    Args:
        image: the image file.
        shapes: the shapes of the inputs by name, as ``check_weights`` returns them.
    """
    rgb = decode.read_rgb(image)
    inputs: dict[str, Float32] = {}
    for name, shape in shapes.items():
        values = np.zeros(shape, np.float32)
        if len(shape) == 4:
            resized = np.asarray(Image.fromarray(rgb).resize((shape[3], shape[2])), np.float32)
            bgr = resized[:, :, ::-1] - np.array(voc.MEAN_BGR, np.float32)
            values[:] = bgr.transpose(2, 0, 1) if shape[1] == 3 else resized.mean(axis=2) > 127
        inputs[name] = values
    return inputs


def compare_blobs(
    net_param: NetParameter,
    inputs: Mapping[str, Float32],
    before: Weights,
    after: Weights,
    progress: Callable[[], object] = lambda: None,
) -> int:
    """Run a net with two sets of weights, check that all blobs are equal bit by bit, and return the number of blobs.

    Args:
        net_param: the net, as ``check_weights`` returns it.
        inputs: the arrays of its inputs by name, see ``make_inputs``.
        before: the weights before the conversion.
        after: the weights after it.
        progress: called without arguments after each of the two runs.

    Raises:
        WeightsError: If a blob differs.
    """
    net = Net(net_param, Phase.TEST, inputs={name: values.shape for name, values in inputs.items()}).eval()
    digests: list[dict[str, str]] = []
    for weights in (before, after):
        with torch.no_grad():  # so that parameters that a file lacks are NaN, not those of the first file
            for blob in (blob for params in net.params.values() for blob in params):
                blob.fill_(float("nan"))
        net.copy_from(weights.net, weights.path)
        with torch.inference_mode():
            values = net(inputs, list(net.blob_shapes))
        digests.append({name: hashlib.blake2b(blob.numpy().tobytes()).hexdigest() for name, blob in values.items()})
        progress()
    different = [name for name in digests[0] if digests[0][name] != digests[1][name]]
    if different:
        got = f"blobs {join_first(different, 6)}"
        raise WeightsError("the converted net computes something else", path=after.path, got=got)
    return len(digests[0])
