"""Label maps in colour: the VOC colour map, palette PNGs, overlays and legends."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from reproduction.caffe.errors import DataError, StrPath, printable
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Integer, UInt8

#: The height of the letters of a legend, in pixels.
LEGEND_SIZE = 13


def voc_colours(n: int = 256) -> UInt8:
    """Return the colours in which PASCAL VOC draws its classes: row k is the colour of class k.

    The eight bits of a class number, starting with the least significant, are assigned in turn to red, green and blue.
    They fill each channel from its most significant bit downwards. Class 0 is black, 1 dark red, 2 dark green; 255
    (void) is cream.

    Args:
        n: Number of colours, 0 to 256.

    Returns:
        (n, 3) uint8, in RGB order.

    Source: PASCAL VOC development kit, VOCcode/VOClabelcolormap.m; shelhamer/fcn.berkeleyvision.org@1305c73
    vis.py (make_palette).
    """
    bits = np.arange(n)[:, None] >> np.arange(8) & 1  # (n, 8)
    colours = np.zeros((n, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (bits[:, bit] << (7 - bit // 3)).astype(np.uint8)
    return colours


def colour_table(colours: Iterable[Sequence[int]]) -> UInt8:
    """Return the colours of all 256 labels, from those of the first few: the others get VOC's colours.

    Args:
        colours: R, G, B of each class, starting with class 0.

    Returns:
        (256, 3) uint8, in RGB order.
    """
    full = voc_colours()
    for label, colour in enumerate(colours):
        full[label] = colour
    return full


def paint(labels: Integer, colours: UInt8 | None = None) -> UInt8:
    """Return a label map as an image: each label is replaced by its colour.

    Args:
        labels: (H, W), values 0 to 255.
        colours: (256, 3) uint8, the colour of each label; None for VOC's.

    Returns:
        (H, W, 3) uint8, in RGB order.

    Raises:
        DataError: If a label is outside 0 to 255.
    """
    return (voc_colours() if colours is None else colours)[_indices(labels)]


def overlay(
    rgb: UInt8, labels: Integer, alpha: float = 0.5, background: int | None = 0, colours: UInt8 | None = None
) -> UInt8:
    """Blend a label map in colours into its image.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W), values 0 to 255.
        alpha: Weight of the colours, 0 (only the image) to 1 (only the colours).
        background: The class whose pixels are not blended; None to blend all of them, as for NYUDv2 and SIFT Flow,
            which have no background class.
        colours: (256, 3) uint8, the colour of each label; None for VOC's.

    Returns:
        (H, W, 3) uint8, in RGB order.

    Raises:
        DataError: If image and labels differ in size, or a label is outside 0 to 255.
    """
    if rgb.shape[:2] != labels.shape:
        raise DataError("image and labels differ in size", got=labels.shape, want=rgb.shape[:2])
    mixed = np.rint(rgb * (1 - alpha) + paint(labels, colours) * alpha).astype(np.uint8)
    return mixed if background is None else np.where((labels == background)[..., None], rgb, mixed)


def write_png(
    labels: Integer, path: StrPath, colours: UInt8 | None = None, text: Mapping[str, str] | None = None
) -> None:
    """Write a label map as a palette PNG, as VOC's are: the pixel values are the class numbers, shown in colours.

    The file is written atomically.

    Args:
        labels: (H, W), values 0 to 255.
        path: Path of the PNG file, in an existing folder.
        colours: (256, 3) uint8, the colour of each label; None for VOC's.
        text: Texts to store in the file, by keywords of up to 79 characters.

    Raises:
        DataError: If a label is outside 0 to 255.
        ReproductionError: If the file cannot be written.
    """
    try:
        image = Image.fromarray(_indices(labels))
    except DataError as error:
        raise error.at(os.fspath(path)) from None
    image.putpalette((voc_colours() if colours is None else colours).tobytes())
    write_image(image, path, text)


def write_image(image: Image.Image, path: StrPath, text: Mapping[str, str] | None = None) -> None:
    """Write an image as a PNG, atomically.

    Args:
        image: The image.
        path: Path of the PNG file.
        text: Texts to store in the file, by keywords of up to 79 characters.

    Raises:
        ReproductionError: If the file cannot be written.
    """
    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_text(keyword, value)
    with files.open_atomic(path) as file:
        image.save(file, format="PNG", pnginfo=chunks)


@dataclass(frozen=True)
class Share:
    """One class of a label map, and the fraction of the image that it covers.

    Attributes:
        label: Class number.
        name: Name of the class.
        pixels: Number of its pixels.
        share: Its fraction of all pixels, 0 to 1.
    """

    label: int
    name: str
    pixels: int
    share: float


def count_shares(labels: Integer, classes: Sequence[str]) -> list[Share]:
    """Count the pixels of each class in a label map.

    Args:
        labels: (H, W), indices into ``classes``.
        classes: Names of the classes.

    Returns:
        One ``Share`` for each class that occurs, in descending order of pixels.

    Raises:
        DataError: If a label has no name in ``classes``.
    """
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    if len(counts) > len(classes):
        raise DataError("a label has no class name", got=len(counts) - 1, want=f"0 to {len(classes) - 1}")
    found = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    return [Share(label, classes[label], int(counts[label]), int(counts[label]) / labels.size) for label in found]


def format_legend(rows: Iterable[Share]) -> list[str]:
    """Format the classes of a label map as lines of text: percentage, class number and name."""
    return [f"{100 * row.share:6.2f} %  {row.label:3d}  {row.name}" for row in rows]


def draw_legend(rows: Sequence[Share], colours: UInt8 | None = None, note: str = "", size: int = LEGEND_SIZE) -> UInt8:
    """Draw the classes of a label map as an image: a line for each, with its colour, percentage and name.

    Args:
        rows: The shares.
        colours: (256, 3) uint8, the colour of each label; None for VOC's.
        note: A line of text below the classes; empty for none.
        size: The height of the letters in pixels, from which all distances follow.

    Returns:
        (H, W, 3) uint8, in RGB order; as wide as the longest line.
    """
    font = ImageFont.load_default(size)
    lines = [f"{100 * row.share:.2f} %  {printable(row.name)}" for row in rows]
    height, margin, box = (round(length * size / LEGEND_SIZE) for length in (20, 6, 14))
    text_x = 2 * margin + box
    width = text_x + margin + int(max((font.getlength(line) for line in (*lines, note)), default=0)) + 1
    image = Image.new("RGB", (width, height * (len(rows) + bool(note)) + margin), "white")
    draw = ImageDraw.Draw(image)
    colours = voc_colours() if colours is None else colours
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        top = margin // 2 + i * height + (height - box) // 2
        fill = tuple(int(value) for value in colours[row.label])
        draw.rectangle((margin, top, margin + box, top + box), fill=fill, outline="black")
        draw.text((text_x, top + 1), line, fill="black", font=font)
    if note:
        draw.text((margin, margin // 2 + len(rows) * height + (height - box) // 2 + 1), note, fill="black", font=font)
    return np.array(image)


def _indices(labels: Integer) -> UInt8:
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 255:
        raise DataError("a label has no colour", got=f"{labels.min()} to {labels.max()}", want="0 to 255")
    return labels.astype(np.uint8)
