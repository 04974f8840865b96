"""Labels painted in colours, one for each class, and the palette files that define the colours.

A palette is a text file of lines ``R G B name``, in the order of the classes. The name ``void`` stands for the label
255 and is not a class. Instead of a file, ``voc`` selects the colours in which PASCAL VOC draws its classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath, join_first
from reproduction.caffe.formats import files, image_files
from reproduction.caffe.typing import UInt8, UInt32
from reproduction.fcn.datasets.base import VOID, check_param
from reproduction.fcn.images import palette

RGB = tuple[int, int, int]
Palette = Mapping[str, RGB]

#: How labels are read. A palette: by colour. ``"indices"``: by the pixel values, whatever the palette of the image.
#: None: by the pixel values, but the palette of a palette image must prove its indices, see ``label_files``.
Reading = Palette | Literal["indices"] | None

VOID_NAME = "void"
VOC = "voc"
INDICES: Final = "indices"
#: The number of colours that are counted in labels; far above any number of classes.
MOST_COLOURS = 4096
VOCS_CLASSES = 21
#: A line of CVAT's labelmap.txt: ``cat:128,0,0::``, a name, a colour, and what VOC calls parts and actions.
_CVAT = re.compile(r"(.+?):(\d{1,3},\d{1,3},\d{1,3}):[^:]*:[^:]*")
#: The palette of a black-and-white mask.
MASK = {"background": (0, 0, 0), "thing": (255, 255, 255)}


def parse_reading(path: StrPath, names: Sequence[str] | None = None) -> Reading:
    """Return how label images are read: ``"indices"`` (as class numbers) for that word, else the palette (by colour).

    Args:
        path: ``indices``, ``voc`` or the path of a palette.
        names: Names of the classes, if known; the palette must have these.

    Raises:
        DataError: In the same cases as ``load``.
    """
    return INDICES if str(path) == INDICES else load(path, names)


def load(path: StrPath, names: Sequence[str] | None = None) -> dict[str, RGB]:
    """Load a palette file: the colour of each class by its name, in the order of the classes; or CVAT's labelmap.txt.

    Args:
        path: Path of the palette, or ``voc`` for VOC's colours of as many classes as ``names`` has.
        names: Names of the classes, if known; the palette must have exactly these, and may have void.

    Raises:
        DataError: If the file cannot be read or is not a palette, the classes differ from ``names``, or ``voc`` is
            given without ``names``.
    """
    if str(path) == VOC:
        if names is None:
            raise DataError("VOC's colours need the names of the classes", remedy="Name their file by --classes.")
        return voc_palette(names)
    found: dict[str, RGB] = {}
    for number, line in enumerate(files.read_list(path, "the palette", "lines of R G B name"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if match := _CVAT.fullmatch(line.strip()):
            line = f"{match[2].replace(',', ' ')} {match[1]}"  # noqa: PLW2901
        *values, name = line.split(maxsplit=3)
        if len(values) != 3 or not all(re.fullmatch("[0-9]{1,3}", value) and int(value) < 256 for value in values):
            want = "R G B name, such as 128 0 0 aeroplane"
            raise DataError(f"line {number} is not a colour with a name", path=path, got=repr(line[:60]), want=want)
        if name in found:
            raise DataError(f"class {name!r} occurs twice", path=path)
        found[name.strip()] = (int(values[0]), int(values[1]), int(values[2]))
    return check_palette(found, names, path)


def check_palette(found: Palette, names: Sequence[str] | None = None, path: StrPath = "") -> dict[str, RGB]:
    """Check that a palette has distinct colours and the expected classes, and return it as a dict.

    Args:
        found: The palette.
        names: The expected classes in their order; None for any.
        path: Path of the palette, for errors.

    Returns:
        The palette as a dict.

    Raises:
        DataError: If two classes have the same colour, there are not 1 to 254 classes, or they differ from ``names``.
    """
    by_colour: dict[RGB, str] = {}
    for name, colour in found.items():
        if colour in by_colour:
            both = f"{by_colour[colour]!r} and {name!r}"
            raise DataError(f"{both} have the same colour", path=path, got=" ".join(map(str, colour)))
        by_colour[colour] = name
    classes = palette_classes(found)
    if not 0 < len(classes) < VOID:
        raise DataError("a palette has 1 to 254 classes", path=path, got=len(classes))
    if names is not None and tuple(names) != classes:
        raise DataError("the palette has other classes", path=path, got=", ".join(classes), want=", ".join(names))
    return dict(found)


def palette_classes(found: Palette) -> tuple[str, ...]:
    """Return the names of a palette's classes, without void; the index is the label."""
    return tuple(name for name in found if name != VOID_NAME)


def voc_palette(names: Sequence[str]) -> dict[str, RGB]:
    """Return a palette that gives classes the colours in which VOC draws its classes 0, 1, 2 ... and void."""
    colours = palette.voc_colours()
    found = {name: to_rgb(colours[i]) for i, name in enumerate(names)}
    return {**found, VOID_NAME: to_rgb(colours[VOID])}


def has_voc_colours(found: Iterable[RGB], names: Sequence[str]) -> bool:
    """Return True if every colour is one in which VOC draws void or one of its first ``len(names)`` classes."""
    return set(found) <= set(voc_palette(names).values())


def make_template(found: Sequence[RGB], names: Sequence[str] | None = None) -> dict[str, RGB]:
    """Return a palette of the colours found in painted labels, with placeholder names for the user to replace.

    Black and white alone become ``background`` and ``thing``, or the two classes in ``names``. VOC's colours get the
    order in which VOC numbers them; with ``names``, the palette then has VOC's colours for all these classes.

    Args:
        found: The colours, in the order that the palette should have.
        names: Names of the classes, if known.

    Returns:
        The colour of each class by its name, as ``load`` returns it.
    """
    if set(found) == set(MASK.values()):
        return dict(zip(names if names and len(names) == len(MASK) else MASK, MASK.values(), strict=True))
    if names and has_voc_colours(found, names):
        return voc_palette(names)
    classes = [f"class{i}" for i in range(VOCS_CLASSES)]
    if not has_voc_colours(found, classes):
        return {f"class{i}": colour for i, colour in enumerate(found)}
    known = [(name, colour) for name, colour in voc_palette(classes).items() if colour in found]
    return {name if name == VOID_NAME else f"class{i}": colour for i, (name, colour) in enumerate(known)}


def dumps(found: Palette) -> str:
    """Format a palette as the text of a palette file: lines ``R G B name``."""
    return "".join(f"{' '.join(map(str, colour))} {name}\n" for name, colour in found.items())


def count_colours(image: Image.Image) -> dict[RGB, int]:
    """Count the pixels of each colour in an image.

    Args:
        image: The image.

    Returns:
        The number of pixels by colour, most frequent first; at most ``MOST_COLOURS`` colours.

    Raises:
        DataError: If the pixels cannot be decoded.
    """
    found: Counter[int] = Counter()
    for _, part in image_files.split_rows(image):
        values, counts = np.unique(_packed(np.asarray(part.convert("RGB"))), return_counts=True)
        most = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
        found.update(dict(zip(values[most].tolist(), counts[most].tolist(), strict=True)))
        if len(found) > MOST_COLOURS:
            found = Counter(dict(found.most_common(MOST_COLOURS)))
    return {_unpacked(value): count for value, count in found.most_common()}


def decode_labels(image: Image.Image, found: Palette) -> UInt8:
    """Convert an image in which the classes are painted in colours to class numbers, see ``colours_to_labels``.

    Args:
        image: The open image.
        found: The palette.

    Raises:
        DataError: If the pixels cannot be decoded, or a pixel has a colour of no class.
    """
    return image_files.decode(image, lambda part: colours_to_labels(np.asarray(part.convert("RGB")), found))


def colours_to_labels(rgb: UInt8, found: Palette) -> UInt8:
    """Convert an array of colours to class numbers by a palette.

    Args:
        rgb: (H, W, 3) uint8, in RGB order.
        found: The palette.

    Returns:
        (H, W) uint8; 255 for void.

    Raises:
        DataError: If a pixel has a colour of no class.
    """
    numbers = {name: number for number, name in enumerate(palette_classes(found))} | {VOID_NAME: VOID}
    # Pack each colour into one integer, and find all pixels by binary search in the sorted palette.
    keys, packed = _packed(np.array([*found.values()], np.uint8)), _packed(rgb)
    order = np.argsort(keys)
    keys = keys[order]
    places = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    wrong = keys[places] != packed
    if wrong.any():
        others = [_unpacked(int(value)) for value in np.unique(packed[wrong])]
        raise DataError(
            "colours of no class",
            got=f"{join_first(others, 4)} in {int(wrong.sum())} pixels",
            want="the colours of the palette",
            remedy="Add them to it, or save the labels without smoothing.",
        )
    return np.array([numbers[name] for name in found], np.uint8)[order][places]


def is_name(name: object) -> bool:
    """Return True if a value of a data layer's ``param_str`` is a string that can be the name of a class."""
    return isinstance(name, str) and files.is_utf8(name)


def check_palette_param(colours: Reading) -> Reading:
    """Return the ``palette`` in a data layer's ``param_str`` if it is valid, else raise.

    Raises:
        DataError: If it is not None, ``"indices"``, or a dict from names to tuples of three integers from 0 to 255.
    """
    is_table = isinstance(colours, dict) and all(
        is_name(name)
        and isinstance(rgb, tuple)
        and len(rgb) == 3
        and all(type(value) is int and 0 <= value < 256 for value in rgb)
        for name, rgb in colours.items()
    )
    is_valid = colours is None or colours == INDICES or is_table
    return check_param(colours, is_valid, "'palette' is not a table of colours", "{'sky': (0, 0, 255), ...}")


def _packed(rgb: UInt8) -> UInt32:
    wide = rgb.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.uint32)


def _unpacked(value: int) -> RGB:
    return value >> 16, value >> 8 & 255, value & 255


def to_rgb(colour: UInt8) -> RGB:
    """Return a row of an array of colours as a tuple."""
    red, green, blue = colour.tolist()
    return red, green, blue
