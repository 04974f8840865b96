"""``ceil_mode``: the field of forks for the rounding of pooling output sizes, older than Caffe's ``round_mode``.

``ceil_mode: false`` equals ``round_mode: FLOOR``, and ``ceil_mode: true`` equals ``round_mode: CEIL``, the default.

Source: BVLC/caffe pull request 3057, which was not merged; its field number, 13, is that of ``round_mode`` today.
"""

from __future__ import annotations

from reproduction.caffe.formats import caffemodel, upgrade
from reproduction.caffe.schema import NetParameter, PoolingParameter, RoundMode
from reproduction.caffe.schema.field import boolean
from reproduction.caffe.schema.message import Message


class CeilPoolingParameter(Message):
    """The field that forks add to PoolingParameter. Its number is arbitrary, as it is never written to a file."""

    ceil_mode = boolean(1013, True)


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
        if not param.unknown:
            continue
        read = caffemodel.loads(param.unknown, CeilPoolingParameter)
        if not read.has("ceil_mode"):
            continue
        mode = RoundMode.CEIL if read.ceil_mode else RoundMode.FLOOR
        param.unknown = read.unknown
        if not param.has("round_mode"):  # which wins in the forks that have both
            param.round_mode = mode
            translated.append(layer.name)
    return [f"ceil_mode of {upgrade.quote_names(translated)} became round_mode."] if translated else []


PoolingParameter.dialects += (CeilPoolingParameter,)
upgrade.TRANSLATIONS.append(convert_ceil_mode)
