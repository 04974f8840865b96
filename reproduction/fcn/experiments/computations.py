"""The experiments that train nothing: upper bounds, the cost of windows, and shift-and-stitch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from reproduction.caffe.net import net_info
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.experiments import dense_output
from reproduction.fcn.experiments.runs import Measured, Settings
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import forward_time, mini_nets, receptive_field, registry
from reproduction.fcn.scoring import upper_bound
from reproduction.fcn.segment import any_net

_TRIALS = 5
_BATCH = 10  # windows at a time

# By data set: the net, the size of a window that its classifier takes, the padding of the first layer there, and the
# size of an image for which the net computes 10 x 10 outputs.
_WINDOWS = {
    "mini": ("mini-fcn32s", mini_nets.CROP, mini_nets.PAD, mini_nets.CROP + 9 * 32),
    "voc": ("voc-fcn-alexnet", 227, 0, 500),
}
# The blobs with scores that are made dense, by their stride, and the net of each.
_LARGEST_STRIDE = 8  # of nets of VGG16's width: more passes would take hours
_STRIDES = {8: ("fcn8s", "score_pool3"), 16: ("fcn16s", "score_pool4"), 32: ("fcn32s", "score_fr")}


def bound_by_stride(settings: Settings) -> list[Measured]:
    """Return the upper bounds on mean IU for each factor; see ``upper_bound.compute_upper_bounds``."""
    dataset = settings.open_dataset()
    bounds = upper_bound.compute_upper_bounds(
        dataset, next(iter(dataset.label_classes)), limit=settings.limit, progress=settings.progress("bounds", "image")
    )
    return [
        Measured(str(factor), {f"{way}_iu": [scores[factor].mean_iu] for way, scores in bounds.items()})
        for factor in upper_bound.FACTORS
    ]


def compare_windows(settings: Settings) -> list[Measured]:
    """Return the cost of classifying a window, and of computing the outputs of 10 x 10 windows by one convolution.

    The nets have seeded weights, on which the cost does not depend. Times are CPU times of one thread.
    """
    name, window, pad, size = _WINDOWS[settings.set_name]
    net_param = dense_output.cut_before(registry.load_net(name), "score_fr", pad)
    one, batch, image = (
        Net(net_param, inputs={"data": (count, 3, side, side)}, seed=0)
        for count, side in ((1, window), (_BATCH, window), (1, size))
    )
    outputs = image.blob_shapes["score_fr"][2] * image.blob_shapes["score_fr"][3]
    passes = {net: partial(net, {"data": torch.zeros(net.blob_shapes["data"])}) for net in (batch, image)}
    seconds = forward_time.time_in_turns(passes, _TRIALS, settings.progress("windows", "pass"))
    rows = (("a window", one, 1, seconds[batch] / _BATCH), ("the image", image, outputs, seconds[image]))
    found = []
    for label, net, count, each in rows:
        products = net_info.count_products(net) / 1e6
        figures = {"outputs": count, "products_millions": products, "products_an_output_millions": products / count}
        figures |= {"forward_ms": 1000 * each, "an_output_ms": 1000 * each / count}
        found.append(_make_row(label, **figures))
    return found


def _make_row(label: str, **figures: float) -> Measured:
    """Return a row of figures that no seed changes."""
    return Measured(label, {column: [float(value)] for column, value in figures.items()})


def compare_dense_outputs(settings: Settings) -> list[Measured]:
    """Return, for each stride, the cost of shift-and-stitch and of filter rarefaction, and how their outputs differ.

    Padding is left out, so that the two agree up to the border; the image is random. Differences are relative to the
    largest output.

    Raises:
        WeightsError: If the weights of a net are missing.
    """
    found = []
    for stride, (ending, blob) in _STRIDES.items():
        if stride > _LARGEST_STRIDE and settings.set_name != "mini":
            continue
        name = f"{settings.set_name}-{ending}"
        net_param = dense_output.drop_padding(dense_output.cut_before(registry.load_net(name), blob))
        found += _compare_at(stride, net_param, blob, name, settings)
    return found


def _compare_at(stride: int, net_param: NetParameter, blob: str, name: str, settings: Settings) -> list[Measured]:
    field = receptive_field.compute_net_figures(net_param).receptive_field
    side = field + stride - 1  # each shift gives one output
    path = local_files.find_weights(registry.find_net(name), settings.weights)
    net = any_net.load_net_with_weights(name, net_param, path, inputs={"data": (1, 3, field, field)})
    dense = dense_output.RarefiedNet(net)
    image = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(0)) * 50
    progress, done = settings.progress(f"{name}, {stride**2} shifts", "pass"), 0

    def compute(shifted: Tensor) -> Tensor:
        nonlocal done
        progress(done := done + 1, stride**2)
        scores: Tensor = net({"data": shifted})[blob]
        return scores

    stitched, stitch_s = _run(lambda: dense_output.shift_and_stitch(compute, image, stride))
    rarefied, rarefy_s = _run(lambda: dense(image))
    difference = float((stitched - rarefied).abs().max() / stitched.abs().max())
    products, dense_products = net_info.count_products(net) * stride**2 / 1e6, dense.count_products(side, side) / 1e6
    return [
        _make_row(
            f"stride {stride}, shift-and-stitch",
            passes=stride**2,
            products_millions=products,
            cpu_s=stitch_s,
            difference=0,
        ),
        _make_row(
            f"stride {stride}, filter rarefaction",
            passes=1,
            products_millions=dense_products,
            cpu_s=rarefy_s,
            difference=difference,
        ),
    ]


def _run(compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
    with torch.inference_mode():
        start = time.process_time()
        result = compute()
        return result, time.process_time() - start
