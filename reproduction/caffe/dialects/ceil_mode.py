"""``ceil_mode``: the field of forks for the rounding of pooling output sizes, older than Caffe's ``round_mode``.

``ceil_mode: false`` equals ``round_mode: FLOOR``, and ``ceil_mode: true`` equals ``round_mode: CEIL``, the default.

Source: BVLC/caffe pull request 3057, which was not merged; its field number, 13, is that of ``round_mode`` today.
"""

from __future__ import annotations

from reproduction.caffe.formats import upgrade
from reproduction.caffe.schema import NetParameter, PoolingParameter, RoundMode, add_dialect
from reproduction.caffe.schema.field import boolean

FORKS = add_dialect("ceil_mode", "Forks with ceil_mode", "BVLC/caffe pull request 3057", 2015)
CEIL_MODE = PoolingParameter.add_field("ceil_mode", boolean(13, True), FORKS)


def convert_ceil_mode(net: NetParameter, was_old: bool) -> list[str]:
    """Convert ``ceil_mode`` of the Pooling layers of a net to ``round_mode``, in place.

    Args:
        net: the net, in the current form.
        was_old: not used; ``upgrade`` passes it to every function in its list ``TRANSLATIONS``.

    Returns:
        A sentence that names the converted layers, or an empty list if there are none.
    """
    translated = []
    for layer in net.layer:
        param = layer.pooling_param if layer.has("pooling_param") else PoolingParameter()
        if not param.has("ceil_mode"):
            continue
        mode = RoundMode.CEIL if CEIL_MODE.get(param) else RoundMode.FLOOR
        param.clear("ceil_mode")
        if not param.has("round_mode"):  # which wins in the forks that have both
            param.round_mode = mode
            translated.append(layer.name)
    return [f"ceil_mode of {upgrade.quote_names(translated)} became round_mode."] if translated else []


upgrade.TRANSLATIONS.append(convert_ceil_mode)
