"""Classification of windows of images with a net, as in R-CNN: pycaffe's ``caffe.Detector``.

Source: BVLC/caffe@9b89154 python/caffe/detector.py.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError, ReproductionError, StrPath
from reproduction.caffe.typing import Array
from reproduction.pycaffe.extras import io
from reproduction.pycaffe.extras.classifier import PreprocessingNet

Window = Sequence[float]


class Detector(PreprocessingNet):
    """A net that classifies windows of images, which are rectangles that may contain an object.

    Args:
        model_file: The prototxt.
        pretrained_file: The weights.
        mean: The mean to subtract; see ``io.Transformer.set_mean``. None subtracts nothing.
        input_scale: The factor after subtracting the mean; see ``io.Transformer.set_input_scale``.
        raw_scale: The factor before subtracting the mean; see ``io.Transformer.set_raw_scale``.
        channel_swap: The order of the channels; see ``io.Transformer.set_channel_swap``.
        context_pad: How many pixels around the window each crop includes on every side, counted after the crop is
            resized to the net's input. None or 0 for none.

    Source: BVLC/caffe@9b89154 python/caffe/detector.py L22-L216.
    """

    def __init__(
        self,
        model_file: StrPath,
        pretrained_file: StrPath,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ):
        settings = {"mean": mean, "input_scale": input_scale, "raw_scale": raw_scale, "channel_swap": channel_swap}
        super().__init__(model_file, pretrained_file, **settings)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set how much of the image around a window its crop includes.

        Crops are filled with the mean image where they extend beyond the image.

        Args:
            context_pad: How many pixels around the window a crop includes on every side, counted after the crop is
                resized to the net's input. None or 0 for none.

        Raises:
            NetError: If context is requested and the net's input is not square.
        """
        name = self.inputs[0]
        channels, height, width = self.blobs[name].data.shape[1:]
        if context_pad and height != width:
            raise NetError("context_pad needs a square input", got=f"{height} x {width}")
        self.crop_dims = np.array([height, width, channels])
        self.context_pad = context_pad
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if name in self.transformer.mean:
            mean = self.transformer.mean[name].transpose(1, 2, 0)
            if name in self.transformer.channel_swap:
                mean = mean[..., np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean[...] = mean / self.transformer.raw_scale.get(name, 1)

    def detect_windows(self, images_windows: Iterable[tuple[StrPath, Iterable[Window]]]) -> list[dict[str, Any]]:
        """Classify windows of images, each resized to the net's input.

        Args:
            images_windows: Pairs of an image file and its windows ``(ymin, xmin, ymax, xmax)``.

        Returns:
            For each window, a dict with the keys ``window``, ``prediction`` (the net's first output for it) and
            ``filename``.
        """
        found = []
        crops = []
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                crops.append(self.crop(image, window))
                found.append({"window": window, "prediction": None, "filename": filename})
        for each, prediction in zip(found, self.predict_images(crops) if crops else [], strict=True):
            each["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Iterable[StrPath]) -> list[dict[str, Any]]:
        """Classify the windows that Selective Search proposes for image files.

        Args:
            image_fnames: The image files.

        Returns:
            The predictions, as ``detect_windows`` returns them.

        Raises:
            ReproductionError: If the package ``selective_search_ijcv_with_python`` is not installed.
        """
        name = "selective_search_ijcv_with_python"
        try:
            search = importlib.import_module(name)
        except ImportError:
            raise ReproductionError(
                f"the package {name} is not installed", remedy="Install it from github.com/sergeyk; it needs MATLAB."
            ) from None
        paths = [os.path.abspath(path) for path in image_fnames]  # noqa: PTH100 - MATLAB's, as they are
        windows = search.get_windows(paths, cmd="selective_search_rcnn")
        return self.detect_windows(zip(paths, windows, strict=True))

    def crop(self, im: Array, window: Window) -> Array:
        """Crop a window from an image, with the context around it that ``configure_crop`` has set.

        Args:
            im: The image (H, W, K).
            window: ``(ymin, xmin, ymax, xmax)``.

        Returns:
            Without context, the pixels of the window; with context, a crop of the size of the net's input.

        Raises:
            ReproductionError: If the window with its context is outside the image.
        """
        top, left, bottom, right = (int(edge) for edge in window)
        if not self.context_pad:
            return im[top:bottom, left:right]
        size = int(self.crop_dims[0])
        scale = size / (size - 2 * self.context_pad)
        half = np.array([bottom - top + 1, right - left + 1]) / 2
        centre = np.array([top, left]) + half
        low, high = np.round(centre - scale * half), np.round(centre + scale * half)
        factor = size / (high - low + 1)
        pad = np.round(np.maximum(0, -low) * factor).astype(int)
        edge = np.array(im.shape[:2])
        low, high = (np.clip(corner, 0, edge).astype(int) for corner in (low, high))
        room = np.minimum(np.round((high - low + 1) * factor).astype(int), size - pad)
        part = im[low[0] : high[0], low[1] : high[1]]
        if not part.size or min(room) < 1:
            raise ReproductionError("the window is outside the image", got=tuple(window), want=f"within {edge}")
        crop = self.crop_mean.copy()
        crop[pad[0] : pad[0] + room[0], pad[1] : pad[1] + room[1]] = io.resize_image(part, room)
        return crop
