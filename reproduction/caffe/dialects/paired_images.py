"""Reading of images that have label maps, for the data layers of several forks."""

from __future__ import annotations

import numpy as np

from reproduction.caffe.errors import DataError
from reproduction.caffe.layers.data import read_file_list
from reproduction.caffe.typing import UInt8


def read_pairs(source: str) -> list[tuple[str, str]]:
    """Load a list of images and label maps, and return the two names of each pair.

    Args:
        source: The text file. Names are separated by spaces or ends of lines, as C++ reads them.

    Raises:
        DataError: If the list cannot be read or is empty, or the last name has no partner.
    """
    names = read_file_list(source).split()
    if not names:
        raise DataError("the list names no images", path=source)
    if len(names) % 2:
        raise DataError("the last image has no label map", path=source, got=repr(names[-1][:80]))
    return list(zip(names[::2], names[1::2], strict=True))


def resize_nearest(labels: UInt8, height: int, width: int) -> UInt8:
    """Return a label map of the given size, resized as OpenCV's ``resize`` does with ``INTER_NEAREST``.

    Args:
        labels: The labels, (H, W, C).
        height: The new height.
        width: The new width.
    """
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)
        for old, new in zip(labels.shape, (height, width), strict=False)
    )
    resized: UInt8 = labels[rows[:, None], columns]
    return resized


def check_same_size(image: UInt8, labels: UInt8, path: str) -> None:
    """Check that an image and its label map have the same size.

    Args:
        image: The pixels, (H, W, C).
        labels: The labels, (H, W, 1).
        path: The file of the label map, for error messages.

    Raises:
        DataError: If they differ in size.
    """
    if image.shape[:2] != labels.shape[:2]:
        raise DataError(
            "the label map does not have the size of the image", path=path, got=labels.shape[:2], want=image.shape[:2]
        )
