"""Window and size arithmetic: sliding windows, output sizes, and the maps between input and output coordinates.

Sizes are integers and coordinates exact fractions. Shape inference, the forward pass of layers and ``netspec.crop``
all use these functions, so they always agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import ConvolutionParameter, PoolingParameter, RoundMode

Shape = tuple[int, ...]
INT_MAX = 2**31 - 1
MAX_AXES = 32


def check_shape(shape: Shape, what: str = "a blob") -> None:
    """Check that Caffe allows a blob of this shape, before any memory is allocated for it.

    Args:
        shape: the shape, outermost axis first.
        what: the subject of the error message, such as ``the top``.

    Raises:
        NetError: If the shape has more than 32 axes, a negative size, or more than 2^31 - 1 values.

    Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L21-L44.
    """
    if len(shape) > MAX_AXES:
        raise NetError(f"{what} has too many axes", got=len(shape), want=f"at most {MAX_AXES}")
    if min(shape, default=0) < 0:
        raise NetError(f"{what} cannot have negative sizes", got=shape)
    if max(shape, default=0) > INT_MAX or math.prod(shape) > INT_MAX:
        raise NetError(f"{what} has more values than Caffe supports", got=shape, want=f"at most {INT_MAX}")


def check_shapes(tops: Iterable[Shape]) -> list[Shape]:
    """Check the shapes of a layer's tops by ``check_shape``, and return them as a list."""
    shapes = list(tops)
    for shape in shapes:
        check_shape(shape, "the top")
    return shapes


def _check_length(size: int) -> None:
    # Caffe: a bottom of length 0 along a spatial axis is accepted if padding makes room for a window. This package
    # raises an error.
    if size < 1:
        raise NetError("the bottom has no pixels along a spatial axis", got=f"length {size}")


@dataclass(frozen=True)
class Window:
    """A sliding window of a convolution or pooling along one axis; all sizes are in pixels.

    Attributes:
        kernel: number of taps, the pixels that the window reads.
        stride: distance between the starts of two neighbouring windows.
        pad: pixels added at each end of the axis.
        dilation: distance between two neighbouring taps.
    """

    kernel: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    @property
    def extent(self) -> int:
        """The length that the window covers, from its first tap to its last: ``dilation * (kernel - 1) + 1``."""
        return self.dilation * (self.kernel - 1) + 1


def _per_axis(values: Sequence[int], axes: int, default: int | None, name: str) -> list[int]:
    """Return one value for each axis: an empty field stands for ``default``, one value for all axes."""
    if not values and default is not None:
        return [default] * axes
    if len(values) == 1:
        return list(values) * axes
    if len(values) == axes:
        return list(values)
    raise NetError(f"{name} must be given once, or once for each spatial axis", got=len(values), want=f"1 or {axes}")


def conv_windows(param: ConvolutionParameter, axes: int = 2) -> list[Window]:
    """Return the windows of a Convolution, Deconvolution or Im2col layer, one for each spatial axis.

    Args:
        param: the layer's ``convolution_param``. The fields ``kernel_h``/``kernel_w``, ``stride_h``/``stride_w`` and
            ``pad_h``/``pad_w`` are allowed only with two axes.
        axes: number of spatial axes.

    Raises:
        NetError: If a size is missing or zero, is set in both forms (such as ``pad`` and ``pad_h``), or has a number of
            values other than one or ``axes``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/base_conv_layer.cpp L13-L118.
    """
    columns: dict[str, list[int]] = {}
    for name, default in (("kernel", None), ("stride", 1), ("pad", 0)):
        listed = "kernel_size" if name == "kernel" else name
        values: list[int] = getattr(param, listed)
        if param.has(f"{name}_h") or param.has(f"{name}_w"):
            if axes != 2:
                raise NetError(f"{name}_h and {name}_w are for two spatial axes", got=axes)
            if values:
                raise NetError(f"{listed} and {name}_h/{name}_w are both set", want="one of them")
            values = [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
        columns[name] = _per_axis(values, axes, default, listed)
    columns["dilation"] = _per_axis(param.dilation, axes, 1, "dilation")
    for name in ("kernel", "stride", "dilation"):
        if min(columns[name], default=1) < 1:
            raise NetError(f"{name} must be positive", got=columns[name])
    return [Window(*sizes) for sizes in zip(*columns.values(), strict=True)]


def _pool_pair(param: PoolingParameter, name: str, square: str) -> tuple[int, int]:
    """Return the (h, w) pair of a pooling layer from the field ``square``, or from ``name_h`` and ``name_w``."""
    both = param.has(f"{name}_h"), param.has(f"{name}_w")
    if any(both) and (param.has(square) or not all(both)):
        raise NetError(f"{square} is set twice, or for one axis only", want=f"{square}, or {name}_h and {name}_w")
    return (getattr(param, f"{name}_h"), getattr(param, f"{name}_w")) if all(both) else (getattr(param, square),) * 2


def pool_windows(param: PoolingParameter, height: int, width: int) -> list[Window]:
    """Return the windows (vertical, horizontal) of a Pooling layer for a ``height`` x ``width`` input.

    With global pooling, the kernel has the size of the input.

    Raises:
        NetError: If a size is missing, set in both forms, or zero, the padding is not smaller than the kernel, or
            global pooling has a kernel size, padding or a stride.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cpp L16-L77.
    """
    has_kernel = any(param.has(name) for name in ("kernel_size", "kernel_h", "kernel_w"))
    if param.global_pooling and has_kernel:
        raise NetError("global_pooling and a kernel size are both set", want="one of them")
    if not param.global_pooling and not has_kernel:
        raise NetError("the kernel size is missing", want="kernel_size, or kernel_h and kernel_w")
    kernel = (height, width) if param.global_pooling else _pool_pair(param, "kernel", "kernel_size")
    pad, stride = _pool_pair(param, "pad", "pad"), _pool_pair(param, "stride", "stride")
    if param.global_pooling and (pad != (0, 0) or stride != (1, 1)):
        raise NetError("global_pooling requires padding 0 and stride 1", got=f"pad {pad}, stride {stride}")
    if min(kernel) < 1 or min(stride) < 1:
        raise NetError("kernel and stride must be positive", got=f"kernel {kernel}, stride {stride}")
    if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
        raise NetError("the padding must be smaller than the kernel", got=f"pad {pad}, kernel {kernel}")
    return [Window(k, s, p) for k, s, p in zip(kernel, stride, pad, strict=True)]


def unfold_arguments(windows: Sequence[Window]) -> dict[str, tuple[int, ...]]:
    """Return the windows along height and width as the arguments that ``F.unfold`` and ``F.fold`` of torch take."""
    names = {"kernel_size": "kernel", "dilation": "dilation", "padding": "pad", "stride": "stride"}
    return {theirs: tuple(getattr(window, ours) for window in windows) for theirs, ours in names.items()}


def conv_size(size: int, window: Window) -> int:
    """Return the output size of a convolution along one axis, rounded down as in Caffe.

    Args:
        size: input size in pixels.
        window: the window along this axis.

    Raises:
        NetError: If ``size`` is less than 1, or the window exceeds the padded input by a stride or more.

    Source: BVLC/caffe@9b89154 src/caffe/layers/conv_layer.cpp L8-L22.
    """
    _check_length(size)
    span = size + 2 * window.pad - window.extent
    # Caffe: a kernel that exceeds the padded input by less than one stride gives one output, computed with zeros past
    # the end, since C++ rounds the negative quotient towards zero (conv_layer.cpp L18). torch raises an error.
    if span <= -window.stride:
        raise NetError(
            "the kernel is longer than the padded input", got=f"{size} + 2 * {window.pad} pixels", want=window.extent
        )
    return max(span, 0) // window.stride + 1


def deconv_size(size: int, window: Window) -> int:
    """Return the output size of a deconvolution along one axis.

    Args:
        size: input size in pixels.
        window: the window along this axis; ``pad`` is removed from each end of the output.

    Raises:
        NetError: If ``size`` is less than 1, or the padding removes the whole output.

    Source: BVLC/caffe@9b89154 src/caffe/layers/deconv_layer.cpp L8-L22.
    """
    _check_length(size)
    length = window.stride * (size - 1) + window.extent - 2 * window.pad
    if length < 1:
        raise NetError("the padding removes the whole output", got=f"length {length}")
    return length


def pool_sizes(
    sizes: Sequence[int], windows: Sequence[Window], rounding: RoundMode = RoundMode.CEIL
) -> tuple[int, ...]:
    """Return the output sizes of a pooling along each axis.

    Caffe rounds up. Then, if any axis is padded, it drops a last window that would start in the padding at the end.

    Args:
        sizes: input sizes in pixels.
        windows: the window of each axis; ``dilation`` is ignored.
        rounding: ``CEIL``, or ``FLOOR`` for layers with ``round_mode: FLOOR``.

    Returns:
        Output sizes, each at least 1.

    Raises:
        NetError: If an input size is less than 1, or a window is longer than the padded input and gives no output.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cpp L91-L117.
    """
    padded = any(window.pad for window in windows)
    counts = []
    for size, window in zip(sizes, windows, strict=True):
        _check_length(size)
        span = size + 2 * window.pad - window.kernel
        # Caffe: a pooling window that exceeds the padded input by less than one stride gives one output, since the
        # ceiling of the negative quotient is zero (pooling_layer.cpp L93). torch with ceil_mode=True does the same.
        count = span // window.stride + 1 if rounding is RoundMode.FLOOR else -(-span // window.stride) + 1
        if padded and (count - 1) * window.stride >= size + window.pad:
            count -= 1
        if count < 1:
            raise NetError(
                "the window is longer than the padded input",
                got=f"{size} + 2 * {window.pad} pixels",
                want=window.kernel,
            )
        counts.append(count)
    return tuple(counts)


class AxisError(NetError):
    """The error when two coordinate maps are combined whose first spatial axes differ."""


@dataclass(frozen=True)
class CoordMap:
    """A map from the spatial coordinates of one blob to those of another: ``scale * x + shift`` along each axis.

    For example, a 2 x 2 pooling with stride 2 maps x to ``x / 2 - 1 / 4``. The offset of a Crop layer is computed from
    such maps.

    Attributes:
        axis: the first spatial axis; None if the map is the identity on every axis.
        scale: one value for each spatial axis, or one value for all.
        shift: one value in pixels for each spatial axis, or one value for all.

    Source: BVLC/caffe@9b89154 python/caffe/coord_map.py.
    """

    axis: int | None = None
    scale: tuple[Fraction, ...] = (Fraction(1),)
    shift: tuple[Fraction, ...] = (Fraction(0),)

    def _spread(self, axes: int) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
        """Return ``scale`` and ``shift`` with one value for each of ``axes`` axes; a single value is repeated."""
        if len(self.scale) not in (1, axes):
            raise NetError("coordinate maps have different numbers of axes", got=f"{len(self.scale)} and {axes}")
        times = axes // len(self.scale)
        return self.scale * times, self.shift * times

    def __matmul__(self, other: CoordMap) -> CoordMap:
        """Return the composition of two maps: ``(self @ other)(x)`` is ``self(other(x))``."""
        if self.axis is not None and other.axis is not None and self.axis != other.axis:
            raise AxisError("coordinate maps start at different axes", got=f"{self.axis} and {other.axis}")
        axes = max(len(self.scale), len(other.scale))
        (a1, b1), (a2, b2) = self._spread(axes), other._spread(axes)
        return CoordMap(
            self.axis if self.axis is not None else other.axis,
            tuple(a * c for a, c in zip(a1, a2, strict=True)),
            tuple(a * d + b for a, b, d in zip(a1, b1, b2, strict=True)),
        )

    def agrees(self, other: CoordMap) -> bool:
        """Return True if ``other`` is the same map, even if only one of the two repeats a value for each axis."""
        axes = max(len(self.scale), len(other.scale))
        same_axis = self.axis is None or other.axis is None or self.axis == other.axis
        return same_axis and self._spread(axes) == other._spread(axes)

    def inverse(self) -> CoordMap:
        """Return the inverse map, from the second blob to the first."""
        return CoordMap(
            self.axis,
            tuple(1 / a for a in self.scale),
            tuple(-b / a for a, b in zip(self.scale, self.shift, strict=True)),
        )


def conv_map(windows: Sequence[Window], axis: int = 2) -> CoordMap:
    """Return the map from input to output coordinates of a convolution or pooling.

    Args:
        windows: the window of each spatial axis.
        axis: the first spatial axis.
    """
    return deconv_map(windows, axis).inverse()


def deconv_map(windows: Sequence[Window], axis: int = 2) -> CoordMap:
    """Return the map from input to output coordinates of a deconvolution.

    Args:
        windows: the window of each spatial axis.
        axis: the first spatial axis.
    """
    return CoordMap(
        axis,
        tuple(Fraction(w.stride) for w in windows),
        tuple(Fraction(w.extent - 1, 2) - w.pad for w in windows),
    )


def crop_map(axis: int, offsets: Sequence[int]) -> CoordMap:
    """Return the map from input to output coordinates of a Crop layer.

    Args:
        axis: the first axis that is cropped.
        offsets: the offset in pixels along each axis from ``axis`` on.
    """
    return CoordMap(axis, (Fraction(1),) * len(offsets), tuple(Fraction(-o) for o in offsets))


def crop_offset(between: CoordMap, pair: str) -> list[int]:
    """Return the offset at which a Crop layer must begin so that its first bottom is aligned with its second.

    Args:
        between: the map from coordinates of the first bottom, which is cropped, to those of the second.
        pair: the two blobs in words, for errors.

    Returns:
        One offset for each spatial axis, or one for all.

    Raises:
        NetError: If the two have different scales, or the offset is negative or not an integer.

    Source: BVLC/caffe@9b89154 python/caffe/coord_map.py L166-L185.
    """
    offset = [-shift for shift in between.shift]
    if any(scale != 1 for scale in between.scale):
        raise NetError(
            f"{pair} have different scales",
            got=format_fractions(between.scale),
            want=1,
            remedy="The strides down and up between them must cancel.",
        )
    if any(value < 0 for value in offset):
        raise NetError(
            f"cropping {pair} needs a negative offset",
            got=format_fractions(offset),
            remedy="Pad the input more, or the deconvolution less.",
        )
    if any(value.denominator != 1 for value in offset):
        raise NetError(
            f"cropping {pair} needs an integer offset",
            got=format_fractions(offset),
            remedy="Make a kernel between them one pixel longer or shorter.",
        )
    return [int(value) for value in offset]


def format_fractions(values: Sequence[Fraction]) -> str:
    """Format fractions for an error: a single one as ``1/2``, several as ``(1/2, 3)``."""
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
