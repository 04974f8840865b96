"""``type: CROP``: Crop layers in the V1 format, whose offset is derived from the layers between their bottoms.

Caffe's master branch got Crop layers after the V1 format. V1 nets with Crop layers, such as Freiburg's U-Net and
CRF-RNN, were written for the branch ``future``, in which FCNs were developed. There a Crop layer has no parameters.

Source: longjon/caffe@e0311166 src/caffe/proto/caffe.proto L1002, src/caffe/layers/crop_layer.cpp L12-L78.
"""

from __future__ import annotations

import enum

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import upgrade
from reproduction.caffe.schema import NetParameter


class FutureLayerType(enum.IntEnum):
    """The V1 layer type that only Caffe's branch ``future`` had."""

    CROP = 40


def set_crop_offsets(net: NetParameter, legacy_crop: bool) -> list[str]:
    """Set the offsets of the Crop layers of a net, in place, as the Caffe of 2015 derived them from the layers between.

    Args:
        net: the net, in the current form.
        legacy_crop: if False, the net is not changed; see ``upgrade.upgrade_net``.

    Returns:
        Sentences that describe the changes, one for each layer.

    Raises:
        NetError: If the offset of a layer cannot be derived and the net has no weights. In a net with weights, which
            can be used without the net, a sentence of the result reports the problem instead.
    """
    if not legacy_crop or not any(layer.type == "Crop" for layer in net.layer):
        return []
    from reproduction.caffe.net import crops  # imported here, as it imports torch

    try:
        return crops.set_offsets(net.layer)
    except NetError as error:
        if any(layer.blobs for layer in net.layer):
            return [f"The offset of a Crop layer is not known: {error}"]
        raise


upgrade.add_v1_types(FutureLayerType, {})
upgrade.TRANSLATIONS.append(set_crop_offsets)
