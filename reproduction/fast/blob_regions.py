"""Choose which region of each blob is computed.

For each image only the pixels that it reaches are computed. Around them lies a border: zeros where the next layer reads
padding, and values that were computed once from an image of zeros where no pixel of the image reaches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reproduction.fast.blob_facts import BlobFacts
from reproduction.fast.ops import Op
from reproduction.fast.regions import EMPTY, PixelRange, Region

# Time to concatenate one number with a border in a graph, and to change its layout in memory for that, in products of
# single precision; and how many products of bfloat16 take the time of one.
GRAPH_BORDER_COST, _BF16_PRODUCTS = 250, 6

# Largest fraction of a top for which computing only a part is faster, in spite of the copies that it needs.
_LARGEST_FRACTION = 0.9


@dataclass
class BlobRegions:
    """The parts of one blob ``(N, C, H, W)`` that a plan reads, computes and stores; each is a rectangle of pixels.

    A plan is how a compiled net computes the requested blobs for inputs of one size.

    Attributes:
        needed: The pixels that ops read; it may extend into the padding around the blob.
        computed: The pixels that are computed for each image. The other needed pixels are zeros in the padding, and
            values from an image of zeros elsewhere.
        stored: The pixels that the blob's buffer contains: those needed, and some that kernels read without need.
            Pixels outside of the blob are zeros.
    """

    needed: Region = EMPTY
    computed: Region = EMPTY
    stored: Region = EMPTY

    @property
    def has_border(self) -> bool:
        """Whether pixels are stored that are not computed."""
        return self.stored != self.computed

    def add_reader(self, region: Region, overread: tuple[int, int] = (0, 0)) -> None:
        """Extend ``needed`` and ``stored`` so that one more op can read a part of the blob.

        Args:
            region: The pixels whose values the op needs.
            overread: How many rows below ``region`` and columns to the right of it the op's kernel reads too. They do
                not affect its result, and may be zeros.
        """
        self.needed |= region
        self.stored |= region.extend(*overread)


def find_needed_ops(ops: Sequence[Op], blobs: Iterable[str]) -> list[Op]:
    """Return those ops that are needed to compute the given blobs, in order.

    Args:
        ops: The net's ops, in order.
        blobs: Names of the blobs, as in ``Op.tops``.
    """
    names, needed = set(blobs), []
    for op in reversed(ops):
        if names.intersection(op.tops):
            names.update(op.bottoms)
            needed.append(op)
    return needed[::-1]


def assign_regions(
    ops: Sequence[Op], facts: BlobFacts, wanted: Iterable[str], bordered: Collection[str] = ()
) -> dict[str, BlobRegions]:
    """Choose which region of each blob is needed, computed and stored, from the last op to the first.

    Args:
        ops: The needed ops, in order.
        facts: Facts about their blobs.
        wanted: Names of the requested blobs, which are stored completely.
        bordered: Names of the blobs whose pixels that no pixel of the image reaches may be copied from an image of
            zeros; see ``find_bordered_blobs``.

    Returns:
        The regions of each blob with four axes and known sizes, by name.
    """
    wanted = set(wanted)
    complete = {
        name: Region.from_shape(shape)
        for name, shape in facts.shapes.items()
        if len(shape) == 4 and name not in facts.varying
    }
    regions = {name: BlobRegions() for name in complete}
    for name in wanted & regions.keys():
        regions[name].add_reader(complete[name])
    for op in reversed(ops):
        computed = EMPTY
        for top in op.tops:
            if top in regions:
                if not op.computes_regions:
                    regions[top].add_reader(complete[top])
                computed = regions[top].needed & complete[top]
                # Outside of `inner`, the blob is that of an image of zeros. A copy of it needs a uniform pixel, and a
                # computed pixel to surround.
                inner = computed & facts.reached[top]
                if top in bordered and op.computes_regions and facts.uniform[top].pixels and inner.pixels:
                    small = inner.pixels <= _LARGEST_FRACTION * complete[top].pixels
                    computed = inner if small or op.writes_to_buffer else computed
                regions[top].computed = computed
        shapes = [facts.shapes[bottom] for bottom in op.bottoms]
        for bottom, region in zip(op.bottoms, op.regions_read(computed, shapes), strict=True):
            if region is not None and bottom in regions:
                regions[bottom].add_reader(region, op.overread(computed))
                if computed.pixels:  # a crop may read nothing but padding
                    regions[bottom].add_reader(_touch(region, complete[bottom]))
    for name in regions.keys() - {top for op in ops for top in op.tops}:  # the inputs
        regions[name].computed = regions[name].needed & complete[name]
    return regions


def find_bordered_blobs(ops: Sequence[Op], facts: BlobFacts, wanted: Iterable[str]) -> set[str]:
    """Return the blobs whose borders may come from an image of zeros: those around which a border is cheap.

    A border around the smaller top of a pooling is cheaper than one around its bottom.
    """
    pooled = {bottom for op in ops if op.shrinks for bottom in op.bottoms}
    return {*wanted} | {
        top for op in ops for top in op.tops if op.shrinks or (op.writes_to_buffer and top not in pooled)
    }


def choose_graph_borders(ops: Sequence[Op], facts: BlobFacts, wanted: Iterable[str]) -> set[str]:
    """Return the blobs whose borders come from an image of zeros in a graph for another runtime.

    They are those of ``find_bordered_blobs`` that save more time than it takes to concatenate them with their borders.

    Args:
        ops: The needed ops, in order.
        facts: Facts about their blobs.
        wanted: Names of the requested blobs.
    """
    is_bf16 = any(getattr(op, "precision", "") == "bf16" for op in ops)
    border_cost = GRAPH_BORDER_COST * (_BF16_PRODUCTS if is_bf16 else 1)

    def cost(bordered: Collection[str]) -> int:
        regions = assign_regions(ops, facts, wanted, bordered)
        copied = (facts.shapes[name][1] * regions[name].needed.pixels for name in find_zero_image_blobs(facts, regions))
        return count_products(ops, regions) + border_cost * sum(copied)

    kept = find_bordered_blobs(ops, facts, wanted)
    least = cost(kept)
    for name in [top for op in ops for top in op.tops if top in kept]:
        if (less := cost(kept - {name})) <= least:
            kept, least = kept - {name}, less
    return kept


def _touch(region: Region, blob: Region) -> Region:
    """Extend a region that lies entirely in the padding to the nearest pixel of the blob.

    At least one pixel is then computed, which the border can surround.
    """
    sides = []
    for side, whole in zip(region, blob, strict=True):
        nearest = min(max(side.start, whole.start), whole.stop - 1)
        sides.append(side if (side & whole).size else side | PixelRange(nearest, nearest + 1))
    return Region(*sides)


def count_products(ops: Sequence[Op], regions: Mapping[str, BlobRegions]) -> int:
    """Return how many multiplications the convolutions of a plan need for one image.

    Args:
        ops: The ops of the plan.
        regions: The regions of each blob in the plan, by name.
    """
    counted = (op for op in ops if op.products_per_pixel)
    return sum(op.products_per_pixel * regions[op.tops[0]].computed.pixels for op in counted)


def find_zero_image_blobs(facts: BlobFacts, regions: Mapping[str, BlobRegions]) -> list[str]:
    """Return the names of the blobs for which a plan needs values from an image of zeros.

    These are the blobs with pixels that are needed but not computed, because no pixel of the image reaches them.
    """
    return [
        name
        for name, blob in regions.items()
        if not blob.computed.contains(blob.needed & Region.from_shape(facts.shapes[name]))
    ]
