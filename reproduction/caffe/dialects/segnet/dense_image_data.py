"""The data layer DenseImageData of SegNet: images, and label maps of the same size, from a list of files."""

from __future__ import annotations

from typing import Any

import numpy as np

from reproduction.caffe.dialects.paired_images import check_same_size, read_pairs, resize_nearest
from reproduction.caffe.dialects.segnet import ENET, SEGNET
from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.image_data import ListedFilesLayer, Transform, draw, read_image, resize
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, nested, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32


class DenseImageDataParameter(Message):
    """Parameters of DenseImageData layers: the list of files, and how images are read, resized and cropped.

    ``label_divide_factor`` is a field of ENet alone.
    """

    source = string(1)
    batch_size = uint32(2)
    rand_skip = uint32(3, 0)
    shuffle = boolean(4, False)
    new_height = uint32(5, 0)
    new_width = uint32(6, 0)
    is_color = boolean(7, True)
    mean_file = string(8)
    root_folder = string(9, "")
    mirror = boolean(10, False)
    crop_width = uint32(11, 0)
    crop_height = uint32(12, 0)
    label_divide_factor = uint32(13, 1)


DENSE = LayerParameter.add_field("dense_image_data_param", nested(138, DenseImageDataParameter), SEGNET)
LayerParameter.add_field("dense_image_data_param", nested(46, DenseImageDataParameter), ENET)


@register
class DenseImageData(ListedFilesLayer):
    """Batches of images and label maps from a list of files; the last line is followed by the first.

    ``source`` is a text file with lines ``image label_map``, names without spaces; ``root_folder`` is prepended to
    both without a separator. Both are resized to ``new_height`` x ``new_width`` if these are set, images by bilinear
    interpolation and label maps to the nearest pixel; ``label_divide_factor`` of ENet makes label maps smaller by this
    factor. With ``mirror``, half of the pairs are mirrored, and with
    ``crop_height`` and ``crop_width`` they are cropped at a random place, in both phases. ``transform_param`` gives
    mean and scale of the images. Labels are the values of the label map read as a gray image. Mirroring, crops and
    shuffling use other random numbers than the fork.

    Shapes:
        data   (batch_size, 3, H, W) in the order BGR, or (batch_size, 1, H, W) with ``is_color: false``
        label  (batch_size, 1, H, W), or H and W divided by ``label_divide_factor`` and rounded down

    Raises:
        DataError: If the list, an image or a label map cannot be read, a pair differs in size, or a batch.
        NetError: If ``transform_param`` crops or mirrors, which would not change the labels as well, or smaller label
            maps are cropped or have no size.

    Source: alexgkendall/caffe-segnet@344c113 src/caffe/layers/dense_image_data_layer.cpp L24-L222;
    TimoSaemann/caffe-enet@22d356c src/caffe/layers/dense_image_data_layer.cpp L39-L177.
    """

    dialect = SEGNET
    reads = frozenset(
        [f"transform_param.{name}" for name in ("scale", "mirror", "crop_size", "mean_file", "mean_value")]
        + [f"dense_image_data_param.{name}" for name in DenseImageDataParameter.fields if name != "mean_file"]
    )
    tops = (2, 2)

    def settings(self) -> DenseImageDataParameter:
        """Return the layer's message."""
        return DENSE.get(self.layer_param)

    def read_list(self, source: str) -> list[Any]:
        """Load the pairs of names."""
        return read_pairs(source)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings, and load the list and the mean."""
        param = self.settings()
        if (param.crop_height == 0) != (param.crop_width == 0):
            raise NetError(
                "crop_height and crop_width must be set together", got=f"{param.crop_height} and {param.crop_width}"
            )
        transform = self.layer_param.transform_param
        if transform.mirror or transform.crop_size:
            raise NetError(
                "mirror and crop_size of transform_param would not change the labels",
                remedy="Use mirror, crop_height and crop_width of dense_image_data_param.",
            )
        if param.label_divide_factor != 1 and (param.crop_height or not param.new_height):
            raise NetError(
                "label_divide_factor needs new_height and new_width, and no crop", got=param.label_divide_factor
            )
        if param.label_divide_factor < 1:
            raise NetError("label_divide_factor must be positive", got=param.label_divide_factor)
        super().setup(bottoms)
        self._transform = Transform(transform, self.generator)

    def load_item(self, image_name: str, label_name: str) -> tuple[Float32, ...]:
        """Load an image and its label map."""
        param = self.settings()
        paths = [param.root_folder + name for name in (image_name, label_name)]
        image, labels = read_image(paths[0], color=param.is_color), read_image(paths[1], color=False)
        if param.new_height:
            factor = param.label_divide_factor
            image = resize(image, param.new_height, param.new_width)
            labels = resize_nearest(labels, param.new_height // factor, param.new_width // factor)
        else:
            check_same_size(image, labels, paths[1])
        if param.mirror and draw(self.generator, 2):
            image, labels = image[:, ::-1], labels[:, ::-1]
        if param.crop_height:
            spare = image.shape[0] - param.crop_height, image.shape[1] - param.crop_width
            if min(spare) < 0:
                want = f"at least {param.crop_height} x {param.crop_width}"
                raise DataError("the image is smaller than the crop", path=paths[0], got=image.shape[:2], want=want)
            top, left = (draw(self.generator, count + 1) for count in spare)
            image, labels = (
                each[top : top + param.crop_height, left : left + param.crop_width] for each in (image, labels)
            )
        values = self._transform(image, paths[0], training=self.training)
        return values, labels.transpose(2, 0, 1).astype(np.float32)
