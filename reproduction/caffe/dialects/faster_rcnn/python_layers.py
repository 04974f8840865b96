"""The Python layer of py-faster-rcnn that proposes regions, which the deploy nets of several programs name.

Without it, a deploy net would need the modules of these programs. If a program passes or has the module itself, its own
class is used. The Python layers of training, such as ``rpn.anchor_target_layer``, depend on the program's data and
remain its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from reproduction.caffe.dialects.faster_rcnn.boxes import (
    decode_boxes,
    is_large,
    make_anchors,
    place_anchors,
    suppress_overlaps,
)
from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.blob import Blob
from reproduction.caffe.layers.python import UserLayer, publish
from reproduction.caffe.typing import Float32


def parse_settings(text: str) -> dict[str, Any]:
    """Return the settings in a ``param_str``: a dict of Python, or lines such as ``'feat_stride': 16``.

    Raises:
        NetError: If it is neither, or has no ``feat_stride``.
    """
    plain = re.sub(r"!!python/tuple\s*", "", text).strip()
    if not plain.startswith("{"):
        lines = (re.sub(r"^(\w+)\s*:", r"'\1':", line.strip()) for line in plain.splitlines() if line.strip())
        plain = "{" + ", ".join(lines) + "}"
    try:
        settings = ast.literal_eval(plain)
    except (ValueError, SyntaxError, TypeError):
        settings = None
    if not isinstance(settings, dict):
        raise NetError("param_str cannot be read", got=repr(text), want="lines such as 'feat_stride': 16")
    if "feat_stride" not in settings:
        raise NetError("param_str has no feat_stride", got=repr(text))
    return settings


@publish("rpn.proposal_layer")
class ProposalLayer(UserLayer):
    """py-faster-rcnn's layer of region proposals, ``rpn.proposal_layer``.

    ``param_str`` has ``feat_stride`` and optionally ``scales`` (8, 16 and 32) and ``ratios`` (0.5, 1 and 2). In testing
    it keeps up to 300 of the best 6000 boxes, in training 2000 of 12000, none of which overlaps a better one by more
    than 0.7 (intersection over union), and which were at least 16 pixels wide and high before the image was enlarged.
    These are the program's defaults; if it sets others, it has to pass its own class.

    Shapes:
        scores   (1, 2 A, H, W)   A anchors for each cell: scores of the background, then of the foreground
        deltas   (1, 4 A, H, W)
        im_info  (1, 3)           height and width in pixels, and the factor by which the image was enlarged
        top 0    (R, 5)           0, x1, y1, x2, y2 in pixels of the image
        top 1    (R, 1)           optional: the scores

    Source: rbgirshick/py-faster-rcnn@781a917 lib/rpn/proposal_layer.py L18-L174, lib/rpn/generate_anchors.py L37-L97,
    lib/fast_rcnn/config.py L125-L136, L168-L175; the ratios: sanghoon/pva-faster-rcnn@b0dc7d2
    lib/rpn/proposal_layer.py L30.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the settings and compute the anchors."""
        settings = parse_settings(self.param_str)
        self._stride = int(settings["feat_stride"])
        ratios, scales = settings.get("ratios", (0.5, 1, 2)), settings.get("scales", (8, 16, 32))
        self._anchors = make_anchors(16, ratios, scales, np.rint, np.float64)
        self._candidates, self._most = (6000, 300) if int(self.phase) == 1 else (12000, 2000)
        top[0].reshape(1, 5)
        if len(top) > 1:
            top[1].reshape(1, 1, 1, 1)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing, as the image decides how many proposals there are."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the proposals."""
        scores, deltas, info = (np.asarray(blob.data, np.float32) for blob in bottom)
        count, (height, width) = len(self._anchors), scores.shape[2:]
        if len(scores) != 1 or scores.shape[1] != 2 * count or deltas.shape != (1, 4 * count, height, width):
            want = f"(1, {2 * count}, H, W) and (1, {4 * count}, H, W)"
            raise NetError(
                "scores and deltas must be those of one image", got=f"{scores.shape}, {deltas.shape}", want=want
            )
        height_px, width_px, enlarged = info.ravel()[:3]
        anchors = place_anchors(self._anchors, height, width, self._stride).reshape(-1, 4)
        boxes = decode_boxes(anchors, deltas[0].transpose(1, 2, 0).reshape(-1, 4), height_px, width_px)
        least = np.float32(16) * enlarged
        large = is_large(boxes, least, least)
        boxes, each = boxes[large], scores[0, count:].transpose(1, 2, 0).ravel()[large]
        order = each.argsort()[::-1][: self._candidates]
        kept = order[suppress_overlaps(boxes[order], 0.7, self._most)]
        store_tops(top, np.concatenate([np.zeros((len(kept), 1), np.float32), boxes[kept]], 1), each[kept])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no gradient."""


def store_tops(top: Sequence[Blob], boxes: Float32, scores: Float32) -> None:
    """Store boxes and, if there is a second top, their scores (R,), as (R, 1)."""
    top[0].reshape(*boxes.shape)
    top[0].data[...] = boxes
    if len(top) > 1:
        top[1].reshape(len(scores), 1)
        top[1].data[...] = scores[:, None]
