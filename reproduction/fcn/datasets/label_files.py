"""Label pictures -> class numbers: one reader for all data sets whose labels are image files.

A palette picture has two readings, the indices of its pixels and their colours. VOC's label maps are meant by their
indices. Programs that reduce colours write palette pictures too, and order each file's palette as they like, so that
the indices mean nothing and only the colours do. Indices are therefore read where the palette shows what they are:
where each index that occurs has the colour by which its class is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.color_labels import RGB, Reading
from reproduction.fcn.images import palette

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]

#: Modes of pictures whose pixels may be class numbers.
NUMBERS = ("P", "L", "1", "I;16", "I;16B", "I;16L", "I")
#: What is wrong with labels that are painted and have no palette.
PAINTED = "the labels are colours, not class numbers"
#: What is wrong with palette pictures whose indices may be any numbers.
UNKNOWN = "the palette is not one that shows which index is which class"
DIFFERENT = "the palettes of the labels differ"

_BY_COLOUR = (
    "Read the labels by their colours with --palette FILE, which tools/check_data.py --write-palette begins, or with"
    " --palette voc; or by their indices with --palette indices."
)
_VOC = palette.voc()
_INDEX = np.arange(256)[:, None]


class LabelReader:
    """Reads the label pictures of one data set.

    Args:
        reading: how labels are read, see ``painted.Reading``.
    """

    def __init__(self, reading: Reading = None):
        self.reading = reading
        self._known: dict[int, tuple[RGB, str]] = {}  # by index: its colour, and the first file with it
        self._agreed: set[bytes] = set()  # palettes that agree with these, whichever of their indices occur

    def __call__(self, path: StrPath) -> Array:
        """Read a label picture.

        Returns:
            (H, W), of a type of whole numbers or bool: class numbers, 255 for void, which are not yet checked.

        Raises:
            DataError: the file cannot be read, is a JPEG, or holds colours of no class; its palette is not one by
                which classes are known, or differs from that of an earlier file.
        """
        with image_files.open_image(path) as image:
            return self.numbers(image, str(path))

    def numbers(self, image: Image.Image, name: str) -> Array:
        """Read an open label picture.

        Args:
            image: the picture.
            name: of its file, for the errors about later ones.

        Returns:
            As a call.

        Raises:
            DataError: as a call, without a place.
        """
        if image.format in ("JPEG", "MPO"):
            raise DataError(
                "a JPEG cannot hold labels; its compression changes them at every border",
                remedy="Export them again, as PNG.",
            )
        if isinstance(self.reading, Mapping):
            return color_labels.read_labels(image, self.reading)
        if image.mode not in NUMBERS:
            raise DataError(
                PAINTED,
                got=f"mode {image.mode}",
                want="palette (P) or grey (L)",
                remedy="Say by --palette which colour is which class; tools/check_data.py --write-palette begins it.",
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
            self._agreed.add(key)  # so that no file with the same palette needs its indices counted
        else:
            used = [index for index in _used(image) if index < len(colours)]
        if not _is_known(colours, used):
            wrong = [index for index in used if not (colours[index] == _VOC[index]).all()]
            got = ", ".join(f"{index} as {_rgb(colours, index)}" for index in wrong[:4])
            raise DataError(UNKNOWN, got=got, want="VOC's colours or a grey ramp", remedy=_BY_COLOUR)
        if (index := self._conflict(colours, used)) is not None:
            first, where = self._known[index]
            got, want = f"{index} as {_rgb(colours, index)}", f"{first} as in {where}"
            raise DataError(DIFFERENT, got=got, want=want, remedy=_BY_COLOUR)
        for index in used:
            self._known.setdefault(index, (_rgb(colours, index), name))

    def _conflict(self, colours: UInt8, indices: list[int]) -> int | None:
        """Return the first of the indices that has another colour in an earlier file."""
        return next((i for i in indices if i in self._known and self._known[i][0] != _rgb(colours, i)), None)


def indices(path: StrPath) -> UInt8:
    """Read a label map that ``palette.write_png`` wrote, (H, W) uint8, whatever its palette.

    Raises:
        DataError: the file cannot be read or is not such a picture.
    """
    with image_files.open_image(path) as image:
        if image.mode not in ("P", "L"):
            raise DataError("this is not a label map", got=f"mode {image.mode}", want="palette (P) or 8-bit grey (L)")
        return image_files.decode(image)


def colours(image: Image.Image) -> dict[int, tuple[RGB, int]]:
    """Return, for each index that occurs in a palette picture and has a colour, this colour and the number of pixels.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    next(image_files.parts(image))
    table, used = _palette(image), _used(image)
    return {index: (_rgb(table, index), count) for index, count in used.items() if index < len(table)}


def _used(image: Image.Image) -> dict[int, int]:
    return {index: count for index, count in enumerate(image.histogram()) if count}


def _palette(image: Image.Image) -> UInt8:
    """Return the colours of a picture's palette, (n, 3); a palette may be shorter than 256."""
    return np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)


def _is_known(colours: UInt8, used: list[int]) -> bool:
    """Return whether a palette shows what its indices are: it has VOC's colours, grey levels, or is a ramp of greys."""
    if not used:
        return True
    found = colours[used]
    if (found == _VOC[used]).all() or (found == _INDEX[used]).all():
        return True
    length = 1 + max(np.flatnonzero(colours.any(axis=1)).tolist(), default=0)  # some formats fill up with black
    ramp = np.linspace(0, 255, length)[:, None]
    return length > max(used) and bool((abs(colours[:length] - ramp) <= 1).all())


def _rgb(colours: UInt8, index: int) -> RGB:
    red, green, blue = colours[index].tolist()
    return red, green, blue
