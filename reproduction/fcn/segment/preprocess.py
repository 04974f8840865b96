"""The input of a net from an image, as its model card says: resized, in its channel order, minus the mean, scaled."""

from __future__ import annotations

from reproduction.caffe.layers.image_data import resize
from reproduction.caffe.typing import Float32, UInt8
from reproduction.fcn.images import caffe_input, decode
from reproduction.fcn.segment.card import CardInput


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
