"""What Caffe's layers do with memory that others have written: the facts by which ``overwriting`` finds its errors."""

from __future__ import annotations

from enum import Flag, auto


class Rereads(Flag):
    """Which values Caffe's backward code of a layer reads again; copies that the layer has made do not count.

    Attributes:
        SIGN: where the bottom is above 0.
        BOTTOM: the first bottom.
        TOP: the first top.
        TO_LEARN: the first bottom, for the gradients of the parameters alone.
    """

    NOTHING = 0
    SIGN = auto()
    BOTTOM = auto()
    TOP = auto()
    TO_LEARN = auto()


class Keeps(Flag):
    """What a layer in place leaves of the values that it overwrites.

    Attributes:
        SIGN: which values are above 0, at least where a gradient passes.
        POSITIVE: the values that are not below 0.
        VALUES: all values.
    """

    NOTHING = 0
    SIGN = auto()
    POSITIVE = auto()
    VALUES = auto()
