"""The messages of layer types that ``caffe.proto`` does not have; the file of the layer type declares them.

These files import torch, so they are imported when a net first uses a field that ``caffe.proto`` does not have.
"""

from __future__ import annotations

from reproduction.caffe.schema import LayerParameter


def import_layer_types() -> None:
    """Import the modules of all layer types, which add the fields of their messages to LayerParameter."""
    from reproduction.caffe import layers  # noqa: F401


LayerParameter.late_fields = import_layer_types
