"""Augmentation of training samples as the paper tried it: random mirroring, and shifting by up to 32 pixels.

It is off by default, since the paper found no improvement. What is drawn for a sample depends only on the seed and on
the number of the forward pass ("draw"), so that a resumed training continues with the same samples.

Source: Long et al., Fully Convolutional Networks for Semantic Segmentation (CVPR 2015), section 4.3, "Augmentation".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.typing import Array
from reproduction.fcn.datasets import Sample
from reproduction.fcn.datasets.base import SEED, VOID
from reproduction.fcn.train.image_list import mix_seeds

#: The largest shift in each direction, in pixels: the stride of the coarsest prediction.
JITTER = 32
NAMES = ("mirror", "jitter")

_STREAM = 2  # of the numbers that belong to a seed; 0 and 1 are those of ``image_list``


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training samples.

    Attributes:
        mirror: whether half of the samples are mirrored horizontally.
        jitter: the largest shift in each direction, in pixels; at most half of a sample's height or width is used.
            0 shifts none.
    """

    mirror: bool = True
    jitter: int = JITTER

    @classmethod
    def from_names(cls, names: Collection[str]) -> Augmentation:
        """Return the augmentation of some of ``NAMES``.

        Raises:
            ReproductionError: If a name is not one of them.
        """
        if wrong := [name for name in names if name not in NAMES]:
            raise ReproductionError(
                "--augment: there is no such change of samples", got=", ".join(wrong), want=" or ".join(NAMES)
            )
        return cls("mirror" in names, JITTER if "jitter" in names else 0)

    @property
    def description(self) -> str:
        """What changes, as text."""
        return f"augmented by {self}"

    def __str__(self) -> str:
        parts = ["mirror"] * self.mirror + [f"jitter of up to {self.jitter} pixels"] * bool(self.jitter)
        return ", ".join(parts)

    def __call__(self, sample: Sample, labels: Collection[str], seed: int | None, draw: int) -> Sample:
        """Return the sample of a draw with the changes that belong to it; images and labels change together.

        Pixels that a shift uncovers get the mean colour (0 in the sample) in images, and void in labels.

        Args:
            sample: arrays (C, H, W) by top.
            labels: the tops that are labels.
            seed: the seed of the order of the samples; None selects the default.
            draw: the number of the forward pass.
        """
        generator = np.random.default_rng(mix_seeds(SEED if seed is None else seed, _STREAM, draw))
        is_mirrored = self.mirror and generator.random() < 0.5
        height, width = next(iter(sample.values())).shape[1:]
        limits = (min(self.jitter, size // 2) for size in (height, width))
        dy, dx = (int(generator.integers(-most, most + 1)) for most in limits)
        changed = {}
        for top, array in sample.items():
            mirrored = array[..., ::-1] if is_mirrored else array
            changed[top] = np.ascontiguousarray(shift(mirrored, dy, dx, VOID if top in labels else 0))
        return changed


def shift(array: Array, dy: int, dx: int, fill: int) -> Array:
    """Return an array (C, H, W) of the same size with its content moved ``dy`` pixels down and ``dx`` to the right.

    Args:
        array: the array.
        dy: pixels; negative values move it up.
        dx: pixels; negative values move it to the left.
        fill: the value of uncovered pixels.
    """
    if not dy and not dx:
        return array
    moved = np.full_like(array, fill)
    height, width = array.shape[1:]
    to = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    of = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
    moved[:, to[0], to[1]] = array[:, of[0], of[1]]
    return moved
