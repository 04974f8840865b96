"""The V1 nets of DeepLab v1: ``strict_dim``, which is a check alone, and ``softmaxloss_param``.

Source: TheLegendAli/DeepLab-Context@fb04e9e src/caffe/proto/caffe.proto L234-L370, L405-L435, L736-L749,
src/caffe/layers/softmax_loss_layer.cpp L13-L44.
"""

from __future__ import annotations

from reproduction.caffe.dialects.deeplab import DEEPLAB
from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import upgrade
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, int32, integers, nested, singles, string
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32


class SoftmaxLossParameter(Message):
    """Parameters of SoftmaxWithLoss layers: a file with a weight for each class, and labels that do not count."""

    ignore_label = integers(2, INT32)
    weight_source = string(16)


class DenseCRFParameter(Message):
    """Parameters of DenseCRF layers, which are read, but not computed."""

    max_iter = int32(1, 10)
    pos_xy_std = singles(2)
    pos_w = singles(3)
    bi_xy_std = singles(4)
    bi_rgb_std = singles(5)
    bi_w = singles(6)


class MatFileParameter(Message):
    """Parameters of MatRead and MatWrite layers, which are read, but not computed."""

    prefix = string(1)
    source = string(2)
    strip = int32(3, 0)
    period = int32(4, 1)


SOFTMAX_LOSS = LayerParameter.add_field("softmaxloss_param", nested(44, SoftmaxLossParameter), DEEPLAB)
# Whether copied weights must have the same shape.
LayerParameter.add_field("strict_dim", boolean(1003, True), DEEPLAB, effect=False)
LayerParameter.add_field("dense_crf_param", nested(48, DenseCRFParameter), DEEPLAB)
LayerParameter.add_field("mat_read_param", nested(47, MatFileParameter), DEEPLAB)
LayerParameter.add_field("mat_write_param", nested(46, MatFileParameter), DEEPLAB)


def convert_old_fields(layer: LayerParameter) -> bool:
    """Convert ``softmaxloss_param`` of a layer to ``loss_param``, and drop ``strict_dim``, in place.

    Returns:
        Whether the layer has ``softmaxloss_param``.

    Raises:
        NetError: If the layer has weights of classes, or several labels that do not count.
    """
    layer.clear("strict_dim")
    if not layer.has("softmaxloss_param"):
        return False
    param = SOFTMAX_LOSS.get(layer)
    if param.has("weight_source") or len(param.ignore_label) > 1:
        raise NetError(
            "softmaxloss_param has weights, or several ignored labels",
            want="at most one ignore_label",
            remedy="Use SegNet's class_weighting for weights.",
        ).at(layer.place)
    for label in param.ignore_label:
        layer.loss_param.ignore_label = label
    layer.clear("softmaxloss_param")
    return True


upgrade.LAYER_TRANSLATIONS.append((convert_old_fields, "softmaxloss_param of {} became loss_param."))
