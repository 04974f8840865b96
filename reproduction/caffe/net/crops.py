"""Coordinate maps between the blobs of a net, and the offsets of Crop layers that are derived from them.

In the Caffe of 2014 and 2015 with which FCNs, HED and U-Net were published, a Crop layer had no parameters: its offset
was derived from the layers between its bottoms. Caffe 1.0 uses the offset 0 if none is set.

Source: BVLC/caffe@9b89154 python/caffe/coord_map.py; longjon/caffe@e0311166 src/caffe/layers/crop_layer.cpp L12-L78.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.geometry import CoordMap, crop_map, crop_offset
from reproduction.caffe.layers import CLASSES
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.schema import CropParameter, LayerParameter

# The origin of a blob, found by following first bottoms, and the map from the origin to the blob. The origin is an
# object that stands for a blob without a map from an earlier one, such as an input or the top of an InnerProduct layer.
_Position = tuple[object, CoordMap]


def derive_offsets(layers: Iterable[LayerParameter]) -> Iterator[tuple[LayerParameter, list[int] | NetError]]:
    """Yield each Crop layer without an offset, with the offset that aligns its bottoms.

    As in the Caffe of 2015, coordinates are followed through the first bottom of each layer. The offset that is found
    for a Crop layer counts in the layers after it.

    Args:
        layers: The layers in order, upgraded to the current format.

    Yields:
        The layer, and its offset: one value for each spatial axis, or one value for all. If the offset cannot be
        derived, a NetError that gives the reason takes its place.
    """
    positions: dict[str, _Position] = {}
    for layer_param in layers:
        if _has_derived_offset(layer_param):
            found = _derive_offset(layer_param, positions)
            yield layer_param, found
            step: CoordMap | None = crop_map(2, [0] if isinstance(found, NetError) else found)
        else:
            step = _find_coord_map(layer_param)
        each = len(layer_param.top) == len(layer_param.bottom)
        for i, top in enumerate(layer_param.top):
            bottom = layer_param.bottom[i if each else 0] if layer_param.bottom else ""
            positions[top] = _map_position(positions.get(bottom), step)


def _has_derived_offset(layer_param: LayerParameter) -> bool:
    param = layer_param.crop_param
    return layer_param.type == "Crop" and len(layer_param.bottom) == 2 and not param.offset and param.axis == 2


def _find_coord_map(layer_param: LayerParameter) -> CoordMap | None:
    try:
        return find_class(layer_param).coord_map(layer_param) if layer_param.type in CLASSES else None
    except NetError:  # the same error is raised when the layer is built
        return None


def _map_position(position: _Position | None, step: CoordMap | None) -> _Position:
    try:
        if position is not None and step is not None:
            return position[0], step @ position[1]
    except NetError:  # the maps have different axes
        pass
    return object(), CoordMap()


def _derive_offset(layer_param: LayerParameter, positions: dict[str, _Position]) -> list[int] | NetError:
    pair = f"{layer_param.bottom[0]!r} and {layer_param.bottom[1]!r}"
    data, size = (positions.get(name) for name in layer_param.bottom)
    if data is None or size is None or data[0] is not size[0]:
        return NetError(f"{pair} have no common ancestor through layers that keep pixels in place")
    try:
        between = size[1] @ data[1].inverse()
        return crop_offset(between, pair)
    except NetError as error:
        return error


def set_offsets(layers: Sequence[LayerParameter]) -> list[str]:
    """Set the offset of each Crop layer that has none to the one that the Caffe of 2015 derived, in place.

    Returns:
        A sentence for each layer that was changed.

    Raises:
        NetError: If the offset of a layer cannot be derived.
    """
    notes = []
    for layer_param, found in list(derive_offsets(layers)):
        if isinstance(found, NetError):
            raise found.at(layer_param.place)
        layer_param.crop_param = CropParameter(axis=2, offset=found)
        notes.append(f"Crop layer {layer_param.name!r} got {_format_crop_param(found)}.")
    return notes


def warn_of_zero_offsets(layers: Sequence[LayerParameter]) -> None:
    """Issue a warning for each Crop layer without an offset for which the Caffe of 2015 derived one other than 0."""
    if not any(map(_has_derived_offset, layers)):
        return
    for layer_param, found in derive_offsets(layers):
        if not isinstance(found, NetError) and any(found):
            data, size = layer_param.bottom
            warn(
                NetError(
                    "no offset is set; Caffe 1.0 takes 0, as is done here, and the Caffe of 2015 took "
                    f"{' and '.join(map(str, found))}, which aligns {data!r} with {size!r}",
                    remedy=f"Write {_format_crop_param(found)}, or load the net with legacy_crop=True"
                    " (tools: --legacy-crop).",
                ).at(layer_param.place)
            )


def _format_crop_param(offsets: list[int]) -> str:
    return f"crop_param {{ axis: 2 {' '.join(f'offset: {offset}' for offset in offsets)} }}"
