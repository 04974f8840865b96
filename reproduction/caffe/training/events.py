"""What a solver reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.training.apply_update import Norms


class LossError(ReproductionError):
    """The loss or a weight is no number any more; the weights are those before the iteration.

    Attributes:
        iteration: the number of updates made before.
        draw: the number of the sample; None where no sample is to blame.
    """

    def __init__(self, problem: str, *, iteration: int, draw: int | None, remedy: str):
        self.iteration, self.draw = iteration, draw
        where = f"iteration {iteration}" if draw is None else f"iteration {iteration}, draw {draw}"
        super().__init__(problem, place=where, remedy=remedy)


@dataclass(frozen=True)
class Stepped:
    """One update was made.

    Attributes:
        iteration: its number, from 0.
        loss: the mean over ``iter_size``.
        smoothed_loss: the mean over the last ``average_loss`` iterations.
        rate: the learning rate.
        outputs: the net's outputs for the last sample.
        shown: whether ``display`` asks for it to be shown.
        norms: of the gradients, where ``debug_info`` asks for them.
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
    """The loss at the end, of a forward without an update; attributes as of ``Stepped``."""

    iteration: int
    loss: float
    smoothed_loss: float
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Evaluated:
    """A test net ran.

    Attributes:
        iteration: the number of updates so far.
        net: the number of the net.
        loss: the mean loss, with ``test_compute_loss``.
        outputs: the means of the net's outputs over ``test_iter``.
    """

    iteration: int
    net: int
    loss: float | None
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Saved:
    """A snapshot was written: after how many updates, and its two files."""

    iteration: int
    model: str
    state: str


Event = Stepped | Measured | Evaluated | Saved
