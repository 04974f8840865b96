"""Draw rows of images and label maps, on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from reproduction.caffe.formats import files
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.images import palette

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


def _make_themes() -> dict[str, Theme]:
    """Return the themes; VOC's colours are lighter on the dark page, and backgrounds differ a little from the page."""
    light, dark = palette.voc_colours(), palette.voc_colours()
    dark[1:VOID] = np.minimum(80 + dark[1:VOID].astype(int) * 9 // 8, 255)
    light[0], light[VOID] = (226, 231, 236), (255, 255, 255)
    dark[0], dark[VOID] = (38, 44, 52), (13, 17, 23)
    return {
        "light": Theme((255, 255, 255), (31, 35, 40), light),
        "dark": Theme((13, 17, 23), (230, 237, 243), dark),
    }


THEMES = _make_themes()


def draw_figure(titles: Sequence[str], rows: Sequence[Sequence[UInt8]], theme: Theme) -> Image.Image:
    """Draw rows of cells below their titles and above a legend of the classes.

    Args:
        titles: The title of each column.
        rows: The cells of each row: images of Mini-VOC (H, W, 3) and label maps (H, W), all uint8.
        theme: The colours.
    """
    width = max(mini_voc.WIDTHS)
    heights = [cells[0].shape[0] for cells in rows]
    size = len(titles) * (width + GAP) - GAP, HEAD + sum(heights) + GAP * (len(rows) - 1) + FOOT
    figure = Image.new("RGB", size, theme.page)
    pen = ImageDraw.Draw(figure)
    top = HEAD
    for column, title in enumerate(titles):
        pen.text((column * (width + GAP) + width // 2, HEAD // 2), title, theme.text, TEXT, anchor="mm")
    for cells, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(cells):
            image = Image.fromarray(cell if cell.ndim == 3 else palette.paint(cell, theme.labels))
            figure.paste(image, (column * (width + GAP) + (width - image.width) // 2, top))
        top += height + GAP
    _draw_legend(pen, size, theme)
    return figure


def _draw_legend(pen: ImageDraw.ImageDraw, size: tuple[int, int], theme: Theme) -> None:
    """Draw a coloured square and the name of each class, centred at the bottom."""
    square, space = 18, 26
    lengths = [square + 8 + round(pen.textlength(name, TEXT)) for name in mini_voc.CLASSES]
    left, middle = (size[0] - sum(lengths) - space * (len(lengths) - 1)) // 2, size[1] - FOOT // 2 + 4
    for label, (name, length) in enumerate(zip(mini_voc.CLASSES, lengths, strict=True)):
        box = (left, middle - square // 2, left + square, middle + square // 2)
        pen.rectangle(box, tuple(theme.labels[label].tolist()))
        pen.text((left + square + 8, middle), name, theme.text, TEXT, anchor="lm")
        left += length + space


def save_figure(figure: Image.Image, names: Sequence[str], path: Path) -> None:
    """Write the figure as a palette PNG, with the names of its images in a text chunk."""
    chunk = PngInfo()
    chunk.add_text(KEY, " ".join(names))
    small = figure.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with files.open_atomic(path) as file:
        small.save(file, format="PNG", pnginfo=chunk, optimize=True)
