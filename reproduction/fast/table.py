"""Format a plan as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from reproduction.fast.plan import Plan, Step
from reproduction.fast.regions import NOTHING


def describe(made: Plan) -> str:
    """Return a table of a plan: how each layer is computed, which part of its top, and how many products it needs."""
    rows: list[tuple[str, ...]] = [("layer", "how", "part", "of", "millions of products", "of")]
    totals = [0, 0]
    for step, how in _told(made.steps):
        part, name = (step.parts[0], step.op.tops[0]) if step.parts else (None, "")
        shape = made.survey.shapes.get(name, ())
        each = step.op.products([made.survey.shapes[bottom] for bottom in step.op.bottoms])
        sizes = [span.size for span in part.made] if part else []
        counts = [each * math.prod(sizes), each * math.prod(shape[2:])] if each else [0, 0]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        texts = [f"{count / 1e6:,.0f}" if each else "" for count in counts]
        borders = ", its borders from an image of zeros" if name in made.borrowed else ""
        sides = [" x ".join(map(str, side)) for side in (sizes, shape[2:])]
        rows.append((step.op.name, how + borders, *(sides if part else ["", ""]), *texts))
    rows.append(("total", "", "", "", *(f"{total / 1e6:,.0f}" for total in totals)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.ljust, row, widths)) for row in rows]
    if totals[1]:
        saved = f"{1 - totals[0] / totals[1]:.0%}"
        table.append(f"{saved} of the products are saved: where no pixel of the image reaches, all images are alike.")
    return "\n".join(line.rstrip() for line in table)


def _told(steps: Iterable[Step]) -> Iterator[tuple[Step, str]]:
    """Yield each step and a description of how it is computed; merged steps are listed separately."""
    for step in steps:
        if step.before:
            yield step.before, _how(step.before)
        yield step, _how(step) + (" while it is made" if step.before else "")


def _how(step: Step) -> str:
    part = step.parts[0] if step.parts else None
    return step.op.told(part.made if part else (NOTHING, NOTHING))
