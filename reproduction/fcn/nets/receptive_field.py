"""The figures of the paper's Table 1, computed from a prototxt: parameters, receptive field, stride."""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window, conv_windows, pool_windows
from reproduction.caffe.schema import LayerParameter, NetParameter


@dataclass(frozen=True)
class Description:
    """The figures of one net.

    Attributes:
        parameters: Number of scalars in all weight blobs.
        learned: Number of those whose ``lr_mult`` is not 0, so without the fixed upsampling.
        convolutions: Number of Convolution layers.
        receptive_field: The largest receptive field of a blob before any upsampling, in input pixels along the height.
        max_stride: The largest stride of such a blob, in input pixels along the height.
    """

    parameters: int
    learned: int
    convolutions: int
    receptive_field: int
    max_stride: int


@dataclass(frozen=True)
class _Blob:
    """The channels of a blob, its receptive field and stride in input pixels, and whether it follows an upsampling."""

    channels: int
    field: int = 1
    stride: int = 1
    upsampled: bool = False


_COUNTED = frozenset(["Concat", "Crop", "Dropout", "Eltwise", "LRN", "Pooling", "ReLU", "Softmax", "Split"])


def describe(net: NetParameter) -> Description:
    """Compute the figures of a net whose inputs come from Input layers, such as a deploy net.

    Args:
        net: The net.

    Raises:
        NetError: If a layer has a type that these figures do not cover, or a bottom that no earlier layer computes.

    Source: Long, Shelhamer and Darrell, CVPR 2015, Table 1 (rf and max stride of the last convolution).
    """
    blobs: dict[str, _Blob] = {}
    parameters = learned = 0
    for spec in net.layer:
        if missing := [name for name in spec.bottom if name not in blobs]:
            raise NetError(f"bottom {missing[0]!r} is made by no layer before", layer=spec.name, type=spec.type)
        if not spec.bottom and spec.type != "Input":
            raise NetError("the layer has no bottom", layer=spec.name, type=spec.type, line=spec.line)
        bottoms = [blobs[name] for name in spec.bottom]
        for index, count in enumerate(_counts(spec, bottoms)):
            parameters += count
            learned += count if index >= len(spec.param) or spec.param[index].lr_mult else 0
        tops = _inputs(spec) if spec.type == "Input" else [_top(spec, bottoms)] * len(spec.top)
        blobs.update(zip(spec.top, tops, strict=True))
    coarse = [blob for blob in blobs.values() if not blob.upsampled]
    return Description(
        parameters,
        learned,
        sum(spec.type == "Convolution" for spec in net.layer),
        max((blob.field for blob in coarse), default=1),
        max((blob.stride for blob in coarse), default=1),
    )


def _inputs(spec: LayerParameter) -> list[_Blob]:
    shapes = spec.input_param.shape
    channels = [int(shape.dim[1]) for shape in shapes if len(shape.dim) > 1]
    if not shapes or len(channels) < len(shapes) or len(shapes) not in (1, len(spec.top)):
        raise NetError("an Input needs a shape with channels for each top", layer=spec.name, got=len(shapes))
    return [_Blob(number) for number in (channels * len(spec.top) if len(channels) == 1 else channels)]


def _counts(spec: LayerParameter, bottoms: list[_Blob]) -> list[int]:
    """Return the number of scalars in each weight blob of a layer."""
    if spec.type in ("Convolution", "Deconvolution"):
        param = spec.convolution_param
        high, wide = conv_windows(param)
        weights = param.num_output * (bottoms[0].channels // max(param.group, 1)) * high.kernel * wide.kernel
        return [weights, *([param.num_output] if param.bias_term else [])]
    if spec.type == "Scale" and len(bottoms) == 1 and (spec.scale_param.axis, spec.scale_param.num_axes) == (1, 1):
        return [bottoms[0].channels] * (2 if spec.scale_param.bias_term else 1)
    if spec.type == "Input" or (spec.type in _COUNTED and not spec.pooling_param.global_pooling):
        return []
    raise NetError("these figures do not cover this layer", layer=spec.name, type=spec.type, line=spec.line)


def _top(spec: LayerParameter, bottoms: list[_Blob]) -> _Blob:
    # The second bottom of a Crop defines only the size.
    first = bottoms[:1] if spec.type == "Crop" else bottoms
    channels = sum(blob.channels for blob in first) if spec.type == "Concat" else first[0].channels
    field, stride = max(blob.field for blob in first), max(blob.stride for blob in first)
    upsampled = spec.type == "Deconvolution" or any(blob.upsampled for blob in first)
    window = Window(1)
    if spec.type in ("Convolution", "Deconvolution"):
        channels = spec.convolution_param.num_output
        window = conv_windows(spec.convolution_param)[0]
    elif spec.type == "Pooling":
        window = pool_windows(spec.pooling_param, 1, 1)[0]
    return _Blob(channels, field + stride * (window.extent - 1), stride * window.stride, upsampled)
