"""Poolings as ONNX operators, for the layers Pooling, SPP and LRN.

ONNX counts windows and padding differently from Caffe in rare cases. Operators for these cases are right only for the
height and width for which the net was built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window, pool_sizes
from reproduction.caffe.layers.onnx_graph import OnnxLayer, window_attributes
from reproduction.caffe.schema import PoolMethod, RoundMode

_LEAST = -float(np.finfo(np.float32).max)  # the initial value of Caffe's maximum


def add_pool(
    onnx: OnnxLayer, value: str, method: PoolMethod, windows: Sequence[Window], rounding: RoundMode, step: str = ""
) -> str:
    """Add the operators of a pooling without a second top, in testing, and return the name of the result.

    Args:
        onnx: Adds operators to the graph.
        value: The name of the value to pool, (N, C, H, W), with the height and width of the layer's first bottom.
        method: How the values of a window are combined.
        windows: The windows along height and width.
        rounding: Whether the size of the result is rounded up or down.
        step: What the result is; see ``OnnxLayer.node``.
    """
    if method is PoolMethod.MAX:
        return _add_max_pool(onnx, value, windows, rounding, step)
    if method is PoolMethod.AVE:
        return add_average_pool(onnx, value, windows, rounding, step)
    # STOCHASTIC pooling, in testing: the mean of the squares divided by the mean, and 0 if the mean is.
    square = onnx.node("Mul", value, value, step=f"{step}squares")
    means = [add_average_pool(onnx, each, windows, rounding, f"{step}mean") for each in (square, value)]
    zero = onnx.number(0.0, "zero")
    positive = onnx.node("Greater", means[1], zero, step=f"{step}positive")
    divisor = onnx.node("Where", positive, means[1], onnx.number(1.0, "one"), step=f"{step}divisor")
    return onnx.node("Where", positive, onnx.node("Div", means[0], divisor, step=f"{step}ratio"), zero, step=step)


def _add_max_pool(onnx: OnnxLayer, value: str, windows: Sequence[Window], rounding: RoundMode, step: str) -> str:
    # Caffe: Without padding a window may start past the end (pooling_layer.cpp L107); ONNX drops such a window.
    if rounding is RoundMode.CEIL and any(not window.pad and window.kernel < window.stride for window in windows):
        padded = _pad_to_windows(onnx, value, windows, rounding, _LEAST)
        return onnx.node("MaxPool", padded, step=step, **_without_padding(windows))
    ceil = int(rounding is RoundMode.CEIL)
    return onnx.node("MaxPool", value, step=step, ceil_mode=ceil, **window_attributes(windows))


def add_average_pool(
    onnx: OnnxLayer, value: str, windows: Sequence[Window], rounding: RoundMode, step: str = ""
) -> str:
    """Add the operators of an average pooling and return the name of the result; see ``add_pool``.

    Padding counts as zeros, but positions beyond the padding do not count.

    Raises:
        NetError: If a window may start past the end, where Caffe divides 0 by 0.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cpp L201-L233.
    """
    attributes = _without_padding(windows)
    if rounding is RoundMode.CEIL and any(not window.pad and window.kernel < window.stride for window in windows):
        got = f"kernel {windows[0].kernel}, stride {windows[0].stride}"
        raise NetError("an average of windows that may be empty cannot be written as ONNX", got=got)
    if rounding is RoundMode.CEIL and any(window.pad > window.kernel - window.stride for window in windows):
        sizes, area = onnx.fix_sizes(), []
        for size, window, count in zip(sizes, windows, pool_sizes(sizes, windows, rounding), strict=True):
            start = np.arange(count) * window.stride - window.pad
            area.append(np.minimum(start + window.kernel, size + window.pad) - start)
        padded = _pad_to_windows(onnx, value, windows, rounding, 0.0)
        mean = onnx.node("AveragePool", padded, step=f"{step}full_mean", **attributes)
        share = np.float32(np.prod(attributes["kernel_shape"])) / np.outer(*area).astype(np.float32)
        return onnx.node("Mul", mean, onnx.constant(share, f"{step}share"), step=step)
    pads = [window.pad for window in windows]
    if any(pads):
        value = onnx.node("Pad", value, onnx.constant(np.array([0, 0, *pads] * 2), "pads"), step=f"{step}padded")
    ceil = int(rounding is RoundMode.CEIL)
    return onnx.node("AveragePool", value, step=step, ceil_mode=ceil, count_include_pad=0, **attributes)


def add_max_pool_with_positions(
    onnx: OnnxLayer, value: str, windows: Sequence[Window], rounding: RoundMode
) -> list[str]:
    """Add the operators of a max pooling with a second top, and return the names of both; see ``pooling.max_pool``.

    The positions follow from those of MaxPool, which are indices into the whole padded value.
    """
    height, width = onnx.fix_sizes()
    counts = pool_sizes((height, width), windows, rounding)
    padded = _pad_to_windows(onnx, value, windows, rounding, _LEAST)
    if all(window.kernel == window.stride and not window.pad for window in windows):
        return _add_adjacent_maxima(onnx, padded, windows, counts)
    high, wide = ((n - 1) * window.stride + window.kernel for n, window in zip(counts, windows, strict=True))
    top, index = onnx.node_with_outputs("MaxPool", padded, steps=("maxima", "indices"), **_without_padding(windows))
    columns = onnx.constant(wide, "columns")
    within = onnx.node("Mod", index, onnx.constant(high * wide, "pixels"), step="within")
    row = onnx.node("Sub", onnx.node("Div", within, columns, step="padded_row"),
                    onnx.constant(windows[0].pad, "pad_h"), step="row")  # fmt: skip
    column = onnx.node("Sub", onnx.node("Mod", within, columns, step="padded_column"),
                       onnx.constant(windows[1].pad, "pad_w"), step="column")  # fmt: skip
    inside = _add_inside(onnx, row, height, "row")
    inside = onnx.node("And", inside, _add_inside(onnx, column, width, "column"), step="inside")
    start = onnx.node("Mul", row, onnx.constant(width, "width"), step="row_start")
    place = onnx.node("Add", start, column, step="place")
    kept = onnx.node("Where", inside, place, onnx.constant(-1, "outside"), step="kept")
    return [top, onnx.cast(kept, np.float32, "position")]


def _add_adjacent_maxima(onnx: OnnxLayer, padded: str, windows: Sequence[Window], counts: Sequence[int]) -> list[str]:
    """Add the operators of ``add_max_pool_with_positions`` for adjacent windows, which begin at the first pixel.

    The position is that of the first value of the window that equals the maximum. Some runtimes compute the positions
    of MaxPool many times more slowly than these comparisons.
    """
    width, (high, wide) = onnx.fix_sizes()[1], (window.kernel for window in windows)
    top = onnx.node("MaxPool", padded, step="maxima", **_without_padding(windows))
    steps, axes = onnx.constant(np.array([high, wide]), "steps"), onnx.constant(np.array([2, 3]), "axes")
    end = onnx.constant(np.array([count * side for count, side in zip(counts, (high, wide), strict=True)]), "end")
    within = onnx.number((high - 1) * width + wide - 1, "last")
    for row, column in list(np.ndindex(high, wide))[-2::-1]:
        start = onnx.constant(np.array([row, column]), f"from_{row}_{column}")
        part = onnx.node("Slice", padded, start, end, axes, steps, step=f"part_{row}_{column}")
        equal = onnx.node("Equal", part, top, step=f"equal_{row}_{column}")
        place = onnx.number(row * width + column, f"place_{row}_{column}")
        within = onnx.node("Where", equal, place, within, step=f"first_{row}_{column}")
    rows, columns = (np.arange(count, dtype=np.float32) for count in counts)
    windows_start = onnx.constant(rows[:, None] * (high * width) + columns * wide, "window_starts")
    return [top, onnx.node("Add", within, windows_start, step="position")]


def _add_inside(onnx: OnnxLayer, index: str, length: int, axis: str) -> str:
    """Add operators that compare an index with 0 and ``length``."""
    least = onnx.node("GreaterOrEqual", index, onnx.constant(0, f"{axis}_first"), step=f"{axis}_from_0")
    most = onnx.node("Less", index, onnx.constant(length, f"{axis}_end"), step=f"{axis}_below_end")
    return onnx.node("And", least, most, step=f"{axis}_inside")


def _without_padding(windows: Sequence[Window]) -> dict[str, Any]:
    return {**window_attributes(windows), "pads": [0] * 4}


def _pad_to_windows(onnx: OnnxLayer, value: str, windows: Sequence[Window], rounding: RoundMode, fill: float) -> str:
    """Pad with ``fill``, or crop at the end, so that the last window ends where the result ends."""
    sizes = onnx.fix_sizes()
    counts = pool_sizes(sizes, windows, rounding)
    ends = [
        (count - 1) * window.stride + window.kernel - window.pad - size
        for size, window, count in zip(sizes, windows, counts, strict=True)
    ]
    pads = onnx.constant(np.array([0, 0, *(window.pad for window in windows), 0, 0, *ends]), "pads")
    return onnx.node("Pad", value, pads, onnx.number(fill, "fill"), step="padded")
