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
    for layer in net.layer:
        if missing := [name for name in layer.bottom if name not in blobs]:
            raise NetError(f"bottom {missing[0]!r} is made by no layer before", layer=layer.name, type=layer.type)
        if not layer.bottom and layer.type != "Input":
            raise NetError("the layer has no bottom", layer=layer.name, type=layer.type, line=layer.line)
        bottoms = [blobs[name] for name in layer.bottom]
        for index, count in enumerate(_counts(layer, bottoms)):
            parameters += count
            learned += count if index >= len(layer.param) or layer.param[index].lr_mult else 0
        tops = _inputs(layer) if layer.type == "Input" else [_top(layer, bottoms)] * len(layer.top)
        blobs.update(zip(layer.top, tops, strict=True))
    coarse = [blob for blob in blobs.values() if not blob.upsampled]
    return Description(
        parameters,
        learned,
        sum(layer.type == "Convolution" for layer in net.layer),
        max((blob.field for blob in coarse), default=1),
        max((blob.stride for blob in coarse), default=1),
    )


def _inputs(layer: LayerParameter) -> list[_Blob]:
    shapes = layer.input_param.shape
    channels = [int(shape.dim[1]) for shape in shapes if len(shape.dim) > 1]
    if not shapes or len(channels) < len(shapes) or len(shapes) not in (1, len(layer.top)):
        raise NetError("an Input needs a shape with channels for each top", layer=layer.name, got=len(shapes))
    return [_Blob(number) for number in (channels * len(layer.top) if len(channels) == 1 else channels)]


def _counts(layer: LayerParameter, bottoms: list[_Blob]) -> list[int]:
    """Return the number of scalars in each weight blob of a layer."""
    if layer.type in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        high, wide = conv_windows(param)
        weights = param.num_output * (bottoms[0].channels // max(param.group, 1)) * high.kernel * wide.kernel
        return [weights, *([param.num_output] if param.bias_term else [])]
    if layer.type == "Scale" and len(bottoms) == 1 and (layer.scale_param.axis, layer.scale_param.num_axes) == (1, 1):
        return [bottoms[0].channels] * (2 if layer.scale_param.bias_term else 1)
    if layer.type == "Input" or (layer.type in _COUNTED and not layer.pooling_param.global_pooling):
        return []
    raise NetError("these figures do not cover this layer", layer=layer.name, type=layer.type, line=layer.line)


def _top(layer: LayerParameter, bottoms: list[_Blob]) -> _Blob:
    # The second bottom of a Crop defines only the size.
    first = bottoms[:1] if layer.type == "Crop" else bottoms
    channels = sum(blob.channels for blob in first) if layer.type == "Concat" else first[0].channels
    field, stride = max(blob.field for blob in first), max(blob.stride for blob in first)
    upsampled = layer.type == "Deconvolution" or any(blob.upsampled for blob in first)
    window = Window(1)
    if layer.type in ("Convolution", "Deconvolution"):
        channels = layer.convolution_param.num_output
        window = conv_windows(layer.convolution_param)[0]
    elif layer.type == "Pooling":
        window = pool_windows(layer.pooling_param, 1, 1)[0]
    return _Blob(channels, field + stride * (window.extent - 1), stride * window.stride, upsampled)
