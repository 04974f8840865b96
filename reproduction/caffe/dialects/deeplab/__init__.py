"""DeepLab v1: the layer types and fields of its V1 nets. Its layers are those of ``pspnet``."""

from reproduction.caffe.schema import add_dialect

_FEED = "Remove the layer; the scores before it are the net's output."

DEEPLAB = add_dialect(
    "deeplab",
    "DeepLab",
    "TheLegendAli/DeepLab-Context@fb04e9e",
    2014,
    missing={
        "DenseCRF": _FEED,
        "MatRead": "Feed its tops instead.",
        "MatWrite": "Remove the layer; write its bottom by a program.",
    },
)
