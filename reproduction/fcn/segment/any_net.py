"""Build a net with its weights: one of the catalogue, or any prototxt, for which a card is made from options.

What the options do not say is found from the net: its input and output, its task, the size of its images, and the
preprocessing that a ``transform_param`` of the prototxt states. ``load_any_net`` returns in words what it found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reproduction.caffe import devices, fillers
from reproduction.caffe.errors import DataError, NetError, ReproductionError, StrPath, WeightsError, cannot_read
from reproduction.caffe.formats import blobs, files, prototxt, weights
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net import export_net
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, TransformationParameter
from reproduction.fcn.datasets import load_class_names
from reproduction.fcn.nets import surgery
from reproduction.fcn.segment.card import Card, CardInput, CardLabels, card_labels

_MOST_NAMES = 1 << 24  # bytes of a file of class names
_VOC_CLASSES = 21


@dataclass(frozen=True)
class NetOptions:
    """What a prototxt does not say about a net; everything is optional.

    Attributes:
        mean: the mean of each channel in the net's channel order, in values of 0 to 255; or the path of a mean image,
            a ``.binaryproto`` file, whose mean over all pixels is taken. None for that of the prototxt, else 0.
        scale: a factor for each channel, or one for all, by which values minus the mean are multiplied; empty for that
            of the prototxt, else 1.
        order: the channel order, ``BGR`` or ``RGB``; empty for BGR, as Caffe reads images.
        classes: the class names in order, or the path of a text file with a name in each line; None for VOC's if there
            are 21 classes, else numbers.
        labels_blob: the blob with the scores or labels; empty for the net's output.
        size: (height, width) to which images are resized; None for the net's own size if it takes only that, and
            otherwise for the size of each image.
        input_shapes: the shapes of inputs by name, for a net that reads its own data or declares none.
        dialect: the fork of Caffe that the net is for, if neither the net nor the weights show it.
        legacy_crop: whether Crop layers without an offset get that of the Caffe of 2015.
    """

    mean: Sequence[float] | StrPath | None = None
    scale: Sequence[float] = ()
    order: str = ""
    classes: Sequence[str] | StrPath | None = None
    labels_blob: str = ""
    size: tuple[int, int] | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    dialect: str = ""
    legacy_crop: bool = False


class AnyNet(NamedTuple):
    """A net that ``load_any_net`` has loaded.

    Attributes:
        card: its model card.
        net: the net, in phase TEST, with its weights.
        notes: sentences about what the options did not say.
    """

    card: Card
    net: Net
    notes: list[str]


def load_net_with_weights(
    net_name: str,
    net_param: NetParameter,
    weights_path: StrPath,
    *,
    inputs: Mapping[str, Shape] | None = None,
    device: str = "cpu",
) -> Net:
    """Build a net from its definition, and copy the weights of a file to it by layer name.

    Args:
        net_name: the net's name, for error messages.
        net_param: the net's definition.
        weights_path: a weights file of any supported format.
        inputs: the shapes of inputs by name, for a net that reads its own data; None for those that it declares.
        device: the device to move the net to.

    Raises:
        ReproductionError: If there is no such device, or the weights are missing, broken or lack a layer of the net.
            Layers whose constant values the prototxt states (Scale with a constant filler) may be absent.
    """
    target, trained = devices.select_device(device), _read_weights(weights_path)
    with fillers.postpone() as fillings:
        net = Net(net_param, inputs=inputs)
    _copy_weights(net_name, net, trained, weights_path, fillings)
    return net.to(target)


def _read_weights(path: StrPath) -> NetParameter:
    if not Path(path).is_file():
        raise WeightsError("there is no such weights file", path=path)
    return weights.read(path).net


def _copy_weights(
    net_name: str, net: Net, trained: NetParameter, path: StrPath, fillings: Sequence[Callable[[], None]]
) -> None:
    """Copy weights by layer name; see ``load_net_with_weights`` for the error."""
    report = net.copy_from(trained, path, fillings=fillings)
    missing, _ = surgery.list_misfits(net, report)
    if missing:
        raise WeightsError(
            f"these are not the weights of {net_name}; {len(missing)} of its layers are missing,"
            f" the first is {missing[0]!r}",
            path=path,
            remedy="Name the net that they belong to.",
        )


def load_bare_net(
    prototxt_path: StrPath, weights_path: StrPath, options: NetOptions | None = None
) -> tuple[Net, NetParameter, list[str]]:
    """Build a net from any prototxt and load its weights, for callers that need no card.

    Args:
        prototxt_path: the net's prototxt.
        weights_path: a weights file of any supported format.
        options: of them, ``size``, ``input_shapes``, ``dialect`` and ``legacy_crop`` are used.

    Returns:
        The net in phase TEST, its message, and sentences about what was upgraded.

    Raises:
        ReproductionError: If a file is missing, broken or of another net, or if Caffe would reject the net.
    """
    options, trained = options or NetOptions(), _read_weights(weights_path)
    net_param, notes = prototxt.load_net(
        prototxt_path, legacy_crop=options.legacy_crop, dialect=options.dialect, weights=trained
    )
    given = dict(options.input_shapes)
    try:
        with fillers.postpone() as fillings:
            net = Net(net_param, inputs=given or None)
            if options.size is not None:
                images = {name: shape for name in net.inputs if len(shape := net.blob_shapes[name]) == 4}
                given |= {name: (*shape[:2], *options.size) for name, shape in images.items()}
                net = Net(net_param, inputs=given)
    except ReproductionError as error:  # such as that of a data layer whose database is not there
        if error.remedy.startswith("Pass inputs="):
            error.advise("Use the deploy net, or give the shapes of what the layer reads: --input-shape NAME=N,C,H,W.")
        raise error.at(str(prototxt_path)) from None
    _copy_weights(str(prototxt_path), net, trained, weights_path, fillings)
    return net, net_param, notes


def load_any_net(
    prototxt_path: StrPath, weights_path: StrPath, options: NetOptions | None = None, *, device: str = "cpu"
) -> AnyNet:
    """Build a net from any prototxt, load its weights, and make a card of what the options say and the net shows.

    Args:
        prototxt_path: the net's prototxt, which computes scores or labels from one image.
        weights_path: a weights file of any supported format.
        options: what the prototxt does not say.
        device: the device to move the net to.

    Raises:
        ReproductionError: If a file is missing, broken or of another net, if Caffe would reject the net, or if it does
            not compute scores or labels from one image; the message names the options that help.
    """
    options, target = options or NetOptions(), devices.select_device(device)
    net, net_param, notes = load_bare_net(prototxt_path, weights_path, options)
    card, found = describe_net(net, net_param, options, Path(prototxt_path))
    return AnyNet(card, net.to(target), notes + found)


def describe_net(net: Net, net_param: NetParameter, options: NetOptions, prototxt_path: Path) -> tuple[Card, list[str]]:
    """Make the card of a net, and return it with sentences about what the options did not say.

    Args:
        net: the net.
        net_param: its message.
        options: what the user said.
        prototxt_path: the prototxt, whose name the card gets if the net has none, and next to which a ``mean_file`` of
            it is searched.

    Raises:
        ReproductionError: If the net does not compute scores or labels from one image, or an option does not fit it.
    """
    blob, task, holds = find_labels_blob(net, options.labels_blob)
    plan, notes = export_net.plan_export(net, [blob]), []
    images = {name: shape for name, shape in plan.shapes.items() if len(shape) == 4 and shape[1] in (1, 3)}
    if len(images) != 1 or len(plan.shapes) != 1:
        got = ", ".join(f"{name} {shape}" for name, shape in plan.shapes.items())
        problem = "a card can be made for nets that take one image, with 1 or 3 channels"
        raise NetError(problem, got=got, remedy="Export the net and feed it yourself.")
    ((name, shape),) = images.items()
    any_size = task == "segment" and export_net.takes_any_size(net, plan)
    size = options.size or (None if any_size else (shape[2], shape[3]))
    taken, found = _find_preprocessing(net_param, options, prototxt_path, shape[1], size)
    notes += found
    if size and not options.size:
        notes.append(f"images are resized to {size[0]} x {size[1]}, the size of {name!r}.")
    count = _count_classes(net, blob, holds)
    classes, found = _find_classes(options.classes, count)
    labels = card_labels(blob, classes) if task == "segment" else CardLabels(blob, classes, ())
    labels = CardLabels(labels.score, labels.classes, labels.colours, holds)
    what = "labels" if holds == "labels" else "scores"
    per = "each pixel" if task == "segment" else "each image"
    notes += [f"{blob!r} holds {what} of {count} classes for {per}."] if not options.labels_blob else []
    card = Card(net_param.name or prototxt_path.stem, {name: taken}, {"label": labels}, task=task)
    return card, notes + found


def find_labels_blob(net: Net, asked: str = "") -> tuple[str, str, str]:
    """Return the blob with a net's result, its task (``segment`` or ``classify``), and what it holds.

    Args:
        net: the net.
        asked: the name of the blob; empty for the only output that can be one.

    Raises:
        NetError: If no output has the shape of scores or labels, or if several have.
    """
    names = [asked] if asked else [name for name in net.outputs if name not in net.loss_weights]
    kinds = {name: kind for name in names if (kind := _kind_of(net, name)) is not None}
    if len(kinds) == 1:
        ((name, (task, holds)),) = kinds.items()
        return name, task, holds
    got = ", ".join(f"{name} {net.blob_shapes[name]}" for name in kinds or names) or "no output"
    problem = "several outputs may be the scores" if kinds else "no output is the scores or labels of classes"
    raise NetError(problem, got=got, want="one blob (N, C), (N, C, H, W) or, from ArgMax, (N, 1, H, W)",
                   remedy="Name a blob with --labels-blob.")  # fmt: skip


def _kind_of(net: Net, blob: str) -> tuple[str, str] | None:
    """Return the task and the content of a blob by its shape and the layer that computes it; None for another blob."""
    node = net.graph.find_producer(blob)
    shape = net.blob_shapes[blob]
    if node is None or not 2 <= len(shape) <= 4:
        return None
    if node.type == "ArgMax":
        param = node.layer_param.argmax_param
        is_map = param.has("axis") and param.axis in (1, -3) and param.top_k == 1 and not param.out_max_val
        return ("segment", "labels") if is_map and len(shape) == 4 else None
    if shape[1] < 2:
        return None
    pixels = shape[2:] if len(shape) == 4 else (1,)
    return ("segment" if max(pixels) > 1 else "classify", "scores") if len(shape) != 3 else None


def _count_classes(net: Net, blob: str, holds: str) -> int:
    """Return the number of classes: the channels of the scores, or of what ArgMax reads."""
    if holds == "scores":
        return net.blob_shapes[blob][1]
    node = net.graph.find_producer(blob)
    return net.blob_shapes[node.bottoms[0]][1] if node else 0


def _find_preprocessing(
    net_param: NetParameter, options: NetOptions, prototxt_path: Path, channels: int, size: tuple[int, int] | None
) -> tuple[CardInput, list[str]]:
    """Return how an input is preprocessed: as the options say, else the prototxt, else Caffe; and sentences."""
    stated, notes = _find_transform(net_param), []
    order = "grey" if channels == 1 else options.order or "BGR"
    if order not in ("BGR", "RGB", "grey"):
        raise ReproductionError("there is no such channel order", got=order, want="BGR or RGB")
    if channels > 1 and not options.order:
        notes.append("channels are in the order B, G, R, as Caffe reads images.")
    mean, scale = options.mean, tuple(map(float, options.scale))
    if mean is None and stated.mean_value:
        mean = list(stated.mean_value)
        notes.append(f"the mean is {', '.join(f'{value:g}' for value in mean)}, from transform_param in the prototxt.")
    elif mean is None and (beside := prototxt_path.parent / Path(stated.mean_file).name).is_file():
        mean = beside
        notes.append(f"the mean is that of {beside}, which transform_param in the prototxt names.")
    elif mean is None:
        mean = [0.0]
        notes.append("no mean is subtracted; give the one of the training with --mean.")
    if not scale and stated.has("scale"):
        scale = (stated.scale,)
        notes.append(f"values are multiplied by {stated.scale:g}, from transform_param in the prototxt.")
    values = load_mean(mean)
    if len(values) == 1:
        values *= channels
    if len(values) != channels or len(scale) not in (0, 1, channels):
        got = f"{len(values)} and {len(scale)}"
        raise ReproductionError("mean and scale must fit the channels", got=got, want=f"1 or {channels} numbers each")
    return CardInput("color", order, tuple(values), "float32", scale, size or ()), notes


def _find_transform(net_param: NetParameter) -> TransformationParameter:
    """Return the first ``transform_param`` of a net that states a mean or scale; an empty one if there is none."""
    params = (layer.transform_param for layer in net_param.layer)
    stated = (param for param in params if param.mean_value or param.mean_file or param.has("scale"))
    return next(stated, TransformationParameter())


def load_mean(mean: Sequence[float] | StrPath) -> list[float]:
    """Return the mean of each channel: the numbers themselves, or the means over the pixels of a mean image.

    Args:
        mean: numbers, or the path of a ``.binaryproto`` file.

    Raises:
        ReproductionError: If the file is missing or not a mean image.
    """
    if not isinstance(mean, str | os.PathLike):
        return [float(value) for value in mean]
    try:
        image = blobs.load_mean(mean)
    except OSError as error:
        raise cannot_read(error, "the mean image", mean) from None
    if image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != 1):
        raise DataError("this is not a mean image", path=mean, got=image.shape, want="(C, H, W) or (1, C, H, W)")
    return [float(f"{value:.6g}") for value in image.reshape(image.shape[-3], -1).mean(1, dtype="float64")]


def _find_classes(given: Sequence[str] | StrPath | None, count: int) -> tuple[tuple[str, ...], list[str]]:
    """Return the class names, and a sentence if they were not given."""
    if given is None and count == _VOC_CLASSES:
        return load_class_names("voc"), ["21 classes are taken for those of PASCAL VOC; name others with --classes."]
    if given is None:
        return tuple(f"class {i}" for i in range(count)), ["classes have numbers; name them with --classes."]
    place = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
    if isinstance(given, str | os.PathLike):
        lines = files.read_list(given, "the class names", "a name in each line", _MOST_NAMES)
        given = [line.strip() for line in lines if line.strip()]
    names = tuple(given)
    if len(names) != count:
        raise DataError("the class names do not fit the net", path=place, got=f"{len(names)} names", want=count)
    return names, []
