"""Net surgery: copy weights between nets whose layers differ slightly, to initialize one net from another.

For any net of ``registry.NETS``, ``initialize`` does what the published solve.py does, and what solve.py leaves to
weight files that were never published: it converts a classifier's fully connected layers to convolutions, adds a fourth
channel to the first convolution, and starts a net with two inputs from two nets.

Source: shelhamer/fcn.berkeleyvision.org@1305c73 surgery.py, and each net's solve.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError, WeightsError, did_you_mean, join_first
from reproduction.caffe.formats import blobs
from reproduction.caffe.net.copy_weights import CopyReport, assign_values, copy_blobs
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.typing import Float64, Floating
from reproduction.fcn.datasets import NetRecord, PublishedNet
from reproduction.fcn.nets.published_nets import SKIPS
from reproduction.fcn.nets.systems.system import System

Source = Net | NetParameter


def transplant(target: Net, source: Source, suffix: str = "") -> CopyReport:
    """Copy the weights of all layers that two nets share by name; reshape them if only their shapes differ.

    A fully connected layer (O, I H W) and a convolution (O, I, H, W) hold the same weights, so either can be loaded
    into the other. Layers and blobs that the target lacks are ignored.

    Args:
        target: The net to change.
        source: The net to copy from, or an upgraded ``NetParameter`` with blobs, such as a caffemodel contains.
        suffix: What is appended to a layer's name in the source to get its name in the target, as nets with two inputs
            require.

    Returns:
        A report of which layers were copied, reshaped, ignored and left unchanged.

    Raises:
        WeightsError: If a blob has another number of elements, or no layer of the source exists in the target. The
            target is unchanged.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 surgery.py L5-L31.
    """
    # Upstream bug, fixed: the published transplant assigns to `.flat`, which repeats or truncates the values if the
    # sizes differ. Here different sizes raise an error.
    return copy_blobs(_to_message(source), target.params, suffix=suffix, reshape=True)


def upsample_filt(size: int) -> Float64:
    """Return the kernel of bilinear upsampling by the factor ``(size + 1) // 2``, for a Deconvolution layer.

    Args:
        size: Height and width of the kernel.

    Returns:
        (size, size) float64, with values of at most 1.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 surgery.py L33-L44.
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    taps = 1 - np.abs(np.arange(size) - centre) / factor
    return np.asarray(taps[:, None] * taps[None, :], np.float64)


def interp(net: Net, layers: Iterable[str] | None = None) -> list[str]:
    """Set the weights of upsampling layers (Deconvolution) to bilinear interpolation of each channel.

    The weights between different channels are unchanged: they are zero unless the prototxt sets a filler.

    Args:
        net: The net to change.
        layers: Names of the layers; None for every Deconvolution.

    Returns:
        The names of the layers that were set.

    Raises:
        NetError: If there is no such layer, its kernel is not square, or it does not have either as many outputs as
            inputs or one output per group. The net is unchanged.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 surgery.py L46-L59.
    """
    if layers is None:
        layers = [name for name, layer in net.layers.items() if layer.layer_param.type == "Deconvolution"]
    names = list(layers)
    for name in names:
        shape = tuple(_blob(net, name, 0).shape)
        if len(shape) != 4 or shape[2] != shape[3]:
            problem = "only square kernels interpolate"
        elif shape[0] != shape[1] and shape[1] != 1:
            problem = "a layer that interpolates has as many outputs as inputs, or one output a group"
        else:
            continue
        # Upstream bug, fixed: if a layer cannot interpolate, the published interp prints a message and executes a
        # bare `raise`, which fails with an unrelated error. Here it raises a NetError.
        raise NetError(problem, layer=name, got=shape, want="(C, C, K, K) or (C, 1, K, K)")
    for name in names:
        blob = _blob(net, name, 0)
        rows = torch.arange(blob.shape[0], device=blob.device)
        kernel = torch.from_numpy(upsample_filt(blob.shape[2])).to(blob)
        with torch.no_grad():
            blob[rows, rows if blob.shape[1] > 1 else 0] = kernel
    return names


def expand_score(target: Net, new_layer: str, source: Source, layer: str) -> None:
    """Copy the weights of a score layer into one with more classes; the new layer's first classes get them.

    Args:
        target: The net to change.
        new_layer: Name of its score layer, whose weights are (K', C, H, W).
        source: The net to copy from, or an upgraded ``NetParameter`` with blobs.
        layer: Name of the source's score layer, whose weights are (K, C, H, W) with K <= K'.

    Raises:
        NetError: If the target has no such layer with weights.
        WeightsError: If the source has no such layer, or its blobs do not fit. The target is unchanged.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 surgery.py L61-L68.
    """
    arrays, mine = _find_both(target, new_layer, source, layer)
    # Upstream bug, fixed: the published expand_score indexes the bias as a four-dimensional blob, which fails for the
    # one-dimensional bias of a convolution. Here the weights and the bias are both copied.
    arrays = [values.reshape(-1) if blob.dim() == 1 else values for values, blob in zip(arrays, mine, strict=True)]
    for i, (blob, values) in enumerate(zip(mine, arrays, strict=True)):
        if values.shape[1:] != tuple(blob.shape[1:]) or len(values) > len(blob):
            raise WeightsError(
                f"layer {layer!r} blob {i} does not fit into layer {new_layer!r}",
                got=values.shape,
                want=f"{tuple(blob.shape)}, or fewer classes",
            )
    for blob, values in zip(mine, arrays, strict=True):
        assign_values(blob[: len(values)], values)


def widen_input(target: Net, new_layer: str, source: Source, layer: str) -> None:
    """Copy a first convolution into one with more input channels; added channels get the mean of the others' weights.

    Args:
        target: The net to change.
        new_layer: Name of its first convolution, whose weights are (O, C', H, W).
        source: The net to copy from, or an upgraded ``NetParameter`` with blobs.
        layer: Name of the source's first convolution, whose weights are (O, C, H, W) with C <= C'.

    Raises:
        NetError: If the target has no such layer with weights.
        WeightsError: If the source has no such layer, or its blobs do not fit. The target is unchanged.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 nyud-fcn32s-color-d/solve.py L29-31.
    """
    arrays, mine = _find_both(target, new_layer, source, layer)
    old, new = arrays[0].shape, tuple(mine[0].shape)
    if len(old) != len(new) or old[:1] + old[2:] != new[:1] + new[2:] or not 0 < old[1] <= new[1]:
        raise WeightsError(
            f"layer {layer!r} does not widen to layer {new_layer!r}", got=old, want=f"{new}, or fewer channels"
        )
    for i, (blob, values) in enumerate(zip(mine[1:], arrays[1:], strict=True), 1):
        if values.size != blob.numel():
            raise WeightsError(
                f"layer {layer!r} blob {i} does not fit layer {new_layer!r}", got=values.shape, want=tuple(blob.shape)
            )
    assign_values(mine[0][:, : old[1]], arrays[0])
    for channel in range(old[1], new[1]):
        assign_values(mine[0][:, channel], arrays[0].mean(axis=1))
    for blob, values in zip(mine[1:], arrays[1:], strict=True):
        assign_values(blob, values)


@dataclass(frozen=True)
class InitReport:
    """Where the initial weights of a net came from, layer by layer; ``str()`` formats it as text.

    Attributes:
        transplants: For each parent net by name, which of its layers were copied, see ``transplant``.
        widened: The name of the first convolution if it was widened, see ``widen_input``; else empty.
        interpolated: The names of the upsampling layers, which were set to bilinear interpolation.
        new: The names of the layers that keep their filler's values: new score layers, and the fixed scales of nets
            whose skips are trained together with the rest.
    """

    transplants: dict[str, CopyReport]
    widened: list[str]
    interpolated: list[str]
    new: list[str]

    def __str__(self) -> str:
        parts = [f"{name}: {report}" for name, report in self.transplants.items()]
        lists = {"widened": self.widened, "interpolated": self.interpolated, "new": self.new}
        parts += [f"{word}: {', '.join(names)}" for word, names in lists.items() if names]
        return "\n".join(parts)


def initialize(net: Net, record: NetRecord, parents: Mapping[str, NetParameter]) -> InitReport:
    """Initialize a net for training from the weights of its parents, as its published solve.py does.

    The parents' weights are transplanted, upsampling layers are set to bilinear interpolation, and a first convolution
    with more input channels than the parent's is widened. All other layers keep the values of the prototxt's fillers:
    zero for new score layers, and constants for the scales of at-once nets, whose skips are trained together with the
    rest.

    Args:
        net: The net to initialize, newly built.
        record: The record of the net, which names its parents.
        parents: The weights of each parent by its name: an upgraded ``NetParameter`` with blobs.

    Returns:
        A report of where the weights of each layer came from.

    Raises:
        WeightsError: If ``parents`` has other names than ``record.parents``, a parent's weights do not fit, or the
            parents lack a layer other than the first convolution and those of ``find_new_layers``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's solve.py.
    """
    if parents.keys() != record.parents.keys():
        raise WeightsError(
            f"{record.name} starts from the weights of other nets",
            got=join_first(list(parents), 4),
            want=join_first(list(record.parents), 4),
        )
    if parents:
        _check_complete(net, record, parents)
    transplants: dict[str, CopyReport] = {}
    widened = []
    for parent, suffix in record.parents.items():
        source, first = parents[parent], record.first + suffix
        try:
            transplants[parent] = transplant(net, source, suffix)
            if first in transplants[parent].untouched:
                widen_input(net, first, source, next(layer.name for layer in source.layer if layer.blobs))
                widened.append(first)
        except WeightsError as error:
            raise error.at(f"{record.name} from {parent}") from None
    interpolated = interp(net, find_bilinear_layers(net))
    untouched = set(net.params).intersection(*(report.untouched for report in transplants.values()))
    new = [name for name in net.params if name in untouched - {*widened, *interpolated}]
    return InitReport(transplants, widened, interpolated, new)


def find_new_layers(record: NetRecord) -> list[str]:
    """Return the names of a net's layers that none of its parents has: new score layers, and fixed scales.

    Only at-once nets, whose skips are trained together with the rest, have fixed scales.
    """
    if isinstance(record, System):
        return list(record.new_layers)
    assert isinstance(record, PublishedNet)
    pools = [pool for stride, pool, _ in SKIPS if stride >= record.stride]
    scores = ["score_fr", *(f"score_{pool}" for pool in pools)]
    if record.late:
        scores = []  # each parent has its own
    elif pools and not record.at_once:
        scores = scores[-1:]  # the previous stage has the others
    scales = [f"scale_{pool}" for pool in pools if record.at_once]
    return [f"{name}{head.suffix}" for head in record.heads for name in scores] + scales


def find_bilinear_layers(net: Net) -> list[str]:
    """Return the names of the upsampling layers (Deconvolution) for which the prototxt states no ``weight_filler``.

    Their weights are zero, so that no gradient passes, until ``interp`` sets them.
    """
    return [
        name
        for name, layer in net.layers.items()
        if layer.layer_param.type == "Deconvolution" and not layer.layer_param.convolution_param.has("weight_filler")
    ]


def find_constant_scales(net: Net) -> list[str]:
    """Return the names of layers whose weights the prototxt states: Scale, a constant filler and lr_mult 0.

    Other implementations have these numbers in their code, not in their weight files.
    """
    return [
        name
        for name, layer in net.layers.items()
        if layer.layer_param.type == "Scale"
        and layer.layer_param.scale_param.has("filler")
        and layer.layer_param.scale_param.filler.type == "constant"
        and not any(spec.lr_mult for spec in net.param_specs.get(name, []))
    ]


def list_misfits(net: Net, report: CopyReport) -> tuple[list[str], str]:
    """Return what does not fit after weights were copied to a net, but for scales whose constants the prototxt states.

    Args:
        net: The net.
        report: What was copied.

    Returns:
        The names of the net's layers that got no weights, and a description of them and of surplus weights; empty if
        there are none.
    """
    missing = [name for name in report.untouched if name not in find_constant_scales(net)]
    lists = {"no weights for": missing, "surplus weights for": report.ignored}
    return missing, "; ".join(f"{what} {join_first(names, 6)}" for what, names in lists.items() if names)


def _check_complete(net: Net, record: NetRecord, parents: Mapping[str, NetParameter]) -> None:
    provided = {
        layer.name + suffix for name, suffix in record.parents.items() for layer in parents[name].layer if layer.blobs
    }
    may_lack = {*find_new_layers(record), *(record.first + suffix for suffix in record.parents.values())}
    for name, layer in net.layers.items():
        if layer.blob_names and layer.layer_param.type != "Deconvolution" and name not in provided | may_lack:
            raise WeightsError(
                f"layer {name!r} of {record.name} is not in the weights of {join_first(list(parents), 4)}",
                got=join_first(sorted(provided), 4) or "no layers with weights",
                remedy="They belong to another net, or to an earlier stage.",
            )


def _to_message(source: Source) -> NetParameter:
    return source if isinstance(source, NetParameter) else source.to_proto()


def _find_both(target: Net, new_layer: str, source: Source, layer_name: str) -> tuple[list[Floating], list[Tensor]]:
    """Return the arrays of a layer of the source, and the blobs of a layer of the target that get them."""
    layers = {layer.name: layer for layer in _to_message(source).layer if layer.blobs}
    if layer_name not in layers:
        raise WeightsError(f"the weights have no layer {layer_name!r}", remedy=did_you_mean(layer_name, layers))
    arrays = [blobs.to_array(blob) for blob in layers[layer_name].blobs]
    return arrays, [_blob(target, new_layer, i) for i in range(len(arrays))]


def _blob(net: Net, layer: str, index: int) -> Tensor:
    params = net.params.get(layer)
    if params is None or index >= len(params):
        remedy = did_you_mean(layer, net.params)
        raise NetError(f"there is no blob {index} to write into", layer=layer, remedy=remedy)
    return params[index]
