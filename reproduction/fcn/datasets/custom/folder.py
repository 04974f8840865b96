"""A user's images and labels as a data set; the module ``find_files`` describes where they may be.

An image and its label have the same name except for the extension: ``images/7.jpg``, ``labels/7.png``. The pixels of a
label are class numbers from 0, and 255 for void; or colours, if a palette assigns them to classes. Labels may also be
outlines in COCO's or LabelMe's JSON.

    DIR/classes.txt                      the names of the classes, one a line, the first for label 0
    DIR/palette.txt                      for painted labels instead: lines ``R G B name``
    DIR/train.txt, DIR/val.txt           the images to train on and to validate on, one name a line; without them,
                                         every fifth image is for validation. A VOC tree has them in
                                         ImageSets/Segmentation/.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.typing import Array, UInt8
from reproduction.fcn.datasets import voc
from reproduction.fcn.datasets.base import VOID, Dataset, Tops, check_param
from reproduction.fcn.datasets.custom import class_files, color_labels, find_files
from reproduction.fcn.datasets.custom.color_labels import RGB, Reading
from reproduction.fcn.datasets.custom.folder_files import FolderFiles
from reproduction.fcn.datasets.custom.outlines import VOID_NAMES
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import caffe_input, decode

#: The most bytes of decoded images and labels that a data set keeps in memory: about 300 of VOC's size.
CACHED_BYTES = 256 << 20


def find_classes(
    root: StrPath, classes: StrPath | None = None, colours: StrPath | None = None
) -> tuple[tuple[str, ...] | None, Reading]:
    """Find the names of a folder's classes, and how its label images are converted to class numbers.

    Args:
        root: The folder.
        classes: Path of a list of class names; None for the folder's classes.txt, or the list of another program there
            (see ``class_files``), if it exists.
        colours: Path of a palette, or ``voc`` or ``indices``; None for the folder's palette.txt, or CVAT's
            labelmap.txt, if it exists.

    Returns:
        (names, reading). The names are None if neither a list nor a palette states them; the reading is a palette,
        ``"indices"`` or None, see ``color_labels.Reading``.

    Raises:
        DataError: If a file is missing or invalid, or the two disagree.
    """
    own = Path(root)
    classes = classes or class_files.find_class_list(own)
    colours = colours or class_files.find_palette(own)
    names = class_files.read_class_list(classes) if classes else None
    if colours is None:
        return names, None
    found = color_labels.parse_reading(colours, names)
    return color_labels.palette_classes(found) if isinstance(found, Mapping) else names, found


def choose_classes(files: FolderFiles, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the classes of a folder: those that the user names, else those of its format or annotations, if any.

    Of the names in a list for LabelMe, those that mean void are left out.

    Raises:
        DataError: If the annotations cannot be read, or have more classes than a label map can have.
    """
    found = files.classes() if names is None else names
    if found is None or files.annotations is None:
        return None if found is None else tuple(found)
    chosen = tuple(name for name in found if name not in VOID_NAMES)
    if len(chosen) >= VOID:
        remedy = "List those to train on in classes.txt; the others are read as background."
        raise DataError(
            "there are too many classes", path=files.root, got=len(chosen), want="at most 254", remedy=remedy
        )
    return chosen


def choose_colours(files: FolderFiles, names: Sequence[str], reading: Reading) -> Mapping[str, RGB] | None:
    """Return the colour of each class: those of the palette by which labels are read, else of the format, else None."""
    if isinstance(reading, Mapping):
        return reading
    return files.colours if files.colours and tuple(files.colours) == tuple(names) else None


def check_classes_param(names: Sequence[str]) -> tuple[str, ...]:
    """Return the ``classes`` in a data layer's ``param_str`` as a tuple if they are valid, else raise.

    Raises:
        DataError: If it is not a list or tuple of 1 to 254 strings.
    """
    is_valid = isinstance(names, list | tuple) and 0 < len(names) < VOID and all(map(color_labels.is_name, names))
    return tuple(check_param(names, is_valid, "'classes' is not a list of names"))


def check_side_param(side: int) -> int:
    """Return the ``side`` in a data layer's ``param_str`` if it is valid, else raise.

    Raises:
        DataError: If it is not an integer from 0 to 2**20 - 1.
    """
    return check_param(side, type(side) is int and 0 <= side < 1 << 20, "'side' is not a number of pixels")


def _check_mean_param(mean: Sequence[float]) -> tuple[float, ...]:
    """Return the ``mean`` in a data layer's ``param_str`` if it is valid: three numbers, or one of grey images."""
    if isinstance(mean, list | tuple) and len(mean) == 1:
        return voc.check_mean([*mean] * 3)[:1]
    return voc.check_mean(mean)


def _check_scale_param(scale: float) -> float:
    return float(check_param(scale, isinstance(scale, int | float) and 0 < scale < 1e6, "'scale' is not a factor"))


class Folder(Dataset):
    """A split of a user's folder of images and labels, as a data set.

    Images are read as a viewer displays them: of any size, grey, 16-bit, transparent, rotated by EXIF.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``, times ``scale``
               (1, H, W)           brightness, if ``mean`` is one number
        label  (1, H, W)  uint8    0 to the last class; 255 = void

    Args:
        split: ``train`` or ``val``.
        root: The folder.
        tops: Mapping from top to kind; None for every kind, under its name.
        mean: The mean of each channel to subtract, in B G R order, 0 to 255; one number makes the images grey.
        scale: The factor by which the differences are multiplied.
        classes: Names of the classes. If ``classes`` and ``palette`` are both None, they are found as by
            ``find_classes`` and ``choose_classes``.
        palette: How label images are read. A palette: by colour. ``"indices"``: by pixel value. None: by pixel value,
            if the image's own palette proves that these are class numbers.
        side: Limit of the longer side, in pixels: larger images are shrunk, with their labels. 0 for no limit.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.
    """

    name = "folder"
    kinds = ("data", "label")
    kind_classes: ClassVar = {"label": ()}  # the folder's classes replace it
    layer = "FolderSegDataLayer"
    layer_checks: ClassVar = {
        "mean": _check_mean_param,
        "scale": _check_scale_param,
        "palette": color_labels.check_palette_param,
        "classes": check_classes_param,
        "side": check_side_param,
    }

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        mean: Sequence[float] = voc.MEAN_BGR,
        scale: float = 1,
        classes: Sequence[str] | None = None,
        palette: Reading = None,
        side: int = 0,
        **order: Any,
    ):
        super().__init__(split, root, tops, **order)
        self.mean_bgr, self.scale = np.array(mean, np.float64), np.float32(scale)
        self.files = find_files.list_files(root)
        self.tree = self.files.root
        self.ids = self.files.ids(split)
        if classes is None and palette is None:
            classes, palette = find_classes(root)
        if isinstance(palette, Mapping):
            classes = color_labels.palette_classes(color_labels.check_palette(palette, classes, root))
        classes = choose_classes(self.files, classes)
        if classes is None:
            raise DataError(
                "the names of the classes are not defined", path=root, want="classes.txt, one name a line, or --classes"
            )
        self.side, self._names = side, tuple(classes)
        self.read_labels = LabelReader(palette)
        self.label_classes = {top: self._names for top, kind in self.tops.items() if kind == "label"}
        self._cache = _ArrayCache(CACHED_BYTES)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the folder's classes; the index is the label."""
        return self._names

    @property
    def palette(self) -> Reading:
        """How label images are converted to class numbers, see ``color_labels.Reading``."""
        return self.read_labels.reading

    @property
    def colours(self) -> Mapping[str, RGB] | None:
        """The colour of each class, and maybe of void, if the palette or the format defines them; else None."""
        return choose_colours(self.files, self._names, self.palette)

    @property
    def is_grey(self) -> bool:
        """True if images are converted to one channel of brightness."""
        return len(self.mean_bgr) == 1

    def channels(self, kind: str) -> int:
        """Return the number of channels of a kind of data: 1 for labels and grey images, 3 for images in colour."""
        return 1 if kind != "data" or self.is_grey else 3

    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of the image (kind ``data``) or the label (kind ``label``) of an id; it need not exist.

        Raises:
            DataError: If several files have this id.
        """
        if image_id in self.files.twice:
            said = " and ".join(map(str, self.files.twice[image_id]))
            raise DataError(f"{said} have the same name", remedy="Rename or remove one.")
        known = self.files.images if kind == "data" else self.files.labels
        if image_id in known:
            return known[image_id]
        folder, ending = self.files.folders[kind == "label"], ".png" if kind == "label" else ".jpg"
        return self.tree / folder / f"{image_id}{ending}"

    def read(self, kind: str, path: Path) -> Array:
        """Read an image as (3, H, W) or (1, H, W) float32 minus the mean, or a label image as (1, H, W) uint8."""
        return self._to_sample(kind, self._read_image(path) if kind == "data" else self._read_label(path))

    def load(self, kind: str, image_id: str) -> Array:
        """Load an image or a label by its id; both are decoded once, as long as ``CACHED_BYTES`` suffice.

        Raises:
            DataError: If a file is missing or invalid, or labels are out of range.
        """
        pixels = self._cache.get((kind, image_id))
        if pixels is None:
            path, drawn = self.file(kind, image_id), self.files.annotations
            if kind == "data":
                pixels = self._read_image(path)
            elif drawn and image_id in self.files.labels:
                pixels = self._shrink_labels(drawn.draw_labels(image_id, self.file("data", image_id), self._names))
            else:
                pixels = self._read_label(path)
            self._cache.put((kind, image_id), pixels)
        return self._to_sample(kind, pixels)

    def _read_image(self, path: Path) -> UInt8:
        return decode.shrink(decode.read_rgb(path), self.side)

    def _read_label(self, path: Path) -> UInt8:
        numbers = convert_numbers(self.files, self._names, self.read_labels(path))
        return self._shrink_labels(caffe_input.check_labels(numbers, len(self._names) - 1, void=VOID).astype(np.uint8))

    def _shrink_labels(self, numbers: UInt8) -> UInt8:
        return decode.shrink(numbers, self.side, smooth=False)

    def _to_sample(self, kind: str, pixels: UInt8) -> Array:
        if kind != "data":
            return pixels[np.newaxis]
        if self.is_grey:
            values = caffe_input.subtract_grey_mean(pixels, self.mean_bgr)
        else:
            values = caffe_input.subtract_mean(pixels, self.mean_bgr, flip=True)
        return values if self.scale == 1 else values * self.scale

    def training_ids(self) -> set[str] | None:
        """Return the ids of the split ``train``, on which the user trains."""
        return set(self.files.ids("train"))


def convert_numbers(files: FolderFiles, names: Sequence[str], values: Array) -> Array:
    """Return the class numbers of a label image's values: of Cityscapes' ids, if the classes are Cityscapes'.

    Args:
        files: The folder's files.
        names: Names of the classes.
        values: (H, W), the values of the label image.
    """
    if files.numbers is None or files.colours is None or tuple(files.colours) != tuple(names):
        return values
    return files.numbers[values.astype(np.uint8)]


class _ArrayCache:
    """The arrays that were used last, up to a number of bytes; threads may share it.

    Args:
        limit: The most bytes of all arrays.
    """

    def __init__(self, limit: int):
        self._left, self._arrays, self._lock = limit, OrderedDict[tuple[str, str], UInt8](), threading.Lock()

    def get(self, key: tuple[str, str]) -> UInt8 | None:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: tuple[str, str], array: UInt8) -> None:
        with self._lock:
            if key in self._arrays:
                return
            self._arrays[key] = array
            self._left -= array.nbytes
            while self._left < 0:
                self._left += self._arrays.popitem(last=False)[1].nbytes
