"""Coordinate maps between tops of a NetSpec, and the Crop layer that aligns one top with another.

A coordinate map says where a pixel of one top lies in another: coordinate ``x`` of the first is ``scale * x + shift``
in the second. Here, as in pycaffe, a map is a tuple ``(axis, scale, shift)``, where ``axis`` is the axis before the
first spatial axis. This is a thin layer over ``reproduction.caffe.net.netspec`` and ``geometry``, whose maps are exact
fractions.

Source: BVLC/caffe@9b89154 python/caffe/coord_map.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import AxisError, CoordMap
from reproduction.caffe.net import netspec
from reproduction.caffe.typing import Array
from reproduction.pycaffe.net.net_spec import Function, Top, layers

# (axis, scales, shifts); the axis is None if the map is the identity on every axis.
Map = tuple[int | None, Any, Any]

#: Raised when maps that start at different axes are composed.
AxisMismatchException = AxisError


class UndefinedMapException(NetError):  # noqa: N818 - Caffe's name
    """Raised for a layer without a coordinate map, such as InnerProduct: its outputs have no position."""


class UnconnectedError(NetError, RuntimeError):
    """Raised when two tops have no coordinate map, or several; also a RuntimeError, as in pycaffe."""


class UncroppableError(NetError, AssertionError):
    """Raised when a top cannot be cropped to align with another; also an AssertionError, as in pycaffe."""


def coord_map(fn: Function) -> Map:
    """Return the map ``(axis, scale, shift)`` from coordinates of a layer's bottom to coordinates of its top.

    Args:
        fn: A layer of a NetSpec, such as ``n.conv1.fn``.

    Raises:
        UndefinedMapException: If the layer does not keep pixels in place, such as InnerProduct.
        NetError: If its kernel size, stride, pad or dilation is invalid.
    """
    found = netspec.coord_map(fn)
    if found is None:
        raise UndefinedMapException("the layer has no coordinate map", type=fn.type)
    return _to_tuple(found)


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """Return the map ``(axis, scale, shift)`` from coordinates of ``top_from`` to coordinates of ``top_to``.

    It leads from ``top_from`` back to the nearest top that both are computed from, and from there to ``top_to``.

    Raises:
        UnconnectedError: If they have no common ancestor, or two paths between them yield different maps.
        AxisMismatchException: If maps along a path start at different axes.
    """
    with _raise_as(UnconnectedError):
        return _to_tuple(netspec.map_between(top_from, top_to))


def crop(top_from: Top, top_to: Top) -> Top:
    """Return the top of a new Crop layer that crops ``top_from`` to the size and position of ``top_to``.

    The offset is computed from the coordinate map between the two tops.

    Raises:
        UnconnectedError: If no coordinate map connects the two tops.
        UncroppableError: If they have different scales, or the offset is negative or not an integer.
    """
    coord_map_from_to(top_from, top_to)
    with _raise_as(UncroppableError):
        fields = netspec.crop_fields(top_from, top_to)
    return layers.Crop(top_from, top_to, crop_param=fields)  # type: ignore[no-any-return]


def conv_params(fn: Function) -> tuple[int, Array, Array, Array]:
    """Return axis, strides, dilated kernel sizes and pads of a convolution or pooling layer of a NetSpec.

    The axis is an integer; the others are arrays with one value for each spatial axis, or one value for all of them.

    Raises:
        NetError: If the layer's kernel size, stride, pad or dilation is invalid.
    """
    kind = netspec.find_layer_type(fn.type)
    windows = kind.sliding_windows(fn.layer_param) if kind else []
    stride, extent, pad = np.array([(each.stride, each.extent, each.pad) for each in windows]).T
    return fn.layer_param.convolution_param.axis, stride, extent, pad


def crop_params(fn: Function) -> tuple[int, Array]:
    """Return the first axis that a Crop layer of a NetSpec crops, and its offsets; ``[0]`` if it sets none."""
    param = fn.layer_param.crop_param
    return param.axis, np.array(param.offset or [0])


def compose(base_map: Map, next_map: Map) -> Map:
    """Return the map ``(axis, scale, shift)`` that applies ``next_map`` first and then ``base_map``.

    Raises:
        AxisMismatchException: If the maps start at different axes.
    """
    return _to_tuple(_to_coord_map(base_map) @ _to_coord_map(next_map))


def inverse(coord_map: Map) -> Map:
    """Return the inverse of a map ``(axis, scale, shift)``, which leads from its results back to its arguments."""
    return _to_tuple(_to_coord_map(coord_map).inverse())


def _to_tuple(exact: CoordMap) -> Map:
    if exact.axis is None:
        return None, 1, 0
    return exact.axis - 1, np.array(exact.scale, float), np.array(exact.shift, float)


def _to_coord_map(tuple_map: Map) -> CoordMap:
    axis, scale, shift = tuple_map
    scales, shifts = np.broadcast_arrays(np.atleast_1d(scale), np.atleast_1d(shift))
    return CoordMap(
        None if axis is None else axis + 1,
        tuple(Fraction(value) for value in scales.tolist()),
        tuple(Fraction(value) for value in shifts.tolist()),
    )


@contextmanager
def _raise_as(kind: type[NetError]) -> Iterator[None]:
    try:
        yield
    except AxisError:
        raise
    except NetError as error:
        raise kind(error.problem, got=error.got, want=error.want, remedy=error.remedy) from None
