"""Plans: the steps that compute the requested blobs of a net for inputs of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.fast.blob_facts import BlobFacts
from reproduction.fast.blob_regions import BlobRegions, count_products, find_zero_image_blobs
from reproduction.fast.kernels import Concatenation, Kernel, LayerForward, MaxPool, PassThrough
from reproduction.fast.ops import Op
from reproduction.fast.regions import EMPTY, Region, Slices
from reproduction.fast.winograd import PooledConvolution, WinogradConvolution

# The border around the computed region of a blob: slices of the buffer, and values (1, C, h, w) or None for zeros.
Border = list[tuple[Slices, Tensor | None]]


@dataclass(frozen=True)
class BufferPlace:
    """The part of a buffer in which a blob is stored.

    Attributes:
        buffer: The name of the buffer: that of the blob, or of the top of a Concat layer that the blob is a part of.
        shape: The shape of the buffer, ``(N, C, H, W)``.
        stored: The slices ``(n, c, h, w)`` of the buffer that the blob is stored in, or None for all of it.
        computed: The slices of these, for the pixels that are computed for each image; None for all of them.
        border: The pixels around the computed ones; see ``Border``.
    """

    buffer: str
    shape: Shape
    stored: tuple[slice, ...] | None
    computed: tuple[slice, ...] | None
    border: Border


@dataclass
class ExecutionStep:
    """One step of a plan: a kernel, which pixels of the bottoms it reads, and which pixels of the tops it computes.

    Attributes:
        op: The op whose tops are computed.
        kernel: The kernel that computes the tops.
        reads: For each bottom, its name and the slices of its stored pixels to read; None reads all of them.
        regions: For each top, its regions in the plan; None for a top that does not have four axes.
        places: For each top, where it is stored; None if the tensor that the kernel returns is kept.
        last_uses: Names of the blobs that no later step reads.
        released: Names of the buffers whose memory can be reused after the step.
        fused: The step that is merged into this one and whose top is not stored, or None: a convolution, whose results
            this step pools.
    """

    op: Op
    kernel: Kernel
    reads: list[tuple[str, Slices | None]]
    regions: list[BlobRegions | None]
    places: list[BufferPlace | None] = field(default_factory=list)
    last_uses: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    fused: ExecutionStep | None = None


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
        steps.append(ExecutionStep(op, op.make_kernel(bottoms, computed), reads, tops))
    steps = _fuse_pooling(steps, wanted)
    inputs = facts.shapes.keys() - {top for op in ops for top in op.tops}
    places = _Places(steps, facts, regions, zero_values)
    for step in steps:
        step.places = [places.find(top, needs=not i and step.kernel.needs_out) for i, top in enumerate(step.op.tops)]
    input_places = {name: places.find(name) for name in inputs}
    buffers = _find_buffers(steps, input_places)
    _find_last_uses(steps, wanted, buffers)
    return ExecutionPlan(
        facts, regions, wanted, steps, input_places, {name for name, found in buffers.items() if found},
        count_products(ops, regions), find_zero_image_blobs(facts, regions),
    )  # fmt: skip


class _Places:
    """Chooses where blobs are stored: in a buffer if they have a border, or if their kernel needs one.

    The bottoms of a Concat layer along channels are stored where it would copy them, if the same pixels are computed.
    """

    def __init__(
        self,
        steps: Sequence[ExecutionStep],
        facts: BlobFacts,
        regions: Mapping[str, BlobRegions],
        zero_values: Mapping[str, Tensor],
    ):
        self.facts, self.regions, self.zero_values = facts, regions, zero_values
        self.parts: dict[str, tuple[str, int]] = {}  # part of a Concat layer's top -> that top, and the first channel
        computed = {top for step in steps for top in step.op.tops}
        for step in reversed(steps):
            if not isinstance(step.kernel, Concatenation) or step.regions[0] is None:
                continue
            (top,), first = step.op.tops, 0
            for name in step.op.bottoms:
                blob = regions[name]
                if name in computed - self.parts.keys() and blob.stored == blob.computed == regions[top].computed:
                    outer, offset = self.parts.get(top, (top, 0))
                    self.parts[name] = outer, offset + first
                first += facts.shapes[name][1]

    def find(self, name: str, *, needs: bool = False) -> BufferPlace | None:
        """Return where a blob is stored; None if it needs no buffer, ``needs`` being whether its kernel needs one."""
        blob = self.regions.get(name)
        if blob is None or not (needs or name in self.parts or blob.stored != blob.computed):
            return None
        buffer, first = self.parts.get(name, (name, 0))
        batch, channels = self.facts.shapes[buffer][:2]
        outer, every = self.regions[buffer].stored, slice(None)
        shape = (batch, channels, outer.rows.size, outer.columns.size)
        part = slice(first, first + self.facts.shapes[name][1])
        stored = (every, part, *blob.stored.slices_in(outer)) if buffer != name else None
        inner = None if blob.stored == blob.computed else (every, every, *blob.computed.slices_in(blob.stored))
        return BufferPlace(buffer, shape, stored, inner, _make_border(name, blob, self.facts, self.zero_values))


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


def _find_buffers(
    steps: Sequence[ExecutionStep], inputs: Mapping[str, BufferPlace | None]
) -> dict[str, frozenset[str]]:
    """Return, for each blob, the names of the buffers that it may be a view of."""
    buffers = {name: frozenset({place.buffer} if place else ()) for name, place in inputs.items()}
    for step in steps:
        # A layer's own forward may return a view of a bottom, as Reshape does.
        may_share = isinstance(step.kernel, LayerForward | PassThrough)
        shared = frozenset().union(*(buffers[name] for name in step.op.bottoms if may_share and name in buffers))
        for top, place in zip(step.op.tops, step.places, strict=True):
            buffers[top] = frozenset({place.buffer}) if place else shared
    return buffers


def _find_last_uses(
    steps: Sequence[ExecutionStep], wanted: Iterable[str], buffers: Mapping[str, frozenset[str]]
) -> None:
    """Set ``last_uses`` and ``released`` of each step, so that memory is reused by later steps."""
    needed_later = set(wanted)
    in_use = set[str]().union(*(buffers[name] for name in needed_later))
    for step in reversed(steps):
        names = dict.fromkeys((*(name for name, _ in step.reads), *step.op.bottoms, *step.op.tops))
        step.last_uses = [name for name in names if name not in needed_later]
        step.released = sorted(set[str]().union(*(buffers.get(name, ()) for name in step.last_uses)) - in_use)
        needed_later.update(step.last_uses)
        in_use.update(step.released)
