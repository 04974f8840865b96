"""The frame around an image, and the crop of the scores to the image, as ONNX operators for any size."""

from __future__ import annotations

import numpy as np

from reproduction.caffe.layers.onnx_graph import OnnxGraph
from reproduction.fcn.images.framing import Framing


def add_frame(writer: OnnxGraph, name: str, value: str, framing: Framing) -> str:
    """Add the operators of ``Framing.frame_tensor`` and return the name of the framed blob.

    Args:
        writer: The graph to extend.
        name: Beginning of the names of the operators.
        value: Name of the blob (N, C, H, W).
        framing: The frame.
    """
    if not framing.mirror:
        return value
    one, two, border = (writer.constant(np.int64(each), f"{name}.number") for each in (1, 2, framing.mirror))
    for axis in (2, 3):
        shape = writer.node("Shape", [value], f"{name}.shape")
        size = writer.node("Gather", [shape, writer.constant(np.int64(axis), f"{name}.axis")], f"{name}.size")
        twice = writer.node("Mul", [writer.node("Sub", [size, one], f"{name}.steps"), two], f"{name}.twice")
        period = writer.node("Max", [twice, one], f"{name}.period")
        first, end = writer.node("Neg", [border], f"{name}.first"), writer.node("Add", [size, border], f"{name}.end")
        steps = writer.node("Range", [first, end, one], f"{name}.range")
        steps = writer.node("Mod", [steps, period], f"{name}.phase")
        back = writer.node("Sub", [period, steps], f"{name}.back")
        value = writer.node(
            "Gather", [value, writer.node("Min", [steps, back], f"{name}.index")], f"{name}.framed", axis=axis
        )
    return value


def add_crop(writer: OnnxGraph, name: str, scores: str, image: str, framing: Framing) -> str:
    """Add the operators of ``Framing.crop_scores`` and return the name of the cropped scores.

    Args:
        writer: The graph to extend.
        name: Beginning of the names of the operators.
        scores: Name of the scores of the framed image.
        image: Name of a blob that has the image's height and width.
        framing: The frame.
    """
    if not framing:
        return scores
    sizes = writer.node("Shape", [image], f"{name}.image", start=2, end=4)
    starts = writer.constant(np.array([framing.margin] * 2, np.int64), f"{name}.starts")
    ends = writer.node("Add", [sizes, starts], f"{name}.ends")
    return writer.node(
        "Slice", [scores, starts, ends, writer.constant(np.array([2, 3]), f"{name}.axes")], f"{name}.cropped"
    )
