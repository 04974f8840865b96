"""Changes of recipes that the paper compares its trainings with: each function returns a changed copy of a recipe.

``fcn.experiments.table`` lists what is compared. The copies keep the name of the net.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import LayerParameter, LossParameter, ParamSpec, Phase
from reproduction.caffe.typing import Int64
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.train import feeds
from reproduction.fcn.train.feeds import DatasetFeed
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.sample_changes import PatchSampling

CLASSIFIER = "score_fr"  # the score layer of fc7

# A solver with constant steps: the published one, but for the rate, the momentum and the batch.
_PLAIN_SGD = {"type": "SGD", "lr_policy": "fixed", "stepvalue": []}


def _change_layers(recipe: Recipe, change: Callable[[LayerParameter], object]) -> Recipe:
    """Return a copy of a recipe after a function has changed each layer of the net that is trained."""
    net_param = recipe.train_net_param.copy()
    for layer in net_param.layer:
        change(layer)
    return replace(recipe, train_net_param=net_param)


def fix_all_but_scores(recipe: Recipe) -> Recipe:
    """Return the recipe of the paper's FCN-32s-fixed: all layers but the score layer keep the classifier's weights.

    Args:
        recipe: the recipe of a net of stride 32, whose last trained layer is ``score_fr``.

    Returns:
        A copy of the recipe with ``lr_mult`` and ``decay_mult`` 0 for all other convolutions.

    Source: Long, Shelhamer, Darrell, CVPR 2015, Table 2 (FCN-32s-fixed), and the text on fine-tuning the output
    classifier alone.
    """

    def fix(layer: LayerParameter) -> None:
        if layer.type == "Convolution" and layer.name != CLASSIFIER:
            layer.param[:] = [ParamSpec(lr_mult=0, decay_mult=0) for _ in range(1 + layer.convolution_param.bias_term)]

    return _change_layers(recipe, fix)


def draw_scores(recipe: Recipe, std: float = 0.01) -> Recipe:
    """Return a recipe whose score layers start from random numbers instead of zeros.

    Args:
        recipe: the recipe of a segmentation net.
        std: the standard deviation of the weights, which are normally distributed; 0.01 is that of VGG16's layers.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.3 ("Optimization": zero initialization of the scoring layer).
    """

    def draw(layer: LayerParameter) -> None:
        if layer.type == "Convolution" and layer.name.startswith("score"):
            layer.convolution_param.weight_filler.type = "gaussian"
            layer.convolution_param.weight_filler.std = std

    return _change_layers(recipe, draw)


def learn_upsampling(recipe: Recipe, layers: Collection[str] | None = None) -> Recipe:
    """Return a recipe in which upsampling layers learn, from bilinear interpolation on, instead of being fixed.

    Args:
        recipe: the recipe of a segmentation net.
        layers: the names of the layers; None for all.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.3 ("Dense Prediction").
    """

    def learn(layer: LayerParameter) -> None:
        if layer.type == "Deconvolution" and (layers is None or layer.name in layers):
            layer.param[:] = [ParamSpec(lr_mult=1, decay_mult=1)]

    return _change_layers(recipe, learn)


def set_batch(recipe: Recipe, batch: int, momentum: float, base_lr: float) -> Recipe:
    """Return a recipe for the published solver, SGD at a constant rate, with another batch and momentum.

    Momentum p and a batch of k images change the weights about as p' and k' do if p^(1/k) = p'^(1/k'): an image's part
    in the momentum then fades at the same rate. 0.9 with 20 images is like 0.9947 with 1, see ``match_momentum``.

    Args:
        recipe: the recipe of a segmentation net.
        batch: the number of images of an update. The updates are as many times fewer, so that as many images are seen.
        momentum: the momentum of SGD.
        base_lr: the learning rate.

    Source: Shelhamer et al., PAMI 2016 (the tables and text on batch size and momentum).
    """
    iterations = max(recipe.solver_param.max_iter // batch, 1)
    return recipe.with_solver(
        **_PLAIN_SGD, iter_size=batch, momentum=momentum, base_lr=base_lr, max_iter=iterations, snapshot=iterations
    )


def restart_scores(recipe: Recipe) -> Recipe:
    """Return a recipe that starts from the net's own weights, but for its score layers, which start from zeros again.

    For solvers that take much longer than the comparison may: the layers below are fine-tuned already.

    Args:
        recipe: the recipe of a segmentation net.
    """

    def rename(layer: LayerParameter) -> None:
        if layer.type == "Convolution" and layer.name.startswith("score"):
            layer.name = f"{layer.name}-new"

    assert recipe.test_net_param is not None
    test = replace(recipe, train_net_param=recipe.test_net_param)
    return replace(
        _change_layers(recipe, rename),
        test_net_param=_change_layers(test, rename).train_net_param,
        parents=(recipe.name,),
        record=None,
    )


def match_momentum(momentum: float, batch: int, other: int) -> float:
    """Return the momentum that has the same effect with a batch of another size: p' such that p^(1/k) = p'^(1/k').

    Args:
        momentum: p.
        batch: k, the number of images in a batch.
        other: k', that of the other batch.
    """
    return float(momentum ** (other / batch))


def sample_patches(recipe: Recipe, share: float, cell: int = 32) -> Recipe:
    """Return a recipe that learns from a random share of the cells of the final layer, in batches as much larger.

    Each update reads ``1 / share`` images, and a loss that is summed over the pixels is weighted by ``1 / share``:
    the gradient is that of one whole image on average.

    Args:
        recipe: the recipe of a segmentation net.
        share: the probability of keeping a cell; its inverse is rounded to a number of images.
        cell: the height and width of a cell in pixels.

    Raises:
        ReproductionError: If the share is not a probability above 0.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.3 ("Patch Sampling").
    """
    sampling = PatchSampling(share, cell)

    def weigh(layer: LayerParameter) -> None:
        if layer.type == "SoftmaxWithLoss" and not _is_mean(layer):
            layer.loss_weight = [(layer.loss_weight or [1.0])[0] / share]

    weighted = _change_layers(recipe, weigh).with_solver(iter_size=recipe.solver_param.iter_size * round(1 / share))
    return replace(weighted, changes=(*recipe.changes, sampling))


def _is_mean(layer: LayerParameter) -> bool:
    """Return True if a loss is a mean over the pixels that are not void, rather than their sum."""
    param = layer.loss_param
    return param.normalization.name == "VALID" if param.has("normalization") else param.normalize


def weigh_classes(recipe: Recipe, weights: Sequence[float]) -> Recipe:
    """Return a recipe whose losses weigh the pixels of each class.

    The weights stand in the prototxt, as ``class_weighting`` of the SoftmaxWithLoss of SegNet's Caffe.

    Args:
        recipe: the recipe of a net with one kind of labels.
        weights: the weight of each class.
    """
    # The fields belong to a fork, so that they are known to the reader of prototxts rather than to LossParameter.
    text = " ".join(["weight_by_label_freqs: true", *(f"class_weighting: {weight:g}" for weight in weights)])
    weighted = prototxt.loads(text, LossParameter)

    def weigh(layer: LayerParameter) -> None:
        if layer.type == "SoftmaxWithLoss":
            layer.loss_param.merge(weighted)

    return _change_layers(recipe, weigh)


def balance_classes(recipe: Recipe, data: Path) -> Recipe:
    """Return a recipe whose losses weigh each class by the inverse of its share of the training pixels.

    All classes then have the same share of the loss, and the mean weight of a pixel is 1.

    Args:
        recipe: the recipe of a net with one kind of labels.
        data: the data root; the labels of all training images are read.

    Raises:
        ReproductionError: If a label file is missing or broken, a class has no pixel, or the net classifies images.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.3 ("Class Balancing").
    """
    feed = feeds.open_feed(recipe.train_net_param, data, Phase.TRAIN)
    if not isinstance(feed, DatasetFeed):
        raise ReproductionError("the labels of whole images are not balanced here", place=recipe.name)
    return weigh_classes(recipe, find_class_weights(count_pixels(feed.dataset)))


def count_pixels(dataset: Dataset) -> Int64:
    """Return the number of pixels of each class in the labels of a split, (classes,) int64.

    Raises:
        DataError: If a label file is missing or broken.
    """
    top, names = next(iter(dataset.label_classes.items()))
    counts = np.zeros(len(names), np.int64)
    for image_id in dataset.ids:
        labels = dataset.load(dataset.tops[top], image_id)
        counts += np.bincount(labels[labels < len(names)], minlength=len(names))
    return counts


def find_class_weights(counts: Int64) -> list[float]:
    """Return the weight of each class that gives all the same share of the loss; a pixel's mean weight is 1.

    Args:
        counts: the number of pixels of each class, (classes,).

    Raises:
        DataError: If a class has no pixel.
    """
    if missing := np.flatnonzero(counts == 0).tolist():
        problem = "a class without a pixel in the training labels cannot be balanced"
        raise DataError(problem, got=f"class {missing[0]}", remedy="Leave it out of the classes.")
    return [float(f"{weight:.6g}") for weight in counts.sum() / (len(counts) * counts)]
