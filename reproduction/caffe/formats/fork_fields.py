"""The messages of the layer types of forks in binary files, where each fork numbers them differently."""

from __future__ import annotations

from typing import Any

from reproduction.caffe.errors import CaffemodelError
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.schema import Field, LayerParameter, Message
from reproduction.caffe.schema.message import ForkField
from reproduction.caffe.schema.types import TYPES


def read_params(layer: LayerParameter) -> None:
    """Read the messages of a fork's layer type that are still bytes, or were read as BVLC's of the same number.

    The type of the layer tells whose numbers they are. A layer that was read from text is not changed.

    Args:
        layer: the layer, in the current form, which is changed in place.
    """
    for name in TYPES.get(layer.type, ()):
        field = LayerParameter.fields[name]
        if isinstance(field, ForkField) and not layer.has(name):
            read = (found for form in field.forms if (found := _read_form(layer, form)) is not None)
            value = next(read, None)
            if value is not None:
                setattr(layer, name, field.message(**dict(value.named_values())) if field.message else value)


def _read_form(layer: LayerParameter, form: Field[Any]) -> Message | None:
    """Return the message of a layer at the number of one dialect, and remove its bytes; None if it is not there."""
    assert form.message is not None
    other = LayerParameter.by_number.get(form.number)
    try:
        if other is not None and layer.has(other.name):
            found = caffemodel.loads(caffemodel.dumps(layer.values[other.name]), form.message)
            layer.clear(other.name)
            return found
        if layer.unknown:
            view: type[Message] = type("View", (Message,), {form.name: Field(form.number, message=form.message)})
            read = caffemodel.loads(layer.unknown, view)
            if read.has(form.name):
                layer.unknown = read.unknown
                return read.values[form.name]  # type: ignore[no-any-return]
    except CaffemodelError:  # another fork's message of this number
        pass
    return None
