"""Label images (files whose pixels are class numbers or colours) -> class numbers, for all data sets that have them.

A palette image can be read by the indices of its pixels or by their colours. VOC's label maps are meant to be read by
index. Programs that reduce colours also write palette images, but sort each file's palette differently, so that only
the colours have a meaning. Indices are therefore accepted only if the palette proves them: if the colour of each index
that occurs is VOC's colour for it, or the grey level of it, or if the palette is a ramp of greys.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import Array, UInt8
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.color_labels import RGB, Reading
from reproduction.fcn.images import palette

#: Pillow's modes of images whose pixels may be class numbers.
NUMBERS = ("P", "L", "1", "I;16", "I;16B", "I;16L", "I")
#: The problem with label images in RGB if no palette is given.
PAINTED = "the labels are colours, not class numbers"
#: The problem with palette images whose indices may be in any order.
UNKNOWN = "the palette does not show which index is which class"
DIFFERENT = "the palettes of the labels differ"

_BY_COLOUR = (
    "Read the labels by their colours with --palette FILE, for which fcn check-data --write-palette writes a"
    " template, or with --palette voc; or by their indices with --palette indices."
)
_VOC = palette.voc_colours()
_INDEX = np.arange(256)[:, None]


class LabelReader:
    """A function that converts the label images of one data set to class numbers, and checks that their palettes agree.

    Args:
        reading: A palette: by colour. ``"indices"``: by pixel value. None: by pixel value, if the image's own palette
            proves that these are class numbers.
    """

    def __init__(self, reading: Reading = None):
        self.reading = reading
        self._known: dict[int, tuple[RGB, str]] = {}  # index -> its colour, and the first file that has it
        self._agreed: set[bytes] = set()  # palettes known to agree with _known in every index

    def __call__(self, path: StrPath) -> Array:
        """Read a label image and convert it to class numbers.

        Args:
            path: Path of the image file.

        Returns:
            (H, W), integer or bool: class numbers, and 255 for void. Their range is not checked.

        Raises:
            DataError: If the file cannot be read or is a JPEG, has a colour of no class, has a palette that does not
                prove that its indices are class numbers (see the module), or has another palette than an earlier file.
        """
        with image_files.open_image(path) as image:
            return self.numbers(image, str(path))

    def numbers(self, image: Image.Image, name: str) -> Array:
        """Convert an open label image to class numbers.

        Args:
            image: The image.
            name: Name of its file, which the errors about later files with another palette state.

        Returns:
            (H, W), integer or bool: class numbers, and 255 for void. Their range is not checked.

        Raises:
            DataError: In the same cases as ``__call__``, but without the path.
        """
        if image.format in ("JPEG", "MPO"):
            raise DataError(
                "a JPEG cannot hold labels; its compression changes them at every border",
                remedy="Export them again, as PNG.",
            )
        if isinstance(self.reading, Mapping):
            return color_labels.decode_labels(image, self.reading)
        if image.mode not in NUMBERS:
            raise DataError(
                PAINTED,
                got=f"mode {image.mode}",
                want="palette (P) or grey (L)",
                remedy="Map colours to classes with --palette; fcn check-data --write-palette writes a template.",
            )
        numbers = image_files.decode(image)
        if image.mode == "P" and self.reading is None:
            self._check_palette(image, name)
        return numbers

    def _check_palette(self, image: Image.Image, name: str) -> None:
        colours = _palette(image)
        if (key := colours.tobytes()) in self._agreed:
            return
        whole = list(range(len(colours)))
        if _is_known(colours, whole) and self._conflict(colours, whole) is None:
            used = whole
            self._agreed.add(key)  # files with the same palette need not count their indices
        else:
            used = [index for index in _used(image) if index < len(colours)]
        if not _is_known(colours, used):
            wrong = [index for index in used if not (colours[index] == _VOC[index]).all()]
            got = ", ".join(f"{index} as {color_labels.to_rgb(colours[index])}" for index in wrong[:4])
            raise DataError(UNKNOWN, got=got, want="VOC's colours or a grey ramp", remedy=_BY_COLOUR)
        if (index := self._conflict(colours, used)) is not None:
            first, where = self._known[index]
            got, want = f"{index} as {color_labels.to_rgb(colours[index])}", f"{first} as in {where}"
            raise DataError(DIFFERENT, got=got, want=want, remedy=_BY_COLOUR)
        for index in used:
            self._known.setdefault(index, (color_labels.to_rgb(colours[index]), name))

    def _conflict(self, colours: UInt8, indices: list[int]) -> int | None:
        """Return the first of the indices whose colour differs from an earlier file's, or None."""
        return next(
            (i for i in indices if i in self._known and self._known[i][0] != color_labels.to_rgb(colours[i])), None
        )


def read_indices(path: StrPath) -> UInt8:
    """Read a label map that ``palette.write_png`` wrote: the pixel values are the class numbers, whatever the palette.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: If the file cannot be read, or its mode is neither P nor L.
    """
    with image_files.open_image(path) as image:
        if image.mode not in ("P", "L"):
            raise DataError("this is not a label map", got=f"mode {image.mode}", want="palette (P) or 8-bit grey (L)")
        return image_files.decode(image)


def count_colours(image: Image.Image) -> dict[int, tuple[RGB, int]]:
    """Return the colour and the number of pixels of each index (pixel value) that occurs in a palette image.

    Indices beyond the end of the palette are left out.

    Raises:
        DataError: If the pixels cannot be decoded.
    """
    next(image_files.split_rows(image))
    table, used = _palette(image), _used(image)
    return {index: (color_labels.to_rgb(table[index]), count) for index, count in used.items() if index < len(table)}


def _used(image: Image.Image) -> dict[int, int]:
    return {index: count for index, count in enumerate(image.histogram()) if count}


def _palette(image: Image.Image) -> UInt8:
    """Return the palette of an image, (n, 3) uint8, with n at most 256."""
    return np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)


def _is_known(colours: UInt8, used: list[int]) -> bool:
    """Return True if a palette proves its indices: VOC's colours, grey levels or a grey ramp."""
    if not used:
        return True
    found = colours[used]
    if (found == _VOC[used]).all() or (found == _INDEX[used]).all():
        return True
    length = 1 + max(np.flatnonzero(colours.any(axis=1)).tolist(), default=0)  # some formats pad palettes with black
    ramp = np.linspace(0, 255, length)[:, None]
    return length > max(used) and bool((abs(colours[:length] - ramp) <= 1).all())
