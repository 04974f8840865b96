"""Where a pixel of one top lies in another, and the Crop layer that aligns them.

A thin layer over ``reproduction.caffe.formats.crops`` and ``geometry``, whose maps are exact fractions. Here, as in
pycaffe, a map is a tuple of the axis before the first spatial one, the scales and the shifts.

Source: BVLC/caffe@9b89154 python/caffe/coord_map.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import AxisError, CoordMap
from reproduction.caffe.net import netspec
from reproduction.pycaffe.net.net_spec import Function, Top, layers

Floats = npt.NDArray[np.float64]
# The axis, or None for the identity on every axis; scales; shifts.
Map = tuple[int | None, Any, Any]

#: Maps that start at different axes cannot be composed.
AxisMismatchException = AxisError


class UndefinedMapException(NetError):
    """The layer keeps no pixel in its place."""


class UnconnectedError(NetError, RuntimeError):
    """No map leads from one top to the other; pycaffe raises a RuntimeError."""


class UncroppableError(NetError, AssertionError):
    """A top cannot be cropped to another; pycaffe raises an AssertionError."""


def coord_map(fn: Function) -> Map:
    """Map coordinates of a layer's bottoms to its tops.

    Raises:
        UndefinedMapException: the layer keeps no pixel in its place.
        NetError: its windows make no sense.
    """
    found = netspec.coord_map(fn)
    if found is None:
        raise UndefinedMapException("the layer keeps no pixel in its place", type=fn.type)
    return _shown(found)


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """Map coordinates of one top to another, over their nearest common ancestors.

    Raises:
        UnconnectedError: they have none, or two paths disagree.
        AxisMismatchException: maps on the way start at different axes.
    """
    with _raised_as(UnconnectedError):
        return _shown(netspec.map_between(top_from, top_to))


def crop(top_from: Top, top_to: Top) -> Top:
    """Write the Crop layer that aligns ``top_from`` with ``top_to``, its offset proved by their maps.

    Raises:
        UnconnectedError: no map leads from one to the other.
        UncroppableError: they have different scales, or an offset that is negative or not whole.
    """
    coord_map_from_to(top_from, top_to)
    with _raised_as(UncroppableError):
        fields = netspec.crop_fields(top_from, top_to)
    return layers.Crop(top_from, top_to, crop_param=fields)  # type: ignore[no-any-return]


def conv_params(fn: Function) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the axis, and stride, extent and pad on each spatial axis, of a convolution or pooling layer.

    Raises:
        NetError: the windows make no sense.
    """
    stride, extent, pad = np.array([(each.stride, each.extent, each.pad) for each in netspec.windows(fn)]).T
    return fn.spec.convolution_param.axis, stride, extent, pad


def crop_params(fn: Function) -> tuple[int, npt.NDArray[Any]]:
    """Return the first cropped axis and the offsets of a Crop layer."""
    param = fn.spec.crop_param
    return param.axis, np.array(param.offset or [0])


def compose(base_map: Map, next_map: Map) -> Map:
    """Return the map that takes coordinates through ``next_map`` and then ``base_map``.

    Raises:
        AxisMismatchException: they start at different axes.
    """
    return _shown(_exact(base_map) @ _exact(next_map))


def inverse(coord_map: Map) -> Map:
    """Return the map the other way."""
    return _shown(_exact(coord_map).inverse())


def _shown(exact: CoordMap) -> Map:
    if exact.axis is None:
        return None, 1, 0
    return exact.axis - 1, np.array(exact.scale, float), np.array(exact.shift, float)


def _exact(shown: Map) -> CoordMap:
    axis, scale, shift = shown
    scales, shifts = np.broadcast_arrays(np.atleast_1d(scale), np.atleast_1d(shift))
    return CoordMap(
        None if axis is None else axis + 1,
        tuple(Fraction(value) for value in scales.tolist()),
        tuple(Fraction(value) for value in shifts.tolist()),
    )


@contextmanager
def _raised_as(kind: type[NetError]) -> Iterator[None]:
    try:
        yield
    except AxisError:
        raise
    except NetError as error:
        raise kind(error.problem, got=error.got, want=error.want, remedy=error.remedy) from None
