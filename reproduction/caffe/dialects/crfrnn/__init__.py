"""CRF-RNN: mean field iterations of a dense conditional random field."""

from reproduction.caffe.schema import add_dialect

CRFRNN = add_dialect("crfrnn", "CRF-RNN", "torrvision/caffe@fcd05e8", 2015)
CRFRNN_MASTER = add_dialect("crfrnn_master", "CRF-RNN, its first version", "torrvision/caffe@d779ee3", 2015)
