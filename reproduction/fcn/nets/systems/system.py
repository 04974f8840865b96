"""The record of a system: a net that follows another text than the paper's repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reproduction.caffe.net.netspec import NetSpec
from reproduction.fcn.datasets.spec import NetRecord

_FEWEST = 4  # channels of a layer that was thinned

#: The solver of the paper's nets of Table 1: 20 images in a batch, momentum 0.9 (CVPR 2015, section 4.3).
MINIBATCH_SOLVER: dict[str, Any] = {"momentum": 0.9, "iter_size": 20}


@dataclass(frozen=True, kw_only=True)
class System(NetRecord):
    """The record of a net that follows another text than the paper's repository; see ``NetRecord``.

    No weights of these nets were published: ``caffemodel`` is None unless a copy for a drawn data set has some.

    Attributes:
        add_layers: Adds its layers to a specification that has the data layer's tops, from the image to the losses.
        new_layers: Names of the layers that its parents lack, and which keep their fillers' values: its score layers.
        divisor: By how much each layer has fewer channels than in the text, but for the scores; see ``thin``.
        widths: The number of channels of a layer by that in the text, for those that are not divided.
        follows: The text that the net follows, as a phrase for pages: ``"Long et al., CVPR 2015, Table 1"``.
    """

    add_layers: Callable[[NetSpec, System], None]
    new_layers: tuple[str, ...]
    divisor: int = 1
    widths: Mapping[int, int] = field(default_factory=dict)
    caffemodel: str | None = None
    follows: str = ""

    def thin(self, channels: int) -> int:
        """Return the number of channels of a layer that has ``channels`` in the text; see ``thin``."""
        return self.widths.get(channels) or thin(channels, self.divisor)


def thin(channels: int, divisor: int) -> int:
    """Return the number of channels of a layer that has ``channels`` in the text: at least 4 if it is thinned."""
    return channels if divisor == 1 else max(_FEWEST, channels // divisor)
