"""protobuf's containers for repeated fields: live lists that check each value against the field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any

import numpy as np

from reproduction.caffe.schema import Field, Message
from reproduction.caffe.typing import Array

Convert = Callable[[Any], Any]


class RepeatedScalars(MutableSequence[Any]):
    """A repeated field of numbers, strings or enums, used like a list; each change also changes the message.

    Args:
        message: The schema's message that contains the field.
        field: The field.
        convert: A function that converts a value which a program assigns to the value to store, or raises an error if
            it does not fit the field.
    """

    def __init__(self, message: Message, field: Field[Any], convert: Convert):
        self._message, self._field, self._convert = message, field, convert

    @property
    def _items(self) -> list[Any]:
        items: list[Any] = getattr(self._message, self._field.name)
        return items

    def _change(self) -> list[Any]:
        """Mark the message as set, and return its list to change."""
        self._message.present = True
        return self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __getitem__(self, index: Any) -> Any:
        found = self._items[index]
        if self._field.enum is None:
            return found
        return [int(item) for item in found] if isinstance(index, slice) else int(found)

    def __setitem__(self, index: Any, value: Any) -> None:
        new = [self._convert(item) for item in value] if isinstance(index, slice) else self._convert(value)
        self._change()[index] = new

    def __delitem__(self, index: Any) -> None:
        del self._change()[index]

    def insert(self, index: int, value: Any) -> None:
        """Insert a value before position ``index``."""
        self._change().insert(index, self._convert(value))

    def extend(self, values: Iterable[Any]) -> None:
        """Append all values; if one does not fit the field, append none and raise its error."""
        new = [self._convert(value) for value in values]
        self._change().extend(new)

    MergeFrom = extend

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort the list in place."""
        self[:] = sorted(self, key=key, reverse=reverse)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, (list, tuple, RepeatedScalars)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a live list changes

    def __repr__(self) -> str:
        return repr(list(self))


class RepeatedMessages(RepeatedScalars):
    """A repeated field of sub-messages, used like a list; each change also changes the message.

    As in protobuf, the list stores copies of the messages that a program adds, and the messages that it returns are
    those in the list, so that a program can change them there.

    Args:
        message: The schema's message that contains the field.
        field: The field.
        convert: A function that copies a program's ``ProtoMessage`` or dict to a new message of the schema.
        wrap: A function that returns the ``ProtoMessage`` for a message of the schema.
    """

    def __init__(self, message: Message, field: Field[Any], convert: Convert, wrap: Convert):
        super().__init__(message, field, convert)
        self._wrap = wrap

    def __getitem__(self, index: Any) -> Any:
        found = self._items[index]
        return [self._wrap(item) for item in found] if isinstance(index, slice) else self._wrap(found)

    def add(self, **fields: Any) -> Any:
        """Append a new message with these fields set, and return it, so that the program can set more fields."""
        assert self._field.message is not None
        added = self._wrap(self._field.message())
        for name, value in fields.items():
            added._assign(name, value)
        self._change().append(added._message)
        return added


class RepeatedNumbers(RepeatedScalars):
    """A repeated field of many numbers, such as weights, used like a list; the schema stores it as a numpy array.

    Copies of a message share its arrays, so that each change creates a new array.
    """

    @property
    def _array(self) -> Array:
        array: Array = getattr(self._message, self._field.name)
        return array

    def _store(self, values: Iterable[Any]) -> None:
        self._message.values[self._field.name] = self._to_array(values)
        self._message.present = True

    def _to_array(self, values: Iterable[Any]) -> Array:
        assert self._field.kind is not None
        if isinstance(values, np.flatiter):
            values = values[:]
        if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            array: Array = self._field.check(values.ravel())
            return array
        return np.array([self._convert(value) for value in values], self._field.kind.dtype)

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the values as an array; as with protobuf's lists, float64 unless ``dtype`` is set."""
        return np.array(self._array, dtype or np.float64, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return self._array[index].tolist()

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice) and len(range(*index.indices(len(self)))) != len(value := list(value)):
            items = list(self)
            items[index] = value  # a numpy array cannot grow or shrink
            self._store(items)
            return
        array = self._array.copy()
        array[index] = self._to_array(value) if isinstance(index, slice) else self._convert(value)
        self._store(array)

    def __delitem__(self, index: Any) -> None:
        self._store(np.delete(self._array, index))

    def insert(self, index: int, value: Any) -> None:
        """Insert a value before ``index``. This copies the array; use ``extend`` to append many values."""
        position = slice(index, None).indices(len(self))[0]
        self._store(np.insert(self._array, position, self._convert(value)))

    def extend(self, values: Iterable[Any]) -> None:
        """Append all values; if one does not fit the field, append none and raise its error."""
        self._store(np.concatenate([self._array, self._to_array(values)]))

    MergeFrom = extend
