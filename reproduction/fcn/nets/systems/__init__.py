"""The systems: nets of other trunks and texts than the paper's repository, by name.

Each file has the records of its nets, ``NETS``, and the function that adds their layers. Nothing about them is
published as files: their prototxts are written here from the texts, and no weights of them exist.
"""

from __future__ import annotations

import importlib

from reproduction.fcn.nets.systems.system import System

__all__ = ["NETS", "System"]

_FILES = ("googlenet", "resnet50", "fpn", "unet", "vgg_ports")

#: Classifiers from whose weights systems start and which are published on a page, not as a file with a known hash that
#: `fcn fetch` could get: the name of their file, and the page.
CLASSIFIERS = {"resnet50": ("ResNet-50-model.caffemodel", "https://github.com/KaimingHe/deep-residual-networks")}

#: The systems by name.
NETS: dict[str, System] = {
    net.name: net for file in _FILES for net in importlib.import_module(f"{__name__}.{file}").NETS
}
