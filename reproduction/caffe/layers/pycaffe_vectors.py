"""The vector types of pycaffe, one for each type of item, with the methods that Boost.Python defines.

Unlike lists, they support only ``len``, iteration, indices, slices without a step, ``in``, ``append`` and ``extend``.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L533-L556; boostorg/python
include/boost/python/suite/indexing/vector_indexing_suite.hpp, indexing_suite.hpp.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Generic, Self, SupportsIndex, TypeVar, overload

import numpy as np

Item = TypeVar("Item")


class Vector(Generic[Item]):
    """A sequence of items of one type, initially empty. It equals a vector, list or tuple of the same items.

    Raises:
        TypeError: If an item has another type, or an index is not an integer.
        IndexError: If an index is out of range, or a slice has a step.
    """

    #: The allowed types of items.
    kind: ClassVar[tuple[type, ...]] = (object,)

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[Item] = []

    @classmethod
    def from_items(cls, items: Iterable[Item]) -> Self:
        """Return a vector of these items."""
        vector = cls()
        vector._items = list(items)
        return vector

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self).from_items(self._items[_check_step(index)])
        return self._items[self._index(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._items[self._index(index)] = self._check_item(value, "Invalid assignment")
            return
        values = value if isinstance(value, Iterable) else [value]
        self._items[_check_step(index)] = [self._check_item(each, "Invalid sequence element") for each in values]

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            del self._items[_check_step(index)]
        else:
            del self._items[self._index(index)]

    def __contains__(self, value: object) -> bool:
        return value in self._items

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Vector, list, tuple)):
            return self._items == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._items))  # equal to the hash of the tuple that it equals

    def append(self, value: Any) -> None:
        """Append an item; raise ``TypeError`` if its type is not allowed."""
        self._items.append(self._check_item(value, "Attempting to append an invalid type"))

    def extend(self, values: Iterable[Any]) -> None:
        """Append several items; raise ``TypeError`` if the type of one is not allowed."""
        self._items.extend([self._check_item(value, "Incompatible Data Type") for value in values])

    def _index(self, index: Any) -> int:
        try:
            place = operator.index(index)
        except TypeError:
            raise TypeError("Invalid index type") from None
        if not -len(self._items) <= place < len(self._items):
            raise IndexError("Index out of range")
        return place

    def _check_item(self, value: Any, problem: str) -> Item:
        if not isinstance(value, self.kind):
            raise TypeError(problem)
        return value  # type: ignore[return-value]


def _check_step(index: slice) -> slice:
    if index.step is not None:
        raise IndexError("slice step size not supported.")
    return index


class IntVec(Vector[int]):
    """A vector of integers, such as a blob's shape."""

    kind = (int, np.integer)


class StringVec(Vector[str]):
    """A vector of strings, such as the names of layers."""

    kind = (str,)


class DtypeVec(Vector[float]):
    """A vector of floats, such as loss weights."""

    kind = (int, float, np.number)


class BoolVec(Vector[bool]):
    """A vector of booleans, such as ``propagate_down``."""

    kind = (int, np.bool_)


class LayerVec(Vector[Any]):
    """A vector of the layers of a net."""


class NetVec(Vector[Any]):
    """A vector of nets, such as the test nets of a solver."""
