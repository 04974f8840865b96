"""Blobs: the shape of a BlobProto, its values as an array, and back.

Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-52, L410-430, L465-554.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.geometry import INT_MAX, MAX_AXES
from reproduction.caffe.schema import BlobProto, BlobShape

Array = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# Where dialects, which add themselves, find the values of a blob that a fork of Caffe stored in its own way.
STORAGES: list[Callable[[BlobProto, StrPath], Array | None]] = []

_MAX_ABSENT = 8
_LEGACY = ("num", "channels", "height", "width")


def is_legacy(blob: BlobProto) -> bool:
    """Say whether the blob gives its shape in the old way, as num, channels, height and width.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L411-412, L469-470.
    """
    return any(blob.has(name) for name in _LEGACY)


def shape(blob: BlobProto) -> tuple[int, ...]:
    """Return the shape that Caffe gives the blob, outermost axis first.

    num, channels, height and width win over ``shape`` when any of the four is present; an absent one is 0.
    A blob with neither has no axes, and one value.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L465-484.
    """
    if is_legacy(blob):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim)


def array(blob: BlobProto, path: StrPath = "blob") -> Array:
    """Return the values of a blob in its shape.

    Args:
        blob: any blob with values.
        path: the place to name in errors.

    Returns:
        A view, not a copy, and not to be written to: float64 when the blob holds ``double_data``, else float32.

    Raises:
        CaffemodelError: the shape is not one of Caffe's, or it and the number of values disagree.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-44, L488-500.
    """
    values: Array = blob.double_data if blob.has("double_data") else blob.data
    if not values.size and blob.unknown:
        values = next((found for read in STORAGES if (found := read(blob, path)) is not None), values)
    return shaped(values, shape(blob), path)


def shaped(values: npt.NDArray[Any], shape: tuple[int, ...], path: StrPath = "blob") -> npt.NDArray[Any]:
    """Return values in a shape, by Caffe's rules for shapes; see ``array``.

    Raises:
        CaffemodelError: the shape is not one of Caffe's, or it and the number of values disagree.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-44.
    """
    remedy = "The file is damaged, or no file of Caffe's."
    if len(shape) > MAX_AXES:
        raise CaffemodelError("the blob has too many axes", path=path, got=len(shape), want=f"<= {MAX_AXES}")
    if any(not 0 <= dim <= INT_MAX for dim in shape) or math.prod(shape) > INT_MAX:
        raise CaffemodelError("the shape is out of range", path=path, got=shape, remedy=remedy)
    if math.prod(shape) != values.size:
        raise CaffemodelError(
            f"the shape {shape} and the data disagree",
            path=path,
            got=f"{values.size} values",
            want=math.prod(shape),
            remedy=remedy,
        )
    return values.reshape(shape)


def from_array(values: npt.ArrayLike) -> BlobProto:
    """Make a blob that holds an array: float32 as ``data``, float64 as ``double_data``.

    The blob keeps a view of a contiguous array, and a copy of any other.

    Raises:
        CaffemodelError: the array is of another type, or its shape is not one of Caffe's.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L516-554.
    """
    found = np.asarray(values)
    if found.dtype not in (np.float32, np.float64):
        raise CaffemodelError("a blob holds floats", path="blob", got=found.dtype, want="float32 or float64")
    shaped(found, found.shape)
    name = "data" if found.dtype == np.float32 else "double_data"
    return BlobProto(**{"shape": BlobShape(dim=list(found.shape)), name: found})


def from_numbered(arrays: Mapping[int, Array], path: StrPath) -> list[BlobProto]:
    """Make a layer's blobs from arrays by their numbers; a number that is missing is a blob that holds nothing.

    Raises:
        CaffemodelError: far more numbers are missing than are there, or an array is not one for a blob.
    """
    count = max(arrays, default=-1) + 1
    if count > 2 * len(arrays) + _MAX_ABSENT:
        raise CaffemodelError(f"parameter {count - 1} is there, but most before it are not", path=path)
    return [from_array(arrays[i]) if i in arrays else BlobProto() for i in range(count)]


def modern_shape(blob: BlobProto, layer_type: str, index: int) -> tuple[int, ...]:
    """Return the shape that today's Caffe gives a layer's blob, where the file has the old four-axis one.

    Before 2015 every blob had four axes; Caffe still loads such files, since it compares their shapes padded in front
    with ones. Convolutions kept their four; the weights of InnerProduct were (1, 1, M, N), biases (1, 1, 1, N).

    Args:
        blob: the blob.
        layer_type: the type of its layer, in today's words.
        index: its number in the layer.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L410-424.
    """
    found = shape(blob)
    if not is_legacy(blob) or (index == 0 and layer_type in ("Convolution", "Deconvolution")):
        return found
    axes = 2 if index == 0 and layer_type == "InnerProduct" else 1
    return found[-axes:] if math.prod(found[:-axes]) == 1 else found


def load_mean(path: StrPath) -> Array:
    """Load a mean image, ``.binaryproto``: (1, C, H, W) or (C, H, W), BGR, in units of the image's values.

    Raises:
        CaffemodelError: the file is not a blob.

    Source: BVLC/caffe@9b89154 src/caffe/data_transformer.cpp L19-29; tools/compute_image_mean.cpp L91-108.
    """
    return array(caffemodel.load(path, BlobProto), path)
