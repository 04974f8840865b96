"""What is computed for inputs of one size: which part of which blob, and where the rest comes from.

The published nets pad the image by 100 pixels. What no pixel of the image reaches is the same for every image: it is
what the net makes of an image of zeros, since the padding is zeros too. Away from the edges it is the same everywhere,
so that a small image of zeros shows all there is to see. It is computed once and frames what is computed for each
image. The padding of the later layers, zeros, is put around their bottoms in the same way.
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

# Of the time of the net as it is: what a plan must save to be worth its own cost, which estimates leave out.
WORTH = 0.8

Slices = tuple[slice, slice]
# What goes around the part of a blob that is made: places in the buffer, and (1, C, h, w), or None for zeros.
Frame = list[tuple[Slices, Tensor | None]]


@dataclass(frozen=True)
class Survey:
    """What is known of each blob before anything is asked for.

    Attributes:
        shapes: of the blobs.
        reached: the part that depends on the inputs.
        steady: a part that, for inputs of zeros, is the same everywhere.
    """

    shapes: dict[str, Shape]
    reached: dict[str, Region]
    steady: dict[str, Region]

    @classmethod
    def of(cls, ops: Sequence[Op], inputs: Mapping[str, Shape]) -> Survey:
        """Go through the layers.

        Raises:
            NetError: the inputs do not fit the net.
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
        """Count the rows and columns of which the net computes each: what the inputs reach, and the edges.

        Source: ``caffe.layers.borders``, which computes rows that repeat once.
        """
        edges, shape = self.margins(blob), self.shapes[blob][2:]
        if not all(span.size for span in self.steady[blob]):
            return shape
        pairs = zip(self.reached[blob], shape, edges[::2], edges[1::2], strict=True)
        return tuple(min(size, span.size + before + after) for span, size, before, after in pairs)

    def margins(self, blob: str) -> tuple[int, ...]:
        """Count the pixels at either end of each axis that are not steady."""
        ends = zip(self.steady[blob], self.shapes[blob][2:], strict=True)
        return tuple(count for span, size in ends for count in (span.start, size - span.stop))


@dataclass
class Part:
    """The part of a blob that a plan holds.

    Attributes:
        needed: what is read of it, padding included.
        made: what is computed of it.
        held: what there is memory for; what is neither made nor of the blob is zeros.
    """

    needed: Region = (NOTHING, NOTHING)
    made: Region = (NOTHING, NOTHING)
    held: Region = (NOTHING, NOTHING)

    def read(self, region: Region, slack: tuple[int, int]) -> None:
        """Note that a reader needs a part, and looks at some pixels more."""
        self.needed = _hull(self.needed, region)
        self.held = _hull(self.held, _longer(region, slack))


@dataclass
class Step:
    """A kernel, what it reads, and the buffer that it writes to.

    Attributes:
        op: what is computed.
        kernel: computes it.
        reads: blobs, and the rows and columns of what is held of them; None for all.
        parts: of the tops; None where blobs have other than four axes.
        frames: of the tops.
        last: blobs that nobody reads after this step.
        before: the step that is taken at once with this one, and keeps no blob of its own.
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
    """The steps for one size of inputs.

    Attributes:
        survey: of the blobs.
        parts: of each blob with four axes.
        steps: in order.
        feeds: the frames of the inputs.
        wanted: the blobs that are asked for.
        products: how many there are in all, for one image.
        borrowed: blobs whose frame is that of an image of zeros.
    """

    survey: Survey
    parts: dict[str, Part]
    wanted: list[str]
    steps: list[Step]
    feeds: dict[str, Frame]
    products: int
    borrowed: list[str]


def needed(ops: Sequence[Op], wanted: Iterable[str]) -> list[Op]:
    """List the ops that these blobs depend on, in order."""
    names, picked = set(wanted), []
    for op in reversed(ops):
        if names.intersection(op.tops):
            names.update(op.bottoms)
            picked.append(op)
    return picked[::-1]


def divide(ops: Sequence[Op], survey: Survey, wanted: Iterable[str], *, borrow: bool) -> dict[str, Part]:
    """Decide which part of each blob is made and held.

    Args:
        ops: those that are needed.
        survey: of their blobs.
        wanted: blobs that are asked for, whole.
        borrow: whether frames may come from an image of zeros.
    """
    wanted = set(wanted)
    pooled = {bottom for op in ops if op.shrinks for bottom in op.bottoms}  # there the pooling puts them together
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
    """Choose for each op whether its layer runs as it is, and decide which part of each blob is made and held.

    A layer that runs as it is reads all of its bottom, which then is made in full; its own maker may pay no more.

    Args:
        ops: those that are needed.
        survey: of their blobs.
        wanted: blobs that are asked for, whole.
        borrow: whether frames may come from an image of zeros.
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
    """Return whether a plan is sure to be quicker than the net as it is, which computes rows that repeat once.

    Args:
        ops: settled.
        survey: of their blobs.
        parts: of the blobs.
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
    """Decide which part of a top is made: what is needed of the blob, or what of that the inputs reach."""
    needed = _meet(part.needed, spatial(survey.shapes[top]))
    inner = _meet(needed, survey.reached[top])
    borrow &= op.partial and all(span.size for span in survey.steady[top])
    return inner if borrow and all(span.size for span in inner) else needed


def borrowers(survey: Survey, parts: Mapping[str, Part]) -> list[str]:
    """List the blobs of which more of the blob itself is needed than is made."""
    return [
        name for name, part in parts.items() if not _within(_meet(part.needed, spatial(survey.shapes[name])), part.made)
    ]


def products(ops: Sequence[Op], survey: Survey, parts: Mapping[str, Part]) -> int:
    """Count the products of one image."""
    total = 0
    for op in ops:
        each = op.products([survey.shapes[bottom] for bottom in op.bottoms])
        if each:
            rows, columns = parts[op.tops[0]].made
            total += each * rows.size * columns.size
    return total


def stretch(blank: Tensor, survey: Survey, blob: str, region: Region) -> Tensor:
    """Show a part of what the net makes of zeros.

    Args:
        blank: (1, C, h, w): the margins of the blob, and one steady row and column between them.
        survey: of the size that is asked for.
        blob: which.
        region: within the blob.
    """
    for axis, (span, steady) in enumerate(zip(region, survey.steady[blob], strict=True), 2):
        places = torch.arange(span.start, span.stop, device=blank.device)
        after = places - steady.stop + steady.start + 1
        index = torch.where(places < steady.stop, places.clamp(max=steady.start), after)
        blank = blank.index_select(axis, index)
    return blank


def squeeze(found: Tensor, survey: Survey, blob: str) -> Tensor:
    """Keep the margins and one steady row and column between them, the opposite of ``stretch``."""
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
    """Write the steps.

    Args:
        ops: those that are needed.
        survey: of their blobs.
        wanted: blobs that are asked for.
        parts: of the blobs.
        blanks: for ``stretch``, of the blobs in ``borrowers``.
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
    """Pool while convolving, where a pooling is all that reads a convolution."""
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
    """Make one kernel of two, if windows that lie side by side see what was just convolved, and all of it."""
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
    """List what goes around the part that is made: zeros, and over them what is borrowed."""
    inner = _meet(part.needed, spatial(survey.shapes[name]))
    frame: Frame = [(place(strip, part.held), None) for strip in _strips(part.held, inner)]
    for strip in _strips(inner, part.made):
        frame.append((place(strip, part.held), stretch(blanks[name], survey, name, strip)))
    return frame


def _strips(outer: Region, inner: Region) -> list[Region]:
    """Divide what lies around a rectangle in another: above, below, left, right."""
    (top, left), (rows, columns) = outer, inner
    found = [
        (Span(top.start, rows.start), left),
        (Span(rows.stop, top.stop), left),
        (rows, Span(left.start, columns.start)),
        (rows, Span(columns.stop, left.stop)),
    ]
    return [(a, b) for a, b in found if a.size and b.size]


def place(region: Region, held: Region) -> Slices:
    """Say where a part lies in a buffer that holds another."""
    return region[0].within(held[0]), region[1].within(held[1])


def _hull(a: Region, b: Region) -> Region:
    return a[0] | b[0], a[1] | b[1]


def _meet(a: Region, b: Region) -> Region:
    return a[0] & b[0], a[1] & b[1]


def _within(a: Region, b: Region) -> bool:
    return a[0] in b[0] and a[1] in b[1]


def _touching(region: Region, blob: Region) -> Region:
    """Give a part a pixel of the blob where it lies in the padding alone, so that there is a blob to surround."""
    spans = []
    for span, whole in zip(region, blob, strict=True):
        nearest = min(max(span.start, whole.start), whole.stop - 1)
        spans.append(span if (span & whole).size else span | Span(nearest, nearest + 1))
    return spans[0], spans[1]


def _longer(region: Region, more: tuple[int, int]) -> Region:
    (rows, columns), (high, wide) = region, more
    return Span(rows.start, rows.stop + high), Span(columns.start, columns.stop + wide)
