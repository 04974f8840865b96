#!/usr/bin/env python3
"""Draw the figure of README.md: images of Mini-VOC, their true labels, and the labels of its three nets.

    tools/figure.py        docs/figures/mini-light.png and mini-dark.png

The images are not chosen by hand: the 80 images that the nets are scored on are ranked by the mean IU of FCN-8s on each
of them, and the figure shows those at one quarter, one half and three quarters. ``make readme`` runs this tool.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from common import ROOT, run

from readme_parts.drawing import THEMES, draw_figure, save_figure

from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.scoring import score
from reproduction.fcn.segment.segmenter import Segmenter

FIGURES = ROOT / "docs" / "figures"
NETS = {"mini-fcn32s": "FCN-32s", "mini-fcn16s": "FCN-16s", "mini-fcn8s": "FCN-8s"}
TITLES = ("image", "ground truth", *NETS.values())
RANKS = (0.25, 0.5, 0.75)


def main() -> None:
    """Choose the images, draw the figure in both themes, and save it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    root = mini_voc.generate(ROOT / "data")
    nets = [Segmenter.load(name) for name in NETS]
    tree = root / "pascal/VOC2011"
    names = choose_images(tree, nets[-1])
    rows = [load_row(tree, name, nets) for name in names]
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, theme in THEMES.items():
        save_figure(draw_figure(TITLES, rows, theme), names, FIGURES / f"mini-{name}.png")


def choose_images(tree: Path, net: Segmenter) -> list[str]:
    """Return the names of the images at ``RANKS``, ranked by the net's mean IU on each image.

    Args:
        tree: Mini-VOC's VOC tree.
        net: The net that ranks them.
    """
    names = (tree / "ImageSets/Segmentation/val.txt").read_text().split()
    ranked = sorted(names, key=lambda name: (_mean_iu(tree, name, net), name))
    return [ranked[int(rank * len(ranked))] for rank in RANKS]


def _mean_iu(tree: Path, name: str, net: Segmenter) -> float:
    counts = score.confusion_matrix(_read_truth(tree, name), net(_image_path(tree, name)).labels, len(mini_voc.CLASSES))
    return score.compute_scores(counts).mean_iu


def _image_path(tree: Path, name: str) -> Path:
    return tree / f"JPEGImages/{name}.jpg"


def _read_truth(tree: Path, name: str) -> UInt8:
    return _decode(tree / f"SegmentationClass/{name}.png")


def _decode(path: Path) -> UInt8:
    with image_files.open_image(path) as image:
        return image_files.decode(image)


def load_row(tree: Path, name: str, nets: Iterable[Segmenter]) -> tuple[UInt8, ...]:
    """Return an image (H, W, 3), its true labels (H, W), and each net's labels (H, W), all uint8."""
    path = _image_path(tree, name)
    return _decode(path), _read_truth(tree, name), *(net(path).labels for net in nets)


if __name__ == "__main__":
    run(main)
