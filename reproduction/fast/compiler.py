"""Compile a net for inference; the result is called like the net and returns the same values, faster.

compiled = compiler.compile(net)
scores = compiled({"data": images}, blobs=["score"])["score"]
print(compiled.explain(500, 375))
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.onnx_graph import OnnxGraph
from reproduction.caffe.net.inputs import Given, Values, parse_inputs
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fast.buffers import BufferPool
from reproduction.fast.convert import ParameterVersions, convert_layers
from reproduction.fast.convolution import ConvolutionOp
from reproduction.fast.cuda_graph import RecordedFunction
from reproduction.fast.engines import SIZES, EngineChoice, RuntimeGraph, check_engine
from reproduction.fast.execution import execute
from reproduction.fast.explain import format_plan
from reproduction.fast.kernels import ConvolutionKernel
from reproduction.fast.plan import ExecutionPlan
from reproduction.fast.planned_graph import add_plan
from reproduction.fast.planner import Planner
from reproduction.fast.precisions import PRECISIONS, set_cudnn_flags, supported_precision
from reproduction.fast.threads import reduce_spinning

_PLANS = 32  # cached plans, one per combination of input shapes and requested blobs
_WITHOUT_DISCARD = "Compile it without discard."
_RECORDED_CALL = 2  # number of the call, for each plan on a GPU, that is recorded as a CUDA graph


def compile(
    net: Net, precision: str = "exact", *, discard: bool = False, steady: bool = False, engine: str = "torch"
) -> CompiledNet:
    """Compile a net for inference.

    Normalizations, sums and ReLUs are computed together with the convolution before them, unless a blob in between is
    requested. How a size is computed may improve at its second call, so that the results of the first call differ from
    those of later calls by rounding; ``steady`` prevents that.

    The weights of compiled layers are converted when they are first needed, and again after an in-place change of the
    net's parameters (changes through ``.data`` are not detected). The net and the converted weights together can need
    more than twice the memory of the net.

    On the CPU, OpenMP's threads spin for a shorter time in the rest of the process; see ``threads.reduce_spinning``.

    Args:
        net: The net, in phase TEST, in single precision, on the CPU or a CUDA device.
        precision: One of ``PRECISIONS``; if the device does not support it, the next more exact one is used.
            ``exact``: errors of every blob within 2e-5 of its largest value, as rounding in single precision causes.
            ``winograd``: on the CPU, Winograd's method along both axes also for large kernels; scores within 1e-4.
            ``tf32``: on CUDA, factors rounded to 10 bits; scores within about 1e-2.
            ``bf16``: products of bfloat16, added in single precision; scores within about 3e-2.
        discard: Whether to free the large weights of the net that are converted for inputs of the declared shapes, and
            set them to NaN. The compiled net can then not be copied or pickled.
        steady: Whether the results on the CPU depend only on the inputs and the number of threads, not on the calls
            before. Otherwise their last digits may change at the second and at the fourth call of a size, from which
            on steps that oneDNN computes are prepared together; that makes small nets up to twice as fast.
        engine: What computes a net in single precision on the CPU; one of ``precisions.ENGINES``. ``torch``: this
            project's kernels. ``onnxruntime``, ``openvino``: that runtime, from the first call of a size on, which
            takes up to seconds to prepare and is kept for the last four sizes; ``torch`` if a layer cannot be written
            as ONNX. ``onnxruntime`` computes ``bf16`` in single precision. ``auto``: ``torch`` for the first ten calls
            of a size; at the eleventh it and the runtimes of the extra ``fast`` that are installed and compute in the
            precision are measured with the images of that call, and the fastest computes the size from then on. That
            is done for up to four sizes. For a further size, only the fastest of the size before is measured; if that
            was ``torch``, or if ``steady`` is True or ``discard`` freed weights, ``torch`` computes all other sizes.

    Raises:
        NetError: If the net is in phase TRAIN, or if the precision or the engine is unknown.
        ReproductionError: If the engine is not installed.
    """
    check_engine(engine)
    if precision not in PRECISIONS:
        raise NetError("there is no such precision", got=repr(precision), want=", ".join(PRECISIONS))
    if net.training or net.graph.state.phase is not Phase.TEST:
        raise NetError("a net is compiled for inference", got="phase TRAIN", want="phase TEST")
    supported = supported_precision(precision, net.device.type)
    return CompiledNet(net, supported, discard=discard, steady=steady, engine=engine)


@dataclass
class _CachedPlan:
    """A cached plan, and its graph if it has one.

    Attributes:
        plan: The plan.
        may_improve: Whether the second call creates a plan again, because an image of zeros did not pay off for a
            single call.
        calls: The number of calls of this size.
        graph: What is called instead: the plan as a recorded CUDA graph, or in the runtime of the fastest engine; None
            if torch computes it.
    """

    plan: ExecutionPlan
    may_improve: bool
    calls: int
    graph: RecordedFunction | RuntimeGraph | None = None


class CompiledNet:
    """A compiled net, created by ``compile``; it is called like the net, with images of any size.

    Args:
        net: The net, in phase TEST.
        precision: One of ``PRECISIONS`` that the net's device supports.
        discard: Whether to free large weights that were converted; see ``compile``.
        steady: Whether results must not depend on earlier calls; see ``compile``.
        engine: One of ``ENGINES``; see ``compile``.
        converted: Converted weights of a saved compiled net, by name.
        zero_images: Its values for images of zeros; see ``Planner``.

    Attributes:
        net: The net that was compiled.
        precision: The precision in use; more exact than the requested one if the device does not support that.
        engine: The engine that was chosen; see ``compile``.
    """

    def __init__(
        self,
        net: Net,
        precision: str,
        *,
        discard: bool = False,
        steady: bool = False,
        engine: str = "torch",
        converted: Mapping[str, Tensor] | None = None,
        zero_images: Mapping[Hashable, Mapping[str, Tensor]] | None = None,
    ):
        self.net = net
        self.precision = precision
        self.engine = engine
        self._steady = steady
        self._find_inputs = lru_cache(_PLANS)(lambda names: net.graph.find_inputs(net.graph.find_needed(names), names))
        self._lock = threading.Lock()
        self._discarded: dict[str, Tensor] = {}  # the converted form of freed weights, by name of the parameter
        self._convert_net(converted)
        self._planner.zero_images.update(zero_images or {})
        if discard:
            self._discard_weights()

    def _convert_net(self, converted: Mapping[str, Tensor] | None = None) -> None:
        """Convert the current weights, except those that are given by name, and clear all plans."""
        device = self.net.device
        self._converted = dict(converted or {})
        self._ops, self._last_versions = convert_layers(self.net, self.precision, self._converted)
        self._buffers = self._new_buffers()
        self._plans: dict[Hashable, _CachedPlan] = {}  # those used least recently come first
        self._run_plan = partial(self._execute, buffers=self._buffers)
        self._planner = Planner(self._ops, self.net.inputs, device, self._run_plan, steady=self._steady)
        self._graph_pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._versions = ParameterVersions(self.net)
        is_single_on_cpu = device.type == "cpu" and self.net.dtype is torch.float32
        may_change = self.engine == "auto" and self._steady
        self._engines = EngineChoice(self.engine if is_single_on_cpu and not may_change else "torch", self.precision)

    def _new_buffers(self) -> BufferPool:
        return BufferPool(torch.bfloat16 if self.precision == "bf16" else self.net.dtype, self.net.device)

    @torch.inference_mode()
    def _discard_weights(self) -> None:
        """Free the large weights that are not read for inputs of the declared shapes; if there are any, torch computes.

        Small weights are not freed, since inputs of other shapes may need them.
        """
        names = {blob.data_ptr(): name for name, blob in self.net.named_parameters()}
        readers = Counter(blob.data_ptr() for op in self._ops for blob in op.layer.blobs)
        shapes = {name: self.net.blob_shapes[name] for name in self.net.inputs}
        choice = self._planner.choose(shapes, self._find_versions(self.net.graph.outputs))
        for op in choice.ops:
            if not isinstance(op, ConvolutionOp) or not op.is_large:
                continue
            weight = op.layer.blobs[0]
            if readers[weight.data_ptr()] > 1:
                continue  # another layer shares the weights
            first = next(each for each in self._ops if each.layer is op.layer)
            between = {blob for each in (first, *op.folded) for blob in each.tops} - set(op.tops)
            if not op.has_own_weights or between.intersection(self._last_versions.values()):
                continue  # without the folded layers, other weights are needed
            kernel = op.make_kernel([], choice.regions[op.tops[0]].computed)
            if not isinstance(kernel, ConvolutionKernel) or kernel.weight.data_ptr() == weight.data_ptr():
                continue  # it multiplies the net's own weights
            op.only_kernel = kernel
            self._discarded[names[weight.data_ptr()]] = kernel.weight
            weight.data = weight.data.new_full((1,), math.nan).expand(weight.shape)
        if self._discarded:
            self._engines = EngineChoice("torch", self.precision)
        self._versions = ParameterVersions(self.net)

    def __reduce__(self) -> tuple[Callable[[Net], CompiledNet], tuple[Net]]:
        """Return how to make a copy: by compiling a copy of the net, whose weights are converted when needed.

        Raises:
            NetError: If weights were freed by ``discard``.
        """
        if self._discarded:
            problem = "a compiled net cannot be copied or pickled after its weights were freed"
            raise NetError(problem, remedy=_WITHOUT_DISCARD)
        return partial(CompiledNet, **self._options), (self.net,)

    @property
    def _options(self) -> dict[str, Any]:
        return {"precision": self.precision, "steady": self._steady, "engine": self.engine}

    def to(self, device: torch.device) -> CompiledNet:
        """Move the net to a device, and return this compiled net.

        If the device does not support ``precision``, the next more exact one is used.

        Raises:
            NetError: If weights were freed by ``discard``.
        """
        if self._discarded:
            raise NetError("a compiled net cannot be moved after its weights were freed", remedy=_WITHOUT_DISCARD)
        with self._lock:
            self.net.to(device)
            self.precision = supported_precision(self.precision, device.type)
            self._convert_net()
        return self

    def __call__(self, *inputs: Given, blobs: Iterable[str] | None = None, **named: Values) -> dict[str, Tensor]:
        """Run the net as ``Net.forward`` does, without gradients.

        Args:
            inputs: A mapping from names of inputs to values, optionally followed by ``blobs``; or one tensor per
                input, in the order of ``Net.inputs``. Images may have any size.
            named: More inputs, by name.
            blobs: Names of the blobs to return; None returns the net's outputs.

        Returns:
            The requested blobs by name, in the net's dtype.

        Raises:
            NetError: If an input is missing or does not fit the net, if the net has no such blob, or if the net was
                changed after ``discard`` had freed weights.
        """
        given, blobs = parse_inputs(self.net.inputs, inputs, named, blobs)
        names = list(self.net.graph.outputs if blobs is None else blobs)
        with torch.inference_mode(), self._lock:
            self._convert_changed_net()
            try:
                fed = self.net.feed(given, self._find_inputs(tuple(names)))
                shapes = {name: tuple(value.shape) for name, value in fed.items()}
                cached = self._find_plan(shapes, names)
                cached.calls += 1
                if self._graph_pool and cached.calls == _RECORDED_CALL:
                    self._record(cached, fed)
                if cached.graph is None and self._engines.is_due(cached.calls):
                    self._choose_engine(cached, fed)
                results = cached.graph(fed) if cached.graph else self._run_plan(cached.plan, fed)
            except BaseException:
                self._buffers.clear()
                raise
            return {name: results[self._last_versions[name]] for name in names}

    forward = __call__

    def save(self, path: StrPath) -> None:
        """Write the compiled net to a file, which ``load_compiled`` opens in a fraction of a second.

        It has the net and its weights; those that were converted until now, or that inputs of the declared shapes need,
        also in converted form. Weights freed by ``discard`` are in it in that form alone.

        Raises:
            ReproductionError: If the net has Python layers, or the file cannot be written.
        """
        from reproduction.fast import saved_net

        with torch.inference_mode(), self._lock:
            self._convert_changed_net()
            self._find_plan({name: self.net.blob_shapes[name] for name in self.net.inputs}, self.net.graph.outputs)
            saved_net.write(self, path)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the net's parameters by name; weights freed by ``discard`` are replaced by their converted form."""
        return self.net.state_dict() | self._discarded

    def explain(self, height: int, width: int, blobs: Iterable[str] | None = None) -> str:
        """Return a table of how the net computes images of a given size, to see what compiling saves.

        It lists for each layer how it is computed, which part of its top is computed, and how many multiplications that
        needs; then the engine that computes this size, unless ``torch`` computes all.

        Args:
            height: Height of the images in pixels.
            width: Width of the images in pixels.
            blobs: Names of the requested blobs; None means the net's outputs.

        Raises:
            NetError: If the net does not accept images of this size, or if it has no such blob.
        """
        declared = {name: self.net.blob_shapes[name] for name in self.net.inputs}
        shapes = {name: (*shape[:2], height, width) if len(shape) == 4 else shape for name, shape in declared.items()}
        names = list(self.net.graph.outputs if blobs is None else blobs)
        self.net.graph.find_needed(names)  # raises NetError for a blob that the net does not have
        with torch.inference_mode(), self._lock:
            self._convert_changed_net()
            cached = self._find_plan(shapes, names)
            table = format_plan(cached.plan)
            engine = cached.graph.name if isinstance(cached.graph, RuntimeGraph) else self._engines.describe()
            return table if self.engine == "torch" else f"{table}\nThe engine is {engine}."

    def add_to_onnx(
        self, graph: OnnxGraph, values: Mapping[str, str], shapes: Mapping[str, Shape], blobs: Sequence[str]
    ) -> dict[str, str]:
        """Add the operators that compute some blobs for inputs of the given shapes to an ONNX graph.

        Only what depends on the image is computed; the rest, such as the border that padding causes, is constant.

        Args:
            graph: The graph that the operators are added to.
            values: For each input of the net, the name of its value in the graph, which is float32.
            shapes: For each input, its shape.
            blobs: Names of the blobs.

        Returns:
            For each blob, the name of its value in the graph.

        Raises:
            NetError: If layers cannot be written as ONNX, if the inputs do not fit the net, or if weights were freed by
                ``discard``.
        """
        if self._discarded:
            raise NetError("a compiled net cannot be written after its weights were freed", remedy=_WITHOUT_DISCARD)
        wanted = self._find_versions(blobs)
        with torch.inference_mode(), self._lock:
            self._convert_changed_net()
            found = add_plan(self._planner.choose(shapes, wanted, as_graph=True), graph, values, wanted)
        return {name: found[self._last_versions[name]] for name in blobs}

    def _convert_changed_net(self) -> None:
        """Convert the weights again if a parameter of the net was changed in place or replaced.

        Raises:
            NetError: If weights were freed by ``discard``.
        """
        if not self._versions.have_changed():
            return
        if self._discarded:
            raise NetError("the net was changed after compile() had freed its weights", remedy="Compile it again.")
        self._convert_net()

    def _find_versions(self, names: Iterable[str]) -> list[str]:
        """Return the versioned names of the last values of the given blobs, without duplicates."""
        return list(dict.fromkeys(self._last_versions[name] for name in names))

    def _find_plan(self, shapes: dict[str, Shape], names: Iterable[str]) -> _CachedPlan:
        """Return the cached plan for these inputs, or create one.

        A plan that may improve is created again after its first call: it may then cost more to prepare, because later
        calls will use it, too.

        Args:
            shapes: Shapes of the inputs by name.
            names: Names of the requested blobs.
        """
        wanted = self._find_versions(names)
        key = (tuple(sorted(shapes.items())), tuple(wanted))
        cached = self._plans.pop(key, None)
        if cached is None or (cached.may_improve and cached.calls):
            patient = cached is not None or self._steady
            choice = self._planner.choose(shapes, wanted, patient=patient)
            if self.net.device.type == "cpu":
                reduce_spinning()
            plan, may_improve = self._planner.build(choice, wanted), choice.zero_values is None and not patient
            # On a GPU the second call of a size is recorded, also if the plan is new.
            cached = _CachedPlan(plan, may_improve, cached.calls if cached else 0)
        self._plans[key] = cached
        if len(self._plans) > _PLANS:
            del self._plans[next(iter(self._plans))]
        return cached

    def _record(self, cached: _CachedPlan, fed: Mapping[str, Tensor]) -> None:
        """Record a plan as a CUDA graph, if that is possible.

        That is done at the second call of a size, since a size that came once may not come again.
        """
        with suppress(RuntimeError):  # an uncompiled layer may synchronize with the GPU, which cannot be recorded
            run = partial(self._execute, cached.plan, buffers=self._new_buffers(), tune=True)
            cached.graph = RecordedFunction(run, fed, self._graph_pool)

    def _choose_engine(self, cached: _CachedPlan, fed: Mapping[str, Tensor]) -> None:
        """Choose the engine of a size, and prepare its graph unless it is torch."""
        wanted = cached.plan.wanted
        write = lru_cache(partial(self._write_graph, wanted, fed))  # all runtimes read the same
        cached.graph = self._engines.choose(
            lambda runtime: runtime(write(), wanted, self.precision),
            fed,
            partial(self._run_plan, cached.plan, fed),
        )
        prepared = [each for each in self._plans.values() if each.graph]
        for each in prepared[:-SIZES]:  # those used least recently, since each graph has a copy of the weights
            each.graph = None

    def _write_graph(self, wanted: list[str], fed: Mapping[str, Tensor]) -> OnnxGraph:
        """Return the plan for the given inputs as a graph, with an output for each blob of ``wanted``, in order.

        Raises:
            NetError: If layers cannot be written as ONNX, or the size of a blob depends on values, such as a list of
                detections.
        """
        graph, shapes = OnnxGraph(), {name: tuple(value.shape) for name, value in fed.items()}
        values = {name: graph.input(name, np.float32, shape) for name, shape in shapes.items()}
        choice = self._planner.choose(shapes, wanted, as_graph=True)
        if choice.facts.varying.intersection(wanted):
            raise NetError("the sizes of the requested blobs depend on values")
        for name, value in add_plan(choice, graph, values, wanted).items():
            graph.output(f"{name}.out", value, np.float32, choice.facts.shapes[name])
        return graph

    def _execute(
        self, plan: ExecutionPlan, inputs: Mapping[str, Tensor], buffers: BufferPool, *, tune: bool = False
    ) -> dict[str, Tensor]:
        """Execute a plan and return the requested blobs, under the plan's (versioned) names."""
        with set_cudnn_flags(self.net.device, self.precision, tune=tune):
            return execute(plan, inputs, buffers, self.net.dtype)
