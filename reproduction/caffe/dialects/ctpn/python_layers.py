"""The Python layer of CTPN that proposes lines of text, which its deploy net names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reproduction.caffe.dialects.faster_rcnn.boxes import place_anchors
from reproduction.caffe.dialects.faster_rcnn.python_layers import parse_settings, store_tops
from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.blob import Blob
from reproduction.caffe.layers.python import UserLayer, publish
from reproduction.caffe.typing import Float32

_HEIGHTS = (11, 16, 23, 33, 48, 68, 97, 139, 198, 283)  # of the anchors, in pixels; all are 16 pixels wide


@publish("layers.text_proposal_layer", "ProposalLayer")
class TextProposalLayer(UserLayer):
    """CTPN's layer of text proposals, ``layers.text_proposal_layer``: the boxes and scores of all ten anchors.

    Shapes:
        scores   (1, 20, H, W)      scores of the background, then of text
        deltas   (1, 20, H, W)      for each anchor the shift of its center along y, relative to its height, and the
            logarithm of the factor of its height
        im_info  (1, 2)             height and width in pixels
        top 0    (10 H W, 4)        x1, y1, x2, y2 in pixels of the image
        top 1    (10 H W, 1)        the scores

    Source: tianzhi0549/CTPN@f77ec9e src/layers/text_proposal_layer.py L7-L48, src/anchor.py L4-L77,
    src/other.py L31-L41.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the settings and compute the anchors."""
        settings = parse_settings(self.param_str)
        self._stride = int(settings["feat_stride"])
        corners = [(7.5 - 8, 7.5 - height // 2, 7.5 + 8, 7.5 + height // 2) for height in _HEIGHTS]
        self._anchors = np.trunc(corners)
        top[0].reshape(1, 4)
        top[1].reshape(1, 1, 1, 1)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing, as ``forward`` sets the shapes of the tops."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the boxes."""
        scores, deltas, info = (np.asarray(blob.data, np.float32) for blob in bottom)
        count, (height, width) = len(self._anchors), scores.shape[2:]
        if scores.shape[:2] != (1, 2 * count) or deltas.shape != scores.shape:
            raise NetError("scores and deltas must be those of one image", got=f"{scores.shape}, {deltas.shape}")
        anchors = place_anchors(self._anchors, height, width, self._stride).reshape(-1, 4)
        moves = deltas[0].transpose(1, 2, 0).reshape(-1, 2)
        tall = anchors[:, 3] - anchors[:, 1] + 1
        high = np.float32(np.exp(moves[:, 1]) * tall)
        above = np.float32(moves[:, 0] * tall + (anchors[:, 1] + anchors[:, 3]) / 2 - high / 2)
        boxes: Float32 = np.stack([anchors[:, 0], above, anchors[:, 2], above + high], 1).astype(np.float32)
        limits = np.tile(info.ravel()[1::-1] - 1, 2)
        store_tops(top, np.maximum(np.minimum(boxes, limits), 0), scores[0, count:].transpose(1, 2, 0).ravel())

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no gradient."""
