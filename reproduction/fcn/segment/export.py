"""Export of a net, with its preprocessing and argmax, to ONNX and ``torch.export``.

``ExportModule`` is the ``torch.nn.Module`` that does all three steps. ``export_onnx`` converts a net to ONNX and
``export_program`` to a ``torch.export`` program. Height and width are dynamic in both, the batch size in ONNX only.
``check_export`` compares an exported program's outputs with the net's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.export_net import ExportRunner, onnx_runner, program_runner
from reproduction.caffe.net.net import Net
from reproduction.caffe.typing import Array
from reproduction.fcn.datasets.spec import CHANNELS
from reproduction.fcn.images import caffe_input
from reproduction.fcn.segment.card import METADATA_KEY, Card, CardInput, format_card

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

#: Kinds of inputs: uint8 pictures, or preprocessed float32 blobs as Caffe feeds them.
INPUTS = ("picture", "blob")
#: Kinds of outputs: the class of each pixel, or the scores of all classes.
OUTPUTS = ("labels", "scores")

FORMAT_KEY = "form"  # the key in ONNX metadata; the card is stored there too
FORMAT_FILE = "form.json"  # the extra file in torch.export archives

_BLOBS = {"BGR": "B G R", "RGB": "R G B", "log(mm)": "the natural logarithm of millimetres"}


@dataclass(frozen=True)
class ExportFormat:
    """What an exported program takes and returns: images or preprocessed blobs, labels or scores.

    Attributes:
        inputs: ``picture``: (N, H, W, 3) uint8, R G B; the program reorders the channels and subtracts the mean.
            ``blob``: (N, C, H, W) float32, preprocessed as in training: in the card's channel order, minus the mean.
        outputs: ``labels``: (N, H, W) uint8. ``scores``: (N, classes, H, W) float32.
        batch: the batch size N in descriptions: ``N`` for any, as in ONNX; ``1`` for programs of ``torch.export``.
    """

    inputs: str = "picture"
    outputs: str = "labels"
    batch: str = "N"

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
            "outputs": {name: self._describe_output(len(labels.classes)) for name, labels in outputs},
        }

    def _describe_input(self, taken: CardInput) -> str:
        channels, mean = CHANNELS[taken.kind], ", ".join(f"{value:.9g}" for value in taken.mean)
        if self.inputs == "picture":
            return f"({self.batch}, H, W, {channels}) uint8, R G B, 0 to 255, as it was read"
        return f"({self.batch}, {channels}, H, W) float32, {_BLOBS[taken.order]}, minus {mean}"

    def _describe_output(self, classes: int) -> str:
        if self.outputs == "labels":
            return f"({self.batch}, H, W) uint8, the class of each pixel"
        return f"({self.batch}, {classes}, H, W) float32, the scores of all classes before a softmax"

    def check(self, card: Card) -> None:
        """Check that the inputs of a net can have this format.

        Args:
            card: the net's model card.

        Raises:
            ReproductionError: If ``inputs`` is ``picture`` and the net takes depth.
        """
        if self.inputs == "picture" and "depth" in card.kinds:
            raise ReproductionError(f"{card.net} takes depth, which is not an image", remedy="Choose --input blob.")


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

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute one output for each of the card's ``labels``, from one tensor for each of the card's ``inputs``."""
        blobs = {name: self._blob(name, x) for name, x in zip(self.card.inputs, inputs, strict=True)}
        names = [labels.score for labels in self.card.labels.values()]
        score_blobs = self.net(blobs, names)
        scores = [score_blobs[name] for name in names]
        if self.form.outputs == "scores":
            return tuple(scores)
        return tuple(each.max(dim=1).indices.to(torch.uint8) for each in scores)

    def _blob(self, name: str, x: Tensor) -> Tensor:
        if self.form.inputs == "blob":
            return x
        channels = x.permute(0, 3, 1, 2)
        if self.card.inputs[name].order == "BGR":
            channels = channels.flip(1)
        mean: Tensor = getattr(self, f"mean_{name}")
        return (channels.to(mean.dtype) - mean[:, None, None]).float()


def export_onnx(net: Net, card: Card, form: ExportFormat) -> onnx.ModelProto:
    """Convert a net with its preprocessing to an ONNX model, whose metadata contain the card and the format in words.

    Args:
        net: the net, in phase TEST, with its weights.
        card: the net's model card.
        form: what the model takes and returns.

    Raises:
        ReproductionError: If the package onnx is missing, or the net's inputs cannot have this format.
        NetError: If a layer has no equivalent in ONNX.
    """
    form.check(card)
    writer, docs = onnx_export.OnnxGraph(), form.describe(card)
    blobs = {name: _onnx_input(writer, name, taken, form, docs["inputs"][name]) for name, taken in card.inputs.items()}
    score_blobs = onnx_export.add_layers(net, writer, blobs, [labels.score for labels in card.labels.values()])
    for (name, doc), labels in zip(docs["outputs"].items(), card.labels.values(), strict=True):
        value = score_blobs[labels.score]
        if form.outputs == "scores":
            writer.output(name, value, np.float32, ["N", len(labels.classes), "H", "W"], doc)
            continue
        best = writer.node("ArgMax", [value], f"{name}.best", axis=1, keepdims=0)
        small = writer.node("Cast", [best], name, to=int(_onnx_type(np.uint8)))
        writer.output(name, small, np.uint8, ["N", "H", "W"], doc)
    return writer.model(card.net, {METADATA_KEY: format_card(card), FORMAT_KEY: json.dumps(docs)})


def _onnx_input(writer: onnx_export.OnnxGraph, name: str, taken: CardInput, form: ExportFormat, doc: str) -> str:
    channels = CHANNELS[taken.kind]
    if form.inputs == "blob":
        return writer.input(name, np.float32, ["N", channels, "H", "W"], doc)
    value = writer.input(name, np.uint8, ["N", "H", "W", channels], doc)
    exact = taken.mean_array
    value = writer.node("Transpose", [value], f"{name}.channels", perm=[0, 3, 1, 2])
    value = writer.node("Cast", [value], f"{name}.{exact.dtype}", to=int(_onnx_type(exact.dtype)))
    if taken.order == "BGR":
        order = writer.constant(np.array([2, 1, 0]), f"{name}.order")
        value = writer.node("Gather", [value, order], f"{name}.BGR", axis=1)
    value = writer.node("Sub", [value, writer.constant(exact[:, None, None], f"{name}.mean")], f"{name}.centred")
    return writer.node("Cast", [value], f"{name}.blob", to=int(_onnx_type(np.float32)))


def _onnx_type(dtype: npt.DTypeLike) -> int:
    import onnx

    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def export_program(net: Net, card: Card, form: ExportFormat) -> torch.export.ExportedProgram:
    """Export a net with its preprocessing as a ``torch.export`` program of dynamic height and width, batch size 1.

    Args:
        net: the net, in phase TEST, with its weights.
        card: the net's model card.
        form: what the program takes and returns.

    Raises:
        ReproductionError: If the net's inputs cannot have this format.
    """
    program = ExportModule(net, card, form).eval()
    example = tuple(torch.from_numpy(x) for x in random_inputs(card, form, SIZES[-1]).values())
    auto = torch.export.Dim.AUTO
    sizes = {1: auto, 2: auto} if form.inputs == "picture" else {2: auto, 3: auto}
    with torch.no_grad():
        return torch.export.export(program, example, dynamic_shapes=((sizes,) * len(example),))


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
            inputs[name] = caffe_input.subtract_mean(rgb[0], taken.mean_array, flip=taken.order == "BGR")[None]
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
    net: Net, card: Card, form: ExportFormat, run: ExportRunner, sizes: Sequence[tuple[int, int]] = SIZES
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
        sizes: the (height, width) pairs to check.

    Returns:
        One result for each size and output.

    Raises:
        NetError: If an output has another shape, or differs by more than is allowed.
    """
    return [each for size in sizes for each in _check_at_size(net, card, form, run, size)]


def _check_at_size(
    net: Net, card: Card, form: ExportFormat, run: ExportRunner, size: tuple[int, int]
) -> Iterator[OutputCheck]:
    inputs = random_inputs(card, form, size)
    with torch.inference_mode():
        want = ExportModule(net, card, ExportFormat(form.inputs, "scores"))(
            *(torch.from_numpy(x) for x in inputs.values())
        )
    got = run(inputs)
    for name, scores, values in zip(form.output_names(card), want, got, strict=True):
        allowed = TOLERANCE * float(scores.abs().max())
        if form.outputs == "scores":
            worst = float((scores - torch.from_numpy(np.array(values))).abs().max()) / float(scores.abs().max())
            # ``not <=`` rather than ``>``, so that NaN is wrong.
            wrong = values.shape != tuple(scores.shape) or not worst <= TOLERANCE
            yield OutputCheck(size, name, None, worst)
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
