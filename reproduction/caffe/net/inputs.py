"""Parse the arguments of a call of a net: a mapping, one tensor per input, or keywords; errors say what was passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import NetError, did_you_mean
from reproduction.caffe.geometry import Shape
from reproduction.caffe.typing import Array

Values = Tensor | Array
Given = Mapping[str, Values] | Values | Iterable[str] | None


def describe(value: object) -> str:
    """Return the type of a value as text, for error messages; of arrays and tensors the shape and dtype."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None:
        return type(value).__name__
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"


def missing_input(name: str, passed: Mapping[str, Values], inputs: Sequence[str]) -> NetError:
    """Return the error for an input that a call lacks; it lists what was passed.

    Args:
        name: Name of the input.
        passed: The values of the call, by name.
        inputs: Names of the net's inputs.
    """
    got = ", ".join(f"{key!r}: {describe(value)}" for key, value in sorted(passed.items()))
    unknown = [key for key in passed if key not in inputs]
    remedy = f"The net has no input {unknown[0]!r}." if unknown else ""
    return NetError(f"input {name!r} is missing", got=got or "no inputs", want=", ".join(inputs), remedy=remedy)


def wrong_axes(name: str, value: Values, declared: Shape) -> NetError:
    """Return the error for an input with the wrong number of axes.

    Args:
        name: Name of the input.
        value: What was passed.
        declared: The shape that the prototxt states.
    """
    axes = np.ndim(value)
    want = f"{len(declared)} axes" + (" (N, C, H, W)" if len(declared) == 4 else "")
    is_image = axes in (2, 3) and not isinstance(value, Tensor)
    remedy = "A Segmenter takes images as they are read." if is_image and len(declared) == 4 else ""
    return NetError(f"input {name!r} has {axes} axes", got=describe(value), want=want, remedy=remedy)


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
            got = f"{len(given)}: {', '.join(map(describe, given))}"
            raise NetError("too many inputs", got=got, want=", ".join(inputs) or "none")
        found.update(zip(inputs, given, strict=False))
    for name, value in named.items():
        if name not in inputs:
            raise NetError(f"the net has no input {name!r}", remedy=did_you_mean(name, inputs))
        if name in found:
            raise NetError(f"input {name!r} is passed twice")
        found[name] = value
    return found, None if blobs is None else list(blobs)
