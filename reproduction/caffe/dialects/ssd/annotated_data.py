"""The layers AnnotatedData and VideoData, whose tops must be fed, and the fields of SSD's data layers.

The fields are declared so that nets for training can be read. SSD samples and distorts images at random in training.

Source: weiliu89/caffe@4817bf8b src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import enum

from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.dialects.ssd.messages import ResizeParameter
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import DataError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.data import BaseDataLayer
from reproduction.caffe.schema import LayerParameter, TransformationParameter
from reproduction.caffe.schema.field import boolean, choice, int32, messages, nested, single, singles, string, uint32
from reproduction.caffe.schema.message import Message


class SaltPepperParameter(Message):
    """Noise of single pixels: the fraction of the pixels, and their values."""

    fraction = single(1)
    value = singles(2)


class NoiseParameter(Message):
    """Changes of images at random: blur, noise, other colors."""

    prob = single(1)
    hist_eq = boolean(2)
    inverse = boolean(3)
    decolorize = boolean(4)
    gauss_blur = boolean(5)
    jpeg = single(6, -1.0)
    posterize = boolean(7)
    erode = boolean(8)
    saltpepper = boolean(9)
    saltpepper_param = nested(10, SaltPepperParameter)
    clahe = boolean(11)
    convert_to_hsv = boolean(12)
    convert_to_lab = boolean(13)


class DistortionParameter(Message):
    """Changes of brightness, contrast, hue and saturation at random; of exposure in Synopsys' fork."""

    brightness_prob = single(1)
    brightness_delta = single(2)
    contrast_prob = single(3)
    contrast_lower = single(4)
    contrast_upper = single(5)
    hue_prob = single(6)
    hue_delta = single(7)
    saturation_prob = single(8)
    saturation_lower = single(9)
    saturation_upper = single(10)
    random_order_prob = single(11)
    exposure_lower = single(12)
    exposure_upper = single(13)


class ExpansionParameter(Message):
    """How often, and up to which factor, an image is placed on a larger one of the mean color."""

    prob = single(1, 1.0)
    max_expand_ratio = single(2, 1.0)


class EmitType(enum.IntEnum):
    """Which boxes remain when an image is cut: those whose center does, or enough of which does."""

    CENTER = 0
    MIN_OVERLAP = 1


class EmitConstraint(Message):
    """Which boxes remain when an image is cut, and for MIN_OVERLAP how much of them must."""

    emit_type = choice(1, EmitType)
    emit_overlap = single(2)


class Sampler(Message):
    """The limits of size and aspect ratio between which a part of an image is drawn."""

    min_scale = single(1, 1.0)
    max_scale = single(2, 1.0)
    min_aspect_ratio = single(3, 1.0)
    max_aspect_ratio = single(4, 1.0)


class SampleConstraint(Message):
    """The overlap that a part of an image must have with the boxes of objects."""

    min_jaccard_overlap = single(1)
    max_jaccard_overlap = single(2)
    min_sample_coverage = single(3)
    max_sample_coverage = single(4)
    min_object_coverage = single(5)
    max_object_coverage = single(6)


class BatchSampler(Message):
    """How parts of an image are drawn: their sizes, their overlap with objects, and the numbers of parts and trials."""

    use_original_image = boolean(1, True)
    sampler = nested(2, Sampler)
    sample_constraint = nested(3, SampleConstraint)
    max_sample = uint32(4)
    max_trials = uint32(5, 100)


class AnnotationType(enum.IntEnum):
    """What images are annotated with: boxes."""

    BBOX = 0


class AnnotatedDataParameter(Message):
    """The fields of AnnotatedData layers: the parts of an image that are drawn, and the names of the classes.

    The fields from ``yolo_data_type`` on are those of YOLO for Caffe.
    """

    batch_sampler = messages(1, BatchSampler)
    label_map_file = string(2)
    anno_type = choice(3, AnnotationType)
    yolo_data_type = int32(4)
    yolo_data_jitter = single(5, 0.3)
    train_diffcult = boolean(6, True)
    single_class = boolean(7, True)
    seg_scales = int32(8, 8)
    seg_resize_width = int32(9)
    seg_resize_height = int32(10)
    difficult_label_warmup = boolean(11)


class VideoType(enum.IntEnum):
    """Where the images come from: a camera or a file."""

    WEBCAM = 0
    VIDEO = 1


class VideoDataParameter(Message):
    """The fields of VideoData layers: the camera or the file."""

    video_type = choice(1, VideoType)
    device_id = int32(2)
    video_file = string(3)
    skip_frames = uint32(4)


VIDEO_DATA = LayerParameter.add_field("video_data_param", nested(207, VideoDataParameter), SSD)
ANNOTATED_DATA = LayerParameter.add_field("annotated_data_param", nested(200, AnnotatedDataParameter), SSD)
RESIZE = TransformationParameter.add_field(
    "resize_param", messages(8, ResizeParameter), SSD
)  # YOLO lists several sizes
TransformationParameter.add_field("noise_param", nested(9, NoiseParameter), SSD)
TransformationParameter.add_field("emit_constraint", nested(10, EmitConstraint), SSD)
TransformationParameter.add_field("crop_h", uint32(11), SSD)
TransformationParameter.add_field("crop_w", uint32(12), SSD)
TransformationParameter.add_field("distort_param", nested(13, DistortionParameter), SSD)
TransformationParameter.add_field("expand_param", nested(14, ExpansionParameter), SSD)
TransformationParameter.add_field("caffe_yolo", boolean(21), SYNOPSYS)


_READS = frozenset(
    {"data_param.source", "data_param.batch_size", "data_param.backend", "data_param.prefetch"}
    | {f"transform_param.{name}" for name in TransformationParameter.fields}
)


@register
class AnnotatedData(BaseDataLayer):
    """Images and the boxes of their objects from a database, which is not read: the caller feeds the tops.

    Shapes:
        data   (N, 3, H, W)
        label  (1, 1, M, 8)   for each of the M boxes of the batch: the index of the image, the label, the index of the
               box among those of the label, xmin, ymin, xmax and ymax as fractions of the image's size, and whether it
               is difficult; a row of -1 if there are none

    Raises:
        DataError: Always, if the layer is not fed; the error names the shapes to feed.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/annotated_data_layer.cpp L35-L120, L262-L330.
    """

    dialect = SSD
    reads = _READS | {f"annotated_data_param.{name}" for name in AnnotatedDataParameter.fields}

    def setup(self, bottoms: list[Shape]) -> None:
        """Raise an error that names the shapes of the tops.

        Raises:
            DataError: Always.
        """
        source = self.layer_param.data_param.source or "the database"
        raise _not_read(self.layer_param, source, "databases of annotated images are not read here")


@register
class VideoData(BaseDataLayer):
    """Images of a camera or a video, which is not read: the caller feeds the tops.

    Shapes:
        data   (N, 3, H, W)
        label  (N,)

    Raises:
        DataError: Always, if the layer is not fed; the error names the shapes to feed.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/video_data_layer.cpp L30-L96.
    """

    dialect = SSD
    reads = _READS | {f"video_data_param.{name}" for name in VideoDataParameter.fields}

    def setup(self, bottoms: list[Shape]) -> None:
        """Raise an error that names the shapes of the tops.

        Raises:
            DataError: Always.
        """
        source = VIDEO_DATA.get(self.layer_param).video_file or "the camera"
        raise _not_read(self.layer_param, source, "videos and cameras are not read here", label="(N,)")


def _not_read(layer_param: LayerParameter, source: str, problem: str, label: str = "(1, 1, M, 8)") -> DataError:
    """Return an error that names the shapes of the tops to feed."""
    sizes = [(resize.height, resize.width) for resize in RESIZE.get(layer_param.transform_param)[:1]]
    height, width = sizes[0] if sizes else ("H", "W")
    shapes = (f"({layer_param.data_param.batch_size or 1}, 3, {height}, {width})", label)
    wanted = ", ".join(f"{top!r}: {shape}" for top, shape in zip(layer_param.top, shapes, strict=False))
    return DataError(f"{problem}, so the tops must be fed", path=source, remedy=f"Pass inputs={{{wanted}}}.")
