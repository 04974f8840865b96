"""Plans: the steps that compute the requested blobs of a net for inputs of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from reproduction.fast.blob_facts import BlobFacts
from reproduction.fast.blob_regions import BlobRegions, count_products, find_zero_image_blobs
from reproduction.fast.kernels import Kernel, MaxPool
from reproduction.fast.ops import Op
from reproduction.fast.regions import EMPTY, Region, Slices
from reproduction.fast.winograd import PooledConvolution, WinogradConvolution

# The border around the computed region of a blob: slices of the buffer, and values (1, C, h, w) or None for zeros.
Border = list[tuple[Slices, Tensor | None]]


@dataclass
class ExecutionStep:
    """One step of a plan: a kernel, which pixels of the bottoms it reads, and which pixels of the tops it computes.

    Attributes:
        op: The op whose tops are computed.
        kernel: The kernel that computes the tops.
        reads: For each bottom, its name and the slices of its stored pixels to read; None reads all of them.
        regions: For each top, its regions in the plan; None for a top that does not have four axes.
        borders: For each top, the pixels to copy around the computed ones; see ``Border``.
        last_uses: Names of the blobs that no later step reads, so that their memory can be reused.
        fused: The step that is merged into this one and whose top is not stored, or None: a convolution, whose results
            this step pools.
    """

    op: Op
    kernel: Kernel
    reads: list[tuple[str, Slices | None]]
    regions: list[BlobRegions | None]
    borders: list[Border]
    last_uses: list[str] = field(default_factory=list)
    fused: ExecutionStep | None = None


@dataclass
class ExecutionPlan:
    """The steps that compute the requested blobs for inputs of one size.

    Attributes:
        facts: Facts about the blobs.
        regions: The regions of each blob with four axes, by name.
        wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a layer changed it in place.
        steps: The steps, in order.
        input_borders: For each input by name, the pixels to copy around it; see ``Border``.
        products: Total number of multiplications of convolutions for one image.
        zero_image_blobs: Names of the blobs some pixels of which are copied from an image of zeros.
    """

    facts: BlobFacts
    regions: dict[str, BlobRegions]
    wanted: list[str]
    steps: list[ExecutionStep]
    input_borders: dict[str, Border]
    products: int
    zero_image_blobs: list[str]


def build_plan(
    ops: Sequence[Op],
    facts: BlobFacts,
    wanted: list[str],
    regions: dict[str, BlobRegions],
    zero_values: Mapping[str, Tensor],
) -> ExecutionPlan:
    """Build the plan that runs the given ops and computes the given regions.

    Args:
        ops: The ops, in order.
        facts: Facts about their blobs.
        wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a layer changed it in place.
        regions: The regions of each blob, from ``blob_regions.assign_regions``.
        zero_values: The values for an image of zeros of the blobs in ``blob_regions.find_zero_image_blobs``, by name
            and in the form of ``BlobFacts.compress``.
    """

    def border(name: str) -> Border:
        return _make_border(name, regions[name], facts, zero_values) if name in regions else []

    steps = []
    for op in ops:
        tops = [regions.get(top) for top in op.tops]
        computed = tops[0].computed if tops and tops[0] else EMPTY
        if op.computes_regions and tops[0] and not computed.pixels:
            continue  # only the shape of the top is read
        bottoms, reads = [], list[tuple[str, Slices | None]]()
        shapes = [facts.shapes[bottom] for bottom in op.bottoms]
        for bottom, region in zip(op.bottoms, op.regions_read(computed, shapes), strict=True):
            if region is not None:
                bottoms.append(region)
                stored = regions[bottom].stored if bottom in regions else None
                reads.append((bottom, region.extend(*op.overread(computed)).slices_in(stored) if stored else None))
        steps.append(ExecutionStep(op, op.make_kernel(bottoms, computed), reads, tops, [*map(border, op.tops)]))
    steps = _fuse_pooling(steps, wanted)
    _find_last_uses(steps, wanted)
    inputs = facts.shapes.keys() - {top for op in ops for top in op.tops}
    return ExecutionPlan(
        facts, regions, wanted, steps, {name: border(name) for name in inputs},
        count_products(ops, regions), find_zero_image_blobs(facts, regions),
    )  # fmt: skip


def _make_border(name: str, blob: BlobRegions, facts: BlobFacts, zero_values: Mapping[str, Tensor]) -> Border:
    """Return the border of a blob: zeros for its padding, and values for an image of zeros for its other pixels."""
    needed = blob.needed & Region.from_shape(facts.shapes[name])
    border: Border = [(strip.slices_in(blob.stored), None) for strip in blob.stored.strips_around(needed)]
    for strip in needed.strips_around(blob.computed):
        border.append((strip.slices_in(blob.stored), facts.expand(zero_values[name], name, strip)))
    return border


def _fuse_pooling(steps: Iterable[ExecutionStep], wanted: Iterable[str]) -> list[ExecutionStep]:
    """Merge each max pooling with the convolution before it, if nothing else reads the convolution's top."""
    steps = list(steps)
    readers = Counter([*wanted, *(bottom for step in steps for bottom in step.op.bottoms)])
    fused: list[ExecutionStep] = []
    for step in steps:
        is_only_reader = fused and step.op.bottoms == fused[-1].op.tops and readers[step.op.bottoms[0]] == 1
        kernel = _fuse_kernels(fused[-1], step) if is_only_reader else None
        if kernel:
            fused[-1] = replace(step, kernel=kernel, reads=fused[-1].reads, fused=fused[-1])
        else:
            fused.append(step)
    return fused


def _fuse_kernels(convolution: ExecutionStep, pooling: ExecutionStep) -> PooledConvolution | None:
    """Return a kernel that convolves and pools, or None if the two steps cannot be merged.

    The windows of the pooling must be adjacent and start with the first computed pixel, and the top of the convolution
    must have no border.
    """
    convolved, pooled = convolution.regions[0], pooling.regions[0]
    if not isinstance(convolution.kernel, WinogradConvolution) or not isinstance(pooling.kernel, MaxPool):
        return None
    if not convolved or not pooled or convolved.stored != convolved.computed:
        return None
    sides = zip(pooling.kernel.windows, convolved.computed, pooled.computed, strict=True)
    if any(
        (window.kernel, window.pad) != (window.stride, 0) or low.start != high.start * window.stride
        for window, low, high in sides
    ):
        return None
    return PooledConvolution(convolution.kernel, pooling.kernel, convolved.computed)


def _find_last_uses(steps: Sequence[ExecutionStep], wanted: Iterable[str]) -> None:
    """Set ``last_uses`` of each step, so that the buffers of these blobs are reused by later steps."""
    needed_later = set(wanted)
    for step in reversed(steps):
        names = (*(name for name, _ in step.reads), *step.op.bottoms, *step.op.tops)
        step.last_uses = [name for name in dict.fromkeys(names) if name not in needed_later]
        needed_later.update(step.last_uses)
