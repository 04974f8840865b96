"""The message of BN layers in Synopsys Caffe, which has the fields of both SegNet's and PSPNet's."""

from __future__ import annotations

from reproduction.caffe.dialects.pspnet.bn import BNEngine
from reproduction.caffe.dialects.segnet.bn import BNMode
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.schema import FillerParameter, LayerParameter
from reproduction.caffe.schema.field import boolean, choice, nested, single
from reproduction.caffe.schema.message import Message


class BNParameter(Message):
    """Parameters of BN layers; with ``icnet: true``, a layer is one of PSPNet's, otherwise one of SegNet's."""

    scale_filler = nested(1, FillerParameter)
    shift_filler = nested(2, FillerParameter)
    bn_mode = choice(3, BNMode, BNMode.LEARN)
    eps = single(4, 1e-5)
    frozen = boolean(5, False)
    engine = choice(6, BNEngine)
    slope_filler = nested(7, FillerParameter)
    bias_filler = nested(8, FillerParameter)
    momentum = single(9, 0.9)
    icnet = boolean(10, False)


LayerParameter.add_field("bn_param", nested(45, BNParameter), SYNOPSYS)
