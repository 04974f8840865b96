"""Export of any net, as it is: its inputs and outputs are Caffe's blobs, under their names.

``export_onnx`` and ``export_program`` convert a net to ONNX and to a program of ``torch.export``; ``check_export`` runs
the result and compares every output with the net's. Batch size and image size are free wherever the net allows it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.fx.experimental._config
from torch import Tensor, nn

from reproduction.caffe.errors import NetError, missing_package
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.python import Python
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.net import Net
from reproduction.caffe.typing import Array

if TYPE_CHECKING:
    import onnx

#: Runs an exported program: from inputs by name to the outputs in the order of the export.
ExportRunner = Callable[[Mapping[str, Array]], Sequence[Array]]

#: The largest difference allowed between an output of the program and of the net, as a fraction of its largest value.
TOLERANCE = 2e-5
#: The largest fraction of differing values in an output of whole numbers, such as labels, whose scores may be tied.
LABEL_TOLERANCE = 1e-3
#: How many pixels higher and wider the second image of a check is; a multiple of the strides of most nets.
STEP = 64


@dataclass(frozen=True)
class ExportPlan:
    """What an exported program computes, and for which shapes.

    Attributes:
        shapes: The shapes of the inputs for which the net was built, by name.
        outputs: The names of the blobs that the program returns.
        free_batch: Whether the batch size may differ from that of ``shapes``.
        free_sizes: Whether height and width (all axes from 2 on) may differ.
    """

    shapes: dict[str, Shape]
    outputs: tuple[str, ...]
    free_batch: bool
    free_sizes: bool

    def axes(self, name: str) -> list[int | str]:
        """Return the sizes of an input's axes: a number where it is fixed, else a name such as ``N`` or ``data_H``."""
        shape, prefix = self.shapes[name], "" if len(self.shapes) == 1 else f"{name}_"
        named = ["H", "W"] if len(shape) == 4 else [f"axis{i}" for i in range(2, len(shape))]
        sizes = [f"{prefix}{axis}" for axis in named] if self.free_sizes else shape[2:]
        return [*("N" if self.free_batch else size for size in shape[:1]), *shape[1:2], *sizes]

    def variants(self) -> list[dict[str, Shape]]:
        """Return the shapes for which a program is checked: two that differ along the free axes, otherwise one."""
        first = _resize(self.shapes, batch=1) if self.free_batch else self.shapes
        larger = _resize(first, batch=2 if self.free_batch else 0, step=STEP if self.free_sizes else 0)
        return [first, larger] if larger != first else [first]


def plan_export(net: Net, outputs: Sequence[str] | None = None) -> ExportPlan:
    """Find the inputs that a net needs for some blobs, and which of their axes are free.

    An axis is free if the layers accept a larger one. For example, the images of a fully convolutional net may have any
    size; InnerProduct on a feature map fixes the size.

    Args:
        net: The net, in phase TEST.
        outputs: The blobs to compute; None for the outputs of the net.

    Raises:
        NetError: If the net has no such blob, or does not compute one.
    """
    blobs = tuple(net.outputs if outputs is None else outputs)
    nodes = net.graph.find_needed(blobs)
    if given := [name for name in blobs if name in net.inputs]:
        raise NetError(f"{given[0]!r} is an input, which a program cannot compute", want=f"some of {net.outputs}")
    shapes = {name: net.blob_shapes[name] for name in net.graph.find_inputs(nodes, ())}
    if not shapes:
        raise NetError("these blobs need no input, so that there is nothing to export", got=", ".join(blobs))
    batch = all(infer_shapes(net, blobs, _resize(shapes, batch=size)) is not None for size in (1, 2))
    larger = _resize(shapes, step=STEP)
    sizes = larger != shapes and infer_shapes(net, blobs, larger) is not None
    if batch and sizes and infer_shapes(net, blobs, _resize(larger, batch=2)) is None:
        batch = False
    return ExportPlan(shapes, blobs, batch, sizes)


def takes_any_size(net: Net, plan: ExportPlan) -> bool:
    """Return whether a net takes images of any size, not only, say, multiples of 8 as most encoders with decoders.

    Args:
        net: The net, in phase TEST.
        plan: What is computed; see ``plan_export``.
    """
    steps = (1, 2, 3, 5, 7)
    return plan.free_sizes and all(infer_shapes(net, plan.outputs, _resize(plan.shapes, step=step)) for step in steps)


def _resize(shapes: Mapping[str, Shape], *, batch: int = 0, step: int = 0) -> dict[str, Shape]:
    """Return shapes with another batch size (if it is not 0), and with ``step`` added to all axes from 2 on."""
    return {
        name: (*(batch or size for size in shape[:1]), *shape[1:2], *(size + step for size in shape[2:]))
        for name, shape in shapes.items()
    }


def infer_shapes(net: Net, blobs: Sequence[str], inputs: Mapping[str, Shape]) -> dict[str, Shape] | None:
    """Return the shapes of all blobs for those of the inputs, without computing values; None if a layer refuses.

    Args:
        net: The net.
        blobs: The blobs to find the shapes of; those that they are computed from are returned, too.
        inputs: The shapes of the inputs.
    """
    shapes = dict(inputs)
    for node in net.graph.find_needed(blobs):
        layer = net.layer_at(node)
        if layer is None:
            continue
        if isinstance(layer, Python):  # its code may do anything when it is asked
            return None
        try:
            tops = layer.shapes([shapes[bottom] for bottom in node.bottoms])
        except NetError:
            return None
        shapes.update(zip(node.tops, tops, strict=True))
    return shapes


def export_onnx(
    net: Net, plan: ExportPlan, notes: Mapping[str, str] | None = None
) -> tuple[onnx.ModelProto, ExportPlan]:
    """Convert a net to an ONNX model with the net's own blobs as inputs and outputs, float32.

    Args:
        net: The net, in phase TEST, with its weights.
        plan: What to export; see ``plan_export``.
        notes: Metadata to store in the file, by key.

    Returns:
        The model, and the plan with fewer free axes if the operators of a layer are right for one size only.

    Raises:
        ReproductionError: If the package onnx is missing, or the model is too large for one file.
        NetError: If layers have no equivalent in ONNX; the error lists all of them.
    """
    graph = onnx_export.OnnxGraph(reserved=plan.outputs)
    names = {name: graph.name(name) for name in plan.shapes}
    values = onnx_export.add_layers(net, graph, names, plan.outputs)
    plan = replace(
        plan,
        free_batch=plan.free_batch and not graph.fixed_batches,
        free_sizes=plan.free_sizes and not graph.fixed_sizes,
    )
    for name in plan.shapes:
        graph.declare_input(name, np.float32, plan.axes(name))
    for name, axes in output_axes(net, plan).items():
        graph.output(name, values[name], np.float32, axes)
    return graph.model(net.graph.name, notes or {}), plan


def output_axes(net: Net, plan: ExportPlan) -> dict[str, list[int | str]]:
    """Return the sizes of each output's axes: a number where it is always the same, otherwise a name.

    Args:
        net: The net.
        plan: What is exported.
    """
    own = {name: list(net.blob_shapes[name]) for name in plan.outputs}
    named: dict[str, list[int | str]] = {name: [*shape] for name, shape in own.items()}
    layers = [net.layer_at(node) for node in net.graph.find_needed(plan.outputs)]
    if any(layer is not None and layer.sizes_vary for layer in layers):
        return {name: [f"{name}_axis{i}" for i in range(len(shape))] for name, shape in own.items()}
    others = {f"{size}": _resize(plan.shapes, batch=size) for size in (1, 2) if plan.free_batch}
    others |= {"sizes": _resize(plan.shapes, step=STEP)} if plan.free_sizes else {}
    for which, shapes in others.items():
        found = infer_shapes(net, plan.outputs, shapes) or {}
        for name, axes in named.items():
            for i, size in enumerate(found[name]):
                if size != own[name][i]:
                    axes[i] = "N" if which != "sizes" and i == 0 else f"{name}_axis{i}"
    return named


class ExportedNet(nn.Module):
    """A net as a module from tensors, in the order of the plan's inputs, to the tuple of its outputs."""

    def __init__(self, net: Net, plan: ExportPlan):
        super().__init__()
        self.net, self.plan = net, plan

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the plan."""
        blobs = self.net(dict(zip(self.plan.shapes, inputs, strict=True)), self.plan.outputs)
        return tuple(blobs[name] for name in self.plan.outputs)


def export_program(net: Net, plan: ExportPlan) -> tuple[torch.export.ExportedProgram, ExportPlan]:
    """Convert a net to a program of ``torch.export``, from its inputs to a tuple of its outputs, for one batch size.

    Args:
        net: The net, in phase TEST, with its weights.
        plan: What to export; see ``plan_export``.

    Returns:
        The program, and the plan without the axes that torch could not leave free.
    """
    plan = replace(plan, free_batch=False)
    example = tuple(torch.from_numpy(x) for x in random_inputs(plan.variants()[-1]).values())
    auto, axes = torch.export.Dim.AUTO, [range(2, x.dim()) if plan.free_sizes else () for x in example]
    program = trace(ExportedNet(net, plan), example, tuple(dict.fromkeys(each, auto) for each in axes))
    sizes = [size for value in _program_inputs(program) for size in value.shape[2:]]
    if plan.free_sizes and any(str(size).isdecimal() for size in sizes):  # a free size is a symbol such as s77
        return export_program(net, replace(plan, free_sizes=False))
    return program, plan


def trace(
    module: nn.Module, example: tuple[Tensor, ...], sizes: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    """Return the ``torch.export`` program of a module of tensors.

    Args:
        module: The module, which is put into evaluation mode.
        example: Inputs of the module.
        sizes: For each input, what ``torch.export.export`` takes as the dynamic shape: free axes with ``Dim.AUTO``.
    """
    # Otherwise the program refuses images so small that a blob has one row or column, since the example's has more.
    one_cell = torch.fx.experimental._config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with torch.no_grad(), _quiet_log("torch.fx.experimental.symbolic_shapes"), one_cell:
        return torch.export.export(module.eval(), example, dynamic_shapes=(sizes,))


@contextlib.contextmanager
def _quiet_log(name: str) -> Iterator[None]:
    """Raise the level of a log to ERROR: torch logs tracebacks for inequalities of sizes that it cannot solve."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _program_inputs(program: torch.export.ExportedProgram) -> list[Tensor]:
    """Return the placeholders of a program's inputs, whose shapes have symbols where they are free."""
    names = program.graph_signature.user_inputs
    return [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def random_inputs(shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Return random float32 inputs by name; they depend only on the shapes.

    Blobs of three or more axes, such as images, are noise of -128 to 128; others are zeros and ones, which are valid as
    indices and as the indicators of sequences.

    Args:
        shapes: The shapes by name.
    """
    inputs: dict[str, Array] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        rng = np.random.default_rng([number, *shape])
        values = rng.uniform(-128, 128, shape) if len(shape) > 2 else rng.integers(0, 2, shape)
        inputs[name] = values.astype(np.float32)
    return inputs


@dataclass(frozen=True)
class BlobCheck:
    """The result of comparing one output of an exported program with the net's.

    Attributes:
        inputs: The shapes of the inputs.
        output: The name of the output.
        worst: The largest difference as a fraction of the largest value; of whole numbers, such as labels, the fraction
            of values that differ.
        whole: Whether the output consists of whole numbers.
        equal: Whether all values of the output are equal, as with weights of zero: then the check says little.
    """

    inputs: dict[str, Shape]
    output: str
    worst: float
    whole: bool
    equal: bool


def check_export(net: Net, plan: ExportPlan, run: ExportRunner) -> list[BlobCheck]:
    """Check that an exported program computes the same as the net, on random inputs for each of the plan's variants.

    Args:
        net: The net.
        plan: What was exported.
        run: Runs the exported program on inputs by name; see ``onnx_runner`` and ``program_runner``.

    Returns:
        One result for each variant and output.

    Raises:
        NetError: If an output has another shape, or differs by more than ``TOLERANCE`` (of a Softmax layer, times the
            largest logit if that is above 1; of whole numbers, in more than ``LABEL_TOLERANCE`` of the values).
    """
    return [found for shapes in plan.variants() for found in _check_at(net, plan, run, shapes)]


def _check_at(net: Net, plan: ExportPlan, run: ExportRunner, shapes: Mapping[str, Shape]) -> list[BlobCheck]:
    inputs, results = random_inputs(shapes), []
    logits = _find_logits(net, plan)
    with torch.inference_mode():
        blobs = net(inputs, [*plan.outputs, *logits.values()])
    for name, got in zip(plan.outputs, run(inputs), strict=True):
        want = blobs[name].numpy()
        if want.shape != got.shape:
            raise NetError(f"output {name!r} of the exported program has another shape", got=got.shape, want=want.shape)
        whole, equal = bool((want == np.round(want)).all()), bool((want == want.flat[:1]).all())
        off = np.abs(want.astype(np.float64) - got)
        worst = float(np.mean(off != 0) if whole else off.max() / np.abs(want).max()) if want.size else 0.0
        allowed = LABEL_TOLERANCE if whole else TOLERANCE
        if name in logits and not whole:
            allowed *= max(1.0, float(blobs[logits[name]].abs().max()))
        if not worst <= allowed:  # also if it is NaN
            problem = f"output {name!r} of the exported program is not that of the net"
            raise NetError(problem, got=f"a difference of {worst:.2g} for {dict(shapes)}", want=f"at most {allowed:g}")
        results.append(BlobCheck(dict(shapes), name, worst, whole, equal))
    return results


def _find_logits(net: Net, plan: ExportPlan) -> dict[str, str]:
    """Return the bottoms of the Softmax layers that compute outputs, by output.

    The exponential makes a relative error of a probability of an absolute error of its logit, so that probabilities of
    large logits are less exact than the logits are.
    """
    producers = {name: net.graph.find_producer(name) for name in plan.outputs}
    return {name: node.bottoms[0] for name, node in producers.items() if node is not None and node.type == "Softmax"}


def program_runner(program: torch.export.ExportedProgram) -> ExportRunner:
    """Return a function that runs a ``torch.export`` program on NumPy arrays.

    It raises a NetError for sizes that the program does not take.
    """
    module = program.module()

    def run(inputs: Mapping[str, Array]) -> Sequence[Array]:
        try:
            with torch.no_grad():
                return [output.numpy() for output in module(*(torch.from_numpy(x) for x in inputs.values()))]
        except AssertionError as error:  # a condition on the sizes that torch wrote into the program
            got, want = ", ".join(f"{name} {array.shape}" for name, array in inputs.items()), str(error).splitlines()[0]
            remedy = "Export the net for another size, or as ONNX."
            raise NetError("the program does not take this size", got=got, want=want, remedy=remedy) from None

    return run


def onnx_runner(model: bytes) -> ExportRunner:
    """Return a function that runs a serialized ONNX model with ONNX Runtime on the CPU.

    Raises:
        ReproductionError: If the package onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing_package("onnxruntime", "export", ", or leave the check out with --no-check") from None
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))
