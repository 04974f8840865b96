"""Plan the computation for one input size: which part of each blob is computed, and where the rest comes from.

The published nets pad the image by 100 pixels. Regions of a blob that no pixel of the image reaches are the same for
every image, and equal the result for an image of zeros, since the padding is zeros, too. Away from the edges, all
pixels of that result are equal, so that it can be computed once from a small image of zeros. For each image, only the
other pixels are computed; the constant regions are copied around them as a frame. The zero padding of the later layers
is added to their bottoms in the same way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.fast.kernels import Kernel, MaxPool, Minimal, Pooled
from reproduction.fast.ops import Op, spatial
from reproduction.fast.regions import EVERYWHERE, NOTHING, Region, Span

# A plan is used if its estimated time is at most this fraction of the net's; estimates omit the costs of the plan.
WORTH = 0.8

Slices = tuple[slice, slice]
# The frame around the computed part of a blob: slices of the buffer, and their values (1, C, h, w) or None for zeros.
Frame = list[tuple[Slices, Tensor | None]]


@dataclass(frozen=True)
class Survey:
    """Facts about each blob for one input size.

    Attributes:
        shapes: The shape of each blob.
        reached: The part of each blob that depends on the inputs.
        steady: A part of each blob whose pixels are all equal if the inputs are zeros.
    """

    shapes: dict[str, Shape]
    reached: dict[str, Region]
    steady: dict[str, Region]

    @classmethod
    def of(cls, ops: Sequence[Op], inputs: Mapping[str, Shape]) -> Survey:
        """Compute the facts for inputs of the given shapes.

        Raises:
            NetError: If the inputs do not fit the net.
        """
        shapes, reached, steady = dict(inputs), {}, {}
        for name, shape in inputs.items():
            flat = len(shape) == 4
            reached[name] = spatial(shape) if flat else (NOTHING, NOTHING)
            steady[name] = (EVERYWHERE, EVERYWHERE) if flat else (NOTHING, NOTHING)
        for op in ops:
            bottoms = [shapes[bottom] for bottom in op.bottoms]
            flat = all(len(bottom) == 4 for bottom in bottoms)
            for top, shape in zip(op.tops, op.shapes(bottoms), strict=True):
                shapes[top] = shape
                reached[top] = steady[top] = (NOTHING, NOTHING)
                if len(shape) == 4 and flat:
                    reached[top] = op.reached([reached[bottom] for bottom in op.bottoms], shape)
                    steady[top] = op.steady([steady[bottom] for bottom in op.bottoms], shape)
        return cls(shapes, reached, steady)

    def distinct(self, blob: str) -> tuple[int, ...]:
        """Return how many rows and columns the uncompiled net computes: those that the inputs reach, and the edges.

        Source: ``caffe.layers.quick.borders``, which computes rows that repeat once.
        """
        edges, shape = self.margins(blob), self.shapes[blob][2:]
        if not all(span.size for span in self.steady[blob]):
            return shape
        pairs = zip(self.reached[blob], shape, edges[::2], edges[1::2], strict=True)
        return tuple(min(size, span.size + before + after) for span, size, before, after in pairs)

    def margins(self, blob: str) -> tuple[int, ...]:
        """Return the number of pixels outside of ``steady``, as (top, bottom, left, right)."""
        ends = zip(self.steady[blob], self.shapes[blob][2:], strict=True)
        return tuple(count for span, size in ends for count in (span.start, size - span.stop))


@dataclass
class Part:
    """The part of a blob that a plan computes and stores.

    Attributes:
        needed: The pixels that are read, padding included.
        made: The pixels that are computed.
        held: The pixels that are stored; those outside of the blob are zeros.
    """

    needed: Region = (NOTHING, NOTHING)
    made: Region = (NOTHING, NOTHING)
    held: Region = (NOTHING, NOTHING)

    def read(self, region: Region, slack: tuple[int, int]) -> None:
        """Extend the part for a reader that needs ``region`` and reads ``slack`` more rows and columns."""
        self.needed = _hull(self.needed, region)
        self.held = _hull(self.held, _longer(region, slack))


@dataclass
class Step:
    """One step of a plan: a kernel, what it reads and what it computes.

    Attributes:
        op: The op.
        kernel: The kernel that computes the tops.
        reads: Names of the blobs to read, with the slices of their stored parts; None reads all that is stored.
        parts: The part of each top; None for blobs that do not have four axes.
        frames: The frame of each top.
        last: Names of the blobs that no later step reads.
        before: The step that is merged into this one and whose top is not stored, or None.
    """

    op: Op
    kernel: Kernel
    reads: list[tuple[str, Slices | None]]
    parts: list[Part | None]
    frames: list[Frame]
    last: list[str] = field(default_factory=list)
    before: Step | None = None


@dataclass
class Plan:
    """The steps for one input size.

    Attributes:
        survey: Facts about the blobs.
        parts: The part of each blob with four axes.
        wanted: Names of the requested blobs.
        steps: The steps, in order.
        feeds: The frame of each input.
        products: Total number of products for one image.
        borrowed: Names of the blobs whose frame contains values from an image of zeros.
    """

    survey: Survey
    parts: dict[str, Part]
    wanted: list[str]
    steps: list[Step]
    feeds: dict[str, Frame]
    products: int
    borrowed: list[str]


def needed(ops: Sequence[Op], wanted: Iterable[str]) -> list[Op]:
    """Return the ops that the blobs ``wanted`` depend on, in order."""
    names, picked = set(wanted), []
    for op in reversed(ops):
        if names.intersection(op.tops):
            names.update(op.bottoms)
            picked.append(op)
    return picked[::-1]


def divide(ops: Sequence[Op], survey: Survey, wanted: Iterable[str], *, borrow: bool) -> dict[str, Part]:
    """Choose the part of each blob to compute and to store.

    Args:
        ops: The needed ops, in order.
        survey: Facts about their blobs.
        wanted: Names of the requested blobs, which are stored completely.
        borrow: Whether frames may contain values from an image of zeros.

    Returns:
        The part of each blob with four axes, by name.
    """
    wanted = set(wanted)
    # A frame around the smaller top of a pooling is cheaper than one around its bottom.
    pooled = {bottom for op in ops if op.shrinks for bottom in op.bottoms}
    framed = wanted | {top for op in ops for top in op.tops if op.shrinks or (op.fills and top not in pooled)}
    parts = {name: Part() for name, shape in survey.shapes.items() if len(shape) == 4}
    for name in wanted & parts.keys():
        parts[name].read(spatial(survey.shapes[name]), (0, 0))
    for op in reversed(ops):
        made = (NOTHING, NOTHING)
        for top in op.tops:
            if top in parts:
                if not op.partial:
                    parts[top].read(spatial(survey.shapes[top]), (0, 0))
                made = parts[top].made = _made(op, top, survey, parts[top], borrow=borrow and top in framed)
        bottoms = [survey.shapes[bottom] for bottom in op.bottoms]
        for bottom, region in zip(op.bottoms, op.reads(made, bottoms), strict=True):
            if region is not None and bottom in parts:
                parts[bottom].read(region, op.slack(made))
                if all(span.size for span in made):
                    parts[bottom].read(_touching(region, spatial(survey.shapes[bottom])), (0, 0))
    for name in parts.keys() - {top for op in ops for top in op.tops}:
        parts[name].made = _meet(parts[name].needed, spatial(survey.shapes[name]))
    return parts


def settle(
    ops: Sequence[Op], survey: Survey, wanted: Iterable[str], *, borrow: bool
) -> tuple[list[Op], dict[str, Part]]:
    """Choose which ops run uncompiled, and the part of each blob to compute and to store.

    An uncompiled layer reads its whole bottom, which must then be computed completely. The op before it may then no
    longer be faster than its layer, so that the choice is repeated until nothing changes.

    Args:
        ops: The needed ops, in order.
        survey: Facts about their blobs.
        wanted: Names of the requested blobs, which are stored completely.
        borrow: Whether frames may contain values from an image of zeros.

    Returns:
        The chosen ops, and the part of each blob by name.
    """
    settled, wanted = list(ops), list(wanted)
    while True:
        parts = divide(settled, survey, wanted, borrow=borrow)
        found = [op if _pays(op, survey, parts) else op.as_it_is() for op in settled]
        if all(op is before for op, before in zip(found, settled, strict=True)):
            return settled, parts
        settled = found


def _pays(op: Op, survey: Survey, parts: Mapping[str, Part]) -> bool:
    part = parts.get(op.tops[0]) if op.tops else None
    return part is None or op.pays(part.made, spatial(survey.shapes[op.tops[0]]))


def worthwhile(ops: Sequence[Op], survey: Survey, parts: Mapping[str, Part]) -> bool:
    """Return whether a plan is certain to be faster than the uncompiled net, which computes repeated rows only once.

    Args:
        ops: The ops that ``settle`` chose.
        survey: Facts about their blobs.
        parts: The part of each blob.
    """
    whole = planned = 0.0
    for op in ops:
        each = op.effort([survey.shapes[bottom] for bottom in op.bottoms])
        if each:
            made = parts[op.tops[0]].made
            whole += each * math.prod(survey.distinct(op.tops[0]))
            planned += each * made[0].size * made[1].size * op.time(made)
    return planned <= WORTH * whole


def _made(op: Op, top: str, survey: Survey, part: Part, *, borrow: bool) -> Region:
    """Return the part of a top to compute: the needed pixels or, with ``borrow``, those of them that inputs reach."""
    needed = _meet(part.needed, spatial(survey.shapes[top]))
    inner = _meet(needed, survey.reached[top])
    borrow &= op.partial and all(span.size for span in survey.steady[top])
    return inner if borrow and all(span.size for span in inner) else needed


def borrowers(survey: Survey, parts: Mapping[str, Part]) -> list[str]:
    """Return the names of the blobs that need pixels from an image of zeros: not all needed pixels are computed."""
    return [
        name for name, part in parts.items() if not _within(_meet(part.needed, spatial(survey.shapes[name])), part.made)
    ]


def products(ops: Sequence[Op], survey: Survey, parts: Mapping[str, Part]) -> int:
    """Return the number of products for one image."""
    total = 0
    for op in ops:
        each = op.products([survey.shapes[bottom] for bottom in op.bottoms])
        if each:
            rows, columns = parts[op.tops[0]].made
            total += each * rows.size * columns.size
    return total


def stretch(blank: Tensor, survey: Survey, blob: str, region: Region) -> Tensor:
    """Expand a region of a blob's values for an image of zeros, the inverse of ``squeeze``.

    Args:
        blank: ``(1, C, h, w)``: the margins of the blob, and one steady row and column between them.
        survey: Facts for the requested input size.
        blob: Name of the blob.
        region: The region within the blob.

    Returns:
        The values of the region, ``(1, C, rows, columns)``.
    """
    for axis, (span, steady) in enumerate(zip(region, survey.steady[blob], strict=True), 2):
        places = torch.arange(span.start, span.stop, device=blank.device)
        after = places - steady.stop + steady.start + 1
        index = torch.where(places < steady.stop, places.clamp(max=steady.start), after)
        blank = blank.index_select(axis, index)
    return blank


def squeeze(found: Tensor, survey: Survey, blob: str) -> Tensor:
    """Return the margins of a blob and one steady row and column between them; ``stretch`` expands the result."""
    for axis, (steady, size) in enumerate(zip(survey.steady[blob], survey.shapes[blob][2:], strict=True), 2):
        kept = [*range(steady.start + 1), *range(steady.stop, size)]
        found = found.index_select(axis, torch.tensor(kept, device=found.device))
    return found


def make(
    ops: Sequence[Op],
    survey: Survey,
    wanted: list[str],
    parts: dict[str, Part],
    blanks: Mapping[str, Tensor],
) -> Plan:
    """Build the plan.

    Args:
        ops: The ops, in order.
        survey: Facts about their blobs.
        wanted: Names of the requested blobs.
        parts: The part of each blob.
        blanks: Compressed values for an image of zeros (see ``squeeze``), for the blobs in ``borrowers``.
    """
    steps = []
    for op in ops:
        held = [parts.get(top) for top in op.tops]
        if op.partial and held[0] and not all(span.size for span in held[0].made):
            continue  # only its shape is read
        made = held[0].made if held and held[0] else (NOTHING, NOTHING)
        bottoms = [survey.shapes[bottom] for bottom in op.bottoms]
        regions, reads = [], list[tuple[str, Slices | None]]()
        for bottom, region in zip(op.bottoms, op.reads(made, bottoms), strict=True):
            if region is None:
                continue
            regions.append(region)
            part = parts.get(bottom)
            reads.append((bottom, place(_longer(region, op.slack(made)), part.held) if part else None))
        frames = [_frame(top, parts[top], survey, blanks) if top in parts else [] for top in op.tops]
        steps.append(Step(op, op.kernel(regions, made), reads, held, frames))
    steps = _join(steps, wanted)
    alive = set(wanted)
    for step in reversed(steps):
        names = (*(name for name, _ in step.reads), *step.op.bottoms, *step.op.tops)
        step.last = [name for name in dict.fromkeys(names) if name not in alive]
        alive.update(step.last)
    made_by_ops = {top for op in ops for top in op.tops}
    feeds = {
        name: _frame(name, parts[name], survey, {}) if name in parts else []
        for name in survey.shapes
        if name not in made_by_ops
    }
    borrowed = borrowers(survey, parts)
    return Plan(survey, parts, wanted, steps, feeds, products(ops, survey, parts), borrowed)


def _join(steps: Iterable[Step], wanted: Iterable[str]) -> list[Step]:
    """Merge each max pooling with the convolution before it, if nothing else reads the convolution's top."""
    steps = list(steps)
    read = Counter([*wanted, *(bottom for step in steps for bottom in step.op.bottoms)])
    joined: list[Step] = []
    for step in steps:
        alone = joined and step.op.bottoms == joined[-1].op.tops and read[step.op.bottoms[0]] == 1
        kernel = _pooled(joined[-1], step) if alone else None
        if kernel:
            joined[-1] = replace(step, kernel=kernel, reads=joined[-1].reads, before=joined[-1])
        else:
            joined.append(step)
    return joined


def _pooled(before: Step, step: Step) -> Pooled | None:
    """Return a kernel that convolves and pools, or None if the two steps cannot be merged.

    The windows of the pooling must be adjacent and start with the first computed pixel, and the top of the convolution
    must have no frame.
    """
    part, top = before.parts[0], step.parts[0]
    if not isinstance(before.kernel, Minimal) or not isinstance(step.kernel, MaxPool) or not part or not top:
        return None
    windows = step.kernel.windows
    begins = all(
        window.kernel == window.stride and low.start == high.start * window.stride
        for window, low, high in zip(windows, part.made, top.made, strict=True)
    )
    if not begins or part.held != part.made:
        return None
    return Pooled(before.kernel, step.kernel, *(span.size for span in part.made))


def _frame(name: str, part: Part, survey: Survey, blanks: Mapping[str, Tensor]) -> Frame:
    """Return the frame of a blob: zeros for its padding, and values from an image of zeros for its other pixels."""
    inner = _meet(part.needed, spatial(survey.shapes[name]))
    frame: Frame = [(place(strip, part.held), None) for strip in _strips(part.held, inner)]
    for strip in _strips(inner, part.made):
        frame.append((place(strip, part.held), stretch(blanks[name], survey, name, strip)))
    return frame


def _strips(outer: Region, inner: Region) -> list[Region]:
    """Divide ``outer`` without ``inner`` into rectangles: above, below, left and right of ``inner``."""
    (top, left), (rows, columns) = outer, inner
    found = [
        (Span(top.start, rows.start), left),
        (Span(rows.stop, top.stop), left),
        (rows, Span(left.start, columns.start)),
        (rows, Span(columns.stop, left.stop)),
    ]
    return [(a, b) for a, b in found if a.size and b.size]


def place(region: Region, held: Region) -> Slices:
    """Return the slices that select ``region`` in a buffer with the pixels of ``held``."""
    return region[0].within(held[0]), region[1].within(held[1])


def _hull(a: Region, b: Region) -> Region:
    return a[0] | b[0], a[1] | b[1]


def _meet(a: Region, b: Region) -> Region:
    return a[0] & b[0], a[1] & b[1]


def _within(a: Region, b: Region) -> bool:
    return a[0] in b[0] and a[1] in b[1]


def _touching(region: Region, blob: Region) -> Region:
    """Extend a region that lies entirely in the padding to the nearest pixel of the blob.

    At least one pixel is then computed, which the frame can surround.
    """
    spans = []
    for span, whole in zip(region, blob, strict=True):
        nearest = min(max(span.start, whole.start), whole.stop - 1)
        spans.append(span if (span & whole).size else span | Span(nearest, nearest + 1))
    return spans[0], spans[1]


def _longer(region: Region, more: tuple[int, int]) -> Region:
    (rows, columns), (high, wide) = region, more
    return Span(rows.start, rows.stop + high), Span(columns.start, columns.stop + wide)
