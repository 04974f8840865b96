"""Labels painted in colours, one for each class, and the files that say which colour is which.

A palette is a text file of lines ``R G B name``, in the order of the classes; the name ``void`` is no class but the
label 255. ``voc`` stands for the colours in which PASCAL VOC draws its classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files, image_files
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.images import palette

RGB = tuple[int, int, int]
Palette = Mapping[str, RGB]
UInt8 = npt.NDArray[np.uint8]

#: How labels are read: by their colours; by the indices of palette pictures, whatever their colours; or, None, by
#: numbers, where palette pictures must have a palette that is known for its class numbers.
Reading = Palette | Literal["indices"] | None

VOID_NAME = "void"
VOC = "voc"
INDICES: Final = "indices"
#: No palette file is longer: 256 lines.
MOST_BYTES = 1 << 20
#: The most colours that are counted in labels; no labelling has as many.
MOST_COLOURS = 4096
VOCS_CLASSES = 21
#: What a mask of black and white is painted in.
MASK = {"background": (0, 0, 0), "thing": (255, 255, 255)}


def reading(path: StrPath, names: Sequence[str] | None = None) -> Reading:
    """Return how labels are read: ``indices`` for that word, else the palette that ``read`` returns.

    Raises:
        DataError: as ``read``.
    """
    return INDICES if str(path) == INDICES else read(path, names)


def read(path: StrPath, names: Sequence[str] | None = None) -> dict[str, RGB]:
    """Read a palette: the colour of each class by its name, in the order of the classes.

    Args:
        path: the file; or ``voc`` for VOC's colours of as many classes as there are names.
        names: the classes, where they are known; a palette must have these.

    Raises:
        DataError: the file cannot be read, is no palette, or has other classes.
    """
    if str(path) == VOC:
        if names is None:
            raise DataError("VOC's colours need the names of the classes", remedy="Name their file by --classes.")
        return voc(names)
    try:
        text = files.read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"the palette cannot be read ({(error.strerror or str(error)).lower()})", path=path) from None
    except UnicodeDecodeError:
        raise DataError("the palette is not a text file", path=path, want="lines of R G B name") from None
    found: dict[str, RGB] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        *values, name = line.split(maxsplit=3)
        if len(values) != 3 or not all(re.fullmatch("[0-9]{1,3}", value) and int(value) < 256 for value in values):
            want = "R G B name, such as 128 0 0 aeroplane"
            raise DataError(f"line {number} is no colour with a name", path=path, got=repr(line[:60]), want=want)
        if name in found:
            raise DataError(f"class {name!r} is there twice", path=path)
        found[name.strip()] = (int(values[0]), int(values[1]), int(values[2]))
    return check(found, names, path)


def check(found: Palette, names: Sequence[str] | None = None, path: StrPath = "") -> dict[str, RGB]:
    """Check that a palette tells classes apart, and that they are these.

    Raises:
        DataError: two classes have one colour, there are too few or too many, or others than ``names``.
    """
    by_colour: dict[RGB, str] = {}
    for name, colour in found.items():
        if colour in by_colour:
            both = f"{by_colour[colour]!r} and {name!r}"
            raise DataError(f"{both} have one colour", path=path, got=" ".join(map(str, colour)))
        by_colour[colour] = name
    classes = class_names(found)
    if not 0 < len(classes) < VOID:
        raise DataError("a palette has 1 to 254 classes", path=path, got=len(classes))
    if names is not None and tuple(names) != classes:
        raise DataError("the palette is of other classes", path=path, got=", ".join(classes), want=", ".join(names))
    return dict(found)


def class_names(found: Palette) -> tuple[str, ...]:
    """List the classes of a palette; index = label."""
    return tuple(name for name in found if name != VOID_NAME)


def voc(names: Sequence[str]) -> dict[str, RGB]:
    """Give classes the colours in which VOC draws its own."""
    colours = palette.voc()
    found = {name: _rgb(colours[i]) for i, name in enumerate(names)}
    return {**found, VOID_NAME: _rgb(colours[VOID])}


def is_voc(found: Iterable[RGB], names: Sequence[str]) -> bool:
    """Say whether labels are painted in VOC's colours of so many classes, and of void."""
    return set(found) <= set(voc(names).values())


def begin(found: Sequence[RGB], names: Sequence[str] | None = None) -> dict[str, RGB]:
    """Begin the palette of painted labels, whose names are then to be replaced.

    Args:
        found: the colours, in the order in which they shall be.
        names: the classes, where they are known.

    Returns:
        What ``read`` takes. Black and white are background and thing; VOC's colours get VOC's order and its void, and
        are complete where the classes are known.
    """
    if set(found) == set(MASK.values()):
        return dict(zip(names if names and len(names) == len(MASK) else MASK, MASK.values(), strict=True))
    if names and is_voc(found, names):
        return voc(names)
    classes = [f"class{i}" for i in range(VOCS_CLASSES)]
    if not is_voc(found, classes):
        return {f"class{i}": colour for i, colour in enumerate(found)}
    known = [(name, colour) for name, colour in voc(classes).items() if colour in found]
    return {name if name == VOID_NAME else f"class{i}": colour for i, (name, colour) in enumerate(known)}


def dumps(found: Palette) -> str:
    """Write a palette as the text of its file."""
    return "".join(f"{' '.join(map(str, colour))} {name}\n" for name, colour in found.items())


def colours(image: Image.Image) -> dict[RGB, int]:
    """Count the pixels of each colour of a picture, most frequent first; at most ``MOST_COLOURS`` are kept.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    found: Counter[int] = Counter()
    for _, part in image_files.parts(image):
        values, counts = np.unique(_packed(np.asarray(part.convert("RGB"))), return_counts=True)
        most = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
        found.update(dict(zip(values[most].tolist(), counts[most].tolist(), strict=True)))
        if len(found) > MOST_COLOURS:
            found = Counter(dict(found.most_common(MOST_COLOURS)))
    return {_unpacked(value): count for value, count in found.most_common()}


def read_labels(image: Image.Image, found: Palette) -> UInt8:
    """Read an open picture as ``labels`` does.

    Raises:
        DataError: the pixels cannot be decoded, or one has a colour of no class.
    """
    return image_files.decode(image, lambda part: labels(np.asarray(part.convert("RGB")), found))


def labels(rgb: UInt8, found: Palette) -> UInt8:
    """Turn colours into class numbers.

    Args:
        rgb: (H, W, 3).
        found: the palette.

    Returns:
        (H, W), void as 255.

    Raises:
        DataError: a pixel has a colour of no class.
    """
    numbers = {name: number for number, name in enumerate(class_names(found))} | {VOID_NAME: VOID}
    known = sorted((_pack(colour), numbers[name]) for name, colour in found.items())
    keys = np.array([key for key, _ in known], np.uint32)
    packed = _packed(rgb)
    places = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    wrong = keys[places] != packed
    if wrong.any():
        others = [_unpacked(int(value)) for value in np.unique(packed[wrong])]
        raise DataError(
            "colours of no class",
            got=f"{listed(others)} in {int(wrong.sum())} pixels",
            want="the colours of the palette",
            remedy="Add them to it, or save the labels without smoothing.",
        )
    return np.array([number for _, number in known], np.uint8)[places]


def listed(found: Iterable[RGB], most: int = 4) -> str:
    """Word a few colours."""
    colours = list(found)
    more = f" and {len(colours) - most} more" if len(colours) > most else ""
    return ", ".join("({}, {}, {})".format(*colour) for colour in colours[:most]) + more


def _pack(colour: RGB) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _packed(rgb: UInt8) -> npt.NDArray[np.uint32]:
    wide = rgb.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.uint32)


def _unpacked(value: int) -> RGB:
    return value >> 16, value >> 8 & 255, value & 255


def _rgb(colour: npt.NDArray[Any]) -> RGB:
    return int(colour[0]), int(colour[1]), int(colour[2])
