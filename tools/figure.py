#!/usr/bin/env python3
"""Draw the figure of README.md: images of Mini-VOC, their true labels, and the labels of its three nets.

    tools/figure.py        docs/figures/mini-light.png and mini-dark.png

The images are not chosen by hand: the 80 images that the nets are scored on are ranked by the mean IU of FCN-8s on each
of them, and the figure shows those at one quarter, one half and three quarters. ``make readme`` runs this tool.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, run

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from reproduction.caffe.formats import files, image_files
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.images import palette
from reproduction.fcn.scoring import score
from reproduction.fcn.segment.segmenter import Segmenter

FIGURES = ROOT / "docs" / "figures"
NETS = {"mini-fcn32s": "FCN-32s", "mini-fcn16s": "FCN-16s", "mini-fcn8s": "FCN-8s"}
TITLES = ("image", "ground truth", *NETS.values())
RANKS = (0.25, 0.5, 0.75)
KEY = "pictures"  # the text chunk of the PNG that holds the names of the images, from top to bottom
GAP, HEAD, FOOT = 8, 34, 40  # pixels: between cells, for the titles, for the legend
TEXT = ImageFont.load_default(20)
COLOURS = 255  # of the PNG's palette; more would double its size and show no difference


@dataclass(frozen=True)
class Theme:
    """Colours for one of the two backgrounds of GitHub's pages.

    Attributes:
        page: The figure's background, (R, G, B).
        text: Titles and legend, (R, G, B).
        labels: The colour of each label, (256, 3) uint8, R, G, B.
    """

    page: tuple[int, int, int]
    text: tuple[int, int, int]
    labels: UInt8


def _themes() -> dict[str, Theme]:
    """Return the themes; VOC's colours are lighter on the dark page, and backgrounds differ a little from the page."""
    light, dark = palette.voc_colours(), palette.voc_colours()
    dark[1:VOID] = np.minimum(80 + dark[1:VOID].astype(int) * 9 // 8, 255)
    light[0], light[VOID] = (226, 231, 236), (255, 255, 255)
    dark[0], dark[VOID] = (38, 44, 52), (13, 17, 23)
    return {
        "light": Theme((255, 255, 255), (31, 35, 40), light),
        "dark": Theme((13, 17, 23), (230, 237, 243), dark),
    }


THEMES = _themes()


def main() -> None:
    """Choose the images, draw the figure in both themes, and save it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    root = mini_voc.generate(ROOT / "data")
    nets = [Segmenter.load(name) for name in NETS]
    tree = root / "pascal/VOC2011"
    names = choose(tree, nets[-1])
    rows = [row(tree, name, nets) for name in names]
    FIGURES.mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        save(draw(rows, THEMES[theme]), names, FIGURES / f"mini-{theme}.png")


def choose(tree: Path, net: Segmenter) -> list[str]:
    """Return the names of the images at ``RANKS``, ranked by the net's mean IU on each image.

    Args:
        tree: Mini-VOC's VOC tree.
        net: The net that ranks them.
    """
    names = (tree / "ImageSets/Segmentation/val.txt").read_text().split()
    ranked = sorted(names, key=lambda name: (_mean_iu(tree, name, net), name))
    return [ranked[int(rank * len(ranked))] for rank in RANKS]


def _mean_iu(tree: Path, name: str, net: Segmenter) -> float:
    counts = score.confusion_matrix(_truth(tree, name), net(_picture(tree, name)).labels, len(mini_voc.CLASSES))
    return score.compute_scores(counts).mean_iu


def _picture(tree: Path, name: str) -> Path:
    return tree / f"JPEGImages/{name}.jpg"


def _truth(tree: Path, name: str) -> UInt8:
    return _pixels(tree / f"SegmentationClass/{name}.png")


def _pixels(path: Path) -> UInt8:
    with image_files.open_image(path) as image:
        return image_files.decode(image)


def row(tree: Path, name: str, nets: Iterable[Segmenter]) -> tuple[UInt8, ...]:
    """Return an image (H, W, 3), its true labels (H, W), and each net's labels (H, W), all uint8."""
    picture = _picture(tree, name)
    return _pixels(picture), _truth(tree, name), *(net(picture).labels for net in nets)


def draw(rows: Sequence[tuple[UInt8, ...]], theme: Theme) -> Image.Image:
    """Draw rows of cells below their titles and above a legend of the classes.

    Args:
        rows: The rows, as ``row`` returns them.
        theme: The colours.
    """
    width = max(mini_voc.WIDTHS)
    heights = [cells[0].shape[0] for cells in rows]
    size = len(TITLES) * (width + GAP) - GAP, HEAD + sum(heights) + GAP * (len(rows) - 1) + FOOT
    figure = Image.new("RGB", size, theme.page)
    pen = ImageDraw.Draw(figure)
    top = HEAD
    for column, title in enumerate(TITLES):
        pen.text((column * (width + GAP) + width // 2, HEAD // 2), title, theme.text, TEXT, anchor="mm")
    for cells, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(cells):
            image = Image.fromarray(cell if cell.ndim == 3 else palette.paint(cell, theme.labels))
            figure.paste(image, (column * (width + GAP) + (width - image.width) // 2, top))
        top += height + GAP
    _legend(pen, size, theme)
    return figure


def _legend(pen: ImageDraw.ImageDraw, size: tuple[int, int], theme: Theme) -> None:
    """Draw a coloured square and the name of each class, centred at the bottom."""
    square, space = 18, 26
    lengths = [square + 8 + round(pen.textlength(name, TEXT)) for name in mini_voc.CLASSES]
    left, middle = (size[0] - sum(lengths) - space * (len(lengths) - 1)) // 2, size[1] - FOOT // 2 + 4
    for label, (name, length) in enumerate(zip(mini_voc.CLASSES, lengths, strict=True)):
        box = (left, middle - square // 2, left + square, middle + square // 2)
        pen.rectangle(box, tuple(theme.labels[label].tolist()))
        pen.text((left + square + 8, middle), name, theme.text, TEXT, anchor="lm")
        left += length + space


def save(figure: Image.Image, names: Sequence[str], path: Path) -> None:
    """Write the figure as a palette PNG, with the names of its images in a text chunk."""
    about = PngInfo()
    about.add_text(KEY, " ".join(names))
    small = figure.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with files.open_atomic(path) as file:
        small.save(file, format="PNG", pnginfo=about, optimize=True)


if __name__ == "__main__":
    run(main)
