"""The two ends of a net as its model card says: its input from an image, and the labels that it computes itself.

An image is resized, put in the net's channel order, and scaled after the mean is subtracted.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.image_data import resize
from reproduction.caffe.typing import Float32, UInt8
from reproduction.fcn.images import caffe_input, decode
from reproduction.fcn.segment.card import CardInput, CardLabels


def to_blob(taken: CardInput, rgb: UInt8, side: int = 0) -> Float32:
    """Return an image as the input blob of a net, (C, H, W) float32.

    Args:
        taken: how the input is preprocessed.
        rgb: (H, W, 3) uint8, R G B.
        side: the longer side to which a larger image is shrunk; 0 for none.
    """
    pixels = decode.shrink(rgb, side)
    if taken.size:
        pixels = resize(pixels, *taken.size)
    if taken.order == "grey":
        values = caffe_input.subtract_grey_mean(pixels, taken.mean_array)
    else:
        values = caffe_input.subtract_mean(pixels, taken.mean_array, flip=taken.order == "BGR")
    if taken.scale:
        values *= taken.scale_array[:, None, None]
    return values


def labels_of(label_map: Tensor, told: CardLabels, size: tuple[int, int]) -> Tensor:
    """Return the labels that a net computes itself, as SegNet's ArgMax layer does: (H, W) of the image's size.

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
