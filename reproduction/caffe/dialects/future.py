"""``type: CROP``: Crop layers of the older form, V1, whose offset follows from the layers between their bottoms.

Crop layers came to Caffe's master after V1. Nets of that form which have them, such as Freiburg's U-Net and CRF-RNN,
were written for the branch in which FCNs were made; there a Crop layer has no parameters.

Source: longjon/caffe@e0311166 src/caffe/proto/caffe.proto L1002, src/caffe/layers/crop_layer.cpp L12-L78.
"""

from __future__ import annotations

import enum

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import caffemodel, crops, upgrade
from reproduction.caffe.schema import NetParameter, V1LayerParameter
from reproduction.caffe.schema.message import Message, choice


class FutureLayerType(enum.IntEnum):
    """The layer type of 2014's format that master never had."""

    CROP = 40


class FutureLayerParameter(Message):
    """What the branch adds to V1LayerParameter."""

    type = choice(5, FutureLayerType)


def crop_type(layer: V1LayerParameter) -> str:
    """Return ``"Crop"`` for a layer of that type, else nothing."""
    is_crop = bool(layer.unknown) and caffemodel.loads(layer.unknown, FutureLayerParameter).has("type")
    return "Crop" if is_crop else ""


def set_offsets(net: NetParameter, was_old: bool) -> list[str]:
    """Give the Crop layers of a net that was in an older form their offsets, in place.

    Raises:
        NetError: the offset of a layer cannot be known. In a net with weights, which may be wanted without the net,
            the layer is left as it is and the notes say so.
    """
    if not was_old:
        return []
    try:
        return crops.set_offsets(net.layer)
    except NetError as error:
        if any(layer.blobs for layer in net.layer):
            return [f"The offset of a Crop layer is not known: {error}"]
        raise


V1LayerParameter.dialects += (FutureLayerParameter,)
upgrade.FOREIGN_TYPES.append(crop_type)
upgrade.TRANSLATIONS.append(set_offsets)
