"""The weights of NVIDIA Caffe 0.16 and later, DIGITS 6 among them, and the BatchNorm layers of 0.14 to 0.17.

A blob is stored as bytes, ``raw_data``, of the type ``raw_data_type``. A BatchNorm layer may have a scale and a bias.
In files of weights, such a layer is split into BVLC's BatchNorm layer and a Scale layer after it, named
``<name>/scale_bias``. The blobs of such a layer are scale, bias, mean, variance and one number in 0.14 and 0.15, and
mean, variance, one number, scale and bias since 0.16. The fork ignores that number; BVLC divides mean and variance by
it, so it is set to 1. The fields 145 to 148 of a layer, the types in which it computes, do not change weights; they
are kept as unknown fields.

Source: NVIDIA/caffe@87a25543 src/caffe/proto/caffe.proto L5-L34, L592-L616, L1128-L1147; src/caffe/blob.cpp L303-L400;
src/caffe/layers/batch_norm_layer.cpp; caffe-0.16 src/caffe/net.cpp L1127-L1144; caffe-0.15
src/caffe/layers/batch_norm_layer.cpp L10-L50.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import blobs, caffemodel, upgrade
from reproduction.caffe.schema import (
    BatchNormParameter,
    BlobProto,
    LayerParameter,
    NetParameter,
    ScaleParameter,
)
from reproduction.caffe.schema.field import Field, choice
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import LENGTH, ScalarType
from reproduction.caffe.typing import Array, Floats, UInt8

_LEAST_EPS = 1e-5
# Declared as an array of bytes, ``raw_data`` is read as a view of the file instead of a copy.
_OCTETS = ScalarType("bytes", LENGTH, int, 0, np.dtype("u1"))


class RawType(enum.IntEnum):
    """The type of the values in ``raw_data`` and ``raw_diff``."""

    DOUBLE = 0
    FLOAT = 1
    FLOAT16 = 2
    INT = 3
    UINT = 4
    BOOL = 5


_DTYPES: dict[RawType | None, np.dtype[Any]] = {
    RawType.DOUBLE: np.dtype("<f8"),
    RawType.FLOAT: np.dtype("<f4"),
    RawType.FLOAT16: np.dtype("<f2"),
}


class RawBlobProto(Message):
    """The fields that NVIDIA Caffe adds to BlobProto: values as bytes, and their type."""

    raw_data_type = choice(10, RawType)
    raw_diff_type = choice(11, RawType)
    raw_data: Field[Array] = Field(12, kind=_OCTETS, repeated=True, packed=True, array=True)
    raw_diff: Field[Array] = Field(13, kind=_OCTETS, repeated=True, packed=True, array=True)


def raw_values(blob: BlobProto, path: StrPath) -> Floats | None:
    """Return the values of a blob that is stored as ``raw_data`` of NVIDIA Caffe, or None for any other blob.

    Args:
        blob: a blob as read from a file, whose ``unknown`` bytes may contain ``raw_data``.
        path: the place to name in errors.

    Returns:
        A one-dimensional array: float64 for DOUBLE, float32 for FLOAT and FLOAT16. It is a view of the bytes, except
        for FLOAT16, which is converted.

    Raises:
        CaffemodelError: If the type is missing or not a float, or the number of bytes is not a multiple of its size.
    """
    raw = caffemodel.loads(blob.unknown, RawBlobProto)
    return _parse_raw(raw, "data", path) if raw.has("raw_data") else None


def _parse_raw(raw: RawBlobProto, kind: str, path: StrPath) -> Floats:
    octets: UInt8 = getattr(raw, f"raw_{kind}")
    stored: RawType | None = getattr(raw, f"raw_{kind}_type") if raw.has(f"raw_{kind}_type") else None
    if stored not in _DTYPES:
        got, want = "none" if stored is None else stored.name, "DOUBLE, FLOAT or FLOAT16"
        raise CaffemodelError(f"raw_{kind} has a type other than a float", path=path, got=got, want=want)
    dtype = _DTYPES[stored]
    if octets.size % dtype.itemsize:
        want = f"a multiple of {dtype.itemsize}"
        raise CaffemodelError(f"raw_{kind} is cut off", path=path, got=f"{octets.size} bytes", want=want)
    values: Floats = octets.view(dtype)
    return values.astype(np.float32) if dtype.itemsize == 2 else values


def convert_raw_data(net: NetParameter, was_old: bool) -> list[str]:
    """Convert ``raw_data`` and ``raw_diff`` of the blobs of a net to BVLC's fields, in place.

    Args:
        net: the net, in the current form.
        was_old: not used; ``upgrade`` passes it to every function in its list ``TRANSLATIONS``.

    Returns:
        A sentence with the number of converted blobs, or an empty list if there are none.

    Raises:
        CaffemodelError: If the values cannot be converted, see ``raw_values``; the place is the layer.
    """
    count = sum(_convert_raw_blob(layer, i) for layer in net.layer for i in range(len(layer.blobs)))
    return [f"{count} blobs were stored in the way of NVIDIA Caffe."] if count else []


def _convert_raw_blob(layer: LayerParameter, i: int) -> bool:
    blob = layer.blobs[i]
    raw = caffemodel.loads(blob.unknown, RawBlobProto) if blob.unknown else RawBlobProto()
    place = f"layer {layer.name!r} blob {i}"
    for kind in ("data", "diff"):
        if raw.has(f"raw_{kind}") and not (blob.has(kind) or blob.has(f"double_{kind}")):
            values = _parse_raw(raw, kind, place)
            setattr(blob, kind if values.dtype == np.float32 else f"double_{kind}", values)
    if raw.is_empty():
        return False
    blob.unknown = raw.unknown
    return raw.has("raw_data")


def split_batch_norms(net: NetParameter, was_old: bool) -> list[str]:
    """Split stored BatchNorm layers that also scale and shift into BVLC's BatchNorm and Scale layers, in place.

    The blobs of all BatchNorm layers get the shape (C,), which BVLC Caffe uses. A layer without blobs, as in a
    prototxt, stays whole: ``batch_norm.BatchNorm`` computes it, and takes its scale and bias from the Scale layer.

    Args:
        net: the net, in the current form.
        was_old: not used; ``upgrade`` passes it to every function in its list ``TRANSLATIONS``.

    Returns:
        A sentence that names the layers that were split, or an empty list if there are none.
    """
    layers, split = [], []
    for layer in net.layer:
        layers.append(layer)
        if layer.type != "BatchNorm":
            continue
        for blob in layer.blobs:
            _flatten(blob)
        if len(layer.blobs) == 5:
            layers.append(_split_scale(layer))
            split.append(layer.name)
    net.layer = layers  # type: ignore[assignment]
    return [f"The scale and bias of {upgrade.quote_names(split)} became Scale layers."] if split else []


def _flatten(blob: BlobProto) -> None:
    """Reshape a blob of shape (1, C, 1, 1) to (C,), BVLC's shape, in place."""
    shape = blobs.shape(blob)
    if len(shape) == 4 and shape == (1, shape[1], 1, 1):
        blobs.set_shape(blob, [shape[1]])


def _split_scale(layer: LayerParameter) -> LayerParameter:
    """Move the scale and bias of a BatchNorm layer to a new Scale layer, and return that layer."""
    scale = LayerParameter(name=layer.name + upgrade.SPLIT_OFF, type="Scale", bottom=layer.top, top=layer.top)
    scale.line = layer.line
    scale.include.extend(rule.copy() for rule in layer.include)
    scale.exclude.extend(rule.copy() for rule in layer.exclude)
    if layer.has("phase"):
        scale.phase = layer.phase
    scale.scale_param = ScaleParameter(bias_term=True)
    # The fork has this lower limit of eps, and uses the stored statistics in the TEST phase only.
    layer.batch_norm_param = BatchNormParameter(
        eps=max(layer.batch_norm_param.eps, _LEAST_EPS),
        moving_average_fraction=layer.batch_norm_param.moving_average_fraction,
    )
    scale.param.extend(layer.param[3:5])
    del layer.param[3:]
    for spec, rate in [*((each, 0.0) for each in layer.param), *((each, 1.0) for each in scale.param)]:
        spec.lr_mult = spec.decay_mult = rate
    # In the older order the last blob is the number, of shape (1,). With one channel the bias has this shape too;
    # then the fork also assumes the older order.
    older = blobs.shape(layer.blobs[4]) == (1,)
    scale.blobs.extend(layer.blobs[:2] if older else layer.blobs[3:])
    layer.blobs[:] = [*layer.blobs[2 * older : 2 * older + 2], blobs.from_array(np.ones(1, np.float32))]
    return scale


blobs.STORAGES.append(raw_values)
upgrade.TRANSLATIONS += [convert_raw_data, split_batch_norms]
