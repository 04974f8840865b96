"""Tables of a net's layers, as text and for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reproduction.caffe.schema import ParamSpec

if TYPE_CHECKING:
    from reproduction.caffe.net.net import Net


@dataclass(frozen=True)
class _Row:
    """One layer of the tables."""

    name: str
    type: str
    bottoms: str
    tops: str
    shape: str
    count: str
    specs: list[ParamSpec]


def _find_rows(net: Net) -> Iterator[_Row]:
    for node in net.graph.nodes:
        layer = net.layers.get(node.name)
        shape = " ".join("x".join(map(str, net.blob_shapes[top])) for top in node.tops)
        count = sum(blob.numel() for blob in layer.blobs) if layer else 0
        specs = net.param_specs.get(node.name, [])
        shown = f"{count:,}" if count else ""
        yield _Row(node.name, node.type, " ".join(node.bottoms), " ".join(node.tops), shape, shown, specs)


def _count_parameters(net: Net) -> int:
    return sum(blob.numel() for blob in net.parameters())


def format_text(net: Net) -> str:
    """Return a table of the layers as text: type, tops, shapes, number of parameters, ``lr_mult`` and ``decay_mult``.

    Args:
        net: the net.
    """
    rows = [("layer", "type", "tops", "shape", "parameters", "lr_mult/decay_mult")]
    for row in _find_rows(net):
        mults = " ".join(f"{spec.lr_mult:g}/{spec.decay_mult:g}" for spec in row.specs)
        rows.append((row.name, row.type, row.tops, row.shape, row.count, mults))
    rows.append(("total", "", "", "", f"{_count_parameters(net):,}", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def format_html(net: Net) -> str:
    """Return a table of the layers as HTML: type, bottoms and tops, shapes, number of parameters and ``lr_mult``.

    Args:
        net: the net.
    """
    left, right = ' style="text-align:left"', ' style="text-align:right"'
    titles = ("layer", "type", "bottoms \N{RIGHTWARDS ARROW} tops", "shape", "parameters", "lr_mult")
    sides = (left, left, left, left, right, left)
    lines = ["".join(f"<th{side}>{title}</th>" for side, title in zip(sides, titles, strict=True))]
    for row in _find_rows(net):
        between = " \N{RIGHTWARDS ARROW} ".join(filter(None, (row.bottoms, row.tops)))
        mults = " ".join(f"{spec.lr_mult:g}" for spec in row.specs)
        cells = (row.name, row.type, between, row.shape, row.count, mults)
        lines.append("".join(f"<td{side}>{html.escape(cell)}</td>" for side, cell in zip(sides, cells, strict=True)))
    caption = f"{html.escape(net.graph.name or 'net')}: {_count_parameters(net):,} parameters"
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    return f"<table><caption>{caption}</caption><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table>"
