"""The frame around an image and its labels, for nets whose scores cover less or more than the image.

The convolutions of U-Net do not pad, so that its scores are smaller than the image by 92 pixels at each border; its
paper continues the image there by mirroring it. The upsampling of Keras' FCN-32 is not cropped, so that its scores are
larger than the image by 16 pixels at each border. With a frame, each pixel of the image has its scores, and each
label is compared with the scores of its pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from reproduction.caffe.formats.json_file import between
from reproduction.caffe.typing import Array, Int64

if TYPE_CHECKING:
    from torch import Tensor

#: The widest frame, in pixels.
WIDEST = 1024

_Pixels = Annotated[int, between(0, WIDEST)]


@dataclass(frozen=True)
class Framing:
    """The frame that a net needs around an image and its labels; by default none.

    Attributes:
        mirror: Pixels by which the image is continued at each border, by mirroring it without repeating the border.
            In training, the labels are continued as far by void.
        margin: Pixels of the scores before the image's first row, and before its first column. In training, the labels
            are continued by void as far at each border.
        multiple: In training, the height and width of the labels without their frame are rounded up to a multiple of
            this number, as those of the scores are.
    """

    mirror: _Pixels = 0
    margin: _Pixels = 0
    multiple: Annotated[int, between(1, WIDEST)] = 1

    def __bool__(self) -> bool:
        """Return True if there is a frame, so that scores are cropped to the image."""
        return self != NO_FRAME

    @property
    def params(self) -> dict[str, int]:
        """The values that are not the default, by name, as the ``param_str`` of a data layer states them."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Framing, name)}

    def frame_image(self, image: Array) -> Array:
        """Return an image (..., H, W) continued at each border by mirroring it, (..., H + 2 mirror, W + 2 mirror)."""
        if not self.mirror:
            return image
        rows, columns = (mirrored_indices(size, self.mirror) for size in image.shape[-2:])
        return np.ascontiguousarray(image[..., rows[:, None], columns])

    def frame_tensor(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) continued at each border by mirroring them; see ``frame_image``."""
        if not self.mirror:
            return images
        import torch  # imported here, as the data sets do not need it

        for axis in (-2, -1):
            size = images.shape[axis]
            period = torch.sym_max(2 * (size - 1), 1)  # type: ignore[no-untyped-call]
            steps = torch.arange(-self.mirror, size + self.mirror, device=images.device) % period
            images = images.index_select(axis, torch.minimum(steps, period - steps))
        return images

    def frame_labels(self, labels: Array, void: int) -> Array:
        """Return labels (..., H, W) continued by void to the size that the net's loss compares them in."""
        width = self.mirror + self.margin
        ends = [(width, width - size % -self.multiple) for size in labels.shape[-2:]]
        return np.pad(labels, [(0, 0)] * (labels.ndim - 2) + ends, constant_values=void) if self else labels

    def crop_scores(self, scores: Any, size: Sequence[int]) -> Any:
        """Return the part of scores (..., H, W), a tensor or an array, that covers an image.

        Args:
            scores: What the net computes from the framed image.
            size: Height and width of the image.
        """
        if not self:
            return scores
        rows, columns = (slice(self.margin, self.margin + length) for length in size)
        return scores[..., rows, columns]


NO_FRAME = Framing()


def mirrored_indices(size: int, mirror: int) -> Int64:
    """Return the row (or column) of an image that each row of the mirrored image shows.

    Args:
        size: The number of rows.
        mirror: Rows to add at each border; the image is mirrored repeatedly if it has fewer.
    """
    period = max(2 * (size - 1), 1)
    steps = np.arange(-mirror, size + mirror) % period
    return np.minimum(steps, period - steps).astype(np.int64)
