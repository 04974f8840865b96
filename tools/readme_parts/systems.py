"""The table and the figures of docs/systems.md, computed from the nets' prototxts."""

from __future__ import annotations

import functools
from pathlib import Path

from common import ROOT

from reproduction import figure
from reproduction.caffe.net.net import Net
from reproduction.caffe.net.net_info import build_without_values
from reproduction.fcn.nets import registry, systems
from reproduction.fcn.nets.receptive_field import compute_net_figures
from reproduction.figure.units import Unit, read_units

FOLDER = ROOT / "docs" / "figures"
SIDE = 500  # of the images for which products and sizes are shown
PUBLISHED = ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet")
SHOWN = (*PUBLISHED, *systems.NETS)
HEADER = ("net", "learned parameters", "GMAC", "receptive field", "stride", "sizes of the score maps")


def systems_table() -> str:
    """Return a table of the nets of the page: size, products, receptive field, stride, and sizes of the score maps."""
    rows = [HEADER, ("---", *("--:",) * 4, "---")]
    for name in SHOWN:
        net = _build(name)
        found = compute_net_figures(net)
        products = sum(
            layer.products([net.blob_shapes[bottom] for bottom in node.bottoms])
            for node in net.graph.nodes
            if (layer := net.layer_at(node)) is not None
        )
        sizes = ", ".join(map(str, find_score_sizes(net)))
        cells = f"{found.learned:,}", f"{products / 1e9:.1f}", f"{found.receptive_field}", f"{found.max_stride}"
        rows.append((f"[{name}](#{name})", *cells, sizes))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + (
        f"\n\nFor an image of {SIDE} x {SIDE}. GMAC: billions of multiplications. Receptive field and stride are in"
        " pixels, the largest before the first upsampling. Sizes: the height of the coarsest map, of each upsampled map"
        " before and after it is fused, and of the scores."
    )


def _build(name: str) -> Net:
    net_param = registry.load_net(name)
    for shape in net_param.layer[0].input_param.shape:
        shape.dim[2:] = [SIDE, SIDE]
    return build_without_values(net_param)[0]


def find_score_sizes(net: Net) -> list[int]:
    """Return the heights of the coarsest map, of what each upsampling reads and computes, and of the output.

    Args:
        net: The net; its path is that of the coarsest bottom of each layer that joins several.
    """
    unit: Unit = read_units(net)[-1]
    sizes = [unit.shape[2]]
    while unit.bottoms:
        below = max(unit.bottoms, key=lambda bottom: (bottom.kind in ("up", "crop"), bottom.stride))
        if unit.kind == "up":
            sizes += [unit.shape[2], below.shape[2]]
        unit = below
    return list(dict.fromkeys(reversed(sizes)))


def figures() -> dict[Path, functools.partial[str]]:
    """Return the files of the figures, each with a function that returns its text."""
    return {FOLDER / f"{name}.svg": functools.partial(draw_figure, name) for name in SHOWN}


def draw_figure(name: str) -> str:
    """Return the figure of a net, as ``fcn info NAME --figure`` draws it."""
    net_param, inputs = figure.load_training_net(registry.NETS[name])
    return figure.draw_net(net_param, inputs=inputs)
