"""Flags for the memory that Caffe's layers read and overwrite; ``net.overwriting`` finds wrong gradients by them."""

from __future__ import annotations

from enum import Flag, auto


class Rereads(Flag):
    """The values that the backward pass of a layer reads in Caffe, except from copies that the layer has made.

    Attributes:
        SIGN: Which values of the first bottom are above 0.
        BOTTOM: The values of the first bottom.
        TOP: The values of the first top.
        TO_LEARN: The values of the first bottom, but only for the gradients of the parameters.
    """

    NOTHING = 0
    SIGN = auto()
    BOTTOM = auto()
    TOP = auto()
    TO_LEARN = auto()


class Keeps(Flag):
    """The properties of the bottom that can still be read from the top of a layer that works in place.

    Attributes:
        SIGN: Which values are above 0, at least where the layer passes a gradient.
        POSITIVE: The values that are at least 0.
        VALUES: All values.
    """

    NOTHING = 0
    SIGN = auto()
    POSITIVE = auto()
    VALUES = auto()
