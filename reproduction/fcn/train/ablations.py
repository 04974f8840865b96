"""Ablations of the paper, derived from the recipes of its nets."""

from __future__ import annotations

from dataclasses import replace

from reproduction.caffe.schema import ParamSpec
from reproduction.fcn.train.recipes import Recipe

SUFFIX = "-fixed"
_CLASSIFIER = "score_fr"


def fix_all_but_scores(recipe: Recipe) -> Recipe:
    """Return the recipe of the paper's FCN-32s-fixed: all layers but the score layer keep the classifier's weights.

    Args:
        recipe: the recipe of a net of stride 32, whose last trained layer is ``score_fr``.

    Returns:
        A copy of the recipe, named ``NET-fixed``, with ``lr_mult`` and ``decay_mult`` 0 for all other convolutions.

    Source: Long, Shelhamer, Darrell, CVPR 2015, Table 2 (FCN-32s-fixed), and the text on fine-tuning the output
    classifier alone.
    """
    net_param = recipe.train_net_param.copy()
    for layer in net_param.layer:
        if layer.type == "Convolution" and layer.name != _CLASSIFIER:
            layer.param[:] = [ParamSpec(lr_mult=0, decay_mult=0) for _ in range(1 + layer.convolution_param.bias_term)]
    return replace(recipe, name=f"{recipe.name}{SUFFIX}", train_net_param=net_param)
