"""The nets for ``torch.hub``: ``torch.hub.load(REPOSITORY, "voc_fcn8s", weights="fcn8s-heavy-pascal.caffemodel")``.

For a copy of this project on disk, REPOSITORY is its folder, and ``source="local"`` is given too.

Each returns a ``reproduction.Segmenter``: called with an image (a file, a PIL image, or an array in the order in which
the file has it), it returns labels of the image's size. Its ``net`` is the module.
"""

from collections.abc import Callable

from reproduction.fcn.nets.registry import NETS as _NETS
from reproduction.fcn.segment.segmenter import Segmenter as _Segmenter

dependencies = ["torch", "numpy", "PIL", "scipy", "h5py"]


def _entry(name: str) -> Callable[..., _Segmenter]:
    def load(weights: str | None = None, device: str = "cpu") -> _Segmenter:
        return _Segmenter.load(name, weights, device=device)

    load.__name__ = name.replace("-", "_")
    load.__doc__ = f"""Load {name}.

    Args:
        weights: a file of weights of any format; None looks into this project's weights/.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        ReproductionError: the weights are missing, broken or of another net; there is no such device.
    """
    return load


globals().update({entry.__name__: entry for entry in map(_entry, _NETS)})
