"""Copy weights from messages to parameters and back, and share them between nets.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L665-L780, src/caffe/blob.cpp L397-L520.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import StrPath, WeightsError, join_first
from reproduction.caffe.formats import blobs
from reproduction.caffe.formats.upgrade import SPLIT_OFF
from reproduction.caffe.geometry import Shape
from reproduction.caffe.schema import BlobProto, NetParameter
from reproduction.caffe.typing import Floating

Params = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class ReshapedBlob:
    """A parameter that received the values of a blob of another shape with the same number of elements.

    Attributes:
        layer: Name of the net's layer.
        blob: Index of the blob in that layer.
        got: Shape of the blob in the source.
        shape: Shape of the parameter.
    """

    layer: str
    blob: int
    got: Shape
    shape: Shape

    def __str__(self) -> str:
        return f"{self.layer} {self.blob} {self.got} -> {self.shape}"


@dataclass(frozen=True)
class CopyReport:
    """Names of the layers that were copied, ignored and left unchanged; ``str()`` formats them as one line.

    Attributes:
        copied: Layers whose parameters were copied or shared.
        reshaped: Parameters that received values of another shape.
        ignored: Layers of the source that have parameters but no layer of the same name in the net, and blobs
            (``layer 1``) that the net's layer lacks.
        untouched: Layers of the net that have parameters but no weights in the source.
    """

    copied: list[str] = field(default_factory=list)
    reshaped: list[ReshapedBlob] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lists: dict[str, Sequence[object]] = {
            "reshaped": self.reshaped,
            "ignored": self.ignored,
            "untouched": self.untouched,
        }
        parts = [f"{word}: {', '.join(map(str, items))}" for word, items in lists.items() if items]
        return "; ".join([f"{len(self.copied)} layers copied", *parts])


def copy_blobs(
    source: NetParameter,
    params: Params,
    path: StrPath = "",
    *,
    suffix: str = "",
    exact: bool = False,
    reshape: bool = False,
) -> CopyReport:
    """Copy the blobs of a message to parameters, by layer name.

    Args:
        source: A net whose layers contain blobs, upgraded to the current format.
        params: Parameters by layer name; a layer without parameters has an empty sequence.
        path: The file that the message came from, for error messages.
        suffix: Added to the layer names in ``source`` to obtain those in ``params``, e.g. ``color`` for ``conv1color``.
        exact: Require weights for exactly the layers in ``params``, as in a snapshot of the same net.
        reshape: Copy a blob of another shape if it has as many elements, and ignore blobs that one side lacks. A fully
            connected layer (O, I H W) and a convolution (O, I, H, W) hold the same weights.

    Returns:
        The names of the layers that were copied, ignored and left unchanged.

    Raises:
        WeightsError: If a layer of the same name has a different number of blobs or different shapes (with ``reshape``:
            a different number of elements), if no layer matches, or if ``exact`` is not satisfied. The parameters are
            then unchanged.
    """
    matched: list[tuple[Tensor, Floating]] = []
    report = CopyReport()
    stored = _list_stored(source, params, suffix)
    owned = _find_owned(stored, params, suffix)
    for layer_name, found in stored:
        name, count = layer_name + suffix, len(found)
        if name not in params:
            if found:
                _check_scale(layer_name, params, path)
                report.ignored.append(layer_name)
            continue
        targets = params[name]
        found += [BlobProto() for target in targets[len(found) :] if id(find_base(target)) in owned]
        if reshape:
            report.ignored.extend(f"{layer_name} {i}" for i in range(len(targets), len(found)))
        elif len(found) != len(targets):
            want = f"{len(targets)}, as the net"
            problem = f"layer {name!r} has another number of blobs"
            raise WeightsError(problem, path=path, got=count, want=want)
        for i, (target, blob) in enumerate(zip(targets, found, strict=False)):
            if blob.is_empty() and id(find_base(target)) in owned:
                continue
            if not _has_shape(blob, tuple(target.shape), as_legacy=reshape):
                report.reshaped.append(_reshape(name, i, blob, target, path, allowed=reshape))
            matched.append((target, blobs.to_array(blob, path or "weights")))
        if targets and found:
            report.copied.append(name)
    _list_untouched(report, params, owned, path)
    if exact and (report.ignored or report.untouched):
        problem = "the net has no layer" if report.ignored else "there are no weights for layer"
        raise WeightsError(
            f"{problem} {(report.ignored or report.untouched)[0]!r}", path=path, remedy="They belong to another net."
        )
    # Write only after all checks have passed, so that an error leaves the parameters unchanged.
    for target, values in matched:
        assign_values(target, values)
    return report


def _list_untouched(report: CopyReport, params: Params, owned: set[int], path: StrPath) -> None:
    """Add the layers without weights in the source to the report; raise an error if these are all layers."""
    if not report.copied and any(params.values()):
        raise WeightsError(
            "no layer of these weights has the name of a layer of the net",
            path=path,
            got=join_first(report.ignored, 4) or "no layers with weights",
            want=join_first([name for name, targets in params.items() if targets], 4),
            remedy="They belong to another net.",
        )
    copied = set(report.copied)
    for name, targets in params.items():
        if name not in copied and not all(id(find_base(target)) in owned for target in targets):
            report.untouched.append(name)


def _list_stored(source: NetParameter, params: Params, suffix: str) -> list[tuple[str, list[BlobProto]]]:
    """Return the name and the blobs of each layer of the source.

    A scale and bias that were split off a BatchNorm layer are returned with its blobs if the net has all in one layer.
    """
    scales = {
        layer.name.removesuffix(SPLIT_OFF): list(layer.blobs)
        for layer in source.layer
        if layer.name.endswith(SPLIT_OFF) and layer.name + suffix not in params
    }
    stored = []
    for layer in source.layer:
        name = layer.name.removesuffix(SPLIT_OFF)
        joined = len(params.get(name + suffix, ())) == 5 and name in scales
        if not joined or layer.name == name:
            stored.append((layer.name, [*layer.blobs, *(scales[name] if joined else ())]))
    return stored


def _find_owned(stored: Sequence[tuple[str, Sequence[BlobProto]]], params: Params, suffix: str) -> set[int]:
    """Return the ids of the parameters for which the source has values.

    HDF5 files store a shared parameter once, in its owner layer. In the other layers its blob is empty or, if it is the
    last one, missing.
    """
    return {
        id(find_base(target))
        for name, found in stored
        for target, blob in zip(params.get(name + suffix, ()), found, strict=False)
        if not blob.is_empty()
    }


def share_blobs(source: Params, params: Params) -> CopyReport:
    """Make parameters use the memory of those in the layer of the same name in ``source``.

    Args:
        source: The parameters whose memory is used, by layer name.
        params: The parameters that are changed, by layer name.

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
            torch.autograd.graph.increment_version(target)  # a compiled net detects the change
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


def _has_shape(blob: BlobProto, shape: Shape, *, as_legacy: bool) -> bool:
    got = blobs.shape(blob)
    return got == shape or (got == old_shape(shape) and (as_legacy or blobs.is_legacy(blob)))


def _reshape(layer: str, index: int, blob: BlobProto, target: Tensor, path: StrPath, *, allowed: bool) -> ReshapedBlob:
    """Return the record of a blob of another shape, or raise an error if it cannot be copied."""
    got, want = blobs.shape(blob), tuple(target.shape)
    if allowed and math.prod(got) == target.numel():
        return ReshapedBlob(layer, index, got, want)
    if allowed:
        problem = f"layer {layer!r} blob {index} has another number of elements"
        raise WeightsError(problem, path=path, got=got, want=f"as many as {want}")
    remedy = "To train this layer from its filler, rename it."
    problem = f"layer {layer!r} blob {index} has another shape"
    raise WeightsError(problem, path=path, got=got, want=f"{want}, as the net", remedy=remedy)


def _check_scale(ignored: str, params: Params, path: StrPath) -> None:
    """Raise an error if ``ignored`` is the scale and bias of a BatchNorm layer whose statistics the net uses."""
    layer = ignored.removesuffix(SPLIT_OFF)
    if ignored != layer and layer in params:
        raise WeightsError(
            f"layer {layer!r} has a scale and a bias in these weights, and none in the net",
            path=path,
            remedy="Write scale_bias: true into its batch_norm_param, in place of a Scale layer after it.",
        )


def find_base(tensor: Tensor) -> Tensor:
    """Return the tensor that a parameter is a view of, or the parameter itself.

    Layers that share a parameter in different shapes see views of it.
    """
    return tensor if tensor._base is None else tensor._base


def old_shape(shape: Shape) -> Shape:
    """Return a shape in Caffe's old format: ones are put before it until it has four axes."""
    return (1,) * (4 - len(shape)) + tuple(shape)


def assign_values(target: Tensor, values: Floating) -> None:
    """Copy an array to a parameter that has as many elements, on the device of the parameter."""
    if target.is_meta:
        return  # a net on the meta device has no memory for values
    with torch.no_grad(), warnings.catch_warnings():
        # The values may be a read-only view of a mapped file, of which torch warns. It copies in several threads.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        target.copy_(torch.from_numpy(values).reshape(target.shape))
