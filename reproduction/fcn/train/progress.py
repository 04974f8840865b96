"""The progress of a training as lines of text and progress bars, which the caller prints and draws."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from statistics import fmean

from reproduction.caffe.training.events import Step
from reproduction.caffe.typing import Progress
from reproduction.fcn.scoring.score import TITLES
from reproduction.fcn.train.log_file import Validation
from reproduction.fcn.train.recipes import Recipe


class TrainingProgress:
    """The callbacks of a training (see ``TrainingCallbacks``) that print lines and move progress bars.

    Args:
        say: a function that prints one or more lines.
        bars: a function that starts a progress bar from a label and the name of its unit, and returns the function that
            moves it.
        quiet: if True, report only starts and validations, without bars and updates.
    """

    def __init__(self, say: Callable[[str], object], bars: Callable[[str, str], Progress], *, quiet: bool = False):
        self._say, self._quiet = say, quiet
        self._bars = (lambda what, unit: lambda done, total: None) if quiet else bars

    def begin(self, recipe: Recipe, iteration: int) -> None:
        """Report which net is trained for how many iterations, and start the clock and the progress bar.

        Args:
            recipe: the recipe of the net.
            iteration: the iteration at which the training starts (0) or resumes.
        """
        self._name, self._param = recipe.name, recipe.solver_param
        self._recent = deque[tuple[Step, float]](maxlen=max(self._param.average_loss, 1))
        parts = [f"{recipe.name}: {self._param.max_iter} iterations"]
        parts += [f"resumed at {iteration}"] if iteration else []
        intervals = (("snapshot", self._param.snapshot), ("validation", self._param.test_interval))
        parts += [f"a {what} every {interval}" for what, interval in intervals if interval]
        self._say(", ".join(parts))
        self._restart()

    def _restart(self) -> None:
        self._clock, self._is_validating = time.monotonic(), False
        self._move = self._bars(self._name, "it")

    def step(self, step: Step) -> None:
        """Move the progress bar after an update; every ``display`` iterations, report loss, learning rate and norms."""
        now = time.monotonic()
        self._recent.append((step, now - self._clock))
        self._clock = now
        self._move(step.iteration + 1, self._param.max_iter)
        if step.is_displayed and not self._quiet:
            self._say(self._format_step(step))
            if step.norms:
                weights, gradients = zip(step.norms.l1, step.norms.l2, strict=True)
                for what, (l1, l2) in (("weights", weights), ("gradients", gradients)):
                    self._say(f"  all {what}: L1 norm {l1:.6g}, L2 norm {l2:.6g}")

    def _format_step(self, step: Step) -> str:
        """Return the line of an update, with means over the last ``average_loss`` updates."""
        steps, seconds = zip(*self._recent, strict=True)
        pixels = [each.loss_per_pixel for each in steps if each.loss_per_pixel is not None]
        left = round((self._param.max_iter - step.iteration - 1) * fmean(seconds))
        parts = [
            f"iteration {step.iteration}",
            f"loss {fmean(each.loss for each in steps):.6g}" + (f" ({fmean(pixels):.4f} per pixel)" if pixels else ""),
            f"lr {step.lr:g}",
            f"{len(step.images) / fmean(seconds):.2f} images/s",
            f"{timedelta(seconds=left)} left",
        ]
        return ", ".join(parts)

    def images(self, done: int, total: int, seconds: float) -> None:
        """Move the progress bar of a validation: images done, images in all, and seconds since its start."""
        if not self._is_validating:
            self._is_validating, self._move = True, self._bars("validation", "image")
        self._move(done, total)

    def validated(self, validation: Validation) -> None:
        """Report the scores of a validation or, for a classifier, the outputs of its test net."""
        self._restart()
        head = f"{self._name} after {validation.iteration} iterations, {validation.images} images"
        if validation.outputs:
            self._say(head + ": " + ", ".join(f"{name} {value:.4f}" for name, value in validation.outputs.items()))
        for top, metrics in validation.scores.items():
            titles = "  ".join(f"{title:>10}" for title in TITLES.values())
            values = "  ".join(
                f"{'-':>10}" if (value := getattr(metrics, name)) is None else f"{100 * value:10.2f}" for name in TITLES
            )
            self._say("\n".join([head + (f", {top}" if len(validation.scores) > 1 else ""), titles, values]))
