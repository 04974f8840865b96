"""Every layer type of Caffe that computes something: one class each, named as the prototxt's ``type``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.util import find_spec

from reproduction.caffe.layers.base import Layer


def _by_type(rooms: Iterable[tuple[type[Layer], ...]]) -> dict[str, type[Layer]]:
    found: dict[str, type[Layer]] = {}
    for layer in (layer for room in rooms for layer in room):
        if layer.__name__ in found:
            raise TypeError(f"two classes are named {layer.__name__}")
        found[layer.__name__] = layer
    return found


_ROOMS = (
    "convolution",
    "pooling",
    "vision",
    "neuron",
    "powers",
    "common",
    "normalization",
    "shaping",
    "loss",
    "distance",
    "data",
    "hdf5",
    "image",
    "python",
    "recurrent",
)

LAYERS: dict[str, type[Layer]] = _by_type(
    importlib.import_module(f"{__name__}.{room}").LAYERS for room in _ROOMS if find_spec(f"{__name__}.{room}")
)

# Types that Caffe knows and that cannot run here, with the reason and the remedy.
UNSUPPORTED: dict[str, str] = {
    "Data": "it reads an LMDB or LevelDB database; use an Input layer and feed the images",
    "WindowData": "it reads a window file of R-CNN; use an Input layer and feed the crops",
}
