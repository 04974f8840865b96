"""Checks of what a net computes: which classes it can find, and whether OpenCV computes the same labels.

The images are scenes of Mini-VOC, drawn in memory. A net for depth or HHA gets the same images as depths or as HHA: the
checks ask whether the net reacts to its inputs, not whether it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import join_first
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.formats.weights import Weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import nyud
from reproduction.fcn.images import caffe_input
from reproduction.fcn.segment.card import Card, CardLabels
from reproduction.fcn.segment.export import TOLERANCE
from reproduction.fcn.segment.verification import WeightsCheck, not_checked, passed_if

WANT_REACHED = "for each class, an image in which it has the highest score at some pixel"
WANT_EQUAL = "the labels of OpenCV 4, where the two highest scores differ by more than rounding errors"
#: What passes each check of the labels, by its name.
WANT_LABELS = {"classes": WANT_REACHED, "OpenCV": WANT_EQUAL}

STEPS = 24  # of gradient ascent, at most
STEPS_ACROSS = 16  # steps from the smallest to the largest value of a pixel
PATCH = 64  # height and width of the images of the gradient ascent, in pixels

Inputs = Mapping[str, Tensor]


def make_inputs(card: Card, rgb: UInt8) -> dict[str, Tensor]:
    """Return the input blobs of a net for an image, by name; inputs of depth or HHA are made from the image's colours.

    Args:
        card: the model card of the net, which states its inputs.
        rgb: the image, (H, W, 3) uint8. As depth, its grey values from 0 to 255 are 0.5 to 8.2 m.
    """
    inputs = {}
    for blob, taken in card.inputs.items():
        if taken.kind == "depth":
            values = nyud.log_depth(500 + 30 * rgb.astype(np.float32).mean(axis=2))
        else:
            values = caffe_input.subtract_mean(rgb, taken.mean_array, flip=taken.order == "BGR")
        inputs[blob] = torch.from_numpy(values)[None]
    return inputs


@dataclass
class _Start:
    """The pixel of all images at which a class that has not won anywhere comes closest to the highest score."""

    margin: float
    image: int
    y: int
    x: int


def check_classes(
    net: Net, card: Card, images: Sequence[UInt8], progress: Callable[[str], object] = lambda what: None
) -> Iterator[WeightsCheck]:
    """Check that the net can predict every class: that each has the highest score at some pixel of some image.

    There is one result for each kind of labels (two for SIFT Flow).

    A class that does not win in any of the images is tried by gradient ascent from the place where it came closest.

    Args:
        net: the net, with its weights.
        card: the net's model card, which states its inputs and classes.
        images: the images, (H, W, 3) uint8 each.
        progress: called with the name of each class that is tried by gradient ascent, before it starts.
    """
    net.requires_grad_(False)
    starts = _find_starts(net, card, images)
    for top, labels in card.labels.items():
        reached, missing = 0, []
        tried = {c: start for c, start in starts[top].items() if start.margin <= 0}
        for c, start in tried.items():
            progress(f"{top}: {labels.classes[c]}")
            if _climb(net, card, labels, c, _cut_patch(images[start.image], start)):
                reached += 1
            else:
                missing.append(labels.classes[c])
        won = len(labels.classes) - len(tried)
        got = f"{won} classes in {len(images)} drawn images, {reached} more by gradient ascent"
        got += f"; not reached: {join_first(missing, 6)}" if missing else ""
        name = "classes" if len(card.labels) == 1 else f"classes of {top}"
        yield passed_if(not missing, name, got, WANT_REACHED)


def _find_starts(net: Net, card: Card, images: Sequence[UInt8]) -> dict[str, dict[int, _Start]]:
    starts: dict[str, dict[int, _Start]] = {top: {} for top in card.labels}
    for n, rgb in enumerate(images):
        with torch.inference_mode():
            found = net(make_inputs(card, rgb), [labels.score for labels in card.labels.values()])
        for top, labels in card.labels.items():
            margins = compute_margins(found[labels.score][0])
            highest, places = margins.flatten(1).max(dim=1)
            for c, (margin, place) in enumerate(zip(highest.tolist(), places.tolist(), strict=True)):
                if c not in starts[top] or margin > starts[top][c].margin:
                    starts[top][c] = _Start(margin, n, *divmod(place, margins.shape[2]))
    return starts


def compute_margins(scores: Tensor) -> Tensor:
    """Return by how much each class's score exceeds the highest score of the other classes at each pixel; (C, H, W).

    Args:
        scores: the scores, (C, H, W).
    """
    best, labels = scores.topk(2, dim=0)
    is_first = torch.arange(len(scores), device=scores.device)[:, None, None] == labels[0]
    return scores - torch.where(is_first, best[1], best[0])


def _cut_patch(rgb: UInt8, start: _Start) -> UInt8:
    top, left = (
        max(0, min(at - PATCH // 2, size - PATCH)) for at, size in zip((start.y, start.x), rgb.shape, strict=False)
    )
    return np.ascontiguousarray(rgb[top : top + PATCH, left : left + PATCH])


def _climb(net: Net, card: Card, labels: CardLabels, c: int, patch: UInt8) -> bool:
    """Return True if steps along the sign of the gradient lead to an image in which class ``c`` wins."""
    low, high = (make_inputs(card, np.full_like(patch, value)) for value in (0, 255))
    inputs = make_inputs(card, patch)
    for _ in range(STEPS):
        inputs = {name: values.detach().requires_grad_() for name, values in inputs.items()}
        margin = compute_margins(net(inputs, [labels.score])[labels.score][0])[c].max()
        if margin > 0:
            return True
        gradients = torch.autograd.grad(margin, list(inputs.values()))
        if not any(gradient.any() for gradient in gradients):
            return False
        for (name, values), gradient in zip(inputs.items(), gradients, strict=True):
            step = (high[name] - low[name]) / STEPS_ACROSS
            inputs[name] = (values.detach() + step * gradient.sign()).clamp(low[name], high[name])
    return False


def check_opencv(net: Net, net_param: NetParameter, card: Card, weights: Weights, rgb: UInt8) -> WeightsCheck:
    """Check that OpenCV, which has independent code for the same files, computes the same labels of an image.

    Args:
        net: the net with its weights.
        net_param: the net's definition, which OpenCV reads.
        card: the net's model card, which states its inputs.
        weights: the weights that were read from the file.
        rgb: the image, (H, W, 3) uint8.
    """
    name = "OpenCV"
    try:
        import cv2
    except ImportError:
        return not_checked(name, "no OpenCV; install 'opencv-python-headless<5'", WANT_EQUAL)
    if not cv2.__version__.startswith("4."):
        return not_checked(name, f"OpenCV {cv2.__version__}, and only 4 reads these files", WANT_EQUAL)
    inputs = make_inputs(card, rgb)
    tops = [labels.score for labels in card.labels.values()]
    if weights.format.startswith("caffemodel"):
        model = np.fromfile(weights.path, np.uint8)
    else:
        model = np.frombuffer(caffemodel.dumps(net.to_proto()), np.uint8)
    try:
        peer = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt.dumps(net_param).encode(), np.uint8), model)
        for blob, values in inputs.items():
            peer.setInput(values.numpy(), blob)
        theirs = dict(zip(tops, peer.forward(tops), strict=True))
    except cv2.error as error:
        return not_checked(name, f"OpenCV {cv2.__version__} cannot run it ({error.err or error})", WANT_EQUAL)
    with torch.inference_mode():
        ours = net(inputs, tops)
    different = sure = total = 0
    for top in tops:
        mine, other = ours[top][0], torch.from_numpy(np.array(theirs[top]))[0]
        if mine.shape != other.shape:
            return passed_if(False, name, f"scores of shape {tuple(other.shape)}", f"{tuple(mine.shape)}")
        is_sure = compute_margins(mine).amax(dim=0) > 2 * TOLERANCE * float(mine.abs().max())
        different += int(((mine.argmax(dim=0) != other.argmax(dim=0)) & is_sure).sum())
        sure, total = sure + int(is_sure.sum()), total + is_sure.numel()
    got = f"{different} of {sure:,} pixels differ (of {total:,} in all) with OpenCV {cv2.__version__}"
    return passed_if(different == 0, name, got, WANT_EQUAL) if sure else not_checked(name, got, WANT_EQUAL)
