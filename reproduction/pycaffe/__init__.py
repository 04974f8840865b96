"""`import caffe` for programs written against Caffe's Python interface: a thin face over ``reproduction.caffe``.

It stands for BVLC pycaffe 1.0; ``import reproduction.pycaffe as caffe`` works, and
``python -m reproduction.pycaffe SCRIPT`` runs a program that says ``import caffe``.

1. ``net``, ``live``, ``need``: Net, its blobs, and its layers one by one; ``_caffe``: the compiled module's names.
2. ``solver``: the solvers.
3. ``modes``, ``errors``, ``logs``: devices and seeds, errors that scripts can catch, and what Caffe logs.
4. ``net_spec``, ``coord_map``, ``draw``: nets written in Python, aligned, and drawn.
5. ``io``, ``classifier``, ``detector``: pictures and blobs in and out.
6. ``proto``: ``caffe_pb2`` and ``text_format``, the schema's messages with protobuf's manners.
7. ``run``, ``aliases``, ``python2``: running programs as they are; ``oldnames``, ``oldlibraries``, ``scipy_misc``:
   names that libraries removed.

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
from reproduction.pycaffe import coord_map, io, proto
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
from reproduction.pycaffe.classifier import Classifier
from reproduction.pycaffe.detector import Detector
from reproduction.pycaffe.net_spec import NetSpec, layers, params, to_proto

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
