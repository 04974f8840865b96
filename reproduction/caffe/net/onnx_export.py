"""Export a net as ONNX: each layer becomes the equivalent operators, for any batch size, height and width.

Nothing is traced: the operators are written from the net's graph with the names of its blobs, and contain no image
size. The results of ONNX Runtime differ from those of the module by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.geometry import Window, conv_windows, pool_windows
from reproduction.caffe.layers.base import Layer, canonical_axis
from reproduction.caffe.net.graph import layer_place
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import EltwiseOp, LayerParameter, NormRegion, PoolMethod, RoundMode
from reproduction.caffe.typing import Array

if TYPE_CHECKING:
    import onnx


OPSET = 17  # released in 2022; ONNX Runtime 1.12 and OpenCV 5 can read it
IR_VERSION = 8
PRODUCER = "fcn-reproduction"

_REMEDY = "Install it: pip install onnx."


class Writer:
    """A builder of an ONNX graph.

    Attributes:
        nodes: The operators, in order.
        constants: The weights and other constant arrays.

    Raises:
        ReproductionError: If the package onnx is not installed.
    """

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError:
            raise ReproductionError("the package onnx is not installed", remedy=_REMEDY) from None
        self._onnx = onnx
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()

    def name(self, wish: str) -> str:
        """Return ``wish`` if no value has that name yet, otherwise ``wish`` with a number; reserve the name."""
        name, number = wish, 1
        while name in self._names:
            number += 1
            name = f"{wish}_{number}"
        self._names.add(name)
        return name

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str], doc: str = "") -> str:
        """Declare an input and return its name.

        Args:
            name: Name of the input.
            dtype: Type of its elements.
            shape: The length of each axis, or a name for an axis of any length.
            doc: Description that is stored in the file.
        """
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(self._onnx.helper.make_tensor_value_info(self.name(name), kind, list(shape), doc))
        return name

    def output(self, name: str, value: str, dtype: type[np.generic], shape: Sequence[int | str], doc: str = "") -> None:
        """Declare an output.

        Args:
            name: Name of the output.
            value: Name of the value that it returns.
            dtype: Type of its elements.
            shape: The length of each axis, or a name for an axis of any length.
            doc: Description that is stored in the file.
        """
        if value != name:
            self.nodes.append(self._onnx.helper.make_node("Identity", [value], [self.name(name)]))
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._outputs.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape), doc))

    def constant(self, values: npt.ArrayLike, wish: str) -> str:
        """Add a constant array and return its name, which is ``wish`` or ``wish`` with a number."""
        name = self.name(wish)
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], wish: str, **attributes: Any) -> str:
        """Add an operator with one output and return the output's name."""
        name = self.name(wish)
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def model(self, name: str, notes: Mapping[str, str]) -> onnx.ModelProto:
        """Build the ONNX model from everything added so far, and check it.

        Args:
            name: Name of the net.
            notes: Metadata to store in the file, by key.

        Raises:
            ReproductionError: If the model is not valid ONNX, which indicates a bug in this module.
        """
        graph = self._onnx.helper.make_graph(
            self.nodes, name or "net", self._inputs, self._outputs, initializer=self.constants
        )
        made = self._onnx.helper.make_model(
            graph,
            opset_imports=[self._onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=PRODUCER,
        )
        self._onnx.helper.set_model_props(made, dict(notes))
        try:
            self._onnx.checker.check_model(made)
        except self._onnx.checker.ValidationError as error:
            raise ReproductionError(f"this is no valid ONNX: {next(iter(str(error).splitlines()))}") from None
        return made


def write(net: Net, writer: Writer, inputs: Mapping[str, str], blobs: Iterable[str]) -> dict[str, str]:
    """Write the layers that the given blobs need.

    Args:
        net: The net, in phase TEST.
        writer: The graph that the operators are added to.
        inputs: Names of ONNX values by the names of the net's inputs; the values are float32, ``(N, C, H, W)``.
        blobs: Names of the blobs to compute.

    Returns:
        The names of the ONNX values of the requested blobs, by blob.

    Raises:
        NetError: If a layer or one of its fields has no equivalent in ONNX, if an input is missing, or if the net has
            no such blob.
    """
    wanted = list(blobs)
    values = dict(inputs)
    for node in net.graph.needed(wanted):
        if node.is_slot:
            if missing := [top for top in node.tops if top not in values]:
                raise NetError(f"input {missing[0]!r} is missing", got=sorted(inputs), want=net.inputs)
            continue
        layer_param, bottoms = node.layer_param, [values[bottom] for bottom in node.bottoms]
        try:
            if node.type not in _WRITERS:
                raise NetError("this type cannot be written as ONNX", want=f"one of {', '.join(sorted(_WRITERS))}")
            if len(node.bottoms) > 1 and len(node.tops) > 1:
                raise NetError("a layer with several bottoms and tops cannot be written as ONNX")
            tops = _WRITERS[node.type](_Layer(net.layers[node.name], layer_param, writer, node.tops[0]), *bottoms)
        except NetError as error:
            raise error.at(layer_place(layer_param)) from None
        values.update(zip(node.tops, tops, strict=False))
    return {blob: values[blob] for blob in wanted}


class _Layer:
    """A layer to export: its module and message; prefixes the names of its operators and weights."""

    def __init__(self, layer: Layer, layer_param: LayerParameter, writer: Writer, top: str):
        self.layer, self.layer_param, self.writer, self.top = layer, layer_param, writer, top

    def blobs(self) -> list[str]:
        """Add the parameters as constants and return their names."""
        names = zip(self.layer.blob_names, self.layer.blobs, strict=True)
        return [self.constant(_values(blob), name) for name, blob in names]

    def constant(self, values: npt.ArrayLike, name: str) -> str:
        return self.writer.constant(values, f"{self.layer_param.name}.{name}")

    def node(self, operator: str, *inputs: str, step: str = "", **attributes: Any) -> str:
        """Add an operator and return its output's name: that of the top (the default), or ``LAYER.step``."""
        return self.writer.node(operator, inputs, f"{self.layer_param.name}.{step}" if step else self.top, **attributes)


def _values(blob: Tensor) -> Array:
    return blob.detach().cpu().numpy()


def _sides(windows: Sequence[Window]) -> dict[str, Any]:
    pads = [window.pad for window in windows]
    return {
        "kernel_shape": [window.kernel for window in windows],
        "strides": [window.stride for window in windows],
        "pads": pads * 2,
    }


def _convolution(at: _Layer, bottom: str) -> list[str]:
    param = at.layer_param.convolution_param
    if canonical_axis(param.axis, 4) != 1:
        raise NetError("only images (N, C, H, W) can be written as ONNX", got=f"axis {param.axis}")
    windows = conv_windows(param)
    operator = "Conv" if at.layer_param.type == "Convolution" else "ConvTranspose"
    dilations = [window.dilation for window in windows]
    return [at.node(operator, bottom, *at.blobs(), group=param.group, dilations=dilations, **_sides(windows))]


def _pooling(at: _Layer, bottom: str) -> list[str]:
    param = at.layer_param.pooling_param
    if len(at.layer_param.top) > 1 or param.pool is PoolMethod.STOCHASTIC:
        raise NetError("positions and STOCHASTIC pooling cannot be written as ONNX")
    maximum = param.pool is PoolMethod.MAX
    if param.global_pooling:
        return [at.node("GlobalMaxPool" if maximum else "GlobalAveragePool", bottom)]
    windows = pool_windows(param, 1, 1)
    up = param.round_mode is RoundMode.CEIL
    for window in windows:
        # Caffe: Without padding a window may start past the end (pooling_layer.cpp L107); ONNX drops such a window.
        if up and not window.pad and window.kernel < window.stride:
            raise NetError("windows with gaps between them cannot be written as ONNX", got=f"stride {window.stride}")
        if up and not maximum and window.pad > window.kernel - window.stride:
            raise NetError("an average with so much padding cannot be written as ONNX", got=f"pad {window.pad}")
    if maximum:
        return [at.node("MaxPool", bottom, ceil_mode=int(up), **_sides(windows))]
    # Caffe: The average counts padding as zeros, but not pixels beyond the padding (pooling_layer.cpp L214).
    pads = [window.pad for window in windows]
    if any(pads):
        bottom = at.node("Pad", bottom, at.constant(np.array([0, 0, *pads] * 2), "pads"), step="padded")
    sides = _sides(windows) | {"pads": [0] * 4}
    return [at.node("AveragePool", bottom, ceil_mode=int(up), count_include_pad=0, **sides)]


def _lrn(at: _Layer, bottom: str) -> list[str]:
    param = at.layer_param.lrn_param
    if param.norm_region is not NormRegion.ACROSS_CHANNELS:
        raise NetError("a normalization within a channel cannot be written as ONNX")
    return [at.node("LRN", bottom, size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)]


def _crop(at: _Layer, bottom: str, like: str) -> list[str]:
    """Slice the first bottom, from the offsets, to the size of the second one along ``axis`` and all later axes."""
    axes = 4
    axis = canonical_axis(at.layer_param.crop_param.axis, axes)
    given = list(at.layer_param.crop_param.offset) or [0]
    offsets = at.constant(np.array(given * (axes - axis if len(given) == 1 else 1)), "offset")
    along = at.constant(np.arange(axis, axes), "axes")
    size = at.node("Gather", at.node("Shape", like, step="shape"), along, step="size", axis=0)
    return [at.node("Slice", bottom, offsets, at.node("Add", size, offsets, step="end"), along)]


def _eltwise(at: _Layer, *bottoms: str) -> list[str]:
    param = at.layer_param.eltwise_param
    if param.operation is EltwiseOp.MAX:
        return [at.node("Max", *bottoms)]
    terms = list(bottoms)
    for i, coeff in enumerate(param.coeff):
        if coeff != 1:
            terms[i] = at.node("Mul", terms[i], at.constant(np.float32(coeff), f"coeff{i}"), step=f"term{i}")
    operator = "Mul" if param.operation is EltwiseOp.PROD else "Add"
    total = terms[0]
    for i, term in enumerate(terms[1:], 2):
        total = at.node(operator, total, term, step="" if i == len(terms) else f"partial{i}")
    return [total]


def _scale(at: _Layer, bottom: str, factor: str = "") -> list[str]:
    param = at.layer_param.scale_param if at.layer_param.type == "Scale" else at.layer_param.bias_param
    axis = canonical_axis(param.axis, 4)
    arrays = [_values(blob) for blob in at.layer.blobs]
    spread = [values.reshape(*values.shape, *[1] * (4 - axis - values.ndim)) for values in arrays]
    blobs = [at.constant(values, name) for name, values in zip(at.layer.blob_names, spread, strict=True)]
    if factor:
        raise NetError("a factor from another layer cannot be written as ONNX")
    if at.layer_param.type == "Bias":
        return [at.node("Add", bottom, *blobs)]
    scaled = at.node("Mul", bottom, blobs[0], step="scaled" if blobs[1:] else "")
    return [at.node("Add", scaled, blobs[1]) if blobs[1:] else scaled]


def _batch_norm(at: _Layer, bottom: str) -> list[str]:
    param = at.layer_param.batch_norm_param
    if param.has("use_global_stats") and not param.use_global_stats:
        raise NetError("statistics of the batch cannot be written as ONNX")
    mean, variance, weight = (_values(blob) for blob in at.layer.blobs)
    share = 0 if weight[0] == 0 else 1 / weight[0]
    ones = at.constant(np.ones_like(mean), "ones"), at.constant(np.zeros_like(mean), "zeros")
    stored = at.constant(mean * share, "mean"), at.constant(variance * share, "variance")
    return [at.node("BatchNormalization", bottom, *ones, *stored, epsilon=param.eps)]


def _inner_product(at: _Layer, bottom: str) -> list[str]:
    param = at.layer_param.inner_product_param
    if param.axis != 1:
        raise NetError("only one vector for each image can be written as ONNX", got=f"axis {param.axis}")
    rows = at.node("Flatten", bottom, step="rows", axis=1)
    return [at.node("Gemm", rows, *at.blobs(), transB=int(not param.transpose))]


def _concat(at: _Layer, *bottoms: str) -> list[str]:
    param = at.layer_param.concat_param
    return [at.node("Concat", *bottoms, axis=param.concat_dim if param.has("concat_dim") else param.axis)]


def _relu(at: _Layer, bottom: str) -> list[str]:
    slope = at.layer_param.relu_param.negative_slope
    return [at.node("LeakyRelu", bottom, alpha=slope) if slope else at.node("Relu", bottom)]


def _flatten(at: _Layer, bottom: str) -> list[str]:
    param = at.layer_param.flatten_param
    if (param.axis, param.end_axis) != (1, -1):
        raise NetError("only one vector for each image can be written as ONNX", got=f"axis {param.axis}")
    return [at.node("Flatten", bottom, axis=1)]


def _same(at: _Layer, bottom: str) -> list[str]:
    """Return the bottom for each top, as Split and (in phase TEST) Dropout do."""
    return [bottom] * len(at.layer_param.top)


def _plain(operator: str, attributes: Callable[[LayerParameter], dict[str, Any]] = lambda param: {}) -> _LayerWriter:
    return lambda at, bottom: [at.node(operator, bottom, **attributes(at.layer_param))]


_LayerWriter = Callable[..., list[str]]
_WRITERS: dict[str, _LayerWriter] = {
    "AbsVal": _plain("Abs"),
    "BatchNorm": _batch_norm,
    "Bias": _scale,
    "Concat": _concat,
    "Convolution": _convolution,
    "Crop": _crop,
    "Deconvolution": _convolution,
    "Dropout": _same,
    "ELU": _plain("Elu", lambda layer_param: {"alpha": layer_param.elu_param.alpha}),
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Scale": _scale,
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": _plain("Softmax", lambda layer_param: {"axis": layer_param.softmax_param.axis}),
    "Split": _same,
    "TanH": _plain("Tanh"),
}
