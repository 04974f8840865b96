"""pycaffe, Caffe's Python interface, as a thin layer over ``reproduction.caffe``.

It replaces BVLC pycaffe 1.0. Import it as ``import reproduction.pycaffe as caffe``, or run an unchanged program with
``import caffe`` by ``python -m reproduction.pycaffe SCRIPT``.

1. ``proto``    ``caffe_pb2`` and ``text_format``: the schema's messages with protobuf's interface
2. ``net``      Net with blobs that programs read and write, the solvers, NetSpec, devices and seeds, Caffe's log
3. ``extras``   Classifier, Detector, ``io`` and ``draw``
4. ``_caffe``   the names of Caffe's compiled module
5. ``python2``  Python 2 sources, translated when they are imported
6. ``run``      runs a program that imports caffe; restores names that libraries have removed since it was written

Differences from Caffe:

- Where Caffe ends the interpreter, an exception is raised that names the layer and the reason. A file that cannot be
  opened raises a RuntimeError, and an error in a Python layer can be caught by its original type.
- Nets with a loss sum in the order of Caffe's BLAS if the CPU allows it (x86-64 with AVX-512). Losses, gradients and
  trainings then equal Caffe's to the last digit, at Caffe's speed. ``CAFFE_ORDER=0`` in the environment selects torch's
  order, which is faster and differs by rounding. Nets without a loss always use torch's order.
- A backward pass without a forward pass raises an exception if the gradient depends on results of the forward pass,
  as that of a loss does.
- A loss that is not finite stops a solver; the weights keep their values from before the update.
- Random numbers are torch's. A solver without a seed uses the seed 0, so that all runs draw the same numbers.
- Training uses one process and no NCCL. Without CUDA, nets compute on the CPU, with one warning.
- The log goes to Python's ``logging``; see ``net.caffe_log``.

Source: BVLC/caffe@9b89154 python/caffe/__init__.py.
"""

from reproduction.caffe.schema import Phase
from reproduction.pycaffe import _caffe, proto
from reproduction.pycaffe._caffe import *  # noqa: F403 - those in its __all__
from reproduction.pycaffe.extras import io
from reproduction.pycaffe.extras.classifier import Classifier
from reproduction.pycaffe.extras.detector import Detector
from reproduction.pycaffe.net import coord_map
from reproduction.pycaffe.net import settings as _settings
from reproduction.pycaffe.net import solver as _solver
from reproduction.pycaffe.net.net_spec import NetSpec, layers, params, to_proto
from reproduction.pycaffe.net.settings import *  # noqa: F403
from reproduction.pycaffe.net.solver import *  # noqa: F403

TRAIN, TEST = int(Phase.TRAIN), int(Phase.TEST)

__all__ = [
    "TEST", "TRAIN", "Classifier", "Detector", "NetSpec", "coord_map", "io", "layers", "params", "proto", "to_proto",
]  # fmt: skip
__all__ += _caffe.__all__ + _settings.__all__ + _solver.__all__
