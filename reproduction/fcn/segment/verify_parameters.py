"""Checks of the parameters of a net whose weights are verified: their names, shapes and values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import WeightsError, join_first
from reproduction.caffe.formats.weights import Weights, parameter_key
from reproduction.caffe.net.net import Net
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.nets import surgery
from reproduction.fcn.segment.verification import WeightsCheck, passed_if

WANT_PARAMETERS = "every parameter of the net by name and shape, and no others"
WANT_FINITE = "no NaN, no infinity"
WANT_LEARNED = "different values in every learned parameter"
WANT_FIXED = "bilinear kernels and constant scales, exactly as the prototxt fixes them"
WANT_SPREAD = "the weights of every class spread 1/N to N times as much as the median class's, for N classes"
#: What passes each check of the values, by its name.
WANT_VALUES = {"finite": WANT_FINITE, "learned": WANT_LEARNED, "fixed": WANT_FIXED, "spread of scores": WANT_SPREAD}


def copy_parameters(net: Net, weights: Weights) -> tuple[WeightsCheck, bool]:
    """Copy weights to a net, and check that they are all parameters of the net and no others.

    Scale layers whose constant the prototxt states may be missing: other programs have these numbers in their code.

    Args:
        net: the net to change.
        weights: the weights that were read from the file.

    Returns:
        The result of the check, and whether every parameter of the net now has a value.
    """
    try:
        report = net.copy_from(weights.net, weights.path)
    except WeightsError as error:
        return passed_if(False, "parameters", str(error).removeprefix(f"{weights.path}: "), WANT_PARAMETERS), False
    missing, wrong = surgery.list_misfits(net, report)
    got = wrong or f"{len(list(_name_parameters(net)))} parameters in {len(report.copied)} layers"
    return passed_if(not wrong, "parameters", got, WANT_PARAMETERS), not missing


def check_finite(net: Net) -> WeightsCheck:
    """Check that no parameter of a net contains NaN or infinity."""
    counts = {name: int((~blob.isfinite()).sum()) for name, blob, _ in _name_parameters(net)}
    wrong = [f"{count} in {name}" for name, count in counts.items() if count]
    return passed_if(not wrong, "finite", join_first(wrong, 6) or "none", WANT_FINITE)


def check_learned(net: Net) -> WeightsCheck:
    """Check that no learned parameter has the same value everywhere, as a constant filler leaves it."""
    wrong = [
        f"{blob.flatten()[0]:g} everywhere in {name}"
        for name, blob, is_learned in _name_parameters(net)
        if is_learned and blob.numel() > 1 and bool((blob == blob.flatten()[0]).all())
    ]
    return passed_if(not wrong, "learned", join_first(wrong, 6) or "no constant parameter", WANT_LEARNED)


def check_fixed(net: Net) -> WeightsCheck:
    """Check that parameters that training does not change have exact values: bilinear kernels, constant scales."""
    learned = {name.rpartition(".")[0] for name, _, is_learned in _name_parameters(net) if is_learned}
    upsampling = [
        name for name, layer in net.layers.items() if layer.layer_param.type == "Deconvolution" and name not in learned
    ]
    scales = surgery.find_constant_scales(net)
    found = {name: net.params[name][0].detach().clone() for name in [*upsampling, *scales]}
    with torch.no_grad():
        for name in upsampling:
            net.params[name][0].zero_()
        surgery.interp(net, upsampling)
        for name in scales:
            net.params[name][0].fill_(net.layers[name].layer_param.scale_param.filler.value)
        differences = {name: int((net.params[name][0] != blob).sum()) for name, blob in found.items()}
        for name, blob in found.items():
            net.params[name][0].copy_(blob)
    wrong = [f"{count} other values in {name}" for name, count in differences.items() if count]
    return passed_if(not wrong, "fixed", join_first(wrong, 6) or f"{', '.join(found)} as fixed", WANT_FIXED)


def check_spread(net: Net, record: NetRecord) -> WeightsCheck:
    """Check that the weights of each class in the score layers have a similar standard deviation ("spread").

    On the same features, the score of a class varies in proportion to the standard deviation of its weights. If this is
    more than N times the median of N classes, the class outweighs all others together; if it is less than 1/N, all
    others outweigh it, whatever the image shows. A layer that was never trained is zero, with no spread at all.

    Args:
        net: the net with its weights.
        record: the record of the net, which states its classes.
    """
    ranges, wrong = [], []
    for layer in find_score_layers(net, record):
        spread = net.params[layer][0].detach().flatten(1).numpy().std(axis=1)  # of each output channel
        classes = next(head.classes for head in record.heads if len(head.classes) == len(spread))
        median = float(np.median(spread))
        if not median > 0:
            wrong.append(f"{layer}: the median spread is {median:g}")
            continue
        ratios = spread / median
        ranges.append(f"{layer} {ratios.min():.2f} to {ratios.max():.2f}")
        wrong += [
            f"{layer}: {ratio:.2g} for {name!r}"
            for name, ratio in zip(classes, ratios, strict=True)
            if not 1 / len(classes) <= ratio <= len(classes)
        ]
    return passed_if(not wrong, "spread of scores", join_first(wrong or ranges, 6), WANT_SPREAD)


def find_score_layers(net: Net, record: NetRecord) -> list[str]:
    """Return the names of the score layers: the convolutions that compute one channel for each class."""
    counts = {len(head.classes) for head in record.heads}
    return [
        name
        for name, layer in net.layers.items()
        if name.startswith("score")
        and layer.layer_param.type == "Convolution"
        and layer.layer_param.convolution_param.num_output in counts
    ]


def find_absent_scales(net: Net, weights: Weights) -> list[str]:
    """Return the names of the Scale layers for which a file has no weights, but the prototxt states their constant.

    Args:
        net: the net.
        weights: the weights that were read from the file.
    """
    there = {layer.name for layer in weights.net.layer if layer.blobs}
    return [name for name in surgery.find_constant_scales(net) if name not in there]


def count_values(net: Net) -> int:
    """Return the number of values in all parameters of a net."""
    return sum(blob.numel() for _, blob, _ in _name_parameters(net))


def _name_parameters(net: Net) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield the name of each parameter, its values, and whether training changes it."""
    for layer, blobs in net.params.items():
        for i, (blob, spec) in enumerate(zip(blobs, net.param_specs[layer], strict=True)):
            yield parameter_key(layer, i), blob.detach(), spec.lr_mult != 0
