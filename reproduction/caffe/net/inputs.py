"""Parse the arguments of a call of a net: a mapping, one tensor per input, or keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from reproduction.caffe.errors import NetError, did_you_mean
from reproduction.caffe.typing import Array

Values = Tensor | Array
Given = Mapping[str, Values] | Values | Iterable[str] | None


def parse_inputs(
    inputs: Sequence[str], given: Sequence[Given], named: Mapping[str, Values], blobs: Iterable[str] | None
) -> tuple[dict[str, Values], list[str] | None]:
    """Return what the arguments of a call ``net(...)`` mean: the inputs by blob name, and the requested blobs.

    Args:
        inputs: Names of the net's inputs, in order.
        given: The positional arguments of the call: a mapping, optionally followed by the names of the requested blobs;
            or one value per input.
        named: The keyword arguments of the call, by name of the input.
        blobs: The argument ``blobs`` of the call: the names of the requested blobs.

    Returns:
        The values by name of the input, and the names of the requested blobs or None if the call has none.

    Raises:
        NetError: If there are too many values, if a keyword is not an input, or if an input is passed twice.
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
