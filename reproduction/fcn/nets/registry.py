"""The registry of all named nets: the published ones and those of Mini-VOC."""

from __future__ import annotations

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.fcn.nets import mini_nets, published_nets
from reproduction.fcn.nets.published_nets import PublishedNet

#: The nets by name.
NETS: dict[str, PublishedNet] = published_nets.NETS | mini_nets.NETS


def find_net(name: str) -> PublishedNet:
    """Return the table entry of a net.

    Args:
        name: Key of ``NETS``.

    Raises:
        ReproductionError: If there is no net of this name; the remedy suggests the most similar name.
    """
    if name not in NETS:
        remedy = did_you_mean(name, NETS) or f"There are {', '.join(NETS)}."
        raise ReproductionError(f"there is no net {name!r}", remedy=remedy)
    return NETS[name]
