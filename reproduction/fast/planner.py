"""Plan the computation for one input size: which ops run, which regions they compute, and where the rest comes from."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.fast.blob_facts import BlobFacts
from reproduction.fast.blob_regions import (
    BlobRegions,
    assign_regions,
    choose_graph_borders,
    count_products,
    find_bordered_blobs,
    find_needed_ops,
    find_zero_image_blobs,
)
from reproduction.fast.folding import fold
from reproduction.fast.ops import Op, WindowOp
from reproduction.fast.plan import ExecutionPlan, build_plan

_ZERO_IMAGES = 256  # cached results of images of zeros
_PATIENCE = 8  # calls within which the cost of an image of zeros must pay off, for an input size that was seen before
_ZERO_SIZES = 12  # sizes of an image of zeros that are tried, each larger than the last by one period

Execute = Callable[[ExecutionPlan, Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass
class Choice:
    """How to compute the requested blobs for one input size, as ``Planner.choose`` has decided.

    Attributes:
        ops: The needed ops.
        facts: Facts about their blobs.
        regions: The regions of each blob, by name.
        zero_values: Values that the plan copies from an image of zeros: a dict, empty if it copies none, in the form of
            ``BlobFacts.compress``; None if it could copy some, but computing them does not pay off.
    """

    ops: list[Op]
    facts: BlobFacts
    regions: dict[str, BlobRegions]
    zero_values: Mapping[str, Tensor] | None


class Planner:
    """Decides how a net computes blobs for each input size, and builds the plans.

    Args:
        ops: The net's ops, in order.
        inputs: Names of the net's inputs.
        device: The net's device.
        execute: A function that executes a plan on inputs by name; it is called with images of zeros.
        steady: Whether results must not depend on the calls before: an image of zeros then has to pay off by itself,
            also if its values are there already, and no steps are recorded.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        inputs: Sequence[str],
        device: torch.device,
        execute: Execute,
        *,
        steady: bool = False,
    ):
        self.ops, self.inputs, self.device = ops, inputs, device
        self.steady = steady
        self.zero_images: OrderedDict[Hashable, Mapping[str, Tensor]] = OrderedDict()
        self._execute = execute

    def build(self, choice: Choice, wanted: list[str]) -> ExecutionPlan:
        """Build the plan for a ``Choice``.

        Args:
            choice: The result of ``choose`` for the same blobs.
            wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a change in place.
        """
        values = choice.zero_values or {}
        return build_plan(choice.ops, choice.facts, wanted, choice.regions, values, record=not self.steady)

    def choose(
        self, shapes: Mapping[str, Shape], wanted: list[str], *, patient: bool = False, as_graph: bool = False
    ) -> Choice:
        """Choose which ops run and which region of each blob they compute.

        The values of an image of zeros that the plan copies are computed here, unless that does not pay off.

        Args:
            shapes: Shapes of the inputs by name.
            wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a change in place.
            patient: Whether later calls will use the plan, too, so that it may cost more to prepare.
            as_graph: Whether it is for a graph that another runtime computes, in which other borders pay off; it may
                cost more to prepare, too.

        Raises:
            NetError: If the inputs do not fit the net.
        """
        needed = find_needed_ops(fold(self.ops, wanted), wanted)
        facts = BlobFacts.compute(needed, shapes)
        find_borders = choose_graph_borders if as_graph else find_bordered_blobs
        regions = assign_regions(needed, facts, wanted, find_borders(needed, facts, wanted))
        blobs = find_zero_image_blobs(facts, regions)
        if not blobs:
            return Choice(needed, facts, regions, {})
        zero_values = self._compute_zero_values(needed, blobs, facts, patient=patient or as_graph)
        if zero_values is None:
            regions = assign_regions(needed, facts, wanted)
        return Choice(needed, facts, regions, zero_values)

    def _compute_zero_values(
        self, ops: list[Op], blobs: list[str], facts: BlobFacts, *, patient: bool
    ) -> Mapping[str, Tensor] | None:
        """Return compressed blobs for an image of zeros, computed from a small one; None if that does not pay off.

        It must pay off within this call, or within ``_PATIENCE`` calls if ``patient`` is True.
        """
        ops = find_needed_ops(ops, blobs)
        small = self._find_small_size(ops, blobs, facts)
        if small is None:
            return None
        shapes = {name: shape for name, shape in small.shapes.items() if name in self.inputs}
        key = (tuple(sorted(shapes.items())), tuple(blobs))
        regions = assign_regions(ops, small, blobs)
        if key not in self.zero_images or self.steady:
            cost = count_products(ops, regions)
            saved = count_products(ops, assign_regions(ops, facts, blobs))
            if cost > (_PATIENCE if patient else 0.5) * saved:
                return None
        if key not in self.zero_images:
            zeros = {name: torch.zeros(shape, device=self.device) for name, shape in shapes.items()}
            values = self._execute(build_plan(ops, small, blobs, regions, {}), zeros)
            self.zero_images[key] = {name: small.compress(values[name], name) for name in blobs}
            if len(self.zero_images) > _ZERO_IMAGES:
                self.zero_images.popitem(last=False)
        self.zero_images.move_to_end(key)
        return self.zero_images[key]

    def _find_small_size(self, ops: list[Op], blobs: list[str], facts: BlobFacts) -> BlobFacts | None:
        """Return the facts for the smallest inputs for which the given blobs have the same margins as in ``facts``.

        Each of these blobs must have a uniform pixel. None if no tried size satisfies this.
        """
        inputs = {name: shape for name, shape in facts.shapes.items() if name in self.inputs}
        sizes = {shape[2:] for shape in inputs.values() if len(shape) == 4}
        if len(sizes) != 1 or len({len(shape) for shape in inputs.values()}) != 1:
            return None
        size = sizes.pop()
        # The number of pixels after which the windows of all strides align again.
        period = math.prod(max(window.stride for window in op.windows) for op in ops if isinstance(op, WindowOp))
        for count in range(_ZERO_SIZES):
            rows, columns = (min(side, side % period + period * count) for side in size)
            if not rows or not columns:
                continue
            try:
                small = BlobFacts.compute(ops, {name: (1, shape[1], rows, columns) for name, shape in inputs.items()})
            except NetError:  # too small for the net
                continue
            if all(small.margins(blob) == facts.margins(blob) and small.uniform[blob].pixels for blob in blobs):
                return small
        return None
