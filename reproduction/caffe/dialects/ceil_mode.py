"""``ceil_mode``: the field of forks for the rounding of pooling output sizes, older than Caffe's ``round_mode``.

``ceil_mode: false`` equals ``round_mode: FLOOR``, and ``ceil_mode: true`` equals ``round_mode: CEIL``, the default.

Source: BVLC/caffe pull request 3057, which was not merged; its field number, 13, is that of ``round_mode`` today.
"""

from __future__ import annotations

from reproduction.caffe.formats import upgrade
from reproduction.caffe.schema import LayerParameter, PoolingParameter, RoundMode, add_dialect
from reproduction.caffe.schema.field import boolean

FORKS = add_dialect("ceil_mode", "Forks with ceil_mode", "BVLC/caffe pull request 3057", 2015)
CEIL_MODE = PoolingParameter.add_field("ceil_mode", boolean(13, True), FORKS)


def convert_ceil_mode(layer: LayerParameter) -> bool:
    """Convert ``ceil_mode`` of a Pooling layer to ``round_mode``, in place, and return whether that has changed."""
    param = layer.pooling_param if layer.has("pooling_param") else PoolingParameter()
    if not param.has("ceil_mode"):
        return False
    mode = RoundMode.CEIL if CEIL_MODE.get(param) else RoundMode.FLOOR
    param.clear("ceil_mode")
    if param.has("round_mode"):  # which wins in the forks that have both
        return False
    param.round_mode = mode
    return True


upgrade.LAYER_TRANSLATIONS.append((convert_ceil_mode, "ceil_mode of {} became round_mode."))
