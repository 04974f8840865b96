"""Messages and enums that several layer types of SSD share.

Source: weiliu89/caffe@4817bf8b src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import enum
from typing import Any

from reproduction.caffe.schema.field import choice, choices, int32, single, singles, uint32
from reproduction.caffe.schema.message import Message


class CodeType(enum.IntEnum):
    """How a box is described relative to a prior box; see ``boxes.decode``."""

    CORNER = 1
    CENTER_SIZE = 2
    CORNER_SIZE = 3


class NonMaximumSuppressionParameter(Message):
    """Settings of non-maximum suppression: the greatest overlap, and the number of boxes to begin with.

    The threshold is multiplied by ``eta`` after each box that is kept, while it is above 0.5.
    """

    nms_threshold = single(1, 0.3)
    top_k = int32(2)
    eta = single(3, 1.0)


def list_foreground(param: Any) -> list[int]:
    """Return the labels of the classes but the background, for a message with both fields of them."""
    return [label for label in range(param.num_classes) if label != param.background_label_id]


class ResizeMode(enum.IntEnum):
    """How an image is fitted to a size: stretched, until it covers the size, or until it fits and padded."""

    WARP = 1
    FIT_SMALL_SIZE = 2
    FIT_LARGE_SIZE_AND_PAD = 3


class PadMode(enum.IntEnum):
    """What is drawn around an image that is smaller than the wanted size."""

    CONSTANT = 1
    MIRRORED = 2
    REPEAT_NEAREST = 3


class InterpolationMode(enum.IntEnum):
    """An interpolation of OpenCV."""

    LINEAR = 1
    AREA = 2
    NEAREST = 3
    CUBIC = 4
    LANCZOS4 = 5


class ResizeParameter(Message):
    """How images are resized before the net sees them: with which probability, to which size and in which way.

    ``jitter`` is a field of synopsys' fork.
    """

    prob = single(1, 1.0)
    resize_mode = choice(2, ResizeMode)
    height = uint32(3)
    width = uint32(4)
    pad_mode = choice(5, PadMode)
    pad_value = singles(6)
    interp_mode = choices(7, InterpolationMode)
    height_scale = uint32(8)
    width_scale = uint32(9)
    jitter = single(10, 0.3)
