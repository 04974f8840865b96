"""Parameters that several layers share, since their ``param`` messages have the same name.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L422-L515 (Net::AppendParam).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.schema import DimCheckMode, ParamSpec

Param = tuple[Layer, str, ParamSpec]  # the layer that has a parameter, its name there, and its ``param`` message


def share_params(layers: Iterable[Layer], specs: dict[str, list[ParamSpec]]) -> list[Param]:
    """Share parameters that have the same name, and return the parameters in Caffe's order, shared ones once.

    Args:
        layers: The layers of a net, in order.
        specs: A dict to which the ``param`` messages of each layer's parameters are added, by layer name.

    Raises:
        NetError: If a layer has more ``param`` messages than parameters, or parameters of the same name have different
            shapes or settings.
    """
    learnable: list[Param] = []
    owners: dict[str, Param] = {}
    for layer in layers:
        given = len(layer.layer_param.param)
        if given > len(layer.blobs):
            raise NetError("more param blocks than parameter blobs", got=given, want=f"at most {len(layer.blobs)}").at(
                layer.layer_param.place
            )
        learn = []
        for name, spec in zip(layer.blob_names, layer.param_specs, strict=True):
            if spec.name and spec.name in owners:
                _share(layer, name, spec, owners[spec.name])
                learn.append(owners[spec.name][2])
                continue
            learn.append(spec.copy())
            learnable.append((layer, name, learn[-1]))
            if spec.name:
                owners[spec.name] = learnable[-1]
        if learn:
            specs.setdefault(layer.layer_param.name, learn)
    return learnable


def _share(layer: Layer, name: str, spec: ParamSpec, owner: Param) -> None:
    owner_layer, owner_name, owner_spec = owner
    blob = getattr(owner_layer, owner_name)
    mine = tuple(getattr(layer, name).shape)
    permissive = spec.share_mode is DimCheckMode.PERMISSIVE
    if (math.prod(mine) != blob.numel()) if permissive else (mine != tuple(blob.shape)):
        raise NetError(
            f"cannot share param {spec.name!r} with layer {owner_layer.layer_param.name!r}",
            got=mine,
            want=f"{'the count of ' if permissive else ''}{tuple(blob.shape)}",
        ).at(layer.layer_param.place)
    for mult in ("lr_mult", "decay_mult"):
        if spec.has(mult):
            if owner_spec.has(mult) and getattr(owner_spec, mult) != getattr(spec, mult):
                raise NetError(
                    f"shared param {spec.name!r} has two values of {mult}",
                    got=getattr(spec, mult),
                    want=getattr(owner_spec, mult),
                ).at(layer.layer_param.place)
            setattr(owner_spec, mult, getattr(spec, mult))
    del layer._parameters[name]
    if mine == tuple(blob.shape):
        layer.register_parameter(name, blob)
    else:
        layer.reshaped[name] = (owner_layer, owner_name, mine)
