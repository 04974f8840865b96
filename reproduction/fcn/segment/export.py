"""A net with its preprocessing and its choice of classes, in formats that other programs run.

``Program`` is the module; ``onnx_model`` writes it as ONNX and ``exported`` as a ``torch.export`` program, each for
any height and width. ``check`` holds what another program computes against the net itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.net import Net
from reproduction.fcn.images import caffe_input
from reproduction.fcn.nets.published_nets import CHANNELS
from reproduction.fcn.segment import card
from reproduction.fcn.segment.card import Card

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], Sequence[Array]]

#: Heights and widths at which an export is checked: small and odd, square, wider than high.
SIZES = ((33, 47), (64, 64), (70, 131))
#: Of the greatest score, how much another program's may differ.
TOLERANCE = 2e-5

#: What the inputs hold: pictures as they are, or blobs as Caffe feeds them.
INPUTS = ("picture", "blob")
#: What the outputs say: the class of each pixel, or the scores of all classes.
OUTPUTS = ("labels", "scores")

KEY = "form"  # beside the card, in the metadata of ONNX
FILE = "form.json"  # and in programs of torch.export

_BLOBS = {"BGR": "B G R", "RGB": "R G B", "log(mm)": "the natural logarithm of millimetres"}


@dataclass(frozen=True)
class Form:
    """What goes in and what comes out.

    Attributes:
        inputs: ``picture``: (N, H, W, 3) uint8, R G B; the mean and the order of the channels are inside.
            ``blob``: (N, C, H, W) float32, as the net was trained: B G R, minus the mean.
        outputs: ``labels``: (N, H, W) uint8. ``scores``: (N, classes, H, W) float32.
    """

    inputs: str = "picture"
    outputs: str = "labels"

    def output_names(self, about: Card) -> list[str]:
        """Name the outputs: ``labels``, or ``labels_sem`` and so on where a net has several."""
        return [self.outputs if len(about.labels) == 1 else f"{self.outputs}_{top}" for top in about.labels]

    def said(self, about: Card) -> dict[str, dict[str, str]]:
        """Say of each input what it takes, and of each output what it gives: what is fed may be wrong unnoticed."""
        outputs = zip(self.output_names(about), about.labels.values(), strict=True)
        return {
            "inputs": {name: self._taken(taken) for name, taken in about.inputs.items()},
            "outputs": {name: self._given(len(labels.classes)) for name, labels in outputs},
        }

    def _taken(self, taken: card.Input) -> str:
        channels, mean = CHANNELS[taken.kind], ", ".join(f"{value:.9g}" for value in taken.mean)
        if self.inputs == "picture":
            return f"(N, H, W, {channels}) uint8, R G B, 0 to 255, as it was read"
        return f"(N, {channels}, H, W) float32, {_BLOBS[taken.order]}, minus {mean}"

    def _given(self, classes: int) -> str:
        if self.outputs == "labels":
            return "(N, H, W) uint8, the class of each pixel"
        return f"(N, {classes}, H, W) float32, the scores of all classes before a softmax"

    def check(self, about: Card) -> None:
        """See that the net's inputs can be given so.

        Raises:
            ReproductionError: they cannot.
        """
        if self.inputs == "picture" and "depth" in about.kinds:
            raise ReproductionError(f"{about.net} takes depth, which is no picture", remedy="Choose --input blob.")


class Program(nn.Module):
    """A net from the pictures to the labels, as one module.

    Args:
        net: the net, in phase TEST, with its weights.
        about: its card.
        form: what goes in and what comes out.
    """

    def __init__(self, net: Net, about: Card, form: Form):
        super().__init__()
        form.check(about)
        self.net, self.about, self.form = net, about, form
        for blob, taken in about.inputs.items():
            self.register_buffer(f"mean_{blob}", torch.from_numpy(taken.mean_array), persistent=False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, in the order of the card's labels, from the inputs, in the order of the card's."""
        blobs = {name: self._blob(name, x) for name, x in zip(self.about.inputs, inputs, strict=True)}
        found = self.net(blobs, [labels.score for labels in self.about.labels.values()])
        scores = [found[labels.score] for labels in self.about.labels.values()]
        if self.form.outputs == "scores":
            return tuple(scores)
        return tuple(each.max(dim=1).indices.to(torch.uint8) for each in scores)

    def _blob(self, name: str, x: Tensor) -> Tensor:
        if self.form.inputs == "blob":
            return x
        channels = x.permute(0, 3, 1, 2)
        if self.about.inputs[name].order == "BGR":
            channels = channels.flip(1)
        mean: Tensor = getattr(self, f"mean_{name}")
        return (channels.to(mean.dtype) - mean[:, None, None]).float()


def onnx_model(net: Net, about: Card, form: Form) -> onnx.ModelProto:
    """Write a net as ONNX; its card, and what goes in and comes out, are in the model's metadata.

    Raises:
        ReproductionError: the package onnx is missing; the inputs cannot be given so.
        NetError: a layer has no like in ONNX.
    """
    form.check(about)
    writer, said = onnx_export.Writer(), form.said(about)
    fed = {name: _onnx_input(writer, name, taken, form, said["inputs"][name]) for name, taken in about.inputs.items()}
    found = onnx_export.write(net, writer, fed, [labels.score for labels in about.labels.values()])
    for (name, doc), labels in zip(said["outputs"].items(), about.labels.values(), strict=True):
        value = found[labels.score]
        if form.outputs == "scores":
            writer.output(name, value, np.float32, ["N", len(labels.classes), "H", "W"], doc)
            continue
        best = writer.node("ArgMax", [value], f"{name}.best", axis=1, keepdims=0)
        small = writer.node("Cast", [best], name, to=int(_onnx_type(np.uint8)))
        writer.output(name, small, np.uint8, ["N", "H", "W"], doc)
    return writer.model(about.net, {card.KEY: card.dumps(about), KEY: json.dumps(said)})


def _onnx_input(writer: onnx_export.Writer, name: str, taken: card.Input, form: Form, doc: str) -> str:
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


def exported(net: Net, about: Card, form: Form) -> torch.export.ExportedProgram:
    """Export a net as a program of torch's, which ``torch.export.save`` writes and ``torch.export.load`` reads.

    Raises:
        ReproductionError: the inputs cannot be given so.
    """
    program = Program(net, about, form).eval()
    example = tuple(torch.from_numpy(x) for x in samples(about, form, SIZES[-1]).values())
    auto = torch.export.Dim.AUTO
    sizes = {1: auto, 2: auto} if form.inputs == "picture" else {2: auto, 3: auto}
    with torch.no_grad():
        return torch.export.export(program, example, dynamic_shapes=((sizes,) * len(example),))


def samples(about: Card, form: Form, size: tuple[int, int]) -> dict[str, Array]:
    """Make inputs to check with: seeded noise, smooth enough to hold more than one class."""
    rng = np.random.default_rng(size)
    found: dict[str, Array] = {}
    for name, taken in about.inputs.items():
        rgb = rng.integers(0, 256, (1, *size, CHANNELS[taken.kind]), np.uint8)
        if form.inputs == "picture":
            found[name] = rgb
        elif taken.kind == "depth":
            found[name] = rng.normal(0, 0.5, (1, 1, *size)).astype(np.float32)
        else:
            found[name] = caffe_input.caffe_input(rgb[0], taken.mean_array, flip=taken.order == "BGR")[None]
    return found


@dataclass(frozen=True)
class Checked:
    """How near another program comes to the net, at one size.

    Attributes:
        size: height and width.
        output: the name.
        pixels: with labels, how many pixels there are; with scores, None.
        worst: with scores, the greatest difference, of the greatest score; with labels, the share of pixels of
            another class.
        sure: with labels, how many pixels could be checked: where the two best scores differ by more than rounding.
    """

    size: tuple[int, int]
    output: str
    pixels: int | None
    worst: float
    sure: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was checked, so that any labels would have passed."""
        return self.sure == 0


def check(net: Net, about: Card, form: Form, run: Run, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Checked]:
    """Hold another program against the net, at several sizes.

    Labels must be those of the net wherever its two best scores are further apart than rounding.

    Args:
        net: the net.
        about: its card.
        form: what goes in and comes out.
        run: the other program: inputs by name -> outputs in their order.
        sizes: heights and widths.

    Raises:
        NetError: it computes something else.
    """
    return [each for size in sizes for each in _check_size(net, about, form, run, size)]


def _check_size(net: Net, about: Card, form: Form, run: Run, size: tuple[int, int]) -> Iterator[Checked]:
    inputs = samples(about, form, size)
    with torch.inference_mode():
        want = Program(net, about, Form(form.inputs, "scores"))(*(torch.from_numpy(x) for x in inputs.values()))
    got = run(inputs)
    for name, scores, values in zip(form.output_names(about), want, got, strict=True):
        allowed = TOLERANCE * float(scores.abs().max())
        if form.outputs == "scores":
            worst = float((scores - torch.from_numpy(np.array(values))).abs().max()) / float(scores.abs().max())
            wrong = values.shape != tuple(scores.shape) or not worst <= TOLERANCE
            yield Checked(size, name, None, worst)
        else:
            best = scores.topk(2, dim=1).values
            sure = ((best[:, 0] - best[:, 1]) > 2 * allowed).numpy()
            labels = scores.max(dim=1).indices.numpy()
            other = values != labels if values.shape == labels.shape else np.ones(labels.shape, bool)
            worst, wrong = float(other.mean()), bool((other & sure).any()) or values.shape != labels.shape
            yield Checked(size, name, values.size, worst, int(sure.sum()))
        if wrong:
            raise NetError(
                f"the exported program computes other {form.outputs} than the net",
                got=f"{worst:.2g} at {size[0]} x {size[1]}",
                want=f"at most {TOLERANCE:g}" if form.outputs == "scores" else "the same, where the net is sure",
            )


def torch_program(program: torch.export.ExportedProgram) -> Run:
    """Make torch run an exported program."""
    module = program.module()

    def run(inputs: Mapping[str, Array]) -> Sequence[Array]:
        with torch.no_grad():
            return [found.numpy() for found in module(*(torch.from_numpy(x) for x in inputs.values()))]

    return run


def onnx_runtime(model: bytes) -> Run:
    """Make ONNX Runtime run a model on the CPU.

    Raises:
        ReproductionError: the package onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        remedy = "Install it: pip install onnxruntime; or leave the check out with --no-check."
        raise ReproductionError("the package onnxruntime is not installed", remedy=remedy) from None
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))
