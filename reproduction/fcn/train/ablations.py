"""Trainings of the paper that it compares its nets with, made from the nets' own."""

from __future__ import annotations

from dataclasses import replace

from reproduction.caffe.schema import ParamSpec
from reproduction.fcn.train.recipes import Stage

SUFFIX = "-fixed"
_CLASSIFIER = "score_fr"


def fixed(stage: Stage) -> Stage:
    """Make the training in which only the last layer learns, and all others keep the classifier's weights.

    Args:
        stage: the training of a net of stride 32; its last layer that learns is ``score_fr``.

    Returns:
        The same training, called ``NET-fixed``, with an ``lr_mult`` of 0 for the other layers.

    Source: Long, Shelhamer, Darrell, CVPR 2015, Table 2 (FCN-32s-fixed), and the text on fine-tuning the output
    classifier alone.
    """
    train = stage.train.copy()
    for layer in train.layer:
        if layer.type == "Convolution" and layer.name != _CLASSIFIER:
            layer.param[:] = [ParamSpec(lr_mult=0, decay_mult=0) for _ in range(1 + layer.convolution_param.bias_term)]
    return replace(stage, name=f"{stage.name}{SUFFIX}", train=train)
