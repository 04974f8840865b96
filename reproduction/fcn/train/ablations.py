"""Ablations of the paper, derived from the recipes of its nets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from reproduction.caffe.schema import ParamSpec
from reproduction.caffe.typing import Progress
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.nets import registry
from reproduction.fcn.scoring.evaluate import evaluate
from reproduction.fcn.scoring.score import Scores
from reproduction.fcn.segment import any_net
from reproduction.fcn.train import recipes, training
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.training import TrainingOptions

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


def train_fixed_net(
    recipe: Recipe,
    parents: Mapping[str, Path],
    options: TrainingOptions,
    iterations: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Train an ablation without validations, since ``score_fixed_net`` scores its result.

    Args:
        recipe: the result of ``fix_all_but_scores``.
        parents: the weights files of its parents by name.
        options: the folders of the training.
        iterations: the number of updates; None for those of the recipe.
        progress: called with the updates done and in all.

    Raises:
        ReproductionError: If the data or the weights are missing or broken.
    """
    recipe = replace(recipe, test_net_param=None).with_solver(max_iter=iterations)
    total = recipe.solver_param.max_iter
    callbacks = training.TrainingCallbacks(step=lambda step: progress(step.iteration + 1, total) if progress else None)
    training.train(recipe, parents, options, callbacks)


def score_fixed_net(
    recipe: Recipe,
    out: Path,
    dataset: Dataset,
    *,
    device: str = "cpu",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Scores | None:
    """Return the scores of an ablation's net; None if it was not trained.

    Args:
        recipe: the result of ``fix_all_but_scores``.
        out: the folder that contains its training's folder.
        dataset: the data set to score it on.
        device: the device to run on.
        limit: the number of images to score, from the start of the split; None for all.
        progress: called with the images done and in all.

    Raises:
        ReproductionError: If the weights or the data are broken.
    """
    weights_path = recipes.final_model_path(recipe.name, out)
    if not weights_path.is_file():
        return None
    net_param = registry.load_net(recipe.name.removesuffix(SUFFIX))
    net = any_net.load_net_with_weights(recipe.name, net_param, weights_path, device=device)

    def report(done: int, total: int, seconds: float) -> None:
        if progress:
            progress(done, total)

    (scores,) = evaluate(net, dataset, device=device, limit=limit, progress=report).scores.values()
    return scores
