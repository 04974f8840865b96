"""Changes of samples that the paper tried: training on some of the cells alone, and masking objects or background.

A change gets a sample and returns another one of the same shapes and dtypes. What a random change draws depends only on
the seed and on the number of the forward pass ("draw"), so that a resumed training continues with the same samples.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.typing import Array, Bool
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.datasets.base import SEED, VOID
from reproduction.fcn.train.image_list import mix_seeds

_STREAM = 3  # of the numbers that belong to a seed; 0 and 1 are those of ``image_list``, 2 that of ``augmentation``

#: What the pixels of objects become if only their shape is left, in units above the mean colour: any number but 0.
SHAPE_VALUE = 100.0


class SampleChange(Protocol):
    """A function that changes a sample; images and labels change together."""

    @property
    def description(self) -> str:
        """What changes, for the settings of a run; changes that give different samples have different descriptions."""

    def __call__(self, sample: Sample, labels: Collection[str], seed: int | None, draw: int) -> Sample:
        """Return the changed sample.

        Args:
            sample: arrays (C, H, W) by top; they are not written to.
            labels: the tops that are labels.
            seed: the seed of the order of the samples; None selects the default.
            draw: the number of the forward pass.
        """


@dataclass(frozen=True)
class PatchSampling:
    """Keep each cell of the final layer's grid with a probability; the labels of the others become void.

    The loss ignores void, so that the net learns from a random share of the patches that its cells see.

    Args:
        share: the probability of keeping a cell, above 0 and at most 1.
        cell: the height and width of a cell in pixels: the stride of the net.

    Source: Long et al., Fully Convolutional Networks for Semantic Segmentation (CVPR 2015), section 4.3, "Patch
    Sampling".
    """

    share: float
    cell: int = 32

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ReproductionError: If ``share`` is not a probability above 0, or ``cell`` is below 1.
        """
        if not 0 < self.share <= 1:
            raise ReproductionError("the share of the cells is not a probability", got=self.share, want="0 < P <= 1")
        if self.cell < 1:
            raise ReproductionError("a cell has no pixel", got=self.cell, want="1 or more")

    @property
    def description(self) -> str:
        """What changes, as text."""
        return f"on {self.share:g} of the cells of {self.cell} pixels"

    def __call__(self, sample: Sample, labels: Collection[str], seed: int | None, draw: int) -> Sample:
        """Return the sample with void labels in the cells that are not kept; see ``SampleChange``."""
        generator = np.random.default_rng(mix_seeds(SEED if seed is None else seed, _STREAM, draw))
        height, width = next(iter(sample.values())).shape[1:]
        cells = generator.random((-(-height // self.cell), -(-width // self.cell))) < self.share
        kept = cells.repeat(self.cell, 0).repeat(self.cell, 1)[:height, :width]
        return {top: np.where(kept, array, VOID).astype(array.dtype) if top in labels else array
                for top, array in sample.items()}  # fmt: skip


@dataclass(frozen=True)
class CueMask:
    """Replace the pixels of objects, of the background, or of both in the images; labels do not change.

    Masked pixels get the mean colour, 0 in a sample. If both are masked, the pixels of objects get ``SHAPE_VALUE``
    instead: the net sees nothing but their common shape. Void pixels, at the borders of objects, are neither object
    nor background, and are masked with either.

    Args:
        foreground: whether the pixels of objects are masked: all classes but 0.
        background: whether the pixels of class 0 are masked.

    Source: Shelhamer et al., Fully Convolutional Networks for Semantic Segmentation (PAMI 2016), table 8.
    """

    foreground: bool = False
    background: bool = False

    @property
    def name(self) -> str:
        """What is masked, for the names of files: ``foreground``, ``background``, ``both`` or ``nothing``."""
        return (("nothing", "background"), ("foreground", "both"))[self.foreground][self.background]

    @property
    def description(self) -> str:
        """What changes, as text."""
        names = ["foreground"] * self.foreground + ["background"] * self.background
        return f"masked {' and '.join(names) or 'nowhere'}"

    def __call__(self, sample: Sample, labels: Collection[str], seed: int | None, draw: int) -> Sample:
        """Return the sample with masked images; see ``SampleChange``. The first top in ``labels`` has the classes."""
        truth = sample[next(top for top in sample if top in labels)]
        objects: Bool = (truth != 0) & (truth != VOID)
        masked = np.zeros_like(objects) if not (self.foreground or self.background) else truth == VOID
        masked = masked | (objects & self.foreground) | ((truth == 0) & self.background)
        filled = np.where(objects, np.float32(SHAPE_VALUE * (self.foreground and self.background)), np.float32(0))
        return {top: array if top in labels else np.where(masked, filled, array).astype(array.dtype)
                for top, array in sample.items()}  # fmt: skip


class ChangedDataset(Dataset):
    """A view of a data set whose samples are changed, to score a net on them; everything else is as in the data set.

    Args:
        dataset: the data set.
        change: the change of its samples; the index of a sample is its draw.
    """

    def __init__(self, dataset: Dataset, change: SampleChange):
        self.__dict__.update(vars(dataset))
        self.dataset, self.change = dataset, change
        # These are constants of a data set's class, which this view belongs to no more than to any other.
        for name in ("name", "kinds", "kind_classes"):
            setattr(self, name, getattr(dataset, name))

    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of a file of the data set."""
        return self.dataset.file(kind, image_id)

    def read(self, kind: str, path: Path) -> Array:
        """Read a file of the data set, without a change."""
        return self.dataset.read(kind, path)

    def training_ids(self) -> set[str] | None:
        """Return the ids of the images that the published nets were trained on, as the data set does."""
        return self.dataset.training_ids()

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Read a changed sample, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.change(self.dataset[index], self.label_classes, self.seed, index)
