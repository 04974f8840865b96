"""Conversion between BlobProto messages and NumPy arrays.

Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-52, L410-430, L465-554.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.geometry import INT_MAX, MAX_AXES
from reproduction.caffe.schema import BlobProto, BlobShape
from reproduction.caffe.typing import Array, Floats

# Functions that dialects register. Each returns the values of a blob stored in the format of a Caffe fork, or None.
STORAGES: list[Callable[[BlobProto, StrPath], Floats | None]] = []

_MAX_ABSENT = 8
_LEGACY = ("num", "channels", "height", "width")


def is_legacy(blob: BlobProto) -> bool:
    """Return True if a blob has its shape in the old fields ``num``, ``channels``, ``height`` and ``width``.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L411-412, L469-470.
    """
    return any(blob.has(name) for name in _LEGACY)


def shape(blob: BlobProto) -> tuple[int, ...]:
    """Return the shape of a blob by Caffe's rules, outermost axis first.

    If any of num, channels, height and width is set, these four are the shape, and the field ``shape`` is ignored; one
    that is not set is 0. A blob with neither has no axes, and one value.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L465-484.
    """
    if is_legacy(blob):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim)


def set_shape(blob: BlobProto, shape: Sequence[int]) -> None:
    """Set the shape of a blob, in place, in the field ``shape`` instead of the old fields."""
    for name in _LEGACY:
        blob.clear(name)
    blob.shape = BlobShape(dim=list(shape))


def to_array(blob: BlobProto, path: StrPath = "blob") -> Floats:
    """Return the values of a blob as an array of the blob's shape.

    Args:
        blob: any blob with values.
        path: the place to name in errors.

    Returns:
        A view of the blob's values, which must not be modified: float64 if it has ``double_data``, else float32.

    Raises:
        CaffemodelError: If the shape is not valid in Caffe, or does not fit the number of values.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-44, L488-500.
    """
    values: Floats = blob.double_data if blob.has("double_data") else blob.data
    if not values.size and blob.unknown:
        values = next((found for read in STORAGES if (found := read(blob, path)) is not None), values)
    return view_as(values, shape(blob), path)


def view_as(values: Array, shape: tuple[int, ...], path: StrPath = "blob") -> Array:
    """Return values as a view of a shape, after checking the shape by Caffe's rules.

    Args:
        values: an array.
        shape: the shape of the view.
        path: the place to name in errors.

    Raises:
        CaffemodelError: If the shape is not valid in Caffe, or does not fit the number of values.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-44.
    """
    remedy = "The file is damaged, or was not written by Caffe."
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
    """Return a blob with the values and shape of an array: float32 as ``data``, float64 as ``double_data``.

    The blob has a view of a contiguous array, and a copy of any other.

    Raises:
        CaffemodelError: If the array is of another dtype, or its shape is not valid in Caffe.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L516-554.
    """
    found = np.asarray(values)
    if found.dtype not in (np.float32, np.float64):
        raise CaffemodelError("a blob holds floats", path="blob", got=found.dtype, want="float32 or float64")
    view_as(found, found.shape)
    name = "data" if found.dtype == np.float32 else "double_data"
    return BlobProto(**{"shape": BlobShape(dim=list(found.shape)), name: found})


def from_numbered_arrays(arrays: Mapping[int, Floats], path: StrPath) -> list[BlobProto]:
    """Return the list of a layer's blobs, made from arrays.

    Args:
        arrays: the arrays by the index of their blob: 0 for weights, 1 for the bias. For a missing index, the blob is
            empty.
        path: the place to name in errors.

    Raises:
        CaffemodelError: If far more indices are missing than present, or an array cannot be a blob; see ``from_array``.
    """
    count = max(arrays, default=-1) + 1
    if count > 2 * len(arrays) + _MAX_ABSENT:
        raise CaffemodelError(f"parameter {count - 1} is present, but most of those before it are missing", path=path)
    return [from_array(arrays[i]) if i in arrays else BlobProto() for i in range(count)]


def modern_shape(blob: BlobProto, layer_type: str, index: int) -> tuple[int, ...]:
    """Return the shape that a layer's parameter has in Caffe 1.0, for a blob that may have four axes as before 2015.

    Before 2015 every blob had four axes. Caffe still loads such files, because it pads the shape of the parameter with
    leading ones before it compares the two. The weights of convolutions still have four axes; the weights of
    InnerProduct were stored as (1, 1, M, N) and biases as (1, 1, 1, N).

    Args:
        blob: the blob of the parameter.
        layer_type: the current name of the layer's type, such as ``InnerProduct``.
        index: the index of the parameter in the layer.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L410-424.
    """
    found = shape(blob)
    if not is_legacy(blob) or (index == 0 and layer_type in ("Convolution", "Deconvolution")):
        return found
    axes = 2 if index == 0 and layer_type == "InnerProduct" else 1
    return found[-axes:] if math.prod(found[:-axes]) == 1 else found


def load_mean(path: StrPath) -> Floats:
    """Load a mean image from a ``.binaryproto`` file.

    Returns:
        The mean of shape (1, C, H, W) or (C, H, W), in BGR and in pixel values.

    Raises:
        CaffemodelError: If the file is not a blob, or its shape does not fit its values.
        OSError: If the file cannot be opened.

    Source: BVLC/caffe@9b89154 src/caffe/data_transformer.cpp L19-29; tools/compute_image_mean.cpp L91-108.
    """
    return to_array(caffemodel.load(path, BlobProto), path)
