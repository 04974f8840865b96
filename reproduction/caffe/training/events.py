"""Events that a solver yields while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.training.apply_update import Norms


class LossError(ReproductionError):
    """Raised if the loss or a weight is not finite; no update of this iteration was applied.

    Attributes:
        iteration: The number of updates made before.
        draw: The draw of the sample with the bad loss; None if a weight is not finite.
    """

    def __init__(self, problem: str, *, iteration: int, draw: int | None, remedy: str):
        self.iteration, self.draw = iteration, draw
        where = f"iteration {iteration}" if draw is None else f"iteration {iteration}, draw {draw}"
        super().__init__(problem, place=where, remedy=remedy)


@dataclass(frozen=True)
class Stepped:
    """Event after one update of the weights.

    Attributes:
        iteration: The number of the update, from 0.
        loss: The mean loss over ``iter_size`` samples.
        smoothed_loss: The mean loss over the last ``average_loss`` iterations.
        rate: The learning rate.
        outputs: The net's outputs for the last sample.
        shown: Whether this iteration is to be displayed, according to ``display``.
        norms: Norms of weights and gradients if ``debug_info`` is set and the iteration is shown, otherwise None.
    """

    iteration: int
    loss: float
    smoothed_loss: float
    rate: float
    outputs: Mapping[str, Tensor]
    shown: bool
    norms: Norms | None


@dataclass(frozen=True)
class Measured:
    """Event after the last forward, which makes no update.

    Attributes:
        iteration: The number of updates made.
        loss: The loss of this forward.
        smoothed_loss: The mean loss over the last ``average_loss`` iterations.
        outputs: The net's outputs.
    """

    iteration: int
    loss: float
    smoothed_loss: float
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Evaluated:
    """Event after a test net ran.

    Attributes:
        iteration: The number of updates made.
        net: The index of the test net.
        loss: The mean loss over ``test_iter`` samples; None unless ``test_compute_loss`` is set.
        outputs: The mean of each output over ``test_iter`` samples.
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
        model: Path of the weights.
        state: Path of the solver state.
    """

    iteration: int
    model: str
    state: str


Event = Stepped | Measured | Evaluated | Saved
