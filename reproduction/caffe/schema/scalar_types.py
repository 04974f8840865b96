"""The scalar types of protobuf: their wire types, and the checks of their values."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reproduction.caffe.errors import safe_repr

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf wire types


@dataclass(frozen=True)
class ScalarType:
    """A scalar type of protobuf.

    Attributes:
        name: protobuf's name of the type, such as ``int32``.
        wire: the wire type of a value, such as VARINT.
        check: a function that converts a value to this type, or raises MisfitError.
        zero: the value of an unset field that declares no default.
        dtype: the NumPy dtype of floating-point types (and of bytes that are read as an array); None for other types.
    """

    name: str
    wire: int
    check: Callable[[Any], Any]
    zero: Any
    dtype: np.dtype[Any] | None = None


class MisfitError(Exception):
    """The internal error for a value of the wrong type; ``Field`` converts it to an error that names the field.

    Args:
        value: the value.
        want: what was expected, in words.
        remedy: a sentence on what to do.
    """

    def __init__(self, value: object, want: str, remedy: str = ""):
        super().__init__()
        self.got, self.want, self.remedy = safe_repr(value), want, remedy


def _integer_check(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise MisfitError(value, f"an integer from {low} to {high}")
        return int(value)

    return check


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise MisfitError(value, "a number")
    try:
        return float(value)
    except OverflowError:  # an integer beyond double precision
        return float("inf") if value > 0 else float("-inf")


def _round_to_single(value: Any) -> float:
    """Round to single precision, as a C++ float field does; a value out of range becomes an infinity."""
    number = _to_float(value)
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _instance_check(want: str, *types: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, types):
            raise MisfitError(value, want)
        return types[0](value)

    return check


INT32 = ScalarType("int32", VARINT, _integer_check(-(2**31), 2**31 - 1), 0)
INT64 = ScalarType("int64", VARINT, _integer_check(-(2**63), 2**63 - 1), 0)
UINT32 = ScalarType("uint32", VARINT, _integer_check(0, 2**32 - 1), 0)
BOOL = ScalarType("bool", VARINT, _instance_check("true or false", bool, np.bool_), False)
FLOAT = ScalarType("float", FIXED32, _round_to_single, 0.0, np.dtype("<f4"))
DOUBLE = ScalarType("double", FIXED64, _to_float, 0.0, np.dtype("<f8"))
STRING = ScalarType("string", LENGTH, _instance_check("a string", str), "")
BYTES = ScalarType("bytes", LENGTH, _instance_check("bytes", bytes, bytearray, memoryview), b"")
