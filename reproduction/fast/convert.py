"""Convert the layers of a net to ops, which compute only the pixels that are needed."""

from __future__ import annotations

from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import compiled_forms as forms
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.fast.convolution import ConvolutionOp
from reproduction.fast.kernels import MaxPool, factor_kernel
from reproduction.fast.ops import CropOp, Op, UpsamplingOp, WindowOp


def convert_layers(net: Net, precision: str) -> tuple[list[Op], dict[str, str]]:
    """Convert the layers of a net to ops, each of which can compute a part of its layer's tops.

    A layer that returns its bottom unchanged, such as Dropout in phase TEST, needs no op: its tops become other names
    of its bottom. An in-place ReLU after a convolution is computed by the convolution's op.

    A blob that a layer overwrites in place has a separate name for each version of its values, such as ``conv1`` and
    then ``conv1#2``. The ops refer to blobs by these versioned names.

    Args:
        net: The net, in phase TEST.
        precision: One of ``PRECISIONS``.

    Returns:
        The ops in order; and a dict that maps each blob's name to the versioned name of its last values.
    """
    ops: list[Op] = []
    current: dict[str, str] = {name: name for name in net.inputs}
    versions: dict[str, int] = {}
    shapes: dict[str, Shape] = {name: net.blob_shapes[name] for name in net.inputs}
    layers = [(node, layer) for node in net.graph.nodes if (layer := net.layer_at(node))]
    fused = set[int]()  # the ReLUs that a convolution computes
    for position, (node, layer) in enumerate(layers):
        bottoms = tuple(current[bottom] for bottom in node.bottoms)
        form = layer.compiled_form([shapes[bottom] for bottom in bottoms])
        if isinstance(form, forms.IdentityForm) or node.index in fused:
            current.update(dict.fromkeys(node.tops, bottoms[0]))
            continue
        for top in node.tops:
            versions[top] = versions.get(top, 0) + 1
            current[top] = top if versions[top] == 1 and top not in net.inputs else f"{top}#{versions[top]}"
        op = Op(node.name, layer, bottoms, tuple(current[top] for top in node.tops))
        shapes.update(zip(op.tops, op.top_shapes([shapes[bottom] for bottom in bottoms]), strict=True))
        relu = None
        if isinstance(form, forms.ConvolutionForm):
            relu = _find_relu(node, shapes[op.tops[0]], layers[position + 1 :])
            fused |= {relu.index} if relu else set()
        ops.append(_compile(op, form, precision, relu=relu is not None))
    return ops, current


def _find_relu(convolution: Node, top: Shape, later: list[tuple[Node, Layer]]) -> Node | None:
    """Return the in-place ReLU that is the first layer to read the top of a convolution, or None."""
    for node, layer in later:
        if convolution.tops[0] in node.bottoms:
            in_place = len(node.bottoms) == 1 and node.tops == node.bottoms
            form = layer.compiled_form([top]) if in_place else None
            return node if isinstance(form, forms.PointwiseForm) and form.is_relu else None
    return None


def _compile(op: Op, form: forms.CompiledForm | None, precision: str, *, relu: bool) -> Op:
    """Return a faster equivalent of an op if one exists for the form of its layer, otherwise the op."""
    layer, fields = op.layer, (op.name, op.layer, op.bottoms, op.tops)
    match form:
        case forms.ConvolutionForm(windows, group):
            return ConvolutionOp(*fields, windows=windows, group=group, precision=precision, relu=relu)
        case forms.DeconvolutionForm(windows, group):
            weight, *biases = layer.blobs
            if factors := factor_kernel(weight, group):
                how, bias = "two products of matrices", biases[0] if biases else None
                return UpsamplingOp(*fields, how, windows=windows, factors=factors, bias=bias)
        case forms.MaxPoolingForm(windows):
            if all(window.pad == 0 and window.kernel >= window.stride for window in windows):
                return WindowOp(*fields, "max pooling", windows=windows, kernel=MaxPool(windows), is_clipped=True)
        case forms.CropForm(offsets):
            return CropOp(*fields, "a view", offsets=offsets)
        case forms.PointwiseForm() if len(op.tops) == 1:
            return WindowOp(*fields)
    return op
