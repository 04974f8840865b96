"""Random messages of every class, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reproduction.caffe.schema import Field, Message

_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "bool": st.booleans(),
    "float": st.floats(width=32, allow_nan=False) | st.just(float("nan")),
    "double": st.floats(allow_nan=False) | st.just(float("nan")),
    "string": st.text(max_size=8),
    "bytes": st.binary(max_size=8),
}


@st.composite
def messages(draw: st.DrawFn, cls: type[Message], max_fields: int = 4) -> Message:
    """Draw a message with at most ``max_fields`` optional fields set, and nested messages in the same way."""
    chosen = draw(
        st.lists(st.sampled_from([field.name for field in cls.by_number.values()]), unique=True, max_size=max_fields)
    )
    return cls(**{name: draw(_values(cls.fields[name], max_fields)) for name in {*chosen, *cls.required}})


def _values(field: Field[Any], max_fields: int) -> st.SearchStrategy[Any]:
    if field.message:
        one: st.SearchStrategy[Any] = messages(field.message, max_fields)
    elif field.enum:
        one = st.sampled_from(list(field.enum))
    else:
        assert field.kind is not None
        one = _KINDS[field.kind.name]
    return st.lists(one, max_size=3) if field.repeated else one
