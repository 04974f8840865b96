"""Write a plan as a graph of standard operators, which other runtimes can run.

The graph is right for one input size. As in the plan, only the pixels that the image reaches are computed. The pixels
around them are constants, which are concatenated with the computed ones; padding by zeros is that of the operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.onnx_graph import OnnxGraph, OnnxLayer
from reproduction.fast.convolution import ConvolutionOp
from reproduction.fast.deconvolution import upsampling_matrix
from reproduction.fast.ops import CropOp, MaxPoolOp, Op, UpsamplingOp, WindowOp
from reproduction.fast.planner import Choice
from reproduction.fast.regions import EMPTY, Region


def add_plan(choice: Choice, graph: OnnxGraph, inputs: Mapping[str, str], wanted: Sequence[str]) -> dict[str, str]:
    """Add the operators of a plan to a graph.

    Args:
        choice: What is computed, from ``Planner.choose`` for the same blobs.
        graph: The graph that the operators are added to.
        inputs: For each input of the net, the name of its value in the graph, which is float32 and has the shape that
            the plan was made for.
        wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a change in place.

    Returns:
        For each requested blob, the name of its value in the graph.

    Raises:
        NetError: If a layer has no equivalent in ONNX.
    """
    writer = _PlanWriter(choice, graph)
    for name, value in inputs.items():
        writer.add_input(name, value)
    for op in choice.ops:
        writer.add_op(op)
    return {name: writer.complete(name) for name in wanted}


class _PlanWriter:
    """Writes the ops of a plan in order.

    Attributes:
        values: For each blob, the name of its value in the graph: the pixels of the region ``stored(name)``.
    """

    def __init__(self, choice: Choice, graph: OnnxGraph):
        self.choice, self.graph = choice, graph
        self.facts, self.regions = choice.facts, choice.regions
        self.values: dict[str, str] = {}

    def add_input(self, name: str, value: str) -> None:
        """Add an input of the net, of which only the needed region is used."""
        if name in self.regions:
            value = self._slice(value, Region.from_shape(self.facts.shapes[name]), self.regions[name].computed)
        self._store(name, value)

    def add_op(self, op: Op) -> None:
        """Add the operators that compute the tops of an op, and the constants around them."""
        blob = self.regions.get(op.tops[0]) if op.tops else None
        computed = blob.computed if blob else EMPTY
        if op.computes_regions and blob and not computed.pixels:
            return  # only the shape of the top is read
        shapes = [self.facts.shapes[bottom] for bottom in op.bottoms]
        reads = op.regions_read(computed, shapes)
        bottoms = [self._read(name, region) for name, region in zip(op.bottoms, reads, strict=True)]
        if isinstance(op, CropOp):
            tops = bottoms[:1]
        elif isinstance(op, ConvolutionOp):
            tops = [self._convolve(op, bottoms, computed)]
        elif isinstance(op, MaxPoolOp):
            tops = [self.graph.node("MaxPool", bottoms, op.tops[0], **self._window_attributes(op, computed))]
        elif isinstance(op, UpsamplingOp):
            assert reads[0] is not None
            tops = [self._upsample(op, bottoms[0], reads[0], computed)]
        else:
            sizes = [
                (*shape[:2], *(side.size for side in region)) if region and name in self.regions else shape
                for name, region, shape in zip(op.bottoms, reads, shapes, strict=True)
            ]
            tops = self._run_layers(op, bottoms, sizes)
        for top, value in zip(op.tops, tops, strict=True):
            self._store(top, value)

    def complete(self, name: str) -> str:
        """Return the value of a complete blob."""
        return self._read(name, Region.from_shape(self.facts.shapes[name]))

    def _convolve(self, op: ConvolutionOp, bottoms: Sequence[str], computed: Region) -> str:
        """Add a convolution with the layers that were folded into it."""
        inputs = [bottoms[0]]
        for blob, values in zip(("weight", "bias"), op.weight_and_bias(), strict=True):
            if values is not None:
                inputs.append(self.graph.constant(values.numpy(), f"{op.name}.{blob}"))
        dilations, attributes = [window.dilation for window in op.windows], self._window_attributes(op, computed)
        y = self.graph.node("Conv", inputs, op.tops[0], dilations=dilations, group=op.group, **attributes)
        y = self.graph.node("Add", [y, bottoms[1]], f"{op.tops[0]}.sum") if op.sums else y
        return self.graph.node("Relu", [y], f"{op.tops[0]}.relu") if op.relu else y

    def _window_attributes(self, op: WindowOp, computed: Region) -> dict[str, list[int]]:
        """Return kernel size, stride and padding of an operator that reads no padding of its bottom."""
        windows = computed.read_by(op.windows)
        inside = windows & Region.from_shape(self.facts.shapes[op.bottoms[0]])
        before = [part.start - side.start for part, side in zip(inside, windows, strict=True)]
        after = [side.stop - part.stop for part, side in zip(inside, windows, strict=True)]
        kernel, strides = ([getattr(window, name) for window in op.windows] for name in ("kernel", "stride"))
        return {"kernel_shape": kernel, "strides": strides, "pads": before + after}

    def _upsample(self, op: UpsamplingOp, bottom: str, read: Region, computed: Region) -> str:
        """Add the two products of matrices that upsample along rows and columns."""
        rows, columns = map(upsampling_matrix, op.factors, op.windows, read, computed)
        right, left = (
            self.graph.constant(matrix.detach().float().numpy(), f"{op.name}.{axis}")
            for axis, matrix in (("columns", columns.T), ("rows", rows))
        )
        y = self.graph.node("MatMul", [bottom, right], f"{op.name}.wide")
        y = self.graph.node("MatMul", [left, y], op.tops[0])
        if op.bias is None:
            return y
        bias = self.graph.constant(op.bias.detach().numpy()[:, None, None], f"{op.name}.bias")
        return self.graph.node("Add", [y, bias], f"{op.name}.sum")

    def _run_layers(self, op: Op, bottoms: Sequence[str], shapes: Sequence[Shape]) -> list[str]:
        """Add the operators of an op's layer, and of those folded into it, for bottoms of the given shapes."""
        values = list(bottoms)
        for each in (op, *getattr(op, "folded", ())):
            try:
                values = each.layer.to_onnx(OnnxLayer(self.graph, each.layer, shapes), *values)
            except NetError as error:
                raise error.at(each.layer.layer_param.place) from None
        return values

    def _read(self, name: str, region: Region | None) -> str:
        """Return the value of a region of a blob, without padding; None is the complete blob or what there is of it."""
        if region is None or name not in self.regions:
            return self.values.get(name, "")
        return self._slice(self.values[name], self._stored(name), region & Region.from_shape(self.facts.shapes[name]))

    def _stored(self, name: str) -> Region:
        """Return the region of a blob whose pixels its value has: all that are needed, without padding."""
        blob, whole = self.regions[name], Region.from_shape(self.facts.shapes[name])
        return (blob.needed & whole) | blob.computed

    def _store(self, name: str, value: str) -> None:
        """Store the value of a blob's computed region, with the needed pixels around it as constants."""
        self.values[name] = value
        if name not in self.regions:
            return
        stored, inner = self._stored(name), self.regions[name].computed
        beside = Region(inner.rows, stored.columns)  # first left and right, then above and below of that
        for axis, outer, core in ((3, beside, inner), (2, stored, beside)):
            parts = {strip: self._border(name, strip) for strip in outer.strips_around(core)} | {
                core: self.values[name]
            }
            if len(parts) > 1:
                ordered = [parts[part] for part in sorted(parts, key=lambda r: (r.rows.start, r.columns.start))]
                self.values[name] = self.graph.node("Concat", ordered, f"{name}.framed", axis=axis)

    def _border(self, name: str, strip: Region) -> str:
        """Add pixels that no pixel of the image reaches, as a constant."""
        assert self.choice.zero_values is not None
        values = self.facts.expand(self.choice.zero_values[name], name, strip)
        repeated = values.expand(self.facts.shapes[name][0], -1, -1, -1)
        return self.graph.constant(repeated.numpy(), f"{name}.border")

    def _slice(self, value: str, have: Region, want: Region) -> str:
        """Return the part of a value, which has the pixels of ``have``, with those of ``want``."""
        if have == want:
            return value
        slices = want.slices_in(have)
        ends = [[part.start for part in slices], [part.stop for part in slices], [2, 3]]
        inputs = [value, *(self.graph.constant(np.array(end, np.int64), f"{value}.slice") for end in ends)]
        return self.graph.node("Slice", inputs, f"{value}.part")
