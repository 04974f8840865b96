"""The parts of a drawing: groups of equal units with their captions, and the wires between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from reproduction.caffe.geometry import Shape, Window
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, PoolMethod
from reproduction.figure.units import Unit, find_readers, read_units

Readers = Mapping[Unit, Sequence[Unit]]

_TIMES, _DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
_SIGNS = {"SUM": "+", "PROD": _TIMES, "MAX": "max"}


@dataclass(frozen=True)
class WireStep:
    """What happens on a wire: an upsampling, a crop or a multiplication by a constant.

    Attributes:
        kind: ``up``, ``crop`` or ``scale``.
        lines: The caption; an upsampling has several lines.
        is_named: Whether the first line is a name.
    """

    kind: str
    lines: tuple[str, ...]
    is_named: bool = False


@dataclass(eq=False)
class Wire:
    """A connection from one part to another.

    Attributes:
        source: The part whose output is read.
        steps: What happens on the way, in order.
    """

    source: Part
    steps: tuple[WireStep, ...]


@dataclass(eq=False)
class Part:
    """One box of a drawing.

    Attributes:
        kind: ``image``, ``conv``, ``score``, ``pool``, ``module``, ``map``, ``join``, ``loss`` or ``other``.
        lines: The caption; the first line is the name.
        sign: The text inside a join, a loss or another layer; empty for boxes that stand for blobs.
        slabs: The number of channels of each box, side by side.
        stride: Pixels of the image from one value to the next; None for vectors.
        wires: The connections to the parts that it reads.
    """

    kind: str
    lines: tuple[str, ...]
    sign: str
    slabs: tuple[int, ...]
    stride: Fraction | None
    wires: list[Wire] = field(default_factory=list)


def find_parts(net: Net) -> list[Part]:
    """Return the parts of the drawing of a net, each after those that it reads.

    Args:
        net: The net. It may be on the device ``meta``, since no values are computed.
    """
    units = read_units(net)
    readers = find_readers(units)
    classes = _count_classes(readers)
    on_wires = _find_steps(readers)
    parts: dict[Unit, Part] = {}
    for group in _group(units, readers, classes, on_wires):
        part = _make_part(group, classes)
        for source in group[0].bottoms:
            steps: list[WireStep] = [_own_step(group[0])] if part.kind == "map" else []
            while source in on_wires:
                steps.insert(0, describe_step(source))
                source = source.bottoms[0]  # noqa: PLW2901 (the wire begins before its steps)
            part.wires.append(Wire(parts[source], tuple(steps)))
        parts.update(dict.fromkeys(group, part))
    return list(dict.fromkeys(parts.values()))


def _count_classes(readers: Readers) -> set[int]:
    """Return the numbers of channels of the outputs, by which score layers are recognized."""
    ends = (unit.bottoms[0] if unit.kind == "loss" else unit for unit, read_by in readers.items() if not read_by)
    return {unit.channels for unit in ends}


def _find_steps(readers: Readers) -> set[Unit]:
    """Return the units that are drawn on a wire: upsamplings, crops and factors that one part reads, not an end."""
    return {
        unit
        for unit, read_by in readers.items()
        if unit.kind in ("up", "crop", "scale") and len(read_by) == 1 and read_by[0].kind not in ("loss", "other")
    }


def _group(units: Sequence[Unit], readers: Readers, classes: set[int], on_wires: set[Unit]) -> list[list[Unit]]:
    """Return lists of units that are drawn side by side: convolutions or modules of one resolution in sequence."""
    groups: dict[Unit, list[Unit]] = {}  # by the last unit of each group
    for unit in units:
        if unit in on_wires:
            continue
        group = groups.pop(before, []) if (before := _find_equal_before(unit, readers, classes)) in groups else []
        groups[unit] = [*group, unit]
    return sorted(groups.values(), key=lambda group: units.index(group[0]))


def _find_equal_before(unit: Unit, readers: Readers, classes: set[int]) -> Unit | None:
    """Return the unit that only this one reads, if both are convolutions, or modules, of the same resolution."""
    if unit.kind not in ("conv", "module"):
        return None
    before = unit.bottoms[0]
    is_same = (before.kind, before.stride, readers[before]) == (unit.kind, unit.stride, [unit])
    return before if is_same and _is_score(before, classes) == _is_score(unit, classes) else None


def _is_score(unit: Unit, classes: set[int]) -> bool:
    return unit.kind == "conv" and unit.channels in classes


def _make_part(group: Sequence[Unit], classes: set[int]) -> Part:
    first, last = group[0], group[-1]
    kind, sign = first.kind, ""
    about: tuple[str, ...] = ()
    size = format_shape(last.shape, [unit.channels for unit in group])
    name = format_names([unit.name for unit in group])
    if kind == "conv":
        about = _describe_convolutions(group)
        kind = "score" if _is_score(first, classes) else kind
    elif kind == "pool":
        about, size = _describe_pooling(first), ""
    elif kind == "module":
        about = (_describe_modules(group),)
    elif kind in ("up", "crop", "scale"):
        kind = "map"
    elif kind == "join":
        operation = first.layer.eltwise_param.operation.name if first.layer.type == "Eltwise" else ""
        sign, size = _SIGNS.get(operation, "concat"), ""
    elif kind == "loss":
        sign, name, about, size = first.layer.type, "", _describe_loss(first), ""
    elif kind == "other":
        sign = first.layer.type
    slabs = tuple(unit.channels for unit in group)
    if kind == "join" and name.lower() == sign:
        name = ""
    lines = tuple(line for line in (name, *about, size) if line)
    return Part(kind, lines, sign, slabs, last.stride)


def format_names(names: Sequence[str]) -> str:
    """Format the names of units that are drawn side by side: ``conv1_1`` and ``conv1_2`` as ``conv1_1-2``.

    What follows a slash is left out, as in GoogLeNet's ``inception_3a/output``.
    """
    names = list(dict.fromkeys(name.partition("/")[0] or name for name in names))
    if len(names) == 1:
        return names[0]
    prefix = _common_start(names)
    first, last = names[0][len(prefix) :], names[-1][len(prefix) :]
    if not prefix or not first or not last:
        return f"{names[0]} {_DASH} {names[-1]}"
    suffix = _common_start([first[::-1], last[::-1]])[::-1]
    first = first.removesuffix(suffix) or first
    return f"{prefix}{first}{', ' if len(first) > 2 and len(names) == 2 else _DASH}{last}"


def _common_start(names: Sequence[str]) -> str:
    """Return the letters with which all names begin."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def format_shape(shape: Shape, channels: Sequence[int] = ()) -> str:
    """Format the size of a blob without its batch: ``64 x 698 x 698``, shorter if height and width are equal.

    Args:
        shape: The shape, (N, C, H, W) or shorter.
        channels: The channels of several blobs of this height and width; a range is shown if they differ.
    """
    low, high = min(channels, default=shape[1] if len(shape) > 1 else 1), shape[1] if len(shape) > 1 else 1
    width = f"{low:,}{_DASH}{high:,}" if low < high else f"{high:,}"
    if len(shape) != 4 or shape[2:] == (1, 1):
        return f"{width} {_TIMES} 1" if len(shape) == 4 else width
    sides = f"{shape[2]}\N{SUPERSCRIPT TWO}" if shape[2] == shape[3] else f"{shape[2]} {_TIMES} {shape[3]}"
    return f"{width} {_TIMES} {sides}"


def _window(layer: LayerParameter) -> Window:
    return find_class(layer).sliding_windows(layer)[0]


def _describe_convolutions(group: Sequence[Unit]) -> tuple[str, ...]:
    if group[0].layer.type == "InnerProduct":
        return ("fully connected",)
    windows = [_window(unit.layer) for unit in group]
    kernels = list(dict.fromkeys(f"{window.kernel}{_TIMES}{window.kernel}" for window in windows))
    count = f"{len(group)} " if len(kernels) == 1 < len(group) else ""
    first = windows[0]
    parts = []
    if first.stride > 1:
        parts.append(f"stride {first.stride}")
    if first.pad != (first.extent - 1) // 2:
        parts.append(f"pad {first.pad}")
    if max(window.dilation for window in windows) > 1:
        parts.append(f"dilation {max(window.dilation for window in windows)}")
    return f"{count}conv {', '.join(kernels)}", ", ".join(parts)


def _describe_pooling(unit: Unit) -> tuple[str, ...]:
    param, window = unit.layer.pooling_param, _window(unit.layer)
    method = {PoolMethod.MAX: "max", PoolMethod.AVE: "average"}.get(param.pool, "pool")
    if param.global_pooling:
        return (f"global {method}",)
    return f"{method} {window.kernel}{_TIMES}{window.kernel}", "stride 1" if window.stride == 1 < window.kernel else ""


def _describe_modules(group: Sequence[Unit]) -> str:
    is_sum = all(unit.layer.type == "Eltwise" and unit.branches == 2 for unit in group)
    plural = "s" if len(group) > 1 else ""
    return f"{len(group)} {'residual unit' if is_sum else 'module'}{plural}"


def _describe_loss(unit: Unit) -> tuple[str, ...]:
    crops = [describe_step(label).lines[0] for label in unit.labels if label.kind == "crop"]
    param = unit.layer.loss_param
    total = "sum" if param.has("normalize") and not param.normalize else "mean"
    return (f"{total} over pixels", *(f"labels: {crop}" for crop in crops))


def describe_step(unit: Unit) -> WireStep:
    """Return the caption of an upsampling, a crop or a factor."""
    layer = unit.layer
    if unit.kind == "crop":
        offsets = dict.fromkeys(layer.crop_param.offset or [0])
        return WireStep("crop", (f"crop {', '.join(map(str, offsets))}",))
    if unit.kind == "scale":
        return WireStep("scale", (f"{_TIMES} {layer.scale_param.filler.value:g}",))
    size = format_shape(unit.shape)
    if layer.type != "Deconvolution":
        return WireStep("up", (unit.name, layer.type, size), is_named=True)
    window = _window(layer)
    fixed = len(layer.param) > 0 and layer.param[0].lr_mult == 0
    about = f"{_TIMES}{window.stride}, kernel {window.kernel}"
    return WireStep("up", (unit.name, about, "fixed" if fixed else "learned", size), is_named=True)


def _own_step(unit: Unit) -> WireStep:
    """Return the step of a unit that ends a wire in a box of its name, without what the box says already."""
    step = describe_step(unit)
    return WireStep(step.kind, step.lines[1:-1]) if step.kind == "up" else step
