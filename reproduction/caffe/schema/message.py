"""The base class of messages.

Every message of ``caffe.proto`` is a class whose attributes are ``Field`` descriptors. The readers and writers of the
text format and of the wire format use only these declarations and contain no field names.

Presence follows proto2: a scalar that is not set reads as its default, and ``has`` returns False. A sub-message is
created on first access, so ``layer.pooling_param.kernel_size`` returns its default and
``layer.pooling_param.kernel_size = 2`` sets it. It counts as set if it is not empty or was set explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from reproduction.caffe.errors import ReproductionError, spelling_hint
from reproduction.caffe.schema.dialect import Dialect
from reproduction.caffe.schema.field import Field, MessageList
from reproduction.caffe.schema.scalar_types import INT32, INT64, UINT32

T = TypeVar("T")


class ForkField(Field[T]):
    """A field that one or several forks of Caffe add to a message, with the same name and perhaps different messages.

    In text, a field has its name alone, so a message of all fields of these messages is read. In binary files, each
    fork has its own number for the field, which may be that of another field in BVLC Caffe or in another fork.

    Args:
        forms: the field as each dialect declares it.

    Attributes:
        forms: the field as each dialect declares it.
    """

    def __init__(self, forms: Sequence[Field[T]]):
        first = forms[0]
        integers = (INT32, INT64, UINT32)  # which read alike in text
        kinds = {
            (form.kind not in integers and form.kind, form.enum is None, form.message is None, form.repeated)
            for form in forms
        }
        if len(kinds) > 1:
            names = ", ".join(form.dialect.name for form in forms if form.dialect)
            raise TypeError(f"the dialects {names} have fields {first.name!r} of different kinds")
        vars(self).update(vars(first))  # the first form, but for what all forms have in common
        self.forms, self.required = tuple(forms), False
        self.message = first.message and _join_messages(forms)
        self.has_effect = any(form.has_effect for form in forms)

    def as_written(self, value: Any) -> tuple[Field[Any], Any]:
        """Return the form of the first dialect that has all fields of the value, and the value as its message."""
        if self.message is None or self.repeated:
            return self.forms[0], value
        names = {field.name for field, _ in value.set_fields()}
        form = next(
            (form for form in self.forms if form.message and names <= form.message.fields.keys()), self.forms[0]
        )
        assert form.message is not None
        own = form.message()
        own.values, own.unknown = value.values, value.unknown
        return form, own


class _SlotsMeta(type):
    """A metaclass that adds ``__slots__``, so that assigning to a misspelt field raises an AttributeError."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _SlotsMeta:
        namespace.setdefault("__slots__", ())
        return super().__new__(mcs, name, bases, namespace)


class Message(metaclass=_SlotsMeta):
    """The base class of every message of Caffe's format, such as ``NetParameter``. Keyword arguments set fields.

    Attributes:
        fields: the declared fields by name, sorted by number.
        positions: the positions of these fields in that order, by name.
        by_number: the declared fields by number.
        required: the names of the fields that must be set.
        late_fields: a function that imports the modules that add fields to messages, or None. It is called once, when
            a name is first looked up that is not declared.
        shared_numbers: the names of sub-messages whose numbers forks of Caffe use for other messages.
        older_forms: older forms of this class, which get the fields that dialects add to it.
        values: the values by field name. An unset field is absent, or its value is empty.
        present: True for a sub-message that was set explicitly, even if it is empty.
        line: the line of a prototxt at which the message begins; 0 if it was not read from text.
        unknown: the bytes, in the wire format, of fields that are not declared; they are written back, as by protobuf.
    """

    __slots__ = ("line", "present", "unknown", "values")

    fields: ClassVar[dict[str, Field[Any]]] = {}
    positions: ClassVar[dict[str, int]] = {}
    by_number: ClassVar[dict[int, Field[Any]]] = {}
    required: ClassVar[tuple[str, ...]] = ()
    late_fields: ClassVar[Callable[[], None] | None] = None
    shared_numbers: ClassVar[frozenset[str]] = frozenset()
    older_forms: ClassVar[tuple[type[Message], ...]] = ()

    def __init_subclass__(cls) -> None:
        declared = [value for value in vars(cls).values() if isinstance(value, Field)]
        cls._declare({field.name: field for field in declared})
        cls.by_number = {field.number: field for field in cls.fields.values()}
        cls.required = tuple(field.name for field in cls.fields.values() if field.required)

    def __init__(self, **fields: Any):
        self.values: dict[str, Any] = {}
        self.present = False
        self.line = 0
        self.unknown = b""
        for name, value in fields.items():
            setattr(self, self.field(name).name, value)

    @classmethod
    def add_field(cls, name: str, field: Field[T], dialect: Dialect | None = None, *, effect: bool = True) -> Field[T]:
        """Declare a field that is not in ``caffe.proto``, such as ``nested(1001, BlurParameter)``, and return it.

        Args:
            name: the field's name.
            field: the field. Without a dialect, its number must be free.
            dialect: the fork that has the field. Several may add a field of the same name. The number is that of the
                fork. As it may be another field's elsewhere, binary files are not read by it alone; a layer's own
                message is, if its type shows the fork.
            effect: whether the field changes results here. A layer that has such a field and does not read it, and a
                solver that has one, are errors.

        Raises:
            TypeError: If there is a field of this name or number; with a dialect, if BVLC or the same dialect has one
                of this name.
        """
        field.__set_name__(cls, name)
        field.dialect, field.has_effect = dialect, effect
        held = cls.fields.get(name)
        if dialect is not None:
            forms = held.forms if isinstance(held, ForkField) else ()
            if (held and not forms) or any(form.dialect is dialect for form in forms):
                raise TypeError(f"{cls.__name__} has a field {name!r} of {dialect.name} or BVLC")
            shared: Field[T] = ForkField([*forms, field])
            shared.__set_name__(cls, name)
            for each in (cls, *cls.older_forms):
                setattr(each, name, shared)
                each._declare({**each.fields, name: shared})
            return field
        if held is not None or field.number in cls.by_number:
            raise TypeError(f"{cls.__name__} has a field {name!r} or {field.number}")
        setattr(cls, name, field)
        cls.by_number = dict(sorted({**cls.by_number, field.number: field}.items()))
        cls._declare({**cls.fields, name: field})
        return field

    @classmethod
    def _declare(cls, fields: dict[str, Field[Any]]) -> None:
        """Set the fields of the class by name, sorted by number."""
        cls.fields = dict(sorted(fields.items(), key=lambda item: item[1].number))
        cls.positions = {name: position for position, name in enumerate(cls.fields)}

    @staticmethod
    def import_late_fields() -> None:
        """Import the modules that add fields to messages, which is done when a net first needs one of them."""
        if Message.late_fields is not None:
            import_modules, Message.late_fields = Message.late_fields, None
            import_modules()

    @classmethod
    def find_field(cls, name: str) -> Field[Any] | None:
        """Return the declared field of this name, or None; the modules that add fields are imported first."""
        if name not in cls.fields:
            cls.import_late_fields()
        return cls.fields.get(name)

    @classmethod
    def field(cls, name: str) -> Field[Any]:
        """Return the declared field of this name.

        Raises:
            ReproductionError: If there is no such field; the remedy names one with a similar name.
        """
        found = cls.fields.get(name) or cls.find_field(name)
        if found is None:
            raise ReproductionError(f"unknown field {name!r} in {cls.__name__}", remedy=spelling_hint(name, cls.fields))
        return found

    def has(self, name: str) -> bool:
        """Return True if the field ``name`` is set; a repeated field is set if it is not empty."""
        return _is_set(self.field(name), self.values.get(name))

    def is_empty(self) -> bool:
        """Return True if no field is set, and there are no bytes of unknown fields."""
        return not self.unknown and not any(self.has(name) for name in self.values)

    def clear(self, name: str) -> None:
        """Unset the field ``name``, so that it reads as its default."""
        self.values.pop(self.field(name).name, None)

    def set_fields(self) -> Iterator[tuple[Field[Any], Any]]:
        """Yield ``(field, value)`` for each field that is set, sorted by field number."""
        # A message has few of its many fields. One of another fork may share its values, with fields of other names.
        for name in sorted([name for name in self.values if name in self.positions], key=self.positions.__getitem__):
            field, value = self.fields[name], self.values.get(name)
            if _is_set(field, value):
                yield field, value

    def merge(self, other: Self) -> None:
        """Merge another message into this one as protobuf does: replace scalars, extend lists, merge sub-messages.

        Args:
            other: a message of the same class, which is not changed; its values win.
        """
        for field, value in other.set_fields():
            if field.array:
                self.values[field.name] = np.concatenate([getattr(self, field.name), value])
            elif field.repeated:
                items = [item.copy() for item in value] if field.message else value
                getattr(self, field.name).extend(items)
            elif field.message:
                getattr(self, field.name).merge(value)
                getattr(self, field.name).present = True
            else:
                self.values[field.name] = value
        self.unknown += other.unknown

    def copy(self) -> Self:
        """Return a deep copy; only the arrays of weights are shared with this message."""
        twin = type(self)()
        twin.present, twin.line, twin.unknown = self.present, self.line, self.unknown
        for field, value in self.set_fields():
            if field.message and field.repeated:
                twin.values[field.name] = MessageList(field.message, [item.copy() for item in value])
            elif field.message:
                twin.values[field.name] = value.copy()
            else:
                twin.values[field.name] = list(value) if field.repeated and not field.array else value
        return twin

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Message):
            return NotImplemented
        mine, theirs = dict(self.named_values()), dict(other.named_values())
        if mine.keys() != theirs.keys() or self.unknown != other.unknown:
            return False
        return all(_equal_values(self.fields[name], mine[name], theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]  # messages are mutable

    def named_values(self) -> Iterator[tuple[str, Any]]:
        """Yield ``(name, value)`` for each field that is set."""
        return ((field.name, value) for field, value in self.set_fields())

    def __repr__(self) -> str:
        parts = [f"{name}={'...' if self.fields[name].array else repr(value)}" for name, value in self.named_values()]
        return f"{type(self).__name__}({', '.join(parts)})"


def _join_messages(forms: Sequence[Field[Any]]) -> type[Message]:
    """Return a message class with the fields of all forms' classes; of several of one name, that of the first."""
    classes = [form.message for form in forms if form.message]
    if all(each is classes[0] for each in classes):
        return classes[0]
    fields: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in classes for name in each.fields):
        owners = [form for form in forms if form.message and name in form.message.fields]
        fields[name] = ForkField([form.message.fields[name] for form in owners if form.message])
        fields[name].dialect = owners[0].dialect
    return type(classes[0].__name__, (Message,), {"__doc__": classes[0].__doc__, **fields})


def _is_set(field: Field[Any], value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, Message):
        return value.present or not value.is_empty()
    return len(value) > 0 if field.repeated else True


def _equal_values(field: Field[Any], mine: Any, theirs: Any) -> bool:
    if field.kind is not None and field.kind.dtype is not None:
        return np.array_equal(mine, theirs, equal_nan=True)
    return bool(mine == theirs)
