"""BatchNorm of synopsys' fork, in which ``eps`` may be outside of the root, as in nets of other frameworks."""

from __future__ import annotations

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.layers import normalization
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import BatchNormParameter
from reproduction.caffe.schema.field import boolean

EPS_INSIDE = BatchNormParameter.add_field("add_eps_before_sqrt", boolean(4, True), SYNOPSYS)


@register
class BatchNorm(normalization.BatchNorm):
    """Batch normalization; ``(x - mean) / (sqrt(variance) + eps)`` if ``add_eps_before_sqrt`` is false.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/batch_norm_layer.cpp L10-L175.
    """

    dialect = SYNOPSYS
    reads = normalization.BatchNorm.reads | {"batch_norm_param.add_eps_before_sqrt"}

    @property
    def eps_inside(self) -> bool:
        """Whether ``eps`` is added to the variance; otherwise to its root."""
        return EPS_INSIDE.get(self.layer_param.batch_norm_param)
