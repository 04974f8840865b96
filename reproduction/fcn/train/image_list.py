"""What an ImageData layer reads, as a function of the number of the draw.

The layer itself remembers where in its list it is. Fed from here, a training run that is resumed goes on with the
images that it would have seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reproduction.caffe.errors import DataError, NetError, StrPath
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.image import Transform, read_image, read_labels
from reproduction.caffe.schema import LayerParameter, Phase
from reproduction.fcn.datasets import layouts

Float32 = npt.NDArray[np.float32]


class ImageList:
    """The batches of an ImageData layer.

    With ``shuffle``, every round through the list has an order of its own; random crops and mirrors are drawn anew
    for every image. All of it follows from the seed and the number of the draw.

    Args:
        layer: the ImageData layer.
        root: the data root; its list and its ``root_folder``, which are relative to the prototxt's, are below it.
        phase: TRAIN crops at random, TEST in the middle.
        seed: of the order, the crops and the mirrors.

    Attributes:
        images: paths and labels, in the order of the list.
        batch_size: images in a batch.

    Raises:
        NetError: another type of layer, or a field that this does not follow.
        DataError: the list or an image cannot be read.
    """

    def __init__(self, layer: LayerParameter, root: StrPath, phase: Phase = Phase.TRAIN, seed: int = 1337):
        param = layer.image_data_param
        if layer.type != "ImageData" or len(layer.top) != 2:
            raise NetError("this is no ImageData layer with two tops", layer=layer.name, type=layer.type)
        for name in ("rand_skip", "new_height", "new_width"):
            if getattr(param, name):
                raise NetError(f"{name} cannot be fed batch by batch", layer=layer.name, got=getattr(param, name))
        self.layer, self.seed, self.training = layer, seed, phase is Phase.TRAIN
        folder = layouts.below(root, param.root_folder)
        self.images = [(folder / name, label) for name, label in read_labels(str(layouts.below(root, param.source)))]
        self.batch_size = param.batch_size

    def __len__(self) -> int:
        """Count the batches of a round through the list; the last one takes what it lacks from the next round."""
        return -(-len(self.images) // self.batch_size)

    def __call__(self, draw: int) -> dict[str, Float32]:
        """Read a batch.

        Args:
            draw: its number, from 0 on without end.

        Returns:
            By top: images (batch_size, 3, H, W), B G R, transformed; labels (batch_size,).
        """
        generator = torch.Generator().manual_seed(_mix(self.seed, 1, draw))
        transform = Transform(self.layer.transform_param, generator)
        images, labels = [], []
        for number in range(draw * self.batch_size, (draw + 1) * self.batch_size):
            path, label = self.image(number)
            pixels = read_image(str(path), color=self.layer.image_data_param.is_color)
            images.append(transform(pixels, str(path), training=self.training))
            labels.append(label)
            if images[-1].shape != images[0].shape:
                raise DataError(
                    "the images of a batch must have one size", path=path, got=images[-1].shape, want=images[0].shape
                )
        return dict(zip(self.layer.top, (np.stack(images), np.array(labels, np.float32)), strict=True))

    def image(self, number: int) -> tuple[Path, int]:
        """Say which image, and its label, has a number, from 0 on without end."""
        epoch, place = divmod(number, len(self.images))
        if self.layer.image_data_param.shuffle:
            place = int(np.random.RandomState(_mix(self.seed, 0, epoch)).permutation(len(self.images))[place])
        return self.images[place]

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the tops, by name: what a net that is fed wants as ``inputs``."""
        return {top: array.shape for top, array in self(0).items()}


def _mix(*numbers: int) -> int:
    """Make one seed of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
