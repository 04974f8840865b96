"""The result of segmenting an image: labels, shares, overlay and legend, as files and in a notebook."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath, printable
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Float32, UInt8
from reproduction.fcn.images import decode, palette

#: What is drawn for a label map, by the ending of the file.
DRAWINGS = ("overlay", "legend", "overview")

_SHOWN = 768  # pixels of the longer side of the overlay in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The result of segmenting one image: a label for each pixel. A notebook shows it with a legend.

    Attributes:
        labels: (H, W) uint8, the class of each pixel, an index of ``classes``.
        classes: the class names; the index is the label.
        scores: (C, H, W) float32, the class scores before the argmax; None if they were not requested.
        colours: (256, 3) uint8, the R, G, B values of every label; None stands for VOC's colours.
        image: (H, W, 3) uint8, the image that was segmented, R G B; None if the net read only a depth map.
        name: the image's file name without ending, under which ``save`` writes the results; empty if it has none.
        note: a line for the legend, such as what the net recognizes; empty for none.
    """

    labels: UInt8
    classes: tuple[str, ...]
    scores: Float32 | None = None
    colours: UInt8 | None = None
    image: UInt8 | None = None
    name: str = ""
    note: str = ""

    @property
    def shares(self) -> list[palette.Share]:
        """The classes that occur, each with the fraction of the pixels that it covers, in descending order."""
        return palette.count_shares(self.labels, self.classes)

    @property
    def background(self) -> int | None:
        """The number of the class named ``background``, which overlays leave clear; None if there is no such class."""
        return self.classes.index("background") if "background" in self.classes else None

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """Draw the labels over the image, in the net's colours; pixels of the class ``background`` stay as they are.

        Without an image, the labels alone are drawn.

        Args:
            alpha: weight of the colours, 0 (only the image) to 1 (only the colours).

        Returns:
            An RGB image of the size of the labels.
        """
        if self.image is None:
            return Image.fromarray(palette.paint(self.labels, self.colours))
        return Image.fromarray(palette.overlay(self.image, self.labels, alpha, self.background, self.colours))

    def legend(self) -> Image.Image:
        """Draw the classes that occur, each with its colour and the percentage of the pixels that it covers."""
        return Image.fromarray(palette.draw_legend(self.shares, self.colours, self.note))

    def overview(self) -> Image.Image:
        """Draw the overlay with the legend to its right, as one image."""
        overlay = self.overlay()
        size = max(palette.LEGEND_SIZE, max(overlay.size) // 60)  # so that it can be read next to a large photograph
        legend = Image.fromarray(palette.draw_legend(self.shares, self.colours, self.note, size))
        whole = Image.new("RGB", (overlay.width + legend.width, max(overlay.height, legend.height)), "white")
        whole.paste(overlay, (0, 0))
        whole.paste(legend, (overlay.width, 0))
        return whole

    def save(self, folder: StrPath, name: str | None = None) -> list[Path]:
        """Write the labels, the overlay, the legend and the overview to a folder, which is created.

        Args:
            folder: the folder.
            name: the name of the files; None selects the image's name, or ``image`` if that has none.

        Returns:
            The paths: ``NAME.png``, a palette image whose pixels are the labels, ``NAME_overlay.png``,
            ``NAME_legend.png`` and ``NAME_overview.png``. Files that exist are replaced.

        Raises:
            DataError: If ``name`` is a path rather than a name.
            ReproductionError: If a file cannot be written.
        """
        name = name or self.name or "image"
        if Path(name).name != name:
            raise DataError("this is not the name of a file", got=repr(name), remedy="Name the folder separately.")
        files.make_folder(folder)
        drawn = self.draw(Path(folder) / name)
        labels = Path(folder) / f"{name}.png"
        palette.write_png(self.labels, labels, self.colours)
        return [labels, *drawn]

    def draw(self, stem: Path) -> list[Path]:
        """Write the images of ``DRAWINGS``, and return their paths.

        Args:
            stem: the path of the files without ``_overlay.png`` and the other endings.
        """
        paths = [stem.with_name(f"{stem.name}_{drawing}.png") for drawing in DRAWINGS]
        for path, image in zip(paths, (self.overlay(), self.legend(), self.overview()), strict=True):
            palette.write_image(image, path)
        return paths

    def __repr__(self) -> str:
        """Return the size and the largest classes as text."""
        height, width = self.labels.shape
        largest = ", ".join(f"{100 * share.share:.1f} % {share.name}" for share in self.shares[:5])
        return printable(f"<Segmentation of {width} x {height} pixels: {largest}>")

    def _repr_png_(self) -> bytes:
        """Return the overview as PNG, for notebooks that show images."""
        file = io.BytesIO()
        self.overview().save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self) -> str:
        """Return the overlay and a table of the classes, for notebooks."""
        overlay, file = decode.shrink(np.asarray(self.overlay()), _SHOWN), io.BytesIO()
        Image.fromarray(overlay).save(file, "JPEG", quality=88)
        colours = palette.voc_colours() if self.colours is None else self.colours
        rows = "".join(
            f'<tr><td style="background:rgb({",".join(map(str, colours[share.label]))});width:1.5em"></td>'
            f'<td style="text-align:right">{100 * share.share:.2f} %</td>'
            f'<td style="text-align:left">{html.escape(share.name)}</td></tr>'
            for share in self.shares
        )
        caption = f'<caption style="caption-side:bottom">{html.escape(self.note)}</caption>' if self.note else ""
        height, width = self.labels.shape
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
            f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"'
            f' alt="{html.escape(self.name or "image")}, {width} x {height} pixels, with its classes in colour">'
            f"<table>{caption}{rows}</table></div>"
        )
