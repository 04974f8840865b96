"""Events of a training for TensorBoard: losses, learning rate, scores, and a few validation images.

``tensorboard --logdir runs`` shows them next to each other for all trainings in ``runs/``. The package tensorboardX,
which writes them, is an extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from reproduction.caffe.errors import missing_package
from reproduction.caffe.training.events import Step
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.images import decode, palette
from reproduction.fcn.scoring.score import METRICS
from reproduction.fcn.train.log_file import Validation
from reproduction.fcn.train.recipes import Recipe
from reproduction.report.gallery import Gallery

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"  # in the folder of each training
POINTS = 2000  # of a curve of losses, at most; each is a mean
IMAGES = 3  # of each validation


class TensorBoardWriter:
    """The callbacks of a training (see ``TrainingCallbacks``) that write events for TensorBoard.

    Args:
        out: the folder that contains a folder for each training.

    Raises:
        ReproductionError: If tensorboardX is not installed.
    """

    def __init__(self, out: Path):
        try:
            import tensorboardX  # noqa: F401 (that it is missing is found before the training)
        except ImportError:
            raise missing_package("tensorboardX", "tensorboard") from None
        self._out = out
        self._writer: SummaryWriter | None = None
        self._recent: list[Step] = []
        self._photos: dict[str, UInt8] = {}
        self._classes: Mapping[str, tuple[str, ...]] = {}

    def begin(self, recipe: Recipe, iteration: int) -> None:
        """Open the events of a net; those that an earlier run wrote after ``iteration`` are hidden, or deleted at 0."""
        from tensorboardX import SummaryWriter

        self.close()
        folder = self._out / recipe.name / FOLDER
        for old in folder.glob("events.out.tfevents.*") if not iteration else ():
            old.unlink()
        name = f".{iteration}"  # else runs that start in the same second share a file
        self._writer = SummaryWriter(str(folder), purge_step=iteration or None, flush_secs=10, filename_suffix=name)
        self._every = max(1, recipe.solver_param.max_iter // POINTS)

    def step(self, step: Step) -> None:
        """Write the loss (per pixel, and as the solver computes it) and the learning rate, as means of some updates."""
        self._recent.append(step)
        if not self._writer or (step.iteration + 1) % self._every:
            return
        pixels = [each.loss_per_pixel for each in self._recent if each.loss_per_pixel is not None]
        self._writer.add_scalar("loss", fmean(each.loss for each in self._recent), step.iteration)
        self._writer.add_scalar("learning_rate", step.lr, step.iteration)
        if pixels:
            self._writer.add_scalar("loss_per_pixel", fmean(pixels), step.iteration)
        self._recent.clear()

    def predicted(
        self, iteration: int, dataset: Dataset, image_id: str, sample: Sample, predictions: Mapping[str, UInt8]
    ) -> None:
        """Write one of the first validation images, its true labels and the prediction, next to each other."""
        self._classes = {top: tuple(names) for top, names in dataset.label_classes.items()}
        if not self._writer or image_id not in dataset.ids[:IMAGES]:
            return
        shown = Gallery(dataset, Path())
        for top, labels in predictions.items():
            if image_id not in self._photos:
                self._photos[image_id] = decode.shrink(shown.photo(image_id), max(labels.shape))
            parts = [palette.paint(each, shown.colours) for each in (sample[top][0], labels)]
            photo = self._photos[image_id]
            row = np.concatenate([*([photo] if photo.shape == parts[0].shape else []), *parts], axis=1)
            self._writer.add_image(f"{top}/{image_id}", row, iteration, dataformats="HWC")

    def validated(self, validation: Validation) -> None:
        """Write the scores of a validation, and the IU of each class; for a classifier, its outputs."""
        if not self._writer:
            return
        values: dict[str, float | None] = dict(validation.outputs)
        for top, metrics in validation.scores.items():
            place = f"{top}/" if len(validation.scores) > 1 else ""
            values |= {f"{place}{name}": getattr(metrics, name) for name in METRICS}
            numbered = enumerate(zip(self._classes.get(top, ()), metrics.class_iu, strict=False))
            values |= {f"{place}iu/{number}_{name}": iu for number, (name, iu) in numbered}
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"validation/{name}", value, validation.iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write what is waiting, and close the events of the net."""
        if self._writer:
            self._writer.close()
        self._writer = None
        self._recent.clear()
