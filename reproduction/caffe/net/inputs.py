"""The ways to pass inputs to a net: a mapping, tensors in the order of its inputs, or keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import NetError, did_you_mean

Values = Tensor | np.ndarray[Any, Any]
Given = Mapping[str, Values] | Values | Iterable[str] | None


def by_name(
    inputs: Sequence[str], given: Sequence[Given], named: Mapping[str, Values], blobs: Iterable[str] | None
) -> tuple[dict[str, Values], list[str] | None]:
    """Return the inputs by blob name, and the names of the wanted blobs.

    Args:
        inputs: names of the net's inputs, in order.
        given: the positional arguments of a call: a mapping, which the wanted blobs may follow, or a value for each
            input.
        named: its keyword arguments.
        blobs: names of the wanted blobs; None if the call did not name them.

    Raises:
        NetError: too many values, or a keyword that is not an input.
    """
    first, *more = given or (None,)
    found: dict[str, Any] = {}
    if first is None or isinstance(first, Mapping):
        found.update(first or {})
        if more and blobs is None:
            blobs, *more = more
        if more:
            raise NetError("too many arguments", got=len(given), want="the inputs by name, and names of blobs")
    else:
        if len(given) > len(inputs):
            raise NetError("too many inputs", got=len(given), want=", ".join(inputs) or "none")
        found.update(zip(inputs, given, strict=False))
    for name, value in named.items():
        if name not in inputs:
            raise NetError(f"the net has no input {name!r}", remedy=did_you_mean(name, inputs))
        if name in found:
            raise NetError(f"input {name!r} is passed twice")
        found[name] = value
    return found, None if blobs is None else list(blobs)
