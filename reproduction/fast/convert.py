"""Convert the layers of a net to ops, which compute only the pixels that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter, is_

from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import compiled_forms as forms
from reproduction.caffe.net.net import Net
from reproduction.fast.convolution import ConvolutionOp
from reproduction.fast.deconvolution import TorchDeconvolution, factor_kernel
from reproduction.fast.kernels import ChannelNormalization, Concatenation
from reproduction.fast.ops import AffineOp, CropOp, MaxPoolOp, Op, UpsamplingOp, WindowOp


def convert_layers(net: Net, precision: str, converted: dict[str, Tensor]) -> tuple[list[Op], dict[str, str]]:
    """Convert the layers of a net to ops, each of which can compute a part of its layer's tops.

    A layer that returns its bottom unchanged, such as Dropout in phase TEST, needs no op: its tops become other names
    of its bottom.

    A blob that a layer overwrites in place has a separate name for each version of its values, such as ``conv1`` and
    then ``conv1#2``. The ops refer to blobs by these versioned names.

    Args:
        net: The net, in phase TEST.
        precision: One of ``PRECISIONS``.
        converted: A dict of converted weights, by name, to which the ops add those that they convert.

    Returns:
        The ops in order; and a dict that maps each blob's name to the versioned name of its last values.
    """
    ops: list[Op] = []
    current: dict[str, str] = {name: name for name in net.inputs}
    versions: dict[str, int] = {}
    shapes: dict[str, Shape] = {name: net.blob_shapes[name] for name in net.inputs}
    for node in net.graph.nodes:
        layer = net.layer_at(node)
        if layer is None:
            continue
        bottoms = tuple(current[bottom] for bottom in node.bottoms)
        form = layer.compiled_form([shapes[bottom] for bottom in bottoms])
        if isinstance(form, forms.IdentityForm):
            current.update(dict.fromkeys(node.tops, bottoms[0]))
            continue
        for top in node.tops:
            versions[top] = versions.get(top, 0) + 1
            current[top] = top if versions[top] == 1 and top not in net.inputs else f"{top}#{versions[top]}"
        op = Op(node.name, layer, bottoms, tuple(current[top] for top in node.tops), form=form)
        shapes.update(zip(op.tops, op.top_shapes([shapes[bottom] for bottom in bottoms]), strict=True))
        ops.append(_compile(op, precision, converted, is_image=len(shapes[op.tops[0]]) == 4 if op.tops else False))
    return ops, current


def _compile(op: Op, precision: str, converted: dict[str, Tensor], *, is_image: bool) -> Op:
    """Return a faster equivalent of an op if one exists for the form of its layer, otherwise the op."""
    layer, fields = op.layer, (op.name, op.layer, op.bottoms, op.tops)
    match op.form:
        case forms.ConvolutionForm(windows, group):
            return ConvolutionOp(
                *fields, form=op.form, windows=windows, group=group, precision=precision, converted=converted
            )
        case forms.DeconvolutionForm(windows, group):
            weight, *biases = layer.blobs
            bias = biases[0] if biases else None
            if factors := factor_kernel(weight, group):
                return UpsamplingOp(*fields, "two products of matrices", windows=windows, factors=factors, bias=bias)
            return replace(op, kernel=TorchDeconvolution(weight, bias, windows, group))
        case forms.MaxPoolingForm(windows):
            if all(window.kernel >= window.stride for window in windows):
                return MaxPoolOp(*fields, "max pooling", form=op.form, windows=windows)
        case forms.CropForm(offsets):
            return CropOp(*fields, "a view", form=op.form, offsets=offsets)
        case forms.LRNForm():
            return WindowOp(*fields, "one product", form=op.form, kernel=ChannelNormalization(op.form))
        case forms.PointwiseForm(is_concatenation=True) if is_image:
            return WindowOp(*fields, "a view", form=op.form, kernel=Concatenation())
        case forms.PointwiseForm(is_affine=True) if is_image:
            return AffineOp(*fields, form=op.form)
        case forms.PointwiseForm() if len(op.tops) == 1:
            return WindowOp(*fields, form=op.form)
    return op


class ParameterVersions:
    """The parameters of a net and torch's counts of their changes in place, to detect changes since they were read.

    Each call of a compiled net compares them, for up to a thousand parameters that are no longer in the CPU's caches:
    as little as possible is read of each.

    Args:
        net: The net.
    """

    def __init__(self, net: Net):
        # The dicts themselves: Module.parameters() takes longer than a small net.
        self._layers = [module._parameters for module in net.modules() if module._parameters]
        self._parameters, self._versions = self._read()

    def have_changed(self) -> bool:
        """Return whether a parameter was changed in place or replaced, or the whole net was moved or converted."""
        found, versions = self._read()
        return versions != self._versions or not all(map(is_, found, self._parameters))

    def _read(self) -> tuple[Sequence[Tensor], list[int]]:
        found = [p for layer in self._layers for p in layer.values() if p is not None]
        try:
            versions = list(map(attrgetter("_version"), found))
        except RuntimeError:  # tensors that were made in inference mode have no version
            versions = [0 if p.is_inference() else p._version for p in found]
        return found, [*versions, *(p.data_ptr() for p in found[:1])]  # Module.to() changes the addresses of all
