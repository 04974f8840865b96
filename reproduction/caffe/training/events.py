"""Events that a solver yields while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from torch import Tensor

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats.json_file import between
from reproduction.caffe.training.apply_update import Norms

Iteration = Annotated[int, between(0, 2**31 - 1)]
LossValue = Annotated[float, between(-1e100, 1e100)]


class LossError(ReproductionError):
    """Raised if the loss or a weight is not finite; the update of this iteration is not applied.

    Attributes:
        iteration: The number of updates made before.
        draw: The number of the sample with the bad loss, counted over all iterations; None if a weight is not finite.
    """

    def __init__(self, problem: str, *, iteration: int, draw: int | None, remedy: str):
        self.iteration, self.draw = iteration, draw
        where = f"iteration {iteration}" if draw is None else f"iteration {iteration}, draw {draw}"
        super().__init__(problem, place=where, remedy=remedy)


@dataclass(frozen=True)
class Step:
    """The record of one update of the weights, which the solver yields and a training writes to its log.

    Attributes:
        iteration: The number of the update, from 0.
        loss: The loss before the update, the mean over ``iter_size`` samples.
        lr: The learning rate.
        smoothed_loss: The mean loss over the last ``average_loss`` iterations.
        is_displayed: Whether this iteration is to be displayed, according to ``display``.
        norms: Norms of weights and gradients if ``debug_info`` is set and the iteration is displayed, otherwise None.
        outputs: The net's outputs for the last sample, tensors by blob name.
        loss_per_pixel: The mean loss per labelled pixel; None if there is no label per pixel, or if they were not
            counted.
        images: The names of the images in the batch; empty if the feed does not name them.
    """

    extra_names: ClassVar = ("*",)

    iteration: Iteration
    loss: LossValue
    lr: float
    smoothed_loss: float = math.nan
    is_displayed: bool = False
    norms: Norms | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    loss_per_pixel: LossValue | None = None
    images: Sequence[str] = ()


@dataclass(frozen=True)
class FinalLoss:
    """Event at the end of a training, after a last forward pass without an update.

    Attributes:
        iteration: The number of updates made.
        loss: The loss of this forward pass.
        smoothed_loss: The mean loss over the last ``average_loss`` iterations.
        outputs: The net's outputs by blob name.
    """

    iteration: int
    loss: float
    smoothed_loss: float
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Evaluated:
    """Event after a test net has run on ``test_iter`` samples.

    Attributes:
        iteration: The number of updates made.
        net: The index of the test net.
        loss: The mean loss over the samples; None unless ``test_compute_loss`` is set.
        outputs: The mean of each output over the samples, by blob name.
    """

    iteration: int
    net: int
    loss: float | None
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Saved:
    """Event after a snapshot was written.

    Attributes:
        iteration: The number of updates made.
        weights_path: Path of the weights.
        state_path: Path of the solver state, to resume from.
    """

    iteration: int
    weights_path: str
    state_path: str


Event = Step | FinalLoss | Evaluated | Saved
