"""The layer types of Caffe: one class for each, named after its ``type`` in the prototxt."""

from __future__ import annotations

from reproduction.caffe.layers import (
    convolution,
    crop,
    cross_entropy_losses,
    data,
    dense,
    distance_losses,
    elementwise,
    hdf5_data,
    image_data,
    lrn,
    neuron,
    normalization,
    pooling,
    prediction,
    python,
    recurrent,
    reduction,
    shaping,
)
from reproduction.caffe.layers.base import Layer

_ROOMS: tuple[tuple[type[Layer], ...], ...] = (
    convolution.LAYERS,
    pooling.LAYERS,
    lrn.LAYERS,
    crop.LAYERS,
    neuron.LAYERS,
    elementwise.LAYERS,
    dense.LAYERS,
    reduction.LAYERS,
    prediction.LAYERS,
    normalization.LAYERS,
    shaping.LAYERS,
    cross_entropy_losses.LAYERS,
    distance_losses.LAYERS,
    data.LAYERS,
    hdf5_data.LAYERS,
    image_data.LAYERS,
    python.LAYERS,
    recurrent.LAYERS,
)


def _by_type(layers: list[type[Layer]]) -> dict[str, type[Layer]]:
    found: dict[str, type[Layer]] = {}
    for layer in layers:
        if layer.__name__ in found:
            raise TypeError(f"two classes are named {layer.__name__}")
        found[layer.__name__] = layer
    return found


LAYERS: dict[str, type[Layer]] = _by_type([layer for room in _ROOMS for layer in room])

# Caffe's data layers that are not implemented, with the reason; a net that has one runs if the caller feeds its tops.
UNSUPPORTED: dict[str, str] = {
    "Data": "LMDB and LevelDB databases are not read here, so its tops must be fed",
    "WindowData": "R-CNN's window files are not read here, so its tops must be fed",
}
