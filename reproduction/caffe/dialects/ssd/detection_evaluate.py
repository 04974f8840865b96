"""The layer DetectionEvaluate, which finds out which detections are right."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.ssd import SSD, boxes
from reproduction.caffe.dialects.ssd.messages import ResizeMode, ResizeParameter, list_foreground
from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.data import read_file_list
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, nested, single, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Bool, Float32


class DetectionEvaluateParameter(Message):
    """The fields of DetectionEvaluate layers: the classes, the overlap of a right detection, and the images' sizes."""

    num_classes = uint32(1)
    background_label_id = uint32(2)
    overlap_threshold = single(3, 0.5)
    evaluate_difficult_gt = boolean(4, True)
    name_size_file = string(5)
    resize_param = nested(6, ResizeParameter)


DETECTION_EVALUATE = LayerParameter.add_field("detection_evaluate_param", nested(205, DetectionEvaluateParameter), SSD)

Groups = dict[tuple[int, int], list[Float32]]  # rows by image and label


@register
class DetectionEvaluate(Layer):
    """Compare detections with the true boxes: which are right (true positives), and which wrong (false positives).

    A detection is compared with the true box of its image and class that it overlaps most. It is right if the overlap
    is at least ``overlap_threshold`` and no detection of a higher score has found the same box. Without
    ``evaluate_difficult_gt``, difficult boxes do not count, and a detection of one is neither right nor wrong. There is
    no gradient.

    Shapes:
        bottom 0  (1, 1, D, 7)   detections, as the top of DetectionOutput; rows with label -1 are ignored
        bottom 1  (1, 1, M, 8)   true boxes: image, label, instance, xmin, ymin, xmax, ymax, difficult. They end at the
                  first row with image -1
        top       (1, 1, K, 5)   for each class but the background -1, the label, the number of true boxes, -1, -1; then
                  for each detection image, label, score, 1 if it is right, 1 if it is wrong. Images and labels ascend;
                  scores descend if the image has a true box of the class. ``shapes`` counts all rows of bottom 0.

    Raises:
        NetError: If ``num_classes`` is missing, ``overlap_threshold`` is not positive, a label is the background's, or
            ``resize_param`` is not WARP.
        DataError: If ``name_size_file`` cannot be read. It has the name, height and width of each test image in a line;
            overlaps are then those of boxes in pixels.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/detection_evaluate_layer.cpp L12-L245.
    """

    dialect = SSD
    reads = frozenset(f"detection_evaluate_param.{name}" for name in DetectionEvaluateParameter.fields)
    bottoms = (2, 2)
    differentiable = ()
    sizes_vary = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings and read the sizes of the images, if there is a file of them."""
        param = DETECTION_EVALUATE.get(self.layer_param)
        if not param.has("num_classes"):
            raise NetError("num_classes is missing")
        if param.overlap_threshold <= 0:
            raise NetError("overlap_threshold must be positive", got=param.overlap_threshold)
        if param.resize_param.resize_mode is not ResizeMode.WARP:
            got = param.resize_param.resize_mode.name
            raise NetError("boxes of padded or cut images are not supported", got=f"resize_mode {got}", want="WARP")
        self._sizes = read_image_sizes(param.name_size_file) if param.name_size_file else []
        self._image = 0  # how many images have been compared since the first line of the file

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top if all detections have a label."""
        for bottom, width in zip(bottoms, (7, 8), strict=True):
            num, channels, _, columns = legacy_shape(bottom)
            if (num, channels, columns) != (1, 1, width):
                raise NetError("a bottom must be a list of boxes", got=bottom, want=f"(1, 1, N, {width})")
        count = len(list_foreground(DETECTION_EVALUATE.get(self.layer_param)))
        return [(1, 1, count + legacy_shape(bottoms[0])[2], 5)]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compare the detections with the true boxes."""
        param = DETECTION_EVALUATE.get(self.layer_param)
        found, true = (bottom.detach().cpu().float().numpy().reshape(-1, bottom.shape[3]) for bottom in bottoms)
        ends = np.flatnonzero(true[:, 0] == -1)
        true = true[: ends[0]] if len(ends) else true
        labelled = int((found[:, 1] != -1).sum())
        detections, truth = self._group(found[found[:, 0] != -1]), self._group(true)
        rows = []
        labels = list_foreground(param)
        for label in labels:
            counted = (row for (_, other), group in truth.items() if other == label for row in group)
            rows.append([-1, label, sum(param.evaluate_difficult_gt or not row[7] for row in counted), -1, -1])
        for image in sorted({image for image, _ in detections}):
            for label in sorted(label for other, label in detections if other == image and label != -1):
                rows += self._compare(np.array(detections[image, label]), truth.get((image, label)))
            self._image = (self._image + 1) % max(len(self._sizes), 1)
        # The fork leaves rows of zeros for detections with a label but without an image.
        rows += [[0] * 5] * (len(labels) + labelled - len(rows))
        return (torch.tensor(rows, dtype=bottoms[0].dtype, device=bottoms[0].device).reshape(1, 1, -1, 5),)

    def _group(self, rows: Float32) -> Groups:
        """Return rows by image and label.

        Raises:
            NetError: If a label is that of the background.
        """
        groups: Groups = defaultdict(list)
        background = DETECTION_EVALUATE.get(self.layer_param).background_label_id
        for row in rows:
            if int(row[1]) == background:
                raise NetError("a box has the label of the background", got=background)
            groups[int(row[0]), int(row[1])].append(row)
        return groups

    def _compare(self, found: Float32, true: list[Float32] | None) -> list[list[Any]]:
        """Return the rows of the top for the detections of one image and class.

        Args:
            found: The detections, (D, 7).
            true: The true boxes, each (8,); None if there are none.
        """
        if true is None:
            return [[*row[:3], 0, 1] for row in found]
        param = DETECTION_EVALUATE.get(self.layer_param)
        found = found[np.argsort(-found[:, 2], kind="stable")]
        truth = np.array(true)
        overlaps = boxes.compute_overlaps(
            self._in_pixels(found[:, 3:7]), self._in_pixels(truth[:, 3:7]), pixel=bool(self._sizes)
        )
        visited: Bool = np.zeros(len(truth), bool)
        rows = []
        for row, overlap in zip(found, overlaps, strict=True):
            best = int(overlap.argmax())
            if overlap[best] < np.float32(param.overlap_threshold):
                right, wrong = 0, 1
            elif truth[best, 7] and not param.evaluate_difficult_gt:
                right, wrong = 0, 0
            else:
                right, wrong = int(not visited[best]), int(visited[best])
                visited[best] = True
            rows.append([*row[:3], right, wrong])
        return rows

    def _in_pixels(self, fractions: Float32) -> Float32:
        """Return boxes (N, 4) cut to the image and in pixels, if the sizes of images are known."""
        if not self._sizes:
            return fractions
        height, width = self._sizes[self._image]
        return fractions.clip(0, 1) * np.array([width, height, width, height], np.float32)


def read_image_sizes(path: str) -> list[tuple[int, int]]:
    """Read the sizes of images from a text file with a name, a height and a width in each line.

    Raises:
        DataError: If the file cannot be read or a line has another form.
    """
    sizes = []
    for number, line in enumerate(read_file_list(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not all(word.isdecimal() for word in words[1:]):
            raise DataError(f"line {number} has no size of an image", path=path, got=repr(line[:80]), want="NAME H W")
        sizes.append((int(words[1]), int(words[2])))
    return sizes
