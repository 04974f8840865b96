"""``hole``: DeepLab's name of ``dilation``, which BVLC Caffe got later.

Source: TheLegendAli/DeepLab-Context@fb04e9e src/caffe/proto/caffe.proto L505-L507, src/caffe/layers/conv_layer.cpp
L30-L63, src/caffe/util/im2col.cpp L10-L38.
"""

from __future__ import annotations

from reproduction.caffe.dialects.deeplab import DEEPLAB
from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import upgrade
from reproduction.caffe.schema import ConvolutionParameter, LayerParameter
from reproduction.caffe.schema.field import uint32

HOLES = {
    name: ConvolutionParameter.add_field(name, uint32(number, 1), DEEPLAB)
    for number, name in enumerate(("hole", "hole_h", "hole_w"), 17)
}


def convert_holes(layer: LayerParameter) -> bool:
    """Convert ``hole``, or ``hole_h`` and ``hole_w``, of a layer to ``dilation``, in place; return whether it has them.

    Raises:
        NetError: If the layer has ``hole`` together with ``hole_h``, ``hole_w`` or ``dilation``.
    """
    param = layer.convolution_param if layer.has("convolution_param") else ConvolutionParameter()
    given = [name for name in HOLES if param.has(name)]
    if not given:
        return False
    if param.dilation or ("hole" in given and len(given) > 1):
        got = f"{', '.join(given)}{' and dilation' if param.dilation else ''}"
        raise NetError("the distance between taps is set twice", got=got).at(layer.place)
    sides = ("hole",) if "hole" in given else ("hole_h", "hole_w")
    param.dilation = [HOLES[name].get(param) for name in sides]
    for name in given:
        param.clear(name)
    return True


upgrade.LAYER_TRANSLATIONS.append((convert_holes, "hole of {} became dilation."))
