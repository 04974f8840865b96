"""Image classification with a net: pycaffe's ``caffe.Classifier``.

Source: BVLC/caffe@9b89154 python/caffe/classifier.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reproduction.caffe.errors import StrPath
from reproduction.caffe.schema import Phase
from reproduction.caffe.typing import Array
from reproduction.pycaffe.extras import io
from reproduction.pycaffe.net.net import Net


class PreprocessingNet(Net):
    """A net in phase TEST that takes images (H, W, K) and preprocesses them for its first input.

    It is the base class of ``Classifier`` and ``Detector``.

    Args:
        model_file: The prototxt.
        pretrained_file: The weights.
        settings: How to preprocess images: ``mean``, ``input_scale``, ``raw_scale`` and ``channel_swap``, each the
            argument of the ``set_`` method of ``io.Transformer`` of that name, such as ``set_mean``. None skips the
            step.

    Attributes:
        transformer: The ``io.Transformer`` that preprocesses images.
    """

    def __init__(self, model_file: StrPath, pretrained_file: StrPath, **settings: Any):
        super().__init__(model_file, Phase.TEST, weights=pretrained_file)
        name = self.inputs[0]
        self.transformer = io.Transformer({name: self.blobs[name].data.shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        for setting, value in settings.items():
            if value is not None:
                getattr(self.transformer, f"set_{setting}")(name, value)

    def predict_images(self, images: Sequence[Array]) -> Array:
        """Preprocess images (H, W, K) and return the net's first output, with one row for each image."""
        name = self.inputs[0]
        blobs = [self.transformer.preprocess(name, image) for image in images]
        outputs: Array = self.forward_all(**{name: np.array(blobs)})[self.outputs[0]]  # type: ignore[arg-type]
        return outputs


class Classifier(PreprocessingNet):
    """An image classifier: a net that computes a probability for each class.

    Args:
        model_file: The prototxt.
        pretrained_file: The weights.
        image_dims: The height and width to which images are resized before cropping; by default those of the input.
        mean: The mean to subtract; see ``io.Transformer.set_mean``. None subtracts nothing.
        input_scale: The factor after subtracting the mean; see ``io.Transformer.set_input_scale``.
        raw_scale: The factor before subtracting the mean; see ``io.Transformer.set_raw_scale``.
        channel_swap: The order of the channels; see ``io.Transformer.set_channel_swap``.

    Source: BVLC/caffe@9b89154 python/caffe/classifier.py L11-L98.
    """

    def __init__(
        self,
        model_file: StrPath,
        pretrained_file: StrPath,
        image_dims: Sequence[int] | None = None,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ):
        settings = {"mean": mean, "input_scale": input_scale, "raw_scale": raw_scale, "channel_swap": channel_swap}
        super().__init__(model_file, pretrained_file, **settings)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = np.array(self.crop_dims if image_dims is None else image_dims)

    def predict(self, inputs: Sequence[Array], oversample: bool = True) -> Array:
        """Classify images.

        Args:
            inputs: N images (H, W, K).
            oversample: Whether to average the scores of ten crops (centre, corners and their mirror images); False
                uses the centre crop only.

        Returns:
            The first output for each image; for a classification net, probabilities (N, C).
        """
        images = [io.resize_image(image, self.image_dims) for image in inputs]
        if oversample:
            scores = self.predict_images(list(io.oversample(images, self.crop_dims)))
            means: Array = scores.reshape(len(images), 10, -1).mean(axis=1)
            return means
        top, left = (self.image_dims / 2 - self.crop_dims / 2).astype(int)
        height, width = self.crop_dims
        return self.predict_images([image[top : top + height, left : left + width] for image in images])
