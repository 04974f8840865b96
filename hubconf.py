"""Entry points for ``torch.hub``: ``torch.hub.load(REPOSITORY, "voc_fcn8s", weights="fcn8s-heavy-pascal.caffemodel")``.

For a local copy of this project, REPOSITORY is its folder; also pass ``source="local"``.

Each entry point returns a ``reproduction.Segmenter``. Call it with an image (a file, a PIL image, or an (H, W, 3) uint8
array in R G B order) to get a label map of the same height and width. Its ``net`` attribute is the ``torch.nn.Module``.
"""

from collections.abc import Callable

from reproduction.fcn.nets.registry import NETS as _NETS
from reproduction.fcn.segment.segmenter import Segmenter as _Segmenter

dependencies = ["torch", "numpy", "PIL"]


def _entry(name: str) -> Callable[..., _Segmenter]:
    def load(weights: str | None = None, device: str = "cpu") -> _Segmenter:
        return _Segmenter.load(name, weights, device=device)

    load.__name__ = name.replace("-", "_")
    load.__doc__ = f"""Load {name}.

    Args:
        weights: a file of weights of any format; None for the net's in ``weights/``, where `fcn fetch` saves them; the
            weights of Mini-VOC's nets come with this project.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        ReproductionError: the weights are missing, broken or of another net; there is no such device.
    """
    return load


globals().update({entry.__name__: entry for entry in map(_entry, _NETS)})
