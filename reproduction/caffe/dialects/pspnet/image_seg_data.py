"""The data layer ImageSegData of DeepLab and PSPNet: images and label maps from a list of files, padded to a crop."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from reproduction.caffe.dialects.paired_images import check_same_size, resize_nearest
from reproduction.caffe.dialects.pspnet import PSPNET
from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.data import read_file_list
from reproduction.caffe.layers.image_data import ImageData, ListedFilesLayer, Transform, draw, read_image, resize
from reproduction.caffe.schema import ImageDataParameter, TransformationParameter
from reproduction.caffe.schema.field import choice, int32, singles, uint32
from reproduction.caffe.typing import Float32, UInt8


class LabelType(enum.IntEnum):
    """What labels an image: nothing, one number, or a label map."""

    NONE = 0
    IMAGE = 1
    PIXEL = 2


IGNORED = ImageDataParameter.add_field("ignore_label", int32(15, 255), PSPNET)
LABEL_TYPE = ImageDataParameter.add_field("label_type", choice(16, LabelType, LabelType.IMAGE), PSPNET)
FACTORS = TransformationParameter.add_field("scale_factors", singles(8), PSPNET)
CROP_WIDTH = TransformationParameter.add_field("crop_width", uint32(9, 0), PSPNET)
CROP_HEIGHT = TransformationParameter.add_field("crop_height", uint32(10, 0), PSPNET)


@register
class ImageSegData(ListedFilesLayer):
    """Batches of images, labels and sizes from a list of files; the last line is followed by the first.

    ``source`` is a text file with a line for each image: its name and, for ``label_type: PIXEL``, that of its label
    map, or, for IMAGE, the default, a number that labels all pixels. With NONE, all pixels get ``ignore_label``. Names
    have no spaces; ``root_folder`` is prepended to them without a separator.

    Images and label maps are resized to ``new_height`` x ``new_width`` if these are set, both by bilinear
    interpolation. Then they are resized by one of ``scale_factors``, images by bilinear interpolation and label maps
    to the nearest pixel, and padded at the bottom and on the right to the size of the crop, images with the mean and
    label maps with ``ignore_label``. They are cropped, at a random place in phase TRAIN and at the center in TEST, and
    half of them are mirrored with ``mirror``. Mean and scale are those of ``transform_param``; the size of the crop is
    ``crop_size``, or ``crop_height`` and ``crop_width``. Random numbers are others than in the fork.

    Shapes:
        data   (batch_size, 3, H, W) in the order BGR, or (batch_size, 1, H, W) with ``is_color: false``
        label  (batch_size, 1, H, W)
        size   (batch_size, 1, 1, 2)  optional: height and width of the image without padding, at most H and W

    Raises:
        DataError: If the list, an image or a label map cannot be read, or the images of a batch differ in size.
        NetError: If there is a mean file, or the size of the crop is given twice or for one axis.

    Source: hszhao/PSPNet@798bdc9 src/caffe/layers/image_seg_data_layer.cpp L29-L267, src/caffe/data_transformer.cpp
    L449-L661.
    """

    dialect = PSPNET
    refuses = frozenset({"transform_param.mean_file"})
    reads = (ImageData.reads - refuses) | {
        *(f"transform_param.{name}" for name in ("scale_factors", "crop_width", "crop_height")),
        *("image_data_param.ignore_label", "image_data_param.label_type"),
    }
    tops = (1, 3)

    def settings(self) -> ImageDataParameter:
        """Return the layer's message."""
        return self.layer_param.image_data_param

    def read_list(self, source: str) -> list[Any]:
        """Load the list, and return the name of each image, and that of its label map or its label."""
        kind = LABEL_TYPE.get(self.settings())
        found = []
        for number, line in enumerate(read_file_list(source).splitlines(), 1):
            words = line.split()[: 1 if kind is LabelType.NONE else 2]
            if len(words) < (1 if kind is LabelType.NONE else 2):
                want = "'image'" if kind is LabelType.NONE else "'image label'"
                raise DataError("this line is not valid", path=f"{source}:{number}", got=repr(line[:80]), want=want)
            found.append((words[0], words[-1]))
        if not found:
            raise DataError("the list names no images", path=source)
        return found

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the size of the crop, and load the list."""
        param = self.layer_param.transform_param
        sides = param.has("crop_height"), param.has("crop_width")
        if any(sides) and (param.has("crop_size") or not all(sides)):
            raise NetError(
                "the size of the crop is given twice, or for one axis", want="crop_size, or crop_height and crop_width"
            )
        given = (CROP_HEIGHT.get(param), CROP_WIDTH.get(param))
        self._crop = given if all(sides) else (param.crop_size, param.crop_size)
        super().setup(bottoms)
        mean_and_scale = param.copy()
        for name in ("mirror", "crop_size"):
            mean_and_scale.clear(name)
        self._transform = Transform(mean_and_scale, self.generator)

    def load_item(self, name: str, label: str) -> tuple[Float32, ...]:
        """Load an image and its labels, and return them with the size of the image."""
        param = self.settings()
        path = param.root_folder + name
        image = read_image(path, color=param.is_color)
        if param.new_height:
            image = resize(image, param.new_height, param.new_width)
        labels = self._load_labels(label, image)
        size = image.shape[:2]
        image, labels = self._scale(image, labels)
        # The mean is subtracted first, so that padding with it is padding with 0.
        values = self._transform(image, path, training=self.training)
        values, targets = self._pad_and_crop(values, labels.transpose(2, 0, 1).astype(np.float32))
        if self.layer_param.transform_param.mirror and draw(self.generator, 2):
            values, targets = values[:, :, ::-1], targets[:, :, ::-1]
        limits = [min(pair) for pair in zip(size, values.shape[1:], strict=True)]
        return (values, targets, np.array([[limits]], np.float32))[: len(self.layer_param.top)]

    def _load_labels(self, label: str, image: UInt8) -> UInt8:
        param = self.settings()
        kind = LABEL_TYPE.get(param)
        if kind is LabelType.PIXEL:
            path = param.root_folder + label
            labels = read_image(path, color=False)
            if param.new_height:
                # Upstream bug, kept: label maps are resized by bilinear interpolation to new_height x new_width, which
                # makes labels of classes that are not there (image_seg_data_layer.cpp L211-L212).
                labels = resize(labels, param.new_height, param.new_width)
            check_same_size(image, labels, path)
            return labels
        number = IGNORED.get(param)
        if kind is LabelType.IMAGE:
            try:
                number = int(label)
            except ValueError:
                raise DataError("the label is not an integer", path=param.source, got=repr(label[:80])) from None
        return np.full((*image.shape[:2], 1), min(max(number, 0), 255), np.uint8)

    def _scale(self, image: UInt8, labels: UInt8) -> tuple[UInt8, UInt8]:
        factors = FACTORS.get(self.layer_param.transform_param)
        if not factors:
            return image, labels
        factor = np.float32(factors[draw(self.generator, len(factors))])
        height, width = (int(np.float32(size) * factor) for size in image.shape[:2])
        return resize(image, height, width), resize_nearest(labels, height, width)

    def _pad_and_crop(self, values: Float32, targets: Float32) -> tuple[Float32, Float32]:
        if not all(self._crop):
            return values, targets
        missing = [(0, max(crop - size, 0)) for crop, size in zip(self._crop, values.shape[1:], strict=True)]
        values = np.pad(values, [(0, 0), *missing])
        void = min(max(IGNORED.get(self.settings()), 0), 255)
        targets = np.pad(targets, [(0, 0), *missing], constant_values=void)
        spare = [size - crop for size, crop in zip(values.shape[1:], self._crop, strict=True)]
        top, left = (draw(self.generator, count + 1) if self.training else count // 2 for count in spare)
        area = np.s_[:, top : top + self._crop[0], left : left + self._crop[1]]
        return values[area], targets[area]
