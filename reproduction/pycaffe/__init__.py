"""`import caffe` for programs written against Caffe's Python interface: a thin face over ``reproduction.caffe``.

It stands for BVLC pycaffe 1.0; ``import reproduction.pycaffe as caffe`` works, and
``python -m reproduction.pycaffe SCRIPT`` runs a program that says ``import caffe``.

1. ``proto``    ``caffe_pb2`` and ``text_format``: the schema's messages with protobuf's interface
2. ``net``      Net with its live blobs, the solvers, NetSpec, devices and seeds, errors, what Caffe logs
3. ``extras``   Classifier, Detector, ``io`` and ``draw``
4. ``_caffe``   the names of Caffe's compiled module
5. ``python2``  Python 2 sources, translated when they are imported
6. ``run``      running a program that imports caffe; names that libraries have removed since it was written

Where it differs from Caffe:

- What would end the interpreter is an exception that names the layer and the reason; a file that cannot be opened is a
  RuntimeError, and what a Python layer raises can be caught as that.
- Nets with a loss add in the order of Caffe's BLAS where the CPU can (x86-64 with AVX-512), so that losses, gradients
  and trainings are Caffe's to the last digits, at Caffe's speed; CAFFE_ORDER=0 in the environment takes torch's order,
  which is faster and differs by rounding. Nets without a loss take torch's order always.
- A backward without a forward is an exception where the gradient depends on what a forward leaves, as of a loss.
- A loss that is not finite stops a solver, with the weights as they were before.
- Random numbers are torch's. Without a seed they are the same at every run, not another each time.
- There is one process and no NCCL; without CUDA, one warning and the CPU.
- The log goes to ``logging``; see ``logs``.

Source: BVLC/caffe@9b89154 python/caffe/__init__.py.
"""

from reproduction.caffe.schema import Phase
from reproduction.pycaffe import proto
from reproduction.pycaffe._caffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    Layer,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Timer,
    __version__,
    get_solver,
    has_nccl,
    init_log,
    layer_type_list,
    log,
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
from reproduction.pycaffe.extras import io
from reproduction.pycaffe.extras.classifier import Classifier
from reproduction.pycaffe.extras.detector import Detector
from reproduction.pycaffe.net import coord_map
from reproduction.pycaffe.net.net_spec import NetSpec, layers, params, to_proto

TRAIN, TEST = int(Phase.TRAIN), int(Phase.TEST)

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "__version__",
    "coord_map",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "params",
    "proto",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
