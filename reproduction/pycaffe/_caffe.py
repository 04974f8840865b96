"""``caffe._caffe``: the names of Caffe's compiled module.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L391-L585; rbgirshick/caffe-fast-rcnn@0dcd397
python/caffe/_caffe.cpp L212-L215 (Phase).
"""

# ruff: noqa: F401 - it only collects names

from reproduction.caffe.layers.blob import Blob, BlobVec, RawBlobVec
from reproduction.caffe.layers.pycaffe_vectors import BoolVec, DtypeVec, IntVec, LayerVec, NetVec, StringVec
from reproduction.caffe.layers.python import NamedPhase as Phase
from reproduction.caffe.layers.python import UserLayer as Layer
from reproduction.caffe.schema import LayerParameter, SolverParameter
from reproduction.pycaffe.net.caffe_log import init_log, log
from reproduction.pycaffe.net.net import Net
from reproduction.pycaffe.net.settings import *  # noqa: F403 - those in its __all__
from reproduction.pycaffe.net.solver import *  # noqa: F403
from reproduction.pycaffe.net.solver import Solver
from reproduction.pycaffe.net.timer import Timer

__version__ = "1.0.0"

#: The names that the package ``caffe`` has too, besides those of ``settings`` and ``solver``.
__all__ = ["Layer", "Net", "Timer", "__version__", "init_log", "log"]
