"""The layer types of Caffe: one class for each, named after its ``type`` in the prototxt, and one file for each family.

Importing this package imports all of its modules, so that a new file needs no mention elsewhere.
"""

import importlib
import pkgutil

from reproduction.caffe.layers.base import CLASSES, LAYERS

__all__ = ["CLASSES", "LAYERS", "UNSUPPORTED"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

# Caffe's data layers that are not implemented, with the reason; a net that has one runs if the caller feeds its tops.
UNSUPPORTED: dict[str, str] = {
    "WindowData": "R-CNN's window files are not read here, so its tops must be fed",
}
