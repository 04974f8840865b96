"""The layers Convolution, Deconvolution and Im2col."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from types import EllipsisType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import (
    CoordMap,
    Shape,
    Window,
    conv_map,
    conv_size,
    conv_windows,
    deconv_map,
    deconv_size,
)
from reproduction.caffe.layers.base import Layer, Rereads, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import check_positive
from reproduction.caffe.layers.compiled_forms import CompiledForm, ConvolutionForm, DeconvolutionForm
from reproduction.caffe.layers.exact import blas, im2col
from reproduction.caffe.layers.onnx_graph import OnnxLayer, window_attributes
from reproduction.caffe.layers.quick.borders import AnyBlob, RepeatedBlob, slide_windows
from reproduction.caffe.layers.quick.convolve import Take, convolve
from reproduction.caffe.schema import ConvolutionParameter, LayerParameter

_WINDOW = ("axis", "kernel_size", "stride", "pad", "dilation", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h",
           "pad_w")  # fmt: skip
_WINDOW_FIELDS = frozenset(f"convolution_param.{name}" for name in _WINDOW)
_WEIGHT_FIELDS = frozenset(
    f"convolution_param.{name}" for name in ("num_output", "group", "bias_term", "weight_filler", "bias_filler")
)

# The numbers of spatial axes that torch's operator takes; other numbers use im2col.
_TORCH_AXES = (1, 2, 3)


def _taps(windows: Sequence[Window], counts: Sequence[int]) -> Iterator[tuple[slice | EllipsisType, ...]]:
    """Yield, for each tap in row-major order, the index of its values in all windows of the padded input."""
    for taps in product(*(range(window.kernel) for window in windows)):
        slices = (
            slice(tap * window.dilation, tap * window.dilation + window.stride * (count - 1) + 1, window.stride)
            for tap, window, count in zip(taps, windows, counts, strict=True)
        )
        yield (..., *slices)


def _pad(x: Tensor, windows: Sequence[Window], *, both: bool) -> Tensor:
    """Pad with zeros at the end where the first window exceeds the padded input; if ``both``, also by ``pad``."""
    sides: list[int] = []
    for size, window in zip(reversed(x.shape[2:]), reversed(windows), strict=False):
        pad = window.pad if both else 0
        sides += [pad, pad + max(0, window.extent - size - 2 * window.pad)]
    return F.pad(x, sides) if any(sides) else x


def _im2col(x: Tensor, windows: Sequence[Window], counts: Sequence[int]) -> Tensor:
    """Extract the windows of ``x`` (N, C, *sizes) as columns (N, C * taps, *counts), with zeros outside the input."""
    x = _pad(x, windows, both=True)
    return torch.stack([x[tap] for tap in _taps(windows, counts)], 2).flatten(1, 2)


def _col2im(columns: Tensor, windows: Sequence[Window], sizes: Sequence[int]) -> Tensor:
    """Sum columns (N, C * taps, *counts) into an image (N, C, *sizes); values of overlapping windows add up."""
    taps = list(_taps(windows, columns.shape[2:]))
    columns = columns.reshape(len(columns), -1, len(taps), *columns.shape[2:])
    padded = (size + 2 * window.pad for size, window in zip(sizes, windows, strict=True))
    image = columns.new_zeros(*columns.shape[:2], *padded)
    for index, tap in enumerate(taps):
        image[tap] += columns[:, :, index]
    for axis, (size, window) in enumerate(zip(sizes, windows, strict=True), 2):
        image = image.narrow(axis, window.pad, size)
    return image


def _reshape_if_needed(x: Tensor, shape: Shape) -> Tensor:
    """Reshape only if the shape differs.

    If a later layer overwrites a view, even one of the same shape, autograd makes a copy.
    """
    return x if x.shape == shape else x.reshape(shape)


def _axes_with_sizes(param: ConvolutionParameter) -> int:
    """Return the number of spatial axes for which sizes are set; 1 if one window stands for all axes."""
    if any(param.has(f"{name}_{side}") for name in ("kernel", "stride", "pad") for side in "hw"):
        return 2
    return max(1, *(len(values) for values in (param.kernel_size, param.stride, param.pad, param.dilation)))


class _Windowed(Layer):
    """The base class of the three layers: channel axis, windows and shapes of the tops."""

    in_place_values = False

    @classmethod
    def sliding_windows(cls, layer_param: LayerParameter) -> list[Window]:
        """Return a window for each axis if sizes are set for each axis, otherwise one window for all axes."""
        return conv_windows(layer_param.convolution_param, _axes_with_sizes(layer_param.convolution_param))

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        return conv_map(cls.sliding_windows(layer_param), layer_param.convolution_param.axis + 1)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.layer_param.convolution_param
        self.axis = canonical_axis(param.axis, len(bottoms[0]))
        self.windows = conv_windows(param, len(bottoms[0]) - self.axis - 1)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        axes = self.axis + 1 + len(self.windows)
        for index, bottom in enumerate(bottoms):
            if len(bottom) != axes:
                raise NetError(f"bottom {index} has a different number of axes", got=bottom, want=f"{axes} axes")
            if bottom != bottoms[0]:
                raise NetError(f"bottom {index} differs in shape from bottom 0", got=bottom, want=bottoms[0])
        return [(*bottom[: self.axis], *self._top_shape(bottom[self.axis :])) for bottom in bottoms]

    def _top_shape(self, bottom: Shape) -> Shape:
        """Return the channels and spatial sizes of the top for the channels and spatial sizes of the bottom."""
        raise NotImplementedError(type(self).__name__)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops = self.shapes([tuple(bottom.shape) for bottom in bottoms])
        images = map(self._as_images, bottoms)
        return tuple(
            _reshape_if_needed(self._compute_top(x, top[self.axis + 1 :]), top)
            for x, top in zip(images, tops, strict=True)
        )

    def _as_images(self, bottom: Tensor) -> Tensor:
        """Return a bottom as (N, C, ...), with one batch axis."""
        return bottom.reshape(math.prod(bottom.shape[: self.axis]), *bottom.shape[self.axis :])

    def _compute_top(self, x: Tensor, sizes: Shape) -> Tensor:
        """Compute one top (N, channels, *sizes) from one bottom (N, C, ...)."""
        raise NotImplementedError(type(self).__name__)


def _onnx_attributes(windows: Sequence[Window], group: int) -> dict[str, Any]:
    return {**window_attributes(windows), "dilations": [window.dilation for window in windows], "group": group}


class _Weighted(_Windowed):
    """The base class of Convolution and Deconvolution: channels, groups and weights; one top for each bottom."""

    reads = _WINDOW_FIELDS | _WEIGHT_FIELDS
    bottoms: ClassVar[tuple[int, int | None]] = (1, None)
    tops: ClassVar[tuple[int, int | None]] = (1, None)
    paired = True
    top_is_free = True
    onnx_operator: ClassVar[str]
    form: ClassVar[type[ConvolutionForm | DeconvolutionForm]]
    rereads = Rereads.TO_LEARN

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.layer_param.convolution_param
        self.channels, self.num_output, self.group = bottoms[0][self.axis], param.num_output, param.group
        check_positive(param, "num_output", "group")
        for name, count in (("channels", self.channels), ("num_output", self.num_output)):
            if count % self.group:
                raise NetError(f"{name} must be a multiple of group", got=count, want=f"a multiple of {self.group}")
        self.add_blob(self._weight_shape(), param.weight_filler)
        if param.bias_term:
            self.add_blob((self.num_output,), param.bias_filler)

    def compiled_form(self, bottoms: list[Shape]) -> CompiledForm | None:
        """Return a ``ConvolutionForm`` or ``DeconvolutionForm`` for one bottom (N, C, H, W), otherwise None."""
        if len(bottoms) != 1 or self.axis != 1 or len(self.windows) != 2:
            return None
        return self.form((self.windows[0], self.windows[1]), self.group)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Conv or ConvTranspose for each bottom.

        Raises:
            NetError: If the channels are not on axis 1, or there are no or more than three spatial axes.
        """
        if self.axis != 1 or not 1 <= len(self.windows) <= 3:
            got = f"axis {self.axis} of {onnx.axes}"
            raise NetError("such a convolution cannot be written as ONNX", got=got, want="axis 1 of 3 to 5")
        blobs, attributes = onnx.blobs(), _onnx_attributes(self.windows, self.layer_param.convolution_param.group)
        beyond = [w.extent - size - 2 * w.pad for size, w in zip(onnx.shapes[0][2:], self.windows, strict=True)]
        if self.onnx_operator == "Conv" and max(beyond) > 0:  # as in ``_pad``
            onnx.fix_sizes()
            pads = [window.pad for window in self.windows]
            attributes["pads"] = [*pads, *(pad + max(0, more) for pad, more in zip(pads, beyond, strict=True))]
        return [onnx.node(self.onnx_operator, bottom, *blobs, top=i, **attributes) for i, bottom in enumerate(bottoms)]

    def _weight_shape(self) -> Shape:
        raise NotImplementedError(type(self).__name__)

    @staticmethod
    def top_size(size: int, window: Window) -> int:
        """Return the number of pixels of a top along an axis along which the bottom has ``size``."""
        raise NotImplementedError

    def _top_shape(self, bottom: Shape) -> Shape:
        if bottom[0] != self.channels:
            raise NetError("the bottom's channels do not fit the weights", got=bottom[0], want=self.channels)
        return (self.num_output, *map(self.top_size, bottom[1:], self.windows))

    def _weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        weight, *bias = self.blobs
        return weight, bias[0] if bias else None

    def _uses_blas_order(self, x: Tensor) -> bool:
        return len(self.windows) == 2 and blas.applies_to(self.in_blas_order, x)

    def _add_bias(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return x if bias is None else x + bias.reshape(-1, *[1] * len(self.windows))

    def _call_torch(self, x: Tensor, *, transposed: bool) -> Tensor:
        """Compute a convolution, or a transposed one, by torch's operator."""
        stride, pad, dilation = (
            [getattr(each, name) for each in self.windows] for name in ("stride", "pad", "dilation")
        )
        none = [0] * len(stride)
        return torch.convolution(x, *self._weight_and_bias(), stride, pad, dilation, transposed, none, self.group)


@register
class Convolution(_Weighted):
    """Convolution: the cross-correlation of the bottom with the weights, plus the bias.

    Shapes:
        bottoms: (N, C, H, W), all of the same shape. ``axis`` is the channel axis; there may be any number of batch
            axes before it and of spatial axes after it.
        tops: (N, num_output, h, w) with ``h = (H + 2 pad - dilation (kernel - 1) - 1) // stride + 1``; w accordingly.
        weight: (num_output, C / group, kernel_h, kernel_w).
        bias: (num_output,), unless ``bias_term: false``.

    Attributes:
        take_gradient: A function that takes the gradient of a large weight in parts. If no other layer uses the weight,
            the solver sets it for a forward and backward pass.

    Raises:
        NetError: If the shapes of the bottoms do not fit each other or the weights, a window does not fit into the
            bottom, or the channels or ``num_output`` are not multiples of ``group``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/conv_layer.cpp L8-L73, base_conv_layer.cpp L12-L315.
    """

    onnx_operator = "Conv"
    form = ConvolutionForm
    top_size = staticmethod(conv_size)
    take_gradient: Take | None = None

    def products(self, bottoms: list[Shape]) -> int:
        """Return the number of multiplications in a forward pass: the number of weights for each top pixel."""
        return self.blobs[0].numel() * sum(map(math.prod, self.shapes(bottoms))) // self.num_output

    def _as_images(self, bottom: Tensor) -> Tensor:
        # For a batch of one image, reshape changes the stride of its axis, and then torch does not see that the format
        # is channels_last, in which training is faster, and a convolution of each channel by itself many times.
        keeps_format = self.axis == 1 and (self.training or 1 < self.group == self.channels)
        return bottom if keeps_format else super()._as_images(bottom)

    def _weight_shape(self) -> Shape:
        return (self.num_output, self.channels // self.group, *(window.kernel for window in self.windows))

    def _compute_top(self, x: Tensor, sizes: Shape) -> Tensor:
        if len(self.windows) == 2:
            return self._convolve(x, self.windows)
        if len(self.windows) in _TORCH_AXES:
            return self._call_torch(_pad(x, self.windows, both=False), transposed=False)
        weight, bias = self._weight_and_bias()
        columns = _im2col(x, self.windows, sizes).reshape(len(x), self.group, -1, math.prod(sizes))
        rows = weight.reshape(self.group, self.num_output // self.group, -1)
        return self._add_bias((rows @ columns).reshape(len(x), self.num_output, *sizes), bias)

    def _convolve(self, x: Tensor, windows: Sequence[Window]) -> Tensor:
        """Convolve ``x`` (N, C, H, W); the padding of ``windows`` may differ from that of the layer."""
        weight, bias = self._weight_and_bias()
        # Caffe: the first window may exceed the padded input by less than one stride and reads zeros there, since C++
        # rounds the negative quotient towards zero (conv_layer.cpp L18). torch raises an error.
        x = _pad(x, windows, both=False)
        if self._uses_blas_order(x):
            return im2col.convolve(x, weight, bias, windows, self.group, self.totals)
        needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        learning, take = self.training and needs_gradient, self.take_gradient
        return convolve(x, weight, bias, windows, self.group, learning=learning, take=take)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Convolve only the stored rows and columns of bottoms that store equal ones once (``RepeatedBlob``).

        Return None if full tensors are needed: for other bottoms, another axis than 1, or if ``in_blas_order`` is set.
        """
        if self.in_blas_order or self.axis != 1 or not all(isinstance(x, RepeatedBlob) for x in bottoms):
            return None
        tops = self.shapes([x.shape for x in bottoms])
        return tuple(
            slide_windows(x, self.windows, top[2:], self._convolve)
            for x, top in zip(bottoms, tops, strict=True)
            if isinstance(x, RepeatedBlob)
        )


@register
class Deconvolution(_Weighted):
    """Transposed convolution: the gradient of Convolution with respect to its bottom, plus the bias.

    The published nets upsample their scores with it.

    Shapes:
        bottoms: (N, C, H, W), all of the same shape. ``axis`` is the channel axis; there may be any number of batch
            axes before it and of spatial axes after it.
        tops: (N, num_output, h, w) with ``h = stride (H - 1) + dilation (kernel - 1) + 1 - 2 pad``; w accordingly.
        weight: (C, num_output / group, kernel_h, kernel_w).
        bias: (num_output,), unless ``bias_term: false``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/deconv_layer.cpp L8-L75, base_conv_layer.cpp L12-L315.
    """

    onnx_operator = "ConvTranspose"
    form = DeconvolutionForm
    top_size = staticmethod(deconv_size)

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the map from coordinates of the bottom to those of the top: the inverse of a convolution's map."""
        return deconv_map(cls.sliding_windows(layer_param), layer_param.convolution_param.axis + 1)

    def products(self, bottoms: list[Shape]) -> int:
        """Return the number of multiplications in a forward pass: the number of weights for each bottom pixel."""
        return self.blobs[0].numel() * sum(map(math.prod, bottoms)) // self.channels

    def _weight_shape(self) -> Shape:
        return (self.channels, self.num_output // self.group, *(window.kernel for window in self.windows))

    def _compute_top(self, x: Tensor, sizes: Shape) -> Tensor:
        weight, bias = self._weight_and_bias()
        if self._uses_blas_order(x):
            return im2col.convolve(x, weight, bias, self.windows, self.group, self.totals, sizes)
        if len(self.windows) in _TORCH_AXES:
            return self._call_torch(x, transposed=True)
        rows = weight.reshape(self.group, self.channels // self.group, -1)
        columns = rows.mT @ x.reshape(len(x), self.group, -1, math.prod(x.shape[2:]))
        return self._add_bias(_col2im(columns.reshape(len(x), -1, *x.shape[2:]), self.windows, sizes), bias)


@register
class Im2col(_Windowed):
    """Rearrange the values of each window of a convolution into channels.

    Shapes:
        bottom: (N, C, H, W); ``axis`` is the channel axis, with at least one spatial axis after it.
        top: (N, C * kernel_h * kernel_w, h, w), where h and w are those of Convolution. All taps of a channel, in
            row-major order, come before those of the next channel.

    Raises:
        NetError: If the bottom has no spatial axis, or a window does not fit into it.

    Source: BVLC/caffe@9b89154 src/caffe/layers/im2col_layer.cpp L9-L184, src/caffe/util/im2col.cpp L19-L195.
    """

    reads = _WINDOW_FIELDS

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the axis and the windows.

        Raises:
            NetError: If there is no spatial axis after ``axis``.
        """
        super().setup(bottoms)
        if not self.windows:
            raise NetError("there is no spatial axis after the channels", got=bottoms[0])

    def _top_shape(self, bottom: Shape) -> Shape:
        taps = math.prod(window.kernel for window in self.windows)
        return (bottom[0] * taps, *map(conv_size, bottom[1:], self.windows))

    def _compute_top(self, x: Tensor, sizes: Shape) -> Tensor:
        return _im2col(x, self.windows, sizes)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Conv for each bottom, whose weights pick the taps of each channel.

        Raises:
            NetError: If the channels are not on axis 1, or there are more than three spatial axes.
        """
        if self.axis != 1 or len(self.windows) > 3:
            raise NetError("such windows cannot be written as ONNX", got=f"axis {self.axis}", want="axis 1 of 3 to 5")
        kernel, channels = [window.kernel for window in self.windows], onnx.shapes[0][1]
        taps = np.eye(math.prod(kernel), dtype=np.float32).reshape(-1, 1, *kernel)
        weight = onnx.constant(np.tile(taps, (channels, 1, *[1] * len(kernel))), "taps")
        attributes = _onnx_attributes(self.windows, channels)
        return [onnx.node("Conv", bottom, weight, top=i, **attributes) for i, bottom in enumerate(bottoms)]
