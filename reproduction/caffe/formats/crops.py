"""Coordinate maps between the blobs of a net, and the offsets of Crop layers that are derived from them.

In the Caffe of 2014 and 2015 with which FCNs, HED and U-Net were published, a Crop layer had no parameters: its offset
was derived from the layers between its bottoms. Caffe 1.0 uses the offset 0 if none is set.

Source: BVLC/caffe@9b89154 python/caffe/coord_map.py; longjon/caffe@e0311166 src/caffe/layers/crop_layer.cpp L12-L78.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.geometry import CoordMap, Window, conv_map, conv_windows, crop_map, deconv_map, pool_windows
from reproduction.caffe.schema import ConvolutionParameter, CropParameter, LayerParameter

# Layer types that keep the coordinates of every pixel.
_POINTWISE = frozenset(
    ["AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN", "PReLU",
     "Power", "ReLU", "Scale", "Sigmoid", "Softmax", "Split", "Swish", "TanH", "Threshold"]
)  # fmt: skip


def layer_map(layer_param: LayerParameter) -> CoordMap | None:
    """Return the map from the coordinates of a layer's bottoms to its tops.

    It is None for a layer whose tops have no such coordinates, such as InnerProduct.

    Raises:
        NetError: If the layer's kernel, stride, padding or dilation is invalid.
    """
    if layer_param.type in ("Convolution", "Im2col", "Deconvolution"):
        window_map = deconv_map if layer_param.type == "Deconvolution" else conv_map
        return window_map(layer_windows(layer_param), layer_param.convolution_param.axis + 1)
    if layer_param.type == "Pooling" and not layer_param.pooling_param.global_pooling:
        return conv_map(layer_windows(layer_param))
    if layer_param.type == "Crop":
        return crop_map(layer_param.crop_param.axis, layer_param.crop_param.offset or [0])
    if layer_param.type == "Concat":
        channels = layer_param.concat_param.axis == 1 and layer_param.concat_param.concat_dim == 1
        return CoordMap() if channels else None
    return CoordMap() if layer_param.type in _POINTWISE else None


def layer_windows(layer_param: LayerParameter) -> list[Window]:
    """Return the windows of a convolution or pooling layer; a single window stands for all axes.

    Raises:
        NetError: If the layer's kernel, stride, padding or dilation is invalid.
    """
    if layer_param.type == "Pooling":
        high, wide = pool_windows(layer_param.pooling_param, 1, 1)
        # One window stands for any number of axes. Caffe pools over two axes, but coord_map.py has no such limit.
        return [high] if high == wide else [high, wide]
    return conv_windows(layer_param.convolution_param, _axes(layer_param.convolution_param))


def _axes(param: ConvolutionParameter) -> int:
    """Return the number of spatial axes for which sizes are set; 1 if one window stands for all axes."""
    if any(param.has(f"{name}_{side}") for name in ("kernel", "stride", "pad") for side in "hw"):
        return 2
    return max(1, *(len(values) for values in (param.kernel_size, param.stride, param.pad, param.dilation)))


def offset_of(between: CoordMap, pair: str) -> list[int]:
    """Return the offset that crops one blob to another: one value for each spatial axis, or one value for all.

    Args:
        between: the map from coordinates of the blob that is cropped to those of the other.
        pair: the names of the two blobs, for errors.

    Raises:
        NetError: If the two have different scales, or the offset is negative or not an integer.

    Source: BVLC/caffe@9b89154 python/caffe/coord_map.py L166-L185.
    """
    offset = [-shift for shift in between.shift]
    if any(scale != 1 for scale in between.scale):
        raise NetError(
            f"{pair} have different scales",
            got=numbers(between.scale),
            want=1,
            remedy="The strides down and up between them must cancel.",
        )
    if any(value < 0 for value in offset):
        raise NetError(
            f"cropping {pair} needs a negative offset",
            got=numbers(offset),
            remedy="Pad the input more, or the deconvolution less.",
        )
    if any(value.denominator != 1 for value in offset):
        raise NetError(
            f"cropping {pair} needs a whole offset",
            got=numbers(offset),
            remedy="Make a kernel between them one pixel longer or shorter.",
        )
    return [int(value) for value in offset]


def numbers(values: Sequence[Fraction]) -> str:
    """Format fractions for an error: a single number, or several in parentheses."""
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


@dataclass(eq=False)
class _Origin:
    """A blob without a map from an earlier blob, such as an input or the top of an InnerProduct layer."""


# The origin of a blob, found by following first bottoms, and the map from the origin to the blob.
_Place = tuple[_Origin, CoordMap]


def automatic_offsets(layers: Iterable[LayerParameter]) -> Iterator[tuple[LayerParameter, list[int] | NetError]]:
    """Yield each Crop layer without an offset, with the offset that aligns its bottoms.

    As in the Caffe of 2015, the map follows the first bottom of each layer. The offset that is yielded for a layer is
    used in the maps of the layers after it.

    Args:
        layers: the layers in order, in the current form.

    Yields:
        The layer, and its offset: one value for each spatial axis, or one value for all. If the offset cannot be
        derived, a NetError that gives the reason takes its place.
    """
    places: dict[str, _Place] = {}
    for layer_param in layers:
        if _is_automatic(layer_param):
            found = _aligned(layer_param, places)
            yield layer_param, found
            step: CoordMap | None = crop_map(2, [0] if isinstance(found, NetError) else found)
        else:
            step = _step(layer_param)
        each = len(layer_param.top) == len(layer_param.bottom)
        for i, top in enumerate(layer_param.top):
            bottom = layer_param.bottom[i if each else 0] if layer_param.bottom else ""
            places[top] = _moved(places.get(bottom), step)


def _is_automatic(layer_param: LayerParameter) -> bool:
    param = layer_param.crop_param
    return layer_param.type == "Crop" and len(layer_param.bottom) == 2 and not param.offset and param.axis == 2


def _step(layer_param: LayerParameter) -> CoordMap | None:
    try:
        return CoordMap() if layer_param.type == "Slice" else layer_map(layer_param)
    except NetError:  # the same error is raised when the layer is built
        return None


def _moved(place: _Place | None, step: CoordMap | None) -> _Place:
    try:
        if place is not None and step is not None:
            return place[0], step @ place[1]
    except NetError:  # the maps have different axes
        pass
    return _Origin(), CoordMap()


def _aligned(layer_param: LayerParameter, places: dict[str, _Place]) -> list[int] | NetError:
    pair = f"{layer_param.bottom[0]!r} and {layer_param.bottom[1]!r}"
    data, size = (places.get(name) for name in layer_param.bottom)
    if data is None or size is None or data[0] is not size[0]:
        return NetError(f"{pair} have no common ancestor through layers that keep pixels in place")
    try:
        between = size[1] @ data[1].inverse()
        return offset_of(between, pair)
    except NetError as error:
        return error


def set_offsets(layers: Sequence[LayerParameter]) -> list[str]:
    """Set the offset of each Crop layer that has none, in place, to the one that the Caffe of 2015 derived.

    Returns:
        Sentences that describe what was set.

    Raises:
        NetError: If the offset of a layer cannot be derived.
    """
    notes = []
    for layer_param, found in list(automatic_offsets(layers)):
        if isinstance(found, NetError):
            raise found.at(NetError("", layer=layer_param.name, type=layer_param.type, line=layer_param.line).place)
        layer_param.crop_param = CropParameter(axis=2, offset=found)
        notes.append(f"Crop layer {layer_param.name!r} got {_written(layer_param)}.")
    return notes


def warn_of_zero_offsets(layers: Sequence[LayerParameter]) -> None:
    """Issue a warning for each Crop layer without an offset for which the Caffe of 2015 derived one other than 0."""
    if not any(map(_is_automatic, layers)):
        return
    for layer_param, found in automatic_offsets(layers):
        if not isinstance(found, NetError) and any(found):
            aligned = LayerParameter(crop_param=CropParameter(axis=2, offset=found))
            warn(
                NetError(
                    f"no offset is set; Caffe 1.0 takes 0, as is done here, and the Caffe of 2015 took {_few(found)}, "
                    f"which aligns {layer_param.bottom[0]!r} with {layer_param.bottom[1]!r}",
                    layer=layer_param.name,
                    type=layer_param.type,
                    line=layer_param.line,
                    remedy=f"Write {_written(aligned)}, or load the net with legacy_crop=True (tools: --legacy-crop).",
                )
            )


def _few(offsets: list[int]) -> str:
    return " and ".join(map(str, offsets))


def _written(layer_param: LayerParameter) -> str:
    offsets = " ".join(f"offset: {offset}" for offset in layer_param.crop_param.offset)
    return f"crop_param {{ axis: 2 {offsets} }}"
