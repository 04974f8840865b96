"""Layer types of forks that have a message of their own, declared in the file of the layer type.

These files import torch, so they are imported when a net first uses a field that ``caffe.proto`` does not have.
"""

from __future__ import annotations

from reproduction.caffe.schema import LayerParameter


def import_layer_types() -> None:
    """Import all layer types; those with a message of their own add its field to LayerParameter."""
    from reproduction.caffe import layers  # noqa: F401


LayerParameter.late_fields = import_layer_types
