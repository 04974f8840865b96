"""The fields of Caffe's forks that are set in the messages of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reproduction.caffe.schema import Dialect, Field, Message

# Fields that select an implementation or switch logging on, and do not change results.
NO_EFFECT = frozenset({"engine", "force_nd_im2col", "share_in_parallel", "debug_info", "stable_prod_grad"})


def find_fork_fields(param: Field[Any], message: Message) -> Iterator[tuple[str, Dialect | str]]:
    """Yield the fields of forks that are set in a message of a layer and have an effect, and whose they are.

    A field is yielded as ``param.field``, and a value that a fork adds to an enum as ``param.field.VALUE``.

    Args:
        param: The field of LayerParameter that holds the message.
        message: The message.
    """
    for field, value in message.set_fields():
        dialect, name = field.dialect or param.dialect, f"{param.name}.{field.name}"
        if isinstance(value, field.fork_enums):
            yield f"{name}.{value.name}", "a fork of Caffe"
        elif dialect is not None and field.has_effect and field.name not in NO_EFFECT:
            yield name, dialect
