"""Export of a net, with its preprocessing and argmax, to ONNX and ``torch.export``.

``ExportModule`` is the ``torch.nn.Module`` that does all three steps. ``export_onnx`` converts a net to ONNX and
``export_program`` to a ``torch.export`` program. Height and width are dynamic in both, the batch size in ONNX only.
``check_export`` compares an exported program's outputs with the net's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.export_net import LABEL_TOLERANCE, ExportRunner, onnx_runner, program_runner, trace
from reproduction.caffe.net.net import Net
from reproduction.caffe.typing import Array
from reproduction.fast import compiler
from reproduction.fcn.datasets.spec import CHANNELS
from reproduction.fcn.images.caffe_input import GREY_WEIGHTS
from reproduction.fcn.segment import onnx_framing, preprocess
from reproduction.fcn.segment.card import METADATA_KEY, Card, CardInput, CardLabels, format_card

if TYPE_CHECKING:
    import onnx

__all__ = [
    "ExportFormat", "ExportModule", "ExportRunner", "OutputCheck", "check_export", "export_onnx", "export_program",
    "onnx_runner", "program_runner", "random_inputs",
]  # fmt: skip

#: Heights and widths at which an export is checked: small and odd, square, wider than high.
SIZES = ((33, 47), (64, 64), (70, 131))
#: The largest difference allowed between two programs' scores, as a fraction of the largest absolute score.
TOLERANCE = 2e-5

FORMAT_KEY = "form"  # the key in ONNX metadata; the card is stored there too
FORMAT_FILE = "form.json"  # the extra file in torch.export archives

_BLOBS = {"BGR": "B G R", "RGB": "R G B", "grey": "grey", "log(mm)": "the natural logarithm of millimetres"}


@dataclass(frozen=True)
class ExportFormat:
    """What an exported program takes and returns: images or preprocessed blobs, labels or scores.

    Attributes:
        inputs: ``picture``: (N, H, W, 3) uint8, R G B; the program reorders the channels and subtracts the mean.
            ``blob``: (N, C, H, W) float32, preprocessed as in training: in the card's channel order, minus the mean.
        outputs: ``labels``: (N, H, W) uint8. ``scores``: (N, classes, H, W) float32.
        batch: the batch size N in descriptions: ``N`` for any, as in ONNX; ``1`` for programs of
            ``torch.export``, and for one image size.
    """

    inputs: str = "picture"
    outputs: str = "labels"
    batch: str = "N"

    @property
    def batch_axis(self) -> int | str:
        """The batch size as ONNX declares it: a number, or a name for any."""
        return int(self.batch) if self.batch.isdecimal() else self.batch

    def output_names(self, card: Card) -> list[str]:
        """Return the names of the program's outputs, one for each kind of labels that the net predicts.

        They are ``labels`` or ``scores``; if there are several, with the label top appended, as in ``labels_sem``,
        ``labels_geo``.

        Args:
            card: the net's model card.
        """
        return [self.outputs if len(card.labels) == 1 else f"{self.outputs}_{top}" for top in card.labels]

    def describe(self, card: Card) -> dict[str, dict[str, str]]:
        """Describe the shape, dtype and content of each input and output in words.

        The texts are stored in the exported file, since a wrong channel order or mean raises no error at run time.

        Args:
            card: the net's model card.

        Returns:
            ``{"inputs": {name: text, ...}, "outputs": {name: text, ...}}``
        """
        outputs = zip(self.output_names(card), card.labels.values(), strict=True)
        return {
            "inputs": {name: self._describe_input(taken) for name, taken in card.inputs.items()},
            "outputs": {name: self._describe_output(len(labels.classes), card.task) for name, labels in outputs},
        }

    def _describe_input(self, taken: CardInput) -> str:
        height, width = taken.size or ("H", "W")
        if self.inputs == "picture":
            read = f"resized to {height} x {width}" if taken.size else "as it was read"
            return f"({self.batch}, {height}, {width}, {CHANNELS[taken.kind]}) uint8, R G B, 0 to 255, {read}"
        mean, scale = (", ".join(f"{value:.9g}" for value in values) for values in (taken.mean, taken.scale))
        scaled = f", times {scale}" if scale else ""
        return (
            f"({self.batch}, {taken.channels}, {height}, {width}) float32, {_BLOBS[taken.order]}, minus {mean}{scaled}"
        )

    def _describe_output(self, classes: int, task: str) -> str:
        if task == "classify":
            labels = f"({self.batch},) int64, the class with the highest score"
            return labels if self.outputs == "labels" else f"({self.batch}, {classes}) float32, the score of each class"
        if self.outputs == "labels":
            return f"({self.batch}, H, W) uint8, the class of each pixel"
        return f"({self.batch}, {classes}, H, W) float32, the scores of all classes before a softmax"

    def check(self, card: Card) -> None:
        """Check that the inputs of a net can have this format.

        Args:
            card: the net's model card.

        Raises:
            ReproductionError: If ``inputs`` is ``picture`` and the net takes depth, or if ``outputs`` is ``scores`` and
                the net computes labels itself.
        """
        if self.inputs == "picture" and "depth" in card.kinds:
            raise ReproductionError(f"{card.net} takes depth, which is not an image", remedy="Choose --input blob.")
        if self.outputs == "scores" and any(labels.holds == "labels" for labels in card.labels.values()):
            raise ReproductionError(f"{card.net} computes labels, but no scores", remedy="Choose --output labels.")


class ExportModule(nn.Module):
    """A module that does what ``Segmenter`` does, for export: preprocessing, net and argmax, as ``form`` requires.

    Args:
        net: the net, in phase TEST, with its weights.
        card: the net's model card.
        form: what the module takes and returns.

    Raises:
        ReproductionError: If the net's inputs cannot have this format.
    """

    def __init__(self, net: Net, card: Card, form: ExportFormat):
        super().__init__()
        form.check(card)
        self.net, self.card, self.form = net, card, form
        for blob, taken in card.inputs.items():
            self.register_buffer(f"mean_{blob}", torch.from_numpy(taken.mean_array), persistent=False)
            self.register_buffer(f"scale_{blob}", torch.from_numpy(taken.scale_array.copy()), persistent=False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute one output for each of the card's ``labels``, from one tensor for each of the card's ``inputs``."""
        blobs = {name: self._blob(name, x) for name, x in zip(self.card.inputs, inputs, strict=True)}
        kinds, framing, size = self.card.labels.values(), self.card.framing, next(iter(blobs.values())).shape[2:]
        framed = {name: framing.frame_tensor(blob) for name, blob in blobs.items()}
        found = self.net(framed, [labels.score for labels in kinds])
        return tuple(self._output(framing.crop_scores(found[labels.score], size), labels) for labels in kinds)

    def _output(self, values: Tensor, labels: CardLabels) -> Tensor:
        if labels.holds == "labels":
            return values.reshape(values.shape[0], *values.shape[-2:]).to(torch.uint8)
        is_map = self.card.task == "segment"
        scores = values if is_map else values.flatten(1)
        if self.form.outputs == "scores":
            return scores
        best = scores.max(dim=1).indices
        return best.to(torch.uint8) if is_map else best

    def _blob(self, name: str, x: Tensor) -> Tensor:
        taken = self.card.inputs[name]
        if self.form.inputs == "blob":
            return x
        mean: Tensor = getattr(self, f"mean_{name}")
        channels = x.permute(0, 3, 1, 2).to(mean.dtype)
        if taken.order == "BGR":
            channels = channels.flip(1)
        elif taken.order == "grey":
            weights = torch.tensor(GREY_WEIGHTS, dtype=torch.float64, device=x.device)[:, None, None]
            channels = ((channels.double() * weights / 0x10000).sum(1, keepdim=True) + 0.5).floor().to(mean.dtype)
        blob = (channels - mean[:, None, None]).float()
        scale: Tensor = getattr(self, f"scale_{name}")
        return blob * scale[:, None, None] if taken.scale else blob


def set_size(card: Card, size: tuple[int, int]) -> Card:
    """Return the card of a program for images of one size, (height, width) in pixels.

    Raises:
        ReproductionError: If the net needs a frame around an image, which is not a part of the plan.
    """
    if card.framing:
        raise ReproductionError(f"{card.net} needs a frame around an image", remedy="Export it without --size.")
    return replace(card, inputs={name: replace(taken, size=size) for name, taken in card.inputs.items()})


def export_onnx(net: Net, card: Card, form: ExportFormat, *, planned: bool = False) -> onnx.ModelProto:
    """Convert a net with its preprocessing to an ONNX model, whose metadata contain the card and the format in words.

    Args:
        net: the net, in phase TEST, with its weights.
        card: the net's model card.
        form: what the model takes and returns.
        planned: whether to write what a compiled net computes for one image of the size in the card: what no pixel of
            the image reaches, such as the border that padding causes, is constant. ``form.batch`` must be ``1``.

    Raises:
        ReproductionError: If the package onnx is missing, or the net's inputs cannot have this format.
        NetError: If a layer has no equivalent in ONNX.
    """
    form.check(card)
    writer, docs = onnx_export.OnnxGraph(), form.describe(card)
    blobs = {name: _onnx_input(writer, name, taken, form, docs["inputs"][name]) for name, taken in card.inputs.items()}
    framed = {name: onnx_framing.add_frame(writer, name, value, card.framing) for name, value in blobs.items()}
    wanted = [labels.score for labels in card.labels.values()]
    if planned:
        shapes = {name: (1, taken.channels, *taken.size) for name, taken in card.inputs.items()}
        score_blobs = compiler.compile(net).add_to_onnx(writer, framed, shapes, wanted)
    else:
        score_blobs = onnx_export.add_layers(net, writer, framed, wanted)
    if writer.fixed_sizes and not all(taken.size for taken in card.inputs.values()):
        problem = f"layer {writer.fixed_sizes[0]} can be written as ONNX for one image size only"
        raise NetError(problem, remedy="Choose it with --size HxW.")
    image = next(iter(blobs.values()))
    for (name, doc), labels in zip(docs["outputs"].items(), card.labels.values(), strict=True):
        scores = onnx_framing.add_crop(writer, name, score_blobs[labels.score], image, card.framing)
        _onnx_output(writer, name, scores, card.task, labels, form, doc)
    return writer.model(card.net, {METADATA_KEY: format_card(card), FORMAT_KEY: json.dumps(docs)})


def _onnx_output(
    writer: onnx_export.OnnxGraph, name: str, value: str, task: str, labels: CardLabels, form: ExportFormat, doc: str
) -> None:
    """Add the operators from a net's blob to an output, and declare the output."""
    is_map, axes = task == "segment", [form.batch_axis, "H", "W"] if task == "segment" else [form.batch_axis]
    if labels.holds == "labels":
        value = writer.node("Squeeze", [value, writer.constant(np.array([1]), f"{name}.axis")], f"{name}.map")
    else:
        value = value if is_map else writer.node("Flatten", [value], f"{name}.rows", axis=1)
        if form.outputs == "scores":
            writer.output(name, value, np.float32, [axes[0], len(labels.classes), *axes[1:]], doc)
            return
        value = writer.node("ArgMax", [value], f"{name}.best" if is_map else name, axis=1, keepdims=0)
    if is_map:
        value = writer.node("Cast", [value], name, to=writer.element_type(np.uint8))
    writer.output(name, value, np.uint8 if is_map else np.int64, axes, doc)


def _onnx_input(writer: onnx_export.OnnxGraph, name: str, taken: CardInput, form: ExportFormat, doc: str) -> str:
    height, width = taken.size or ("H", "W")
    if form.inputs == "blob":
        return writer.input(name, np.float32, [form.batch_axis, taken.channels, height, width], doc)
    value = writer.input(name, np.uint8, [form.batch_axis, height, width, CHANNELS[taken.kind]], doc)
    exact = taken.mean_array
    value = writer.node("Transpose", [value], f"{name}.channels", perm=[0, 3, 1, 2])
    value = writer.node("Cast", [value], f"{name}.{exact.dtype}", to=writer.element_type(exact.dtype))
    if taken.order == "BGR":
        order = writer.constant(np.array([2, 1, 0]), f"{name}.order")
        value = writer.node("Gather", [value, order], f"{name}.BGR", axis=1)
    elif taken.order == "grey":
        value = _onnx_grey(writer, name, value, exact.dtype)
    value = writer.node("Sub", [value, writer.constant(exact[:, None, None], f"{name}.mean")], f"{name}.centred")
    value = writer.node("Cast", [value], f"{name}.blob", to=writer.element_type(np.float32))
    if not taken.scale:
        return value
    scale = writer.constant(taken.scale_array[:, None, None], f"{name}.scale")
    return writer.node("Mul", [value, scale], f"{name}.scaled")


def _onnx_grey(writer: onnx_export.OnnxGraph, name: str, value: str, dtype: npt.DTypeLike) -> str:
    """Add the operators of ``preprocess.to_grey`` for channels R G B, in double precision."""
    double = writer.node("Cast", [value], f"{name}.double", to=writer.element_type(np.float64))
    weights = writer.constant(np.array(GREY_WEIGHTS, np.float64)[:, None, None] / 0x10000, f"{name}.weights")
    parts = writer.node("Mul", [double, weights], f"{name}.parts")
    total = writer.node("ReduceSum", [parts, writer.constant(np.array([1]), f"{name}.channel")], f"{name}.sum")
    rounded = writer.node("Add", [total, writer.constant(np.float64(0.5), f"{name}.half")], f"{name}.shifted")
    return writer.node(
        "Cast", [writer.node("Floor", [rounded], f"{name}.floor")], f"{name}.grey", to=writer.element_type(dtype)
    )


def export_program(net: Net, card: Card, form: ExportFormat) -> torch.export.ExportedProgram:
    """Export a net with its preprocessing as a ``torch.export`` program of dynamic height and width, batch size 1.

    Args:
        net: the net, in phase TEST, with its weights.
        card: the net's model card.
        form: what the program takes and returns.

    Raises:
        ReproductionError: If the net's inputs cannot have this format.
    """
    example = tuple(torch.from_numpy(x) for x in random_inputs(card, form, sizes_to_check(card)[-1]).values())
    axes = (1, 2) if form.inputs == "picture" else (2, 3)
    is_resized = any(taken.size for taken in card.inputs.values())
    sizes = dict.fromkeys(() if is_resized else axes, torch.export.Dim.AUTO)
    return trace(ExportModule(net, card, form), example, (sizes,) * len(example))


def sizes_to_check(card: Card) -> Sequence[tuple[int, int]]:
    """Return the (height, width) pairs at which an export is checked: ``SIZES``, or the only one that the net takes."""
    sizes = [(taken.size[0], taken.size[1]) for taken in card.inputs.values() if taken.size]
    return sizes[:1] or SIZES


def random_inputs(card: Card, form: ExportFormat, size: tuple[int, int]) -> dict[str, Array]:
    """Return one batch of random inputs by name, to run an exported program with; they depend only on the size.

    Images are uint8 noise; blobs are the same noise preprocessed, or normal noise for depth.

    Args:
        card: the net's model card.
        form: what the program takes and returns.
        size: (height, width) in pixels.
    """
    rng = np.random.default_rng(size)
    inputs: dict[str, Array] = {}
    for name, taken in card.inputs.items():
        rgb = rng.integers(0, 256, (1, *size, CHANNELS[taken.kind]), np.uint8)
        if form.inputs == "picture":
            inputs[name] = rgb
        elif taken.kind == "depth":
            inputs[name] = rng.normal(0, 0.5, (1, 1, *size)).astype(np.float32)
        else:
            inputs[name] = preprocess.to_blob(taken, rgb[0])[None]
    return inputs


@dataclass(frozen=True)
class OutputCheck:
    """The result of comparing one output of an exported program with the net's, for inputs of one size.

    Attributes:
        size: (height, width) of the inputs, in pixels.
        output: the name of the output.
        pixels: for labels, the number of pixels; None for scores.
        worst: for scores, the largest absolute difference, as a fraction of the largest absolute score; for labels,
            the fraction of pixels whose class differs.
        sure: for labels, the number of pixels whose class must match: those whose two highest scores differ by more
            than twice the tolerance; None for scores.
    """

    size: tuple[int, int]
    output: str
    pixels: int | None
    worst: float
    sure: int | None = None

    @property
    def is_empty(self) -> bool:
        """True if the two highest scores of every pixel were too close to require a class: any labels would pass."""
        return self.sure == 0


def check_export(
    net: Net, card: Card, form: ExportFormat, run: ExportRunner, sizes: Sequence[tuple[int, int]] | None = None
) -> list[OutputCheck]:
    """Check that an exported program computes the same as the net, on random inputs of several sizes.

    Scores must agree within ``TOLERANCE``. Labels must agree wherever the net's two highest scores differ by more than
    twice the tolerance.

    Args:
        net: the net.
        card: the net's model card.
        form: what the program takes and returns.
        run: a function that runs the exported program: from inputs by name to a sequence of outputs, in the order of
            the card's labels. See ``program_runner`` and ``onnx_runner``.
        sizes: the (height, width) pairs to check; None for ``sizes_to_check``.

    Returns:
        One result for each size and output.

    Raises:
        NetError: If an output has another shape, or differs by more than is allowed.
    """
    return [each for size in sizes or sizes_to_check(card) for each in _check_at_size(net, card, form, run, size)]


def _check_at_size(
    net: Net, card: Card, form: ExportFormat, run: ExportRunner, size: tuple[int, int]
) -> Iterator[OutputCheck]:
    inputs = random_inputs(card, form, size)
    has_scores = all(labels.holds == "scores" for labels in card.labels.values())
    with torch.inference_mode():
        judge = ExportModule(net, card, ExportFormat(form.inputs, "scores" if has_scores else "labels"))
        want = judge(*(torch.from_numpy(x) for x in inputs.values()))
    got = run(inputs)
    for name, scores, values in zip(form.output_names(card), want, got, strict=True):
        allowed = TOLERANCE * float(scores.abs().max())
        if form.outputs == "scores":
            worst = float((scores - torch.from_numpy(np.array(values))).abs().max()) / float(scores.abs().max())
            # ``not <=`` rather than ``>``, so that NaN is wrong.
            wrong = values.shape != tuple(scores.shape) or not worst <= TOLERANCE
            yield OutputCheck(size, name, None, worst)
        elif scores.dtype == torch.uint8:  # the net computes labels itself, whose scores may be tied
            other = values != scores.numpy() if values.shape == scores.shape else np.ones(scores.shape, bool)
            worst = float(other.mean())
            wrong = not worst <= LABEL_TOLERANCE
            yield OutputCheck(size, name, values.size, worst, values.size)
        else:
            best = scores.topk(2, dim=1).values
            sure = ((best[:, 0] - best[:, 1]) > 2 * allowed).numpy()
            labels = scores.max(dim=1).indices.numpy()
            other = values != labels if values.shape == labels.shape else np.ones(labels.shape, bool)
            worst, wrong = float(other.mean()), bool((other & sure).any()) or values.shape != labels.shape
            yield OutputCheck(size, name, values.size, worst, int(sure.sum()))
        if wrong:
            raise NetError(
                f"the exported program computes other {form.outputs} than the net",
                got=f"{worst:.2g} at {size[0]} x {size[1]}",
                want=f"at most {TOLERANCE:g}" if form.outputs == "scores" else "the same, where the net is sure",
            )
