"""Caffe's fillers: the initial values of parameters.

The distributions are Caffe's, but the random numbers are torch's. So only the deterministic fillers (constant and
bilinear) give the same values as Caffe.

Source: BVLC/caffe@9b89154 include/caffe/filler.hpp.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor

from reproduction.caffe.errors import NetError, did_you_mean
from reproduction.caffe.schema import FillerParameter, VarianceNorm

_postponed: ContextVar[list[Callable[[], None]] | None] = ContextVar("postponed", default=None)


def fill(blob: Tensor, param: FillerParameter, generator: torch.Generator | None = None) -> None:
    """Fill ``blob`` in place with initial values, as Caffe's filler does; a tensor on the meta device stays as it is.

    Args:
        blob: float tensor of any shape, ``(outputs, inputs, ...)``.
        param: the filler: its ``type``, a key of ``FILLERS``, and the parameters of this type.
        generator: the source of random numbers; None for torch's global generator.

    Raises:
        NetError: If the filler type is unknown, its parameters are invalid, ``blob`` has no values, or the filler does
            not support the shape.
    """
    _check(tuple(blob.shape), param)
    if not blob.is_meta:
        # A blob without axes (the slope of PReLU with channel_shared) is filled as one output with one input.
        FILLERS[param.type](blob if blob.dim() else blob.view(1), param, generator)


def fill_parameter(blob: Tensor, param: FillerParameter, generator: torch.Generator | None = None) -> None:
    """Fill a parameter as ``fill`` does; within ``postpone``, only check the filler.

    Raises:
        NetError: As ``fill`` does.
    """
    _check(tuple(blob.shape), param)
    filling, postponed = partial(fill, blob, param, generator), _postponed.get()
    filling() if postponed is None else postponed.append(filling)


@contextlib.contextmanager
def postpone() -> Iterator[list[Callable[[], None]]]:
    """Context manager in which parameters are not filled, for a net whose weights are read from a file.

    Yields:
        A list of functions, one for each parameter. Called in order, they draw the random numbers and set the values
        that filling at once would have.
    """
    fillings: list[Callable[[], None]] = []
    token = _postponed.set(fillings)
    try:
        yield fillings
    finally:
        _postponed.reset(token)


def _check(shape: Sequence[int], param: FillerParameter) -> None:
    """Raise NetError if Caffe's filler would refuse its parameters or the shape."""
    if param.type not in FILLERS:
        raise NetError(f"unknown filler type {param.type!r}", remedy=did_you_mean(param.type, FILLERS))
    if not math.prod(shape):
        raise NetError("there are no values to fill", got=f"shape {tuple(shape)}")
    if param.sparse >= 0 and param.type != "gaussian":
        raise NetError("only the gaussian filler can be sparse", got=param.type)
    if param.type == "uniform" and not -math.inf < param.min <= param.max < math.inf:
        raise NetError("the uniform filler needs min <= max, both finite", got=f"min {param.min}, max {param.max}")
    if param.type == "gaussian" and not param.std > 0:
        raise NetError("the gaussian filler needs a positive std", got=param.std)
    if param.type == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise NetError("the bilinear filler is for square kernels", got=tuple(shape), want="(N, C, K, K)")


def _constant(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    blob.fill_(param.value)


def _uniform(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    blob.uniform_(param.min, param.max, generator=generator)


def _gaussian(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    blob.normal_(param.mean, param.std, generator=generator)
    if param.sparse >= 0:
        # Caffe: `sparse` of the gaussian filler is a count, not a fraction as in `torch.nn.init.sparse_`: each weight
        # is non-zero with the probability `sparse / num_outputs` (filler.hpp, GaussianFiller).
        probability = min(1.0, param.sparse / blob.shape[0])
        blob.mul_(torch.empty_like(blob).bernoulli_(probability, generator=generator))


def _positive_unitball(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    blob.uniform_(0, 1, generator=generator)
    rows = blob.view(blob.shape[0], -1)
    rows.div_(rows.sum(1, keepdim=True))


def _fan(blob: Tensor, norm: VarianceNorm) -> float:
    # Caffe: `fan_out` of the xavier and msra fillers is the number of values divided by the length of axis 1, as in
    # torch. For a blob of one axis it is the number of values, where torch raises an error (filler.hpp, XavierFiller).
    fan_in = blob.numel() / blob.shape[0]
    fan_out = blob.numel() / blob.shape[1] if blob.dim() > 1 else float(blob.numel())
    return {
        VarianceNorm.FAN_IN: fan_in,
        VarianceNorm.FAN_OUT: fan_out,
        VarianceNorm.AVERAGE: (fan_in + fan_out) / 2,
    }[norm]


def _xavier(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    scale = math.sqrt(3 / _fan(blob, param.variance_norm))
    blob.uniform_(-scale, scale, generator=generator)


def _msra(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    blob.normal_(0, math.sqrt(2 / _fan(blob, param.variance_norm)), generator=generator)


def _bilinear(blob: Tensor, param: FillerParameter, generator: torch.Generator | None) -> None:
    size = blob.shape[3]
    factor = math.ceil(size / 2)
    center = (size - 1) / (2 * factor)
    tap = 1 - (torch.arange(size, dtype=blob.dtype, device=blob.device) / factor - center).abs()
    # Caffe: the bilinear filler writes its kernel for every pair of input and output channels, not only for equal
    # ones. So it upsamples correctly only in layers with one input channel per group.
    blob.copy_((tap[:, None] * tap[None, :]).expand_as(blob))


FILLERS = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
