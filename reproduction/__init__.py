"""Fully convolutional networks, reproduced from Caffe in PyTorch, and anything else that Caffe left.

    import reproduction

    net = reproduction.load_net("deploy.prototxt", "net.caffemodel")   # a torch.nn.Module
    fast = reproduction.compile(net)                                   # the same numbers in less time
    segmenter = reproduction.Segmenter.load("voc-fcn8s")               # images in, labels out

The names below are imported when they are first used, so that ``import reproduction`` takes no time and needs no torch.

The rooms, in the order in which data flows:

1. ``caffe``    Caffe's formats and arithmetic: prototxt, caffemodel, layers, nets, solver. Knows no data set, no paper.
2. ``fcn``      The paper: its nets, data sets, scores, trainings, published numbers and published files.
3. ``fast``     Nets compiled for inference: the same numbers in less time.
4. ``report``   Tables and pages from scores and from the logs of trainings.
5. ``pycaffe``  ``import caffe`` for programs written against Caffe's Python interface.
6. ``cv2dnn``   ``readNetFromCaffe`` for programs written against ``cv2.dnn`` of OpenCV 4.
7. ``commands`` The console command ``fcn``; the only room that prints.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproduction.caffe.formats.weights import read as read_weights
    from reproduction.caffe.formats.weights import write as write_weights
    from reproduction.caffe.net.net import Net
    from reproduction.caffe.net.net import load as load_net
    from reproduction.fast.compiler import compile
    from reproduction.fast.saved_net import load_compiled
    from reproduction.fcn.segment.segmenter import Segmenter

__version__ = "1.0.0"
__all__ = ["Net", "Segmenter", "__version__", "compile", "load_compiled", "load_net", "read_weights", "write_weights"]

_HOMES = {
    "Net": ("reproduction.caffe.net.net", "Net"),
    "Segmenter": ("reproduction.fcn.segment.segmenter", "Segmenter"),
    "compile": ("reproduction.fast.compiler", "compile"),
    "load_compiled": ("reproduction.fast.saved_net", "load_compiled"),
    "load_net": ("reproduction.caffe.net.net", "load"),
    "read_weights": ("reproduction.caffe.formats.weights", "read"),
    "write_weights": ("reproduction.caffe.formats.weights", "write"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
