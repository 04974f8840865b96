"""Plans: the steps that compute the requested blobs of a net for inputs of one size."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType

from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.fast.blob_facts import BlobFacts
from reproduction.fast.blob_regions import BlobRegions, count_products, find_zero_image_blobs
from reproduction.fast.kernels import LARGE_TOP, Kernel, Read, RecordedKernels
from reproduction.fast.ops import Op
from reproduction.fast.regions import EMPTY, Region, Slices

# The border around the computed region of a blob: slices of the buffer, and values (1, C, h, w) or None for zeros.
Border = list[tuple[Slices, Tensor | None]]


@dataclass(frozen=True)
class BufferPlace:
    """How a blob is stored in a buffer.

    Attributes:
        shape: The shape of the buffer, ``(N, C, H, W)``.
        computed: The index of the pixels that are computed for each image; None for all of them.
        border: The pixels around the computed ones; see ``Border``.
    """

    shape: Shape
    computed: tuple[EllipsisType, slice, slice] | None
    border: Border


@dataclass
class ExecutionStep:
    """One step of a plan: a kernel, which pixels of the bottoms it reads, and where its tops are stored.

    Attributes:
        ops: The ops that are computed, in order; more than one if their kernels were merged.
        kernel: The kernel that computes the tops.
        reads: For each bottom, its name and the slices of its stored pixels to read; None reads all of them.
        tops: Names of the blobs that the kernel returns.
        places: For each top, how it is stored; None if the tensor that the kernel returns is kept.
        last_uses: Names of the blobs that no later step reads.
        released: Names of the blobs whose buffers can be reused after the step.
    """

    ops: tuple[Op, ...]
    kernel: Kernel
    reads: list[Read]
    tops: tuple[str, ...]
    places: list[BufferPlace | None] = field(default_factory=list)
    last_uses: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


@dataclass
class ExecutionPlan:
    """The steps that compute the requested blobs for inputs of one size.

    Attributes:
        facts: Facts about the blobs.
        regions: The regions of each blob with four axes, by name.
        wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a layer changed it in place.
        steps: The steps, in order.
        input_places: For each input by name, where it is stored; None if the given tensor is used.
        buffered: The names of the blobs that may be stored in buffers.
        products: Total number of multiplications of convolutions for one image.
        zero_image_blobs: Names of the blobs some pixels of which are copied from an image of zeros.
    """

    facts: BlobFacts
    regions: dict[str, BlobRegions]
    wanted: list[str]
    steps: list[ExecutionStep]
    input_places: dict[str, BufferPlace | None]
    buffered: set[str]
    products: int
    zero_image_blobs: list[str]


def build_plan(
    ops: Sequence[Op],
    facts: BlobFacts,
    wanted: list[str],
    regions: dict[str, BlobRegions],
    zero_values: Mapping[str, Tensor],
    *,
    record: bool = False,
) -> ExecutionPlan:
    """Build the plan that runs the given ops and computes the given regions.

    Args:
        ops: The ops, in order.
        facts: Facts about their blobs.
        wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a layer changed it in place.
        regions: The regions of each blob, from ``blob_regions.assign_regions``.
        zero_values: The values for an image of zeros of the blobs in ``blob_regions.find_zero_image_blobs``, by name
            and in the form of ``BlobFacts.compress``.
        record: Whether oneDNN may prepare steps together from the fourth execution on; last digits may change then.
    """
    steps = []
    for op in ops:
        blob = regions.get(op.tops[0]) if op.tops else None
        computed = blob.computed if blob else EMPTY
        if op.computes_regions and blob and not computed.pixels:
            continue  # only the shape of the top is read
        bottoms, reads = [], list[Read]()
        shapes = [facts.shapes[bottom] for bottom in op.bottoms]
        for bottom, region in zip(op.bottoms, op.regions_read(computed, shapes), strict=True):
            if region is not None:
                bottoms.append(region)
                stored = regions[bottom].stored if bottom in regions else None
                reads.append((bottom, region.extend(*op.overread(computed)).slices_in(stored) if stored else None))
        steps.append(ExecutionStep((op,), op.make_kernel(bottoms, computed), reads, op.tops))
    steps = _merge_recordable(steps, facts.shapes, regions, wanted) if record else steps

    def find_place(name: str, *, needs: bool = False) -> BufferPlace | None:
        blob = regions.get(name)
        if blob is None or not (needs or blob.has_border):
            return None
        shape = (*facts.shapes[name][:2], *(side.size for side in blob.stored))
        inner = (..., *blob.computed.slices_in(blob.stored)) if blob.has_border else None
        return BufferPlace(shape, inner, _make_border(name, blob, facts, zero_values))

    for step in steps:
        step.places = [find_place(top, needs=not i and step.kernel.needs_out) for i, top in enumerate(step.tops)]
    input_places = {name: find_place(name) for name in facts.shapes.keys() - {top for op in ops for top in op.tops}}
    buffers = _find_buffers(steps, input_places)
    _find_last_uses(steps, wanted, buffers)
    return ExecutionPlan(
        facts, regions, wanted, steps, input_places, {name for name, found in buffers.items() if found},
        count_products(ops, regions), find_zero_image_blobs(facts, regions),
    )  # fmt: skip


def _make_border(name: str, blob: BlobRegions, facts: BlobFacts, zero_values: Mapping[str, Tensor]) -> Border:
    """Return the border of a blob: zeros for its padding, and values for an image of zeros for its other pixels."""
    needed = blob.needed & Region.from_shape(facts.shapes[name])
    border: Border = [(strip.slices_in(blob.stored), None) for strip in blob.stored.strips_around(needed)]
    for strip in needed.strips_around(blob.computed):
        border.append((strip.slices_in(blob.stored), facts.expand(zero_values[name], name, strip)))
    return border


def _merge_recordable(
    steps: Iterable[ExecutionStep],
    shapes: Mapping[str, Shape],
    regions: Mapping[str, BlobRegions],
    wanted: Iterable[str],
) -> list[ExecutionStep]:
    """Merge adjacent steps whose kernels can be recorded, so that oneDNN prepares them together.

    A step that reads the border of another's top is not merged with it, and one with a very large top with none.
    """

    def can_record(step: ExecutionStep) -> bool:
        return step.kernel.is_recordable and all(
            top in regions and 4 * math.prod(shapes[top][:2]) * regions[top].computed.pixels < LARGE_TOP
            for top in step.tops
        )

    runs: list[list[ExecutionStep]] = [[]]
    for step in steps:
        bordered = {top for each in runs[-1] for top in each.tops if top in regions and regions[top].has_border}
        reads_border = not bordered.isdisjoint(name for name, _ in step.reads)
        if runs[-1] and can_record(step) and can_record(runs[-1][0]) and not reads_border:
            runs[-1].append(step)
        else:
            runs.append([step])
    result, needed = list[ExecutionStep](), set(wanted)
    for run in reversed(runs[1:]):
        is_alone = len(run) == 1 and run[0].kernel.needs_out
        result.append(_merge_run(run, needed) if can_record(run[0]) and not is_alone else run[0])
        needed.update(name for name, _ in result[-1].reads)
    return result[::-1]


def _merge_run(run: Sequence[ExecutionStep], needed: Collection[str]) -> ExecutionStep:
    """Return one step for steps that can be recorded, which returns those of their tops that are needed later."""
    computed = [top for step in run for top in step.tops]
    reads = list[Read]()
    for read in (read for step in run for read in step.reads if read[0] not in computed):
        reads += [read] if read not in reads else []  # slices cannot be hashed
    tops = tuple(top for top in computed if top in needed)
    kernel = RecordedKernels([(step.kernel, step.reads, step.tops) for step in run], reads, tops)
    return ExecutionStep(tuple(op for step in run for op in step.ops), kernel, reads, tops)


def _find_buffers(
    steps: Sequence[ExecutionStep], inputs: Mapping[str, BufferPlace | None]
) -> dict[str, frozenset[str]]:
    """Return, for each blob, the names of the blobs whose buffers its values may be in."""
    buffers = {name: frozenset({name} if place else ()) for name, place in inputs.items()}
    for step in steps:
        # A layer's own forward may return a view of a bottom, as Reshape does.
        shared = frozenset[str]()
        if step.kernel.may_return_views:
            shared = shared.union(*(buffers[name] for name, _ in step.reads))
        for top, place in zip(step.tops, step.places, strict=True):
            buffers[top] = frozenset({top}) if place else shared
    return buffers


def _find_last_uses(
    steps: Sequence[ExecutionStep], wanted: Iterable[str], buffers: Mapping[str, frozenset[str]]
) -> None:
    """Set ``last_uses`` and ``released`` of each step, so that memory is reused by later steps."""
    needed_later = set(wanted)
    in_use = set[str]().union(*(buffers[name] for name in needed_later))
    for step in reversed(steps):
        names = dict.fromkeys((*(name for name, _ in step.reads), *step.tops))
        step.last_uses = [name for name in names if name not in needed_later]
        step.released = sorted(set[str]().union(*(buffers[name] for name in step.last_uses)) - in_use)
        needed_later.update(step.last_uses)
        in_use.update(step.released)
