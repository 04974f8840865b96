"""A net compiled for inference: called like the net, with the same results, sooner.

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
from reproduction.caffe.net.inputs import Given, Values, by_name
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fast import ops, plan, table
from reproduction.fast.cuda_graph import Recording
from reproduction.fast.kernels import Product
from reproduction.fast.memory import Memory
from reproduction.fast.plan import Part, Plan, Survey
from reproduction.fast.running import Run
from reproduction.fast.threads import spin_less

_PLANS = 32  # sizes of inputs, each with the blobs that are asked for, that are remembered
_BLANKS = 256  # of them, what the net makes of zeros
_PATIENCE = 8  # calls in which an image of zeros has to pay, where inputs of a size came before
_RECORDED = 2  # the call of a size, on a GPU, that is recorded
_STEPS = 12  # how many sizes of an image of zeros are tried, a period apart


def compile(net: Net, precision: str = "exact", *, discard: bool = False) -> Fast:
    """Prepare a net for inference.

    For each size of the inputs, what is not sure to be quicker is left as it is: a layer, or all of the net, as most
    classifiers of small images. Weights of the other layers get second forms when they are first needed, and again
    after an in-place change of the net's parameters (not one through ``.data``, which torch does not count); both
    together can need more than twice the memory of the net. A size that came before may be planned better the second
    time, so that results of the first call differ from those of later ones by rounding.

    On the CPU, threads of this process that wait for each other sleep sooner from then on; see ``threads.spin_less``.

    Args:
        net: in phase TEST, on the CPU or on CUDA, of single precision.
        precision: one of ``PRECISIONS``; where the device does not have it, the next more exact one that it has.
            ``exact``: every blob within 2e-5 of its greatest value, as rounding of single precision has it.
            ``winograd``: on the CPU, large kernels by Winograd's method along both axes, too; scores within 1e-4.
            ``tf32``: on CUDA, factors rounded to 10 bits; scores within about 1e-2.
            ``bf16``: products of bfloat16, added up in single precision; scores within about 3e-2.
        discard: free large weights of the net that have another form for inputs of the declared shapes; they become
            NaN. A compiled net without its weights cannot be copied.

    Raises:
        NetError: the net is in phase TRAIN, or there is no such precision.
    """
    if precision not in ops.PRECISIONS:
        raise NetError("there is no such precision", got=repr(precision), want=", ".join(ops.PRECISIONS))
    if net.training or net.graph.state.phase is not Phase.TEST:
        raise NetError("a net is compiled for inference", got="phase TRAIN", want="phase TEST")
    return Fast(net, ops.in_effect(precision, net.device.type), discard=discard)


class Fast:
    """A compiled net; ``compile`` makes it.

    Attributes:
        net: what it was made of.
        precision: in which it computes; not that which was asked for, if the device does not have that.
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
        """Take the weights as they are now."""
        self._ops, self._last = ops.build(self.net, self.precision)
        self._memory = Memory(self._dtype, self.net.device)
        self._plans: OrderedDict[Any, _Ready] = OrderedDict()
        self._blanks: OrderedDict[Any, Mapping[str, Tensor]] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if self.net.device.type == "cuda" else None
        self._seen = _versions(self.net)

    def _discard(self) -> None:
        """Free the heavy weights that nothing here reads for inputs of the declared shapes.

        Others are few, and inputs of other shapes may be computed with them.
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
                continue  # if shared, then with a layer that may be run as it is
            kernel = op.quick.kernel(found.parts[op.tops[0]].made)
            if isinstance(kernel, Product):
                continue  # multiplied as they lie
            op.quick.only = kernel
            self._discarded[names[weight.data_ptr()]] = kernel.weight
            weight.data = weight.data.new_full((1,), math.nan).expand(weight.shape)
        self._seen = _versions(self.net)

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle the net and the precision; a copy makes the forms of the weights at its first call.

        Raises:
            NetError: the net was given up.
        """
        if self._discarded:
            problem = "a compiled net whose weights were given up cannot be copied or pickled"
            raise NetError(problem, remedy="Compile it without discard.")
        return {"net": self.net, "precision": self.precision}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile the copy of the net."""
        self.__init__(state["net"], state["precision"])  # type: ignore[misc]

    def __call__(self, *inputs: Given, blobs: Iterable[str] | None = None, **named: Values) -> dict[str, Tensor]:
        """Run the net, as ``Net.forward`` does; without gradients.

        Args:
            inputs: as for ``Net.forward``: the input blobs by name, or in order, of any size.
            named: further inputs by name.
            blobs: names of the blobs wanted; None is the net's outputs.

        Raises:
            NetError: an input that is missing or does not fit, an unknown blob; a net that changed though given up.
        """
        given, blobs = by_name(self.net.inputs, inputs, named, blobs)
        names = list(self.net.graph.outputs if blobs is None else blobs)
        with torch.inference_mode(), self._lock:
            self._look_again()
            try:
                fed = self.net.feed(given, names, self.net.graph.needed(names))
                shapes = {name: tuple(value.shape) for name, value in fed.items()}
                ready = self._plan(shapes, names)
                if ready.waits and ready.calls:
                    calls, ready = ready.calls, self._plan(shapes, names, patient=True)
                    ready.calls = calls  # on a GPU the second image of a size is recorded, whichever plan it has
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
        """The net's weights by name; of those that it gave up, what they were made into."""
        return self.net.state_dict() | self._discarded

    def explain(self, height: int, width: int, blobs: Iterable[str] | None = None) -> str:
        """Draw a table of what is done for images of a size: how each layer is computed, of what part, what that saves.

        Args:
            height: of the images, pixels.
            width: of the images, pixels.
            blobs: names of the blobs wanted; None is the net's outputs.

        Raises:
            NetError: the net does not take images of this size.
        """
        given = {name: self.net.blob_shapes[name] for name in self.net.inputs}
        shapes = {name: (*shape[:2], height, width) if len(shape) == 4 else shape for name, shape in given.items()}
        with torch.inference_mode(), self._lock:
            self._look_again()
            made = self._plan(shapes, self.net.graph.outputs if blobs is None else blobs).plan
        return table.describe(made)

    def _look_again(self) -> None:
        """Build anew if the net has changed."""
        if self._seen == _versions(self.net):
            return
        if self._discarded:
            raise NetError("the net has changed, but it was given up when it was compiled", remedy="Compile it again.")
        self._build()

    # ---- planning

    def _plan(self, shapes: dict[str, Shape], names: Iterable[str], *, patient: bool = False) -> _Ready:
        """Find the plan for these inputs, or make one.

        Args:
            shapes: of the inputs.
            names: of the blobs wanted.
            patient: whether to make a better plan that pays at later calls alone.
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
        """Choose ops and parts, with what an image of zeros makes, and whether to take them rather than the net."""
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
        """Whether the net as it is is no choice: it launches each kernel by itself, is too exact, or given up."""
        return self.net.device.type != "cpu" or self.precision == "bf16" or bool(self._discarded)

    def _blank(
        self, chosen: list[ops.Op], names: list[str], survey: Survey, *, patient: bool
    ) -> Mapping[str, Tensor] | None:
        """Give the blobs of an image of zeros, squeezed; None where that costs more than it saves: at once, or ever."""
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
        """Find small inputs of zeros that show all that those of the survey do: the same margins, and steady pixels."""
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
        """Give the pixels after which strides fall alike."""
        period = 1
        for op in chosen:
            if isinstance(op, ops.Local):
                period *= max(window.stride for window in op.windows)
        return period

    # ---- running

    def _run(
        self, made: Plan, inputs: Mapping[str, Tensor], memory: Memory, *, tune: bool = False
    ) -> dict[str, Tensor]:
        """Take the steps; gives the wanted blobs, numbered as in the plan."""
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
        """Run on a GPU: as it comes for the first image of a size, which may be the last; then record and play it."""
        if ready.calls == _RECORDED:
            with suppress(RuntimeError):  # a layer that is run as it is may wait for the GPU
                run = partial(self._run, ready.plan, memory=Memory(self._dtype, self.net.device), tune=True)
                ready.recording = Recording(run, inputs, self._pool)
        return ready.recording(inputs) if ready.recording else self._run(ready.plan, inputs, self._memory)


@dataclass
class _Choice:
    """What a plan is made of.

    Attributes:
        ops: settled.
        survey: of their blobs.
        parts: of the blobs.
        blanks: what an image of zeros makes, where it is borrowed from; None where that costs too much.
        worthwhile: whether the plan is quicker than the net.
    """

    ops: list[ops.Op]
    survey: Survey
    parts: dict[str, Part]
    blanks: Mapping[str, Tensor] | None
    worthwhile: bool


@dataclass
class _Ready:
    """A plan, and its recording where there is one.

    Attributes:
        plan: the steps.
        worthwhile: whether they are taken; if not, the net runs as it is.
        waits: whether a better plan costs too much for inputs of a size that may not come again.
        calls: how often it was asked for.
        recording: of the steps.
    """

    plan: Plan
    worthwhile: bool
    waits: bool = False
    calls: int = 0
    recording: Recording | None = None


def _versions(net: Net) -> list[tuple[int, int]]:
    """Tell a net from what it was: where each parameter lies, and how often it was changed there."""
    return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in net.parameters()]
