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
from reproduction.pycaffe.net.settings import (
    NCCL,
    has_nccl,
    layer_type_list,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from reproduction.pycaffe.net.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
    get_solver,
)
from reproduction.pycaffe.net.timer import Timer

__version__ = "1.0.0"

#: The names that the package ``caffe`` has too.
__all__ = [
    "NCCL", "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Layer", "NesterovSolver", "Net", "RMSPropSolver",
    "SGDSolver", "Timer", "__version__", "get_solver", "has_nccl", "init_log", "layer_type_list", "log", "set_device",
    "set_mode_cpu", "set_mode_gpu", "set_multiprocess", "set_random_seed", "set_solver_count", "set_solver_rank",
    "solver_count", "solver_rank",
]  # fmt: skip
