"""What a ``Segmenter`` takes: files, PIL images, arrays, bytes and file objects, read as RGB or as depth.

An input of another kind raises an error that names its type, dtype and shape, and what to change.
"""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image
from torch import Tensor

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import Array, UInt8
from reproduction.fcn.datasets import nyud
from reproduction.fcn.images import caffe_input, decode

#: One image: the path of a file, its content, a file object, a PIL image, or an array.
Picture = StrPath | bytes | BinaryIO | Image.Image | Array

#: Many images: a list or another iterable of them, or the path of a folder; or a single image, or None.
Pictures = Picture | Iterable[Picture] | None

CONTENT = "<file>"  # the place of errors about the content of a file that has no name

_AS_READ = "Pass {}: the segmenter handles colour order, mean and scale."
_MAX_STREAM_BYTES = 1 << 28  # of a file object that cannot seek, such as the answer of a server


def list_folder(folder: Path) -> list[Path]:
    """Return the image files in a folder and below it, sorted by path.

    Args:
        folder: the folder.
    """
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in image_files.ENDINGS and path.is_file()]


def find_companion(folder: Path, name: Path, image: Path) -> Path:
    """Return the depth or HHA image that belongs to an image.

    Args:
        folder: the folder of the depth or HHA images.
        name: the path below it, without an ending.
        image: the image, for error messages.

    Raises:
        DataError: If there is no such file, or if there are several.
    """
    stem = folder / name
    near = sorted(stem.parent.glob(f"{glob.escape(stem.name)}.*"))
    companions = [path for path in near if path.suffix.lower() in image_files.ENDINGS and path.stem == stem.name]
    if len(companions) != 1:
        problem = "several images belong" if companions else "no image here belongs"
        raise DataError(f"{problem} to {image}", path=folder, want=f"{name}.png")
    return companions[0]


def is_many(pictures: Pictures) -> bool:
    """Return True for a list, tuple or iterator of images and for the path of a folder, False for a single image."""
    if isinstance(pictures, str | os.PathLike):
        return Path(pictures).is_dir()
    is_file = callable(getattr(pictures, "read", None))  # a file object is an iterator, too: of its lines
    return isinstance(pictures, list | tuple) or (isinstance(pictures, Iterator) and not is_file)


def pair_pictures(given: Mapping[str, Pictures]) -> Iterator[tuple[str, dict[str, Picture]]]:
    """Pair many images with their depth or HHA images.

    Args:
        given: by kind, as many images each: iterables of images, or folders with files of the same names.

    Yields:
        The place of an image, for error messages, and the images by kind.

    Raises:
        DataError: If there is no image, or if the kinds differ in number or in names.
    """
    passed = {kind: many for kind, many in given.items() if many is not None}
    if wrong := [many for many in passed.values() if not is_many(many) and not isinstance(many, Iterable)]:
        raise DataError("these are not images", got=describe_type(wrong[0]), want="a list, or the path of a folder")
    folders = {kind: Path(many) for kind, many in passed.items() if isinstance(many, str | os.PathLike)}
    if folders and len(folders) < len(passed):
        raise DataError("some images are a list, others a folder", got=", ".join(passed), want="one or the other")
    if folders:
        yield from _pair_files(folders)
        return
    lists: list[Iterable[Any]] = [many for many in passed.values() if isinstance(many, Iterable)]
    for number, pictures in enumerate(zip_longest(*lists), 1):
        yield f"image {number}", {kind: each for kind, each in zip(passed, pictures, strict=True) if each is not None}


def _pair_files(folders: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Picture]]]:
    (kind, folder), *others = folders.items()
    paths = list_folder(folder)
    if not paths:
        raise DataError("there is no image in this folder", path=folder)
    for path in paths:
        name = path.relative_to(folder).with_suffix("")
        found: dict[str, Picture] = {other: find_companion(place, name, path) for other, place in others}
        yield str(path), {kind: path} | found


def read_rgb(picture: Picture) -> UInt8:
    """Read an image as (H, W, 3) uint8 in R G B order, as a viewer displays it.

    Args:
        picture: a file, its content, a file object, a PIL image, or a uint8 array (H, W, 3), (H, W, 4) or (H, W).

    Raises:
        DataError: If it is broken, or is not an image.
    """
    if isinstance(picture, str | os.PathLike):
        return decode.read_rgb(picture)
    if isinstance(picture, Image.Image):
        return decode.from_pil(picture)
    if (file := _open_content(picture)) is not None:
        with image_files.open_image(file) as image:
            return decode.from_pil(image)
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]  # (H, W, 1), as some libraries return grey images
    fits = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
    if not fits or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))):  # type: ignore[union-attr]
        want = "a file, bytes, a PIL image, or an array (H, W, 3) of uint8, 0 to 255"
        raise DataError("this is not an image", got=describe_type(picture), want=want, remedy=_remedy_for(picture))
    return decode.from_pil(Image.fromarray(picture))  # type: ignore[arg-type]


def _open_content(picture: object) -> BinaryIO | None:
    """Return the content of a file as a file object at its beginning; None if ``picture`` is something else."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return io.BytesIO(picture)
    if not callable(getattr(picture, "read", None)):
        return None
    file = cast(BinaryIO, picture)
    if file.seekable():
        file.seek(0)
        return file
    content = file.read(_MAX_STREAM_BYTES + 1)
    if len(content) > _MAX_STREAM_BYTES:
        raise DataError("the file object holds too much", want=f"at most {_MAX_STREAM_BYTES:,} bytes")
    return io.BytesIO(content)


def find_name(picture: Picture) -> str:
    """Return the name without ending of the file that an image comes from; empty if that is not known."""
    path = picture if isinstance(picture, str | os.PathLike) else getattr(picture, "filename", None)
    path = path or getattr(picture, "name", None)
    return Path(path).stem if isinstance(path, str | os.PathLike) else ""


def read_log_depth(picture: Picture) -> Array:
    """Read a depth map as (1, H, W) float32: the natural logarithm of millimetres, minus its mean.

    Args:
        picture: a 16-bit image file, its content or a file object, or an array (H, W), in millimetres.

    Raises:
        DataError: If it is broken, is not a depth map, or has pixels without depth.
    """
    file = picture if isinstance(picture, str | os.PathLike) else _open_content(picture)
    if file is not None:
        values = caffe_input.read_depth(file)
        try:
            return nyud.log_depth(values)
        except DataError as error:
            raise error.at(os.fspath(file) if isinstance(file, str | os.PathLike) else CONTENT) from None
    values = np.asarray(picture)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError("this is not a depth map", got=describe_type(picture), want="(H, W) millimetres")
    return nyud.log_depth(values)


def _remedy_for(value: object) -> str:
    """Return a remedy for an array that is not an image: which preprocessing to leave out, or how to convert it."""
    name, values, as_read = "image", value, _AS_READ.format("the image as it was read")
    if isinstance(value, Tensor):
        values = (value.detach().float() if value.is_floating_point() else value.detach()).cpu().numpy()
        name = "image.numpy()"
    if not isinstance(values, np.ndarray) or not values.size:
        return as_read
    if values.dtype.kind == "f" and values.min() < 0:
        return f"Its mean was subtracted, as by Normalize: leave that out. {as_read}"
    if values.dtype.kind == "f" and values.max() <= 1:
        return f"It was scaled to 0 to 1, as by ToTensor: leave that out. {as_read}"
    if values.ndim == 4 and len(values) == 1:
        name, values = f"{name}[0]", values[0]
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3, 4):
        name += ".transpose(1, 2, 0)"
    if values.dtype != np.uint8 and values.dtype.kind in "fiu" and values.min() >= 0 and values.max() <= 255:
        name += '.astype("uint8")'
    return _AS_READ.format(name) if name != "image" else as_read


def describe_type(value: object) -> str:
    """Return the type of a value as text, for error messages; of arrays and tensors also dtype and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of {dtype}, shape {tuple(shape)}"
