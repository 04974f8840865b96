"""The batches of an ImageData layer, by the number of the forward pass ("draw") that they are for.

Caffe's layer keeps its position in the list as state. Here the draw number determines the batch, so that a resumed
training reads the same images as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.formats import hashes
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.data import stack_batch
from reproduction.caffe.layers.image_data import Transform, read_image, read_image_list
from reproduction.caffe.schema import LayerParameter, Phase
from reproduction.caffe.typing import Array, Float32
from reproduction.fcn.datasets import layouts


class ImageList:
    """A function that loads the batch of an ImageData layer for a draw number: that of the forward pass, from 0.

    With ``shuffle``, each epoch has another order; random crops and mirrors are drawn for each image. All of this
    depends only on the seed and the draw number.

    Args:
        layer: the ImageData layer.
        root: the data root, to which the layer's ``source`` and ``root_folder`` are relative.
        phase: TRAIN crops at random, TEST at the centre.
        seed: the seed of the order, the crops and the mirrors.

    Attributes:
        entries: the (path, label) pairs of the images, in the order of the list.
        batch_size: the number of images in a batch.

    Raises:
        NetError: If the layer is not an ImageData layer with two tops, or sets ``rand_skip``, ``new_height`` or
            ``new_width``.
        DataError: If the list cannot be read.
    """

    def __init__(self, layer: LayerParameter, root: StrPath, phase: Phase = Phase.TRAIN, seed: int = 1337):
        param = layer.image_data_param
        if layer.type != "ImageData" or len(layer.top) != 2:
            raise NetError("not an ImageData layer with two tops", layer=layer.name, type=layer.type)
        for name in ("rand_skip", "new_height", "new_width"):
            if getattr(param, name):
                raise NetError(f"{name} is not supported here", layer=layer.name, got=getattr(param, name))
        self.layer, self.seed, self.training = layer, seed, phase is Phase.TRAIN
        folder = layouts.below(root, param.root_folder)
        self.entries = [
            (folder / name, label) for name, label in read_image_list(str(layouts.below(root, param.source)))
        ]
        self.batch_size = param.batch_size

    def __len__(self) -> int:
        """Return the number of batches per epoch, rounded up: the next epoch's images fill the last batch."""
        return math.ceil(len(self.entries) / self.batch_size)

    def __call__(self, draw: int) -> dict[str, Float32]:
        """Load the batch for forward pass number ``draw``.

        Args:
            draw: the number of the batch, counted over all epochs from 0.

        Returns:
            float32 arrays by top: images (batch_size, C, H, W) after ``transform_param``, with C = 3 in B G R order or
            C = 1 without ``is_color``; labels (batch_size,).

        Raises:
            DataError: If an image cannot be read, or the images of the batch differ in size.
        """
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, 1, draw))
        transform = Transform(self.layer.transform_param, generator)

        def load(path: Path, label: int) -> tuple[Path, Sequence[Array]]:
            pixels = read_image(str(path), color=self.layer.image_data_param.is_color)
            return path, (transform(pixels, str(path), training=self.training), np.array(label, np.float32))

        batch = stack_batch(load(*self.image(number)) for number in self._numbers(draw))
        return dict(zip(self.layer.top, batch, strict=True))

    def image(self, number: int) -> tuple[Path, int]:
        """Return the path and label of image ``number``, counted from 0 over all epochs, each in its shuffled order."""
        epoch, place = divmod(number, len(self.entries))
        if self.layer.image_data_param.shuffle:
            place = int(np.random.RandomState(mix_seeds(self.seed, 0, epoch)).permutation(len(self.entries))[place])
        return self.entries[place]

    def images(self, draw: int) -> list[str]:
        """Return the file names of the images that forward pass number ``draw`` loads."""
        return [self.image(number)[0].name for number in self._numbers(draw)]

    def _numbers(self, draw: int) -> range:
        return range(draw * self.batch_size, (draw + 1) * self.batch_size)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the tops of the first batch by name, as ``Net(inputs=...)`` takes them."""
        return {top: array.shape for top, array in self(0).items()}

    @property
    def description(self) -> str:
        """The number of images, the SHA-1 of the list, the batch size and the seed of the order, as text."""
        sha1 = hashes.hash_lines([f"{path.name} {label}" for path, label in self.entries])
        return f"{len(self.entries)} images, sha1 {sha1}, {self.batch_size} a batch, order {self.seed}"


def mix_seeds(*numbers: int) -> int:
    """Combine several numbers, 0 or more, into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
