"""Support for files of Caffe forks: their layer types, and their fields of BVLC's layer types.

A dialect is the record of one fork (``schema.add_dialect``), the fields that it adds to messages
(``Message.add_field``), and the classes of its layer types (``layers.base.register``): a file or a folder here. Where
BVLC has an equivalent, a dialect registers a function in ``upgrade`` or ``blobs`` that converts its fields when a file
is read.

The rest of ``caffe`` contains no code for forks. The modules that are imported below are needed for the weights and the
old forms of nets; all others, which import torch, are imported when a net first has a layer type or a field that BVLC
does not have. Dialects of other packages are imported then too: those that an entry point of the group
``fcn_reproduction.dialects`` names.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points

from reproduction.caffe.dialects import ceil_mode as ceil_mode
from reproduction.caffe.dialects import future as future
from reproduction.caffe.dialects import old_types as old_types
from reproduction.caffe.dialects.deeplab import old_nets as old_nets
from reproduction.caffe.dialects.nvidia import weights as weights
from reproduction.caffe.schema import Message

ENTRY_POINTS = "fcn_reproduction.dialects"


def import_dialects() -> None:
    """Import the layer types of BVLC Caffe and of all dialects, and the dialects of installed packages."""
    importlib.import_module("reproduction.caffe.layers")
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()


Message.late_fields = import_dialects
