"""Compile a net for inference; the result is called like the net and returns the same values, faster.

fast = compiler.compile(net)
scores = fast({"data": images}, blobs=["score"])["score"]
print(fast.explain(500, 375))
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net.inputs import Given, Values, parse_inputs
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fast import ops, plan, table
from reproduction.fast.cuda_graph import Recording
from reproduction.fast.kernels import Product
from reproduction.fast.memory import Memory
from reproduction.fast.plan import Part, Plan, Survey
from reproduction.fast.running import Run
from reproduction.fast.threads import spin_less

_PLANS = 32  # cached plans, one per combination of input shapes and requested blobs
_BLANKS = 256  # cached results of images of zeros
_PATIENCE = 8  # calls within which the cost of an image of zeros must pay off, for an input size that was seen before
_RECORDED = 2  # number of the call, for each plan on a GPU, that is recorded as a CUDA graph
_STEPS = 12  # sizes of an image of zeros that are tried, each larger than the last by one period


def compile(net: Net, precision: str = "exact", *, discard: bool = False) -> CompiledNet:
    """Compile a net for inference.

    For each input size, a layer is compiled only if that is certain to be faster, and the uncompiled net runs if the
    whole plan is not certain to be faster, as for most classifiers of small images. The weights of compiled layers are
    converted when they are first needed, and again after an in-place change of the net's parameters (changes through
    ``.data`` are not detected). The net and the converted weights together can need more than twice the memory of the
    net. The plan for an input size may improve at its second call, so that the results of the first call differ from
    those of later calls by rounding.

    On the CPU, OpenMP's threads spin for a shorter time in the rest of the process; see ``threads.spin_less``.

    Args:
        net: The net, in phase TEST, in single precision, on the CPU or a CUDA device.
        precision: One of ``PRECISIONS``; if the device does not support it, the next more exact one is used.
            ``exact``: errors of every blob within 2e-5 of its largest value, as rounding in single precision causes.
            ``winograd``: on the CPU, Winograd's method along both axes also for large kernels; scores within 1e-4.
            ``tf32``: on CUDA, factors rounded to 10 bits; scores within about 1e-2.
            ``bf16``: products of bfloat16, added in single precision; scores within about 3e-2.
        discard: Free the large weights of the net that are converted for inputs of the declared shapes, and set them
            to NaN. The compiled net can then not be copied or pickled.

    Raises:
        NetError: If the net is in phase TRAIN, or if the precision is unknown.
    """
    if precision not in ops.PRECISIONS:
        raise NetError("there is no such precision", got=repr(precision), want=", ".join(ops.PRECISIONS))
    if net.training or net.graph.state.phase is not Phase.TEST:
        raise NetError("a net is compiled for inference", got="phase TRAIN", want="phase TEST")
    return CompiledNet(net, ops.in_effect(precision, net.device.type), discard=discard)


class CompiledNet:
    """A compiled net, created by ``compile``.

    Attributes:
        net: The net that was compiled.
        precision: The precision in use; more exact than the requested one if the device does not support that.
    """

    def __init__(self, net: Net, precision: str, *, discard: bool = False):
        self.net = net
        self.precision = precision
        self._dtype = torch.bfloat16 if precision == "bf16" else net.dtype
        self._lock = threading.Lock()
        self._discarded: dict[str, Tensor] = {}
        self._build()
        if discard:
            with torch.inference_mode():
                self._discard()

    def _build(self) -> None:
        """Build the ops from the current weights, and clear all plans."""
        self._ops, self._last = ops.build(self.net, self.precision)
        self._memory = Memory(self._dtype, self.net.device)
        self._plans: OrderedDict[Any, _Ready] = OrderedDict()
        self._blanks: OrderedDict[Any, Mapping[str, Tensor]] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if self.net.device.type == "cuda" else None
        self._seen = _versions(self.net)

    def _discard(self) -> None:
        """Free the large weights that are not read for inputs of the declared shapes.

        Small weights are not freed, since inputs of other shapes may need them.
        """
        names = {blob.data_ptr(): name for name, blob in self.net.named_parameters()}
        readers = Counter(blob.data_ptr() for op in self._ops for blob in op.layer.blobs)
        found = self._choose(
            {name: self.net.blob_shapes[name] for name in self.net.inputs},
            list(dict.fromkeys(self._last[name] for name in self.net.graph.outputs)),
        )
        for op in found.ops if found.worthwhile else ():
            weight = op.layer.blobs[0] if isinstance(op, ops.Conv) else None
            if not isinstance(op, ops.Conv) or weight is None or not op.quick.heavy or readers[weight.data_ptr()] > 1:
                continue  # a layer that shares the weights may run uncompiled
            kernel = op.quick.kernel(found.parts[op.tops[0]].made)
            if isinstance(kernel, Product):
                continue  # it multiplies the net's own weights
            op.quick.only = kernel
            self._discarded[names[weight.data_ptr()]] = kernel.weight
            weight.data = weight.data.new_full((1,), math.nan).expand(weight.shape)
        self._seen = _versions(self.net)

    def __getstate__(self) -> dict[str, Any]:
        """Return the net and the precision, for copying and pickling; the copy converts its weights when needed.

        Raises:
            NetError: If weights were freed by ``discard``.
        """
        if self._discarded:
            problem = "a compiled net whose weights were given up cannot be copied or pickled"
            raise NetError(problem, remedy="Compile it without discard.")
        return {"net": self.net, "precision": self.precision}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile the copied net."""
        self.__init__(state["net"], state["precision"])  # type: ignore[misc]

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
            self._look_again()
            try:
                fed = self.net.feed(given, names, self.net.graph.find_needed(names))
                shapes = {name: tuple(value.shape) for name, value in fed.items()}
                ready = self._plan(shapes, names)
                if ready.waits and ready.calls:
                    calls, ready = ready.calls, self._plan(shapes, names, patient=True)
                    ready.calls = calls  # on a GPU the second call of a size is recorded, also if the plan is new
                ready.calls += 1
                if not ready.worthwhile:
                    return dict(self.net(fed, names))
                found = self._play(ready, fed) if self._pool else self._run(ready.plan, fed, self._memory)
            except BaseException:
                self._memory.clear()
                raise
            return {name: found[self._last[name]] for name in names}

    forward = __call__

    def state_dict(self) -> dict[str, Tensor]:
        """Return the net's parameters by name; weights freed by ``discard`` are replaced by their converted form."""
        return self.net.state_dict() | self._discarded

    def explain(self, height: int, width: int, blobs: Iterable[str] | None = None) -> str:
        """Return a table of the plan for images of a given size.

        It lists for each layer how it is computed, which part of its top is computed, and how many products that saves.

        Args:
            height: Height of the images in pixels.
            width: Width of the images in pixels.
            blobs: Names of the requested blobs; None means the net's outputs.

        Raises:
            NetError: If the net does not accept images of this size, or if it has no such blob.
        """
        given = {name: self.net.blob_shapes[name] for name in self.net.inputs}
        shapes = {name: (*shape[:2], height, width) if len(shape) == 4 else shape for name, shape in given.items()}
        with torch.inference_mode(), self._lock:
            self._look_again()
            made = self._plan(shapes, self.net.graph.outputs if blobs is None else blobs).plan
        return table.describe(made)

    def _look_again(self) -> None:
        """Rebuild if a parameter of the net was changed in place or replaced.

        Raises:
            NetError: If weights were freed by ``discard``.
        """
        if self._seen == _versions(self.net):
            return
        if self._discarded:
            raise NetError("the net has changed, but it was given up when it was compiled", remedy="Compile it again.")
        self._build()

    # ---- planning

    def _plan(self, shapes: dict[str, Shape], names: Iterable[str], *, patient: bool = False) -> _Ready:
        """Return the cached plan for these inputs, or create one.

        Args:
            shapes: Shapes of the inputs by name.
            names: Names of the requested blobs.
            patient: Create a new plan, which may cost more to prepare because later calls will use it, too.
        """
        wanted = list(dict.fromkeys(self._last[name] for name in names))
        key = (tuple(sorted(shapes.items())), tuple(wanted))
        if key in self._plans and not patient:
            self._plans.move_to_end(key)
            return self._plans[key]
        found = self._choose(shapes, wanted, patient=patient)
        if not found.worthwhile:
            found.ops = [op.as_it_is() for op in found.ops]
            found.parts = plan.divide(found.ops, found.survey, wanted, borrow=False)
        elif self.net.device.type == "cpu":
            spin_less()
        made = plan.make(found.ops, found.survey, wanted, found.parts, found.blanks or {})
        self._plans[key] = _Ready(made, found.worthwhile, waits=found.blanks is None and not patient)
        if len(self._plans) > _PLANS:
            self._plans.popitem(last=False)
        return self._plans[key]

    def _choose(self, shapes: dict[str, Shape], wanted: list[str], *, patient: bool = False) -> _Choice:
        """Choose the ops and the part of each blob to compute, and whether the plan is faster than the net.

        The borders that the plan copies from the result of an image of zeros are computed here.
        """
        needed = plan.needed(self._ops, wanted)
        survey = Survey.of(needed, shapes)
        chosen, parts = plan.settle(needed, survey, wanted, borrow=True)
        worthwhile = self._always or plan.worthwhile(chosen, survey, parts)
        borrowed = plan.borrowers(survey, parts) if worthwhile else []
        blanks = self._blank(chosen, borrowed, survey, patient=patient) if borrowed else {}
        if blanks is None:
            chosen, parts = plan.settle(needed, survey, wanted, borrow=False)
            worthwhile = self._always or plan.worthwhile(chosen, survey, parts)
        return _Choice(chosen, survey, parts, blanks, worthwhile)

    @property
    def _always(self) -> bool:
        """Whether to use the plan without comparing it with the uncompiled net.

        On a GPU the net launches each kernel separately, for ``bf16`` it uses another precision, and after ``discard``
        its weights are gone.
        """
        return self.net.device.type != "cpu" or self.precision == "bf16" or bool(self._discarded)

    def _blank(
        self, chosen: list[ops.Op], names: list[str], survey: Survey, *, patient: bool
    ) -> Mapping[str, Tensor] | None:
        """Return blobs computed from an image of zeros, compressed by ``plan.squeeze``; None if that does not pay off.

        It must pay off within this call, or within ``_PATIENCE`` calls if ``patient`` is True.
        """
        chosen = plan.needed(chosen, names)
        found = self._smallest(chosen, names, survey)
        if found is None:
            return None
        shapes = {name: found.shapes[name] for name in found.shapes if name in self.net.inputs}
        key = (tuple(sorted(shapes.items())), tuple(names))
        if key in self._blanks:
            self._blanks.move_to_end(key)
            return self._blanks[key]
        parts = plan.divide(chosen, found, names, borrow=False)
        all_of_it = plan.divide(chosen, survey, names, borrow=False)
        cost, saved = plan.products(chosen, found, parts), plan.products(chosen, survey, all_of_it)
        if cost > (_PATIENCE if patient else 0.5) * saved:
            return None
        zeros = {name: torch.zeros(shape, device=self.net.device) for name, shape in shapes.items()}
        values = self._run(plan.make(chosen, found, names, parts, {}), zeros, self._memory)
        self._blanks[key] = {name: plan.squeeze(values[name], found, name) for name in names}
        if len(self._blanks) > _BLANKS:
            self._blanks.popitem(last=False)
        return self._blanks[key]

    def _smallest(self, chosen: list[ops.Op], names: list[str], survey: Survey) -> Survey | None:
        """Return the survey of the smallest zero inputs whose blobs ``names`` have the same margins as in ``survey``.

        Each of these blobs must have a steady pixel. None if no tried size satisfies this.
        """
        inputs = {name: shape for name, shape in survey.shapes.items() if name in self.net.inputs}
        images = {shape[2:] for shape in inputs.values() if len(shape) == 4}
        if len(images) != 1 or len({len(shape) for shape in inputs.values()}) != 1:
            return None
        height, width = images.pop()
        period = self._period(chosen)
        for step in range(_STEPS):
            rows, columns = (min(size, size % period + period * step) for size in (height, width))
            if not rows or not columns:
                continue
            try:
                tried = Survey.of(chosen, {name: (1, shape[1], rows, columns) for name, shape in inputs.items()})
            except NetError:
                continue
            if all(
                tried.margins(name) == survey.margins(name) and all(span.size for span in tried.steady[name])
                for name in names
            ):
                return tried
        return None

    @staticmethod
    def _period(chosen: list[ops.Op]) -> int:
        """Return the period in pixels after which the windows of all strides align again."""
        period = 1
        for op in chosen:
            if isinstance(op, ops.Local):
                period *= max(window.stride for window in op.windows)
        return period

    # ---- running

    def _run(
        self, made: Plan, inputs: Mapping[str, Tensor], memory: Memory, *, tune: bool = False
    ) -> dict[str, Tensor]:
        """Execute a plan and return the requested blobs, under the plan's (versioned) names."""
        with ops.arithmetic(self.net.device, self.precision, tune=tune):
            run = Run(made, memory, self.net.dtype)
            for name, value in inputs.items():
                run.feed(name, value)
            for step in made.steps:
                run.take(step)
            found = {name: run.result(name).to(self.net.dtype) for name in made.wanted}
            run.end()
            return found

    def _play(self, ready: _Ready, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a plan on a GPU, as a CUDA graph from the second call of a size on.

        The first call is not recorded, since the size may not come again.
        """
        if ready.calls == _RECORDED:
            with suppress(RuntimeError):  # an uncompiled layer may synchronize with the GPU, which cannot be recorded
                run = partial(self._run, ready.plan, memory=Memory(self._dtype, self.net.device), tune=True)
                ready.recording = Recording(run, inputs, self._pool)
        return ready.recording(inputs) if ready.recording else self._run(ready.plan, inputs, self._memory)


@dataclass
class _Choice:
    """The decisions that a plan is made from.

    Attributes:
        ops: The ops, compiled or uncompiled.
        survey: What is known of their blobs.
        parts: The part of each blob to compute.
        blanks: Blobs of an image of zeros that borders are copied from; None if they cost too much to compute.
        worthwhile: Whether the plan is faster than the uncompiled net.
    """

    ops: list[ops.Op]
    survey: Survey
    parts: dict[str, Part]
    blanks: Mapping[str, Tensor] | None
    worthwhile: bool


@dataclass
class _Ready:
    """A cached plan, and its CUDA graph if it was recorded.

    Attributes:
        plan: The plan.
        worthwhile: Whether to execute the plan; if False, the uncompiled net runs.
        waits: Whether the second call tries again to copy borders from an image of zeros, which did not pay off for
            a single call.
        calls: The number of calls that used the plan.
        recording: The CUDA graph, or None.
    """

    plan: Plan
    worthwhile: bool
    waits: bool = False
    calls: int = 0
    recording: Recording | None = None


def _versions(net: Net) -> list[tuple[int, int]]:
    """Return (data_ptr, version) of each parameter, to detect in-place changes."""
    return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in net.parameters()]
