"""The labels of nets that compute them themselves, as SegNet's ArgMax layer does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.fcn.segment.card import CardLabels


def labels_of(label_map: Tensor, told: CardLabels, size: tuple[int, int]) -> Tensor:
    """Return the labels that a net computes itself, as (H, W) of the image's size.

    Args:
        label_map: the net's blob, (1, 1, H, W) or (1, H, W).
        told: what the card says of it.
        size: height and width of the image.

    Raises:
        NetError: If the blob is not a label map, or holds a label without a class.
    """
    labels = label_map.reshape(1, 1, *label_map.shape[-2:]) if label_map.numel() else label_map
    if label_map.shape != labels.shape and label_map.shape != labels.shape[1:]:
        raise NetError(f"blob {told.score!r} is not a label map", got=tuple(label_map.shape), want="(1, 1, H, W)")
    if tuple(labels.shape[2:]) != size:
        labels = F.interpolate(labels.float(), size, mode="nearest-exact")
    if not ((labels >= 0) & (labels < len(told.classes))).all():
        got, want = f"{float(labels.max()):g}", f"0 to {len(told.classes) - 1}"
        raise NetError(f"blob {told.score!r} holds a label without a class", got=got, want=want)
    return labels[0, 0]
