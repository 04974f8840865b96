"""Format a plan as a table, to see how a compiled net computes each layer."""

from __future__ import annotations

import math

from reproduction.fast.plan import ExecutionPlan
from reproduction.fast.regions import EMPTY


def format_plan(plan: ExecutionPlan) -> str:
    """Return a table of a plan: how each layer is computed, which part of its top, and by how many multiplications."""
    rows: list[tuple[str, ...]] = [("layer", "how", "part", "of", "millions of products", "of")]
    totals = [0, 0]
    for op in (op for step in plan.steps for op in step.ops):
        name = op.tops[0] if op.tops else ""
        blob, shape, products = plan.regions.get(name), plan.facts.shapes.get(name, ()), op.products_per_pixel
        sizes = [side.size for side in blob.computed] if blob else []
        how = op.describe(blob.computed if blob else EMPTY)
        counts = [products * math.prod(sizes), products * math.prod(shape[2:])] if products else [0, 0]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        texts = [f"{count / 1e6:,.0f}" if products else "" for count in counts]
        borders = ", its borders from an image of zeros" if name in plan.zero_image_blobs else ""
        sides = [" x ".join(map(str, side)) for side in (sizes, shape[2:])]
        rows.append((op.name, how + borders, *(sides if blob else ["", ""]), *texts))
    rows.append(("total", "", "", "", *(f"{total / 1e6:,.0f}" for total in totals)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.ljust, row, widths)) for row in rows]
    if totals[1]:
        saved = f"{1 - totals[0] / totals[1]:.0%}"
        table.append(f"{saved} of the products are saved: where no pixel of the image reaches, all images are alike.")
    return "\n".join(line.rstrip() for line in table)
