"""Checks, before a training starts, that it can learn; and a check for nets that predict a single class.

Each check returns the errors that it finds instead of raising them, so that a user can train in spite of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from reproduction.caffe.errors import DataError, NetError, ReproductionError
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import SolverParameter
from reproduction.fcn.datasets import Dataset, check_sample
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.scoring.score import Scores
from reproduction.fcn.train.image_list import ImageList
from reproduction.fcn.train.losses import Loss

#: Above this rate a loss that is summed over pixels diverges: the published rates are 1e-10 and less.
MOST_FOR_SUM = 1e-6
#: Below this rate a loss that is a mean over pixels hardly changes the weights: the published rate is 1e-4.
LEAST_FOR_MEAN = 1e-7

_SAMPLES = 8  # number of images to check, unless all are


def check_weights(net: Net, new_layers: Collection[str] | None = None) -> list[ReproductionError]:
    """Check that no layer's initial weights stop the gradients, as all-zero weights below a trained layer do.

    Args:
        net: the net with its initial weights.
        new_layers: names of layers that may start from zero; None selects the trained layers that no other trained
            layer follows: they learn even from zero.

    Returns:
        One error for each layer whose weights are all zero, all equal or not finite, and one if no layer is trained;
        empty if nothing was found.
    """
    may_be_zero = _last(net) if new_layers is None else new_layers
    problems: list[ReproductionError] = []
    if not any(p.requires_grad for p in net.parameters()):
        problems.append(NetError("no layer is trained", want="an lr_mult that is not 0"))
    for node in net.graph.nodes:
        layer = net.layer_at(node)
        if layer is not None and layer.products([net.blob_shapes[bottom] for bottom in node.bottoms]):
            problem = _flat(layer, may_be_zero=node.name in may_be_zero)
            problems += [problem.at(layer.layer_param.place)] if problem else []
    return problems


def _flat(layer: Layer, *, may_be_zero: bool) -> ReproductionError | None:
    blob = layer.blobs[0].detach()
    low, high = (float(bound) for bound in blob.aminmax())
    if not np.isfinite([low, high]).all():
        return NetError("weights are not numbers", remedy="Start from other weights.")
    if layer.layer_param.type == "Deconvolution":
        remedy = "Use --net, which sets bilinear weights, or set weight_filler { type: 'bilinear' }."
        return None if low or high else NetError("all weights are 0, so no gradient passes", remedy=remedy)
    # With one output, or one weight per output, equal weights do not stop learning: there is no symmetry to break.
    if may_be_zero or low != high or (low and min(blob.shape[0], blob[0].numel()) == 1):
        return None
    remedy = "Start from weights that contain this layer, or set its weight_filler."
    return NetError(f"all weights are {low:g}, so the layer cannot learn", remedy=remedy)


def _last(net: Net) -> set[str]:
    """Return the trained layers that no other trained layer follows: these learn even from zero."""
    followed: dict[str, bool] = {}
    last = set()
    for node in reversed(net.graph.nodes):
        behind = [followed.pop(top, False) for top in node.tops]
        learns = any(spec.lr_mult for spec in net.param_specs.get(node.name, []))
        if learns and not any(behind):
            last.add(node.name)
        followed.update(dict.fromkeys(node.bottoms, learns or any(behind)))
    return last


def check_learning_rate(losses: Sequence[Loss], param: SolverParameter) -> list[ReproductionError]:
    """Check that the learning rate fits the normalization of each dense loss, a sum or a mean over pixels.

    Only SGD and Nesterov are checked: the steps of AdaGrad, RMSProp, AdaDelta and Adam do not grow with the loss.

    Args:
        losses: the losses of the net.
        param: the solver's settings.

    Returns:
        One error for each loss whose rate, ``base_lr`` times the loss's weight, is out of range; empty if nothing was
        found.
    """
    problems: list[ReproductionError] = []
    if param.type not in ("SGD", "Nesterov"):
        return problems
    for loss in (loss for loss in losses if loss.dense):
        base_lr, got = param.base_lr * loss.weight, f"base_lr {param.base_lr:g}"
        if loss.summed and base_lr > MOST_FOR_SUM:
            problem = "the learning rate is too high for a loss that is summed over pixels"
            want = f"at most {MOST_FOR_SUM:g}; published are 1e-10 to 1e-14"
            remedy = "Lower base_lr, or set loss_param { normalize: true }."
        elif not loss.summed and 0 < base_lr < LEAST_FOR_MEAN:
            problem = "the learning rate is too low for a loss that is a mean over pixels"
            want = f"at least {LEAST_FOR_MEAN:g}; published is 1e-4"
            remedy = "Raise base_lr, or set loss_param { normalize: false }."
        else:
            continue
        problems.append(NetError(problem, layer=loss.layer, got=got, want=want, remedy=remedy))
    return problems


def check_dataset(dataset: Dataset, losses: Sequence[Loss], *, every: bool = False) -> list[ReproductionError]:
    """Check that no file of a data set is missing and that the net can learn from its labels.

    Args:
        dataset: the split to check.
        losses: the losses of the net; each one's ``label`` names the labels to check, its ``classes`` how many classes
            they have.
        every: if True, check every image; if False, only eight that are spread over the split.

    Returns:
        The first error about missing files, the number of classes or a broken sample. If there is none, one error for
        each kind of labels in which fewer than two classes occur.
    """
    where = f"{dataset.name} {dataset.split}"
    if problem := dataset.find_missing():
        return [problem]
    for loss in losses:
        names = dataset.label_classes.get(loss.label)
        if names is not None and len(names) != loss.classes:
            return [
                DataError(
                    f"the labels {loss.label!r} have another number of classes than layer {loss.layer!r}",
                    path=where,
                    got=len(names),
                    want=loss.classes,
                    remedy="Use a net and a data set with the same classes.",
                )
            ]
    count = len(dataset) if every else min(_SAMPLES, len(dataset))
    seen: dict[str, set[int]] = {top: set() for top in dataset.label_classes}
    for i in np.linspace(0, len(dataset) - 1, count).astype(int).tolist():
        try:
            sample = check_sample(dataset, i)
        except DataError as error:
            return [error]
        for top, labels in seen.items():
            labels.update(np.unique(sample[top]).tolist())
    return [error for top, labels in seen.items() for error in _monotone(where, top, labels, count)]


def _monotone(where: str, top: str, labels: set[int], count: int) -> list[ReproductionError]:
    """Return an error if labels contain fewer than two classes, void left out."""
    known = labels - {VOID}
    if len(known) > 1:
        return []
    said = "only void" if not known else f"only class {min(known)}" + " and void" * (VOID in labels)
    binary = "In a mask of 0 and 255, 255 is void; write 1 for 255." if labels == {0, VOID} else ""
    return [
        DataError(
            f"the labels {top!r} of {count} images have fewer than two classes",
            path=where,
            got=said,
            want="two classes or more",
            remedy=binary or "Check the label files: their pixels are class numbers, not colours.",
        )
    ]


def check_image_list(images: ImageList, loss: Loss) -> list[ReproductionError]:
    """Check that the labels in the list of an ImageData layer are class numbers of the loss: 0 to ``classes`` - 1.

    Args:
        images: the list of images.
        loss: the loss of the net.

    Returns:
        An error about the first label out of range, or an empty list.
    """
    wrong = [(path, label) for path, label in images.entries if not 0 <= label < loss.classes]
    return [
        DataError("the label is out of range", path=path, got=label, want=f"0 to {loss.classes - 1}")
        for path, label in wrong[:1]
    ]


def check_overlap(train: Dataset, validation: Dataset) -> list[ReproductionError]:
    """Check that no validation image is a training image; return an error with their number, or an empty list."""
    if not (both := set(train.ids).intersection(validation.ids)):
        return []
    first = next(image_id for image_id in validation.ids if image_id in both)
    return [
        DataError(
            f"{len(both)} of {len(validation)} validation images are also training images, the first is {first!r}",
            path=f"{validation.name} {validation.split}",
            remedy="Validate on another split.",
        )
    ]


def describe_collapse(found: Mapping[str, Scores], names: Mapping[str, Sequence[str]], iteration: int) -> list[str]:
    """Return a warning for each kind of labels for which the net predicts the same class everywhere.

    With K classes in the true labels, such a net has a mean accuracy of 1 / K, and a mean IU of its pixel accuracy / K.

    Args:
        found: the scores of a validation, by label top (``label``; SIFT Flow has ``sem`` and ``geo``).
        names: the class names by label top.
        iteration: the number of updates made, for the text.
    """
    notes = []
    for top, scores in found.items():
        predicted, present = np.flatnonzero(scores.confusion.sum(0)), np.flatnonzero(scores.confusion.sum(1))
        if len(predicted) != 1 or len(present) < 2:
            continue
        only = int(predicted[0])
        of = "" if len(found) == 1 else f" of {top!r}"
        notes.append(
            f"after {iteration} iterations the net predicts class {only} ({names[top][only]}){of} for every pixel: mean"
            f" acc. is 1/{len(present)}. If the next validation shows the same, stop: the pretrained weights"
            " are missing, or the learning rate does not fit the loss."
        )
    return notes
