"""Copy weights from messages to parameters and back, and share them between nets.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L665-L780, src/caffe/blob.cpp L397-L520.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import StrPath, WeightsError
from reproduction.caffe.formats import blobs
from reproduction.caffe.formats.upgrade import SPLIT_OFF
from reproduction.caffe.geometry import Shape
from reproduction.caffe.schema import BlobProto, NetParameter
from reproduction.caffe.typing import Floating, Floats

Params = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class CopyReport:
    """Names of the layers that were copied, ignored and left unchanged; ``str()`` formats them as one line.

    Attributes:
        copied: Layers whose parameters were copied or shared.
        ignored: Layers of the source that have parameters but no layer of the same name in the net.
        untouched: Layers of the net that have parameters but no weights in the source.
    """

    copied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.copied)} layers copied"]
        parts += [f"{word}: {', '.join(names)}" for word, names in self._rest() if names]
        return "; ".join(parts)

    def _rest(self) -> list[tuple[str, list[str]]]:
        return [("ignored", self.ignored), ("untouched", self.untouched)]


def copy_blobs(source: NetParameter, params: Params, path: StrPath = "", *, whole: bool = False) -> CopyReport:
    """Copy the blobs of a message to parameters, by layer name.

    Args:
        source: A net whose layers contain blobs, upgraded to the current format.
        params: Parameters by layer name; a layer without parameters has an empty sequence.
        path: The file that the message came from, for error messages.
        whole: Require weights for exactly the layers in ``params``, as in a snapshot of the same net.

    Returns:
        The names of the layers that were copied, ignored and left unchanged.

    Raises:
        WeightsError: If a layer of the same name has a different number of blobs or different shapes, if no layer
            matches, or if ``whole`` is not satisfied. The parameters are then unchanged.
    """
    matched: list[tuple[Tensor, Floats]] = []
    report = CopyReport()
    # HDF5 files store a shared parameter once, in its owner layer. In the other layers its blob is empty or, if it is
    # the last one, missing.
    owned = {
        id(_root(target))
        for layer in source.layer
        for target, blob in zip(params.get(layer.name, ()), layer.blobs, strict=False)
        if not blob.is_empty()
    }
    for layer in source.layer:
        if layer.name not in params:
            if layer.blobs:
                _check_whole(layer.name, params, path)
                report.ignored.append(layer.name)
            continue
        targets, given = params[layer.name], list(layer.blobs)
        given += [BlobProto() for target in targets[len(given) :] if id(_root(target)) in owned]
        if len(given) != len(targets):
            raise WeightsError(
                f"layer {layer.name!r} has another number of blobs",
                path=path,
                got=len(layer.blobs),
                want=f"{len(targets)}, as the net",
            )
        for i, (target, blob) in enumerate(zip(targets, given, strict=True)):
            if blob.is_empty() and id(_root(target)) in owned:
                continue
            _check_shape(layer.name, i, tuple(target.shape), blob, path)
            matched.append((target, blobs.to_array(blob, path or "weights")))
        if targets:
            report.copied.append(layer.name)
    if not report.copied and any(params.values()):
        raise WeightsError(
            "no layer of these weights has the name of a layer of the net",
            path=path,
            got=_few(report.ignored) or "no layers with weights",
            want=_few([name for name, targets in params.items() if targets]),
            remedy="They belong to another net.",
        )
    taken = set(report.copied)
    for name, targets in params.items():
        if name not in taken and not all(id(_root(target)) in owned for target in targets):
            report.untouched.append(name)
    if whole and (report.ignored or report.untouched):
        problem = "the net has no layer" if report.ignored else "there are no weights for layer"
        raise WeightsError(
            f"{problem} {(report.ignored or report.untouched)[0]!r}", path=path, remedy="They belong to another net."
        )
    for target, values in matched:
        _assign(target, values)
    return report


def share_blobs(source: Params, params: Params) -> CopyReport:
    """Share the memory of the parameters in ``source`` with those in ``params``, by layer name.

    Raises:
        WeightsError: If a layer of the same name has a different number of blobs or different shapes.
    """
    report = CopyReport()
    for name, blobs_ in source.items():
        if name not in params:
            if blobs_:
                report.ignored.append(name)
            continue
        mine, theirs = [tuple(p.shape) for p in params[name]], [tuple(p.shape) for p in blobs_]
        if mine != theirs:
            raise WeightsError(f"cannot share the weights of layer {name!r}", got=theirs, want=mine)
        for target, blob in zip(params[name], blobs_, strict=True):
            target.data = blob.data
        if blobs_:
            report.copied.append(name)
    report.untouched.extend(name for name, targets in params.items() if targets and name not in source)
    return report


def to_blob(param: Tensor, *, diff: bool = False) -> BlobProto:
    """Convert a parameter to a BlobProto; include its gradient (zeros if there is none) if ``diff`` is True.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L488-L520 (Blob::ToProto).
    """
    blob = blobs.from_array(param.detach().cpu().numpy())
    if diff:
        gradient = torch.zeros_like(param) if param.grad is None else param.grad
        values = gradient.detach().cpu().numpy().reshape(-1)
        setattr(blob, "double_diff" if values.dtype == np.float64 else "diff", values)
    return blob


def _check_shape(layer: str, index: int, want: Shape, blob: BlobProto, path: StrPath) -> None:
    got = blobs.shape(blob)
    if got == want or (blobs.is_legacy(blob) and old_shape(want) == got):
        return
    raise WeightsError(
        f"layer {layer!r} blob {index} has another shape",
        path=path,
        got=got,
        want=f"{want}, as the net",
        remedy="To train this layer from its filler, rename it.",
    )


def _check_whole(ignored: str, params: Params, path: StrPath) -> None:
    """Raise an error if ``ignored`` is the scale and bias of a BatchNorm layer whose statistics the net uses."""
    layer = ignored.removesuffix(SPLIT_OFF)
    if ignored != layer and layer in params:
        raise WeightsError(
            f"layer {layer!r} has a scale and a bias in these weights, and none in the net",
            path=path,
            remedy="Write scale_bias: true into its batch_norm_param, in place of a Scale layer after it.",
        )


def _root(tensor: Tensor) -> Tensor:
    """Return the tensor that a parameter is a view of, or the parameter itself.

    Layers that share a parameter in different shapes see views of it.
    """
    return tensor if tensor._base is None else tensor._base


def old_shape(shape: Shape) -> Shape:
    """Prepend ones to a shape until it has four axes, to compare it with Caffe's old num, channels, height, width."""
    return (1,) * (4 - len(shape)) + tuple(shape)


def _assign(target: Tensor, values: Floating) -> None:
    if target.is_meta:
        return  # a net on the meta device has no memory for values
    with torch.no_grad():
        if target.device.type == "cpu":
            np.copyto(target.detach().numpy(), values.reshape(target.shape), casting="same_kind")
        else:
            target.copy_(torch.from_numpy(np.array(values)).view(target.shape))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
