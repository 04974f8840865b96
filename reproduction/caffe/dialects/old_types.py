"""The layer types of V1 nets that forks of 2014 and 2015 added, such as ``type: INTERP``.

They have other names in the current format, as BVLC's have.

Source: TheLegendAli/DeepLab-Context@fb04e9e src/caffe/proto/caffe.proto L234-L292; torrvision/crfasrnn@2156669
python-scripts/TVG_CRFRNN_COCO_VOC.prototxt L130-L150.
"""

from __future__ import annotations

import enum

from reproduction.caffe.formats import upgrade


class OldLayerType(enum.IntEnum):
    """The V1 layer types that forks added.

    They are known by their names, as in text. The numbers are not those of the forks, of which several use the same.
    """

    IMAGE_SEG_DATA = 1001
    SEG_ACCURACY = 1002
    INTERP = 1003
    MAT_WRITE = 1004
    MAT_READ = 1005
    DENSE_CRF = 1006
    MULTI_STAGE_MEANFIELD = 1007


upgrade.add_v1_types(OldLayerType, {"DENSE_CRF": "DenseCRF"})
