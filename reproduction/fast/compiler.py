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

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fast import ops, plan
from reproduction.fast.memory import Memory
from reproduction.fast.ops import spatial
from reproduction.fast.plan import Frame, Part, Plan, Step, Survey, place
from reproduction.fast.recording import Recording

_PLANS = 32  # sizes of inputs, each with the blobs that are asked for, that are remembered
_BLANKS = 256  # of them, what the net makes of zeros
_RECORDED = 2  # the call of a size, on a GPU, that is recorded
_STEPS = 12  # how many sizes of an image of zeros are tried, a period apart


def compile(net: Net, precision: str = "exact", *, discard: bool = False) -> Fast:
    """Prepare a net for inference.

    Most weights get forms of their own, so that both together need more than twice the memory of the net, unless it is
    given up. The forms are made anew at the first call after an in-place change of the net's parameters (not one
    through ``.data``, which torch does not count).

    Args:
        net: in phase TEST, on the CPU or on CUDA, of single precision.
        precision: one of ``PRECISIONS``; where the device does not have it, the next more exact one that it has.
            ``exact``: every blob within 2e-5 of its greatest value, as rounding of single precision has it.
            ``winograd``: on the CPU, large kernels by Winograd's method along both axes, too; scores within 1e-4.
            ``tf32``: on CUDA, factors rounded to 10 bits; scores within about 1e-2.
            ``bf16``: products of bfloat16, added up in single precision; scores within about 3e-2.
        discard: give the net up: weights that have a form of their own here are freed in it, and become NaN.

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
            self._discard()

    def _build(self) -> None:
        """Take the weights as they are now."""
        with torch.inference_mode():
            self._ops, self._last = ops.build(self.net, self.precision)
        self._memory = Memory(self._dtype, self.net.device)
        self._plans: OrderedDict[Any, _Ready] = OrderedDict()
        self._blanks: OrderedDict[Any, Mapping[str, Tensor]] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if self.net.device.type == "cuda" else None
        self._seen = _versions(self.net)

    def _discard(self) -> None:
        """Free the weights that nothing here reads."""
        names = {id(blob): name for name, blob in self.net.named_parameters()}
        readers = Counter(id(blob) for op in self._ops for blob in op.layer.blobs)
        for op in self._ops:
            for weight, form in op.forms():
                name = names.get(id(weight))  # None for a parameter that is seen in another shape
                if name is None or readers[id(weight)] > 1:  # shared with a layer that may be run as it is
                    continue
                self._discarded[name] = form
                weight.data = weight.data.new_full((1,), math.nan).expand(weight.shape)
        self._seen = _versions(self.net)

    def __call__(
        self, inputs: Mapping[str, Tensor | np.ndarray[Any, Any]], blobs: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Run the net, as ``Net.forward`` does; without gradients.

        Args:
            inputs: the input blobs by name, ``(N, C, H, W)`` for images, of any size.
            blobs: names of the blobs wanted; None is the net's outputs.

        Raises:
            NetError: an input that is missing or does not fit, an unknown blob; a net that changed though given up.
        """
        names = list(self.net.graph.outputs if blobs is None else blobs)
        with torch.inference_mode(), self._lock:
            self._look_again()
            try:
                fed = self.net.feed(inputs, names, self.net.graph.needed(names))
                ready = self._plan({name: tuple(value.shape) for name, value in fed.items()}, names)
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
        return plan.describe(made)

    def _look_again(self) -> None:
        """Build anew if the net has changed."""
        if self._seen == _versions(self.net):
            return
        if self._discarded:
            raise NetError("the net has changed, but it was given up when it was compiled", remedy="Compile it again.")
        self._build()

    # ---- planning

    def _plan(self, shapes: dict[str, Shape], names: Iterable[str]) -> _Ready:
        """Find the plan for these inputs, or make one."""
        wanted = list(dict.fromkeys(self._last[name] for name in names))
        key = (tuple(sorted(shapes.items())), tuple(wanted))
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        chosen = plan.needed(self._ops, wanted)
        survey = Survey.of(chosen, shapes)
        parts = plan.divide(chosen, survey, wanted, borrow=True)
        borrowed = plan.borrowers(survey, parts)
        blanks = self._blank(borrowed, survey) if borrowed else {}
        if blanks is None:
            parts = plan.divide(chosen, survey, wanted, borrow=False)
        self._plans[key] = _Ready(plan.make(chosen, survey, wanted, parts, blanks or {}))
        if len(self._plans) > _PLANS:
            self._plans.popitem(last=False)
        return self._plans[key]

    def _blank(self, names: list[str], survey: Survey) -> Mapping[str, Tensor] | None:
        """Give the blobs of an image of zeros, squeezed; None where that costs more than it saves."""
        chosen = plan.needed(self._ops, names)
        found = self._smallest(names, survey)
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
        if cost > saved / 2:
            return None
        zeros = {name: torch.zeros(shape, device=self.net.device) for name, shape in shapes.items()}
        values = self._run(plan.make(chosen, found, names, parts, {}), zeros, self._memory)
        self._blanks[key] = {name: plan.squeeze(values[name], found, name) for name in names}
        if len(self._blanks) > _BLANKS:
            self._blanks.popitem(last=False)
        return self._blanks[key]

    def _smallest(self, names: list[str], survey: Survey) -> Survey | None:
        """Find small inputs of zeros that show all that those of the survey do: the same margins, and steady pixels."""
        chosen = plan.needed(self._ops, names)
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
            run = _Run(made, memory)
            for name, value in inputs.items():
                run.feed(name, value)
            for step in made.steps:
                run.take(step)
            found = {name: run.result(name).to(self.net.dtype) for name in made.wanted}
            run.end()
            return found

    def _play(self, ready: _Ready, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run on a GPU: as it comes for the first image of a size, which may be the last; then record and play it."""
        ready.calls += 1
        if ready.calls == _RECORDED:
            with suppress(RuntimeError):  # a layer that is run as it is may wait for the GPU
                run = partial(self._run, ready.plan, memory=Memory(self._dtype, self.net.device), tune=True)
                ready.recording = Recording(run, inputs, self._pool)
        return ready.recording(inputs) if ready.recording else self._run(ready.plan, inputs, self._memory)


@dataclass
class _Ready:
    """A plan, and its recording where there is one.

    Attributes:
        plan: the steps.
        calls: how often it was asked for.
        recording: of the steps.
    """

    plan: Plan
    calls: int = 0
    recording: Recording | None = None


def _versions(net: Net) -> list[tuple[int, int]]:
    """Tell a net from what it was: where each parameter lies, and how often it was changed there."""
    return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in net.parameters()]


class _Run:
    """The blobs of one run.

    Attributes:
        values: what is held of each.
        lent: buffers; several values may lie in one.
    """

    def __init__(self, made: Plan, memory: Memory):
        self.plan = made
        self.memory = memory
        self.values: dict[str, Tensor] = {}
        self.lent: list[Tensor] = []

    def feed(self, name: str, value: Tensor) -> None:
        """Lay an input out."""
        part = self.plan.parts.get(name)
        if part is None:
            self.values[name] = value
            return
        rows, columns = part.made
        self.hold(name, value[..., rows.start : rows.stop, columns.start : columns.stop], part, self.plan.feeds[name])

    def take(self, step: Step) -> None:
        """Compute the tops, and forget what is not read any more."""
        bottoms = [
            self.values[name] if read is None else self.values[name][..., read[0], read[1]] for name, read in step.reads
        ]
        first = step.parts[0] if step.parts else None
        buffer = out = None
        if first is not None and (step.kernel.fills or first.held != first.made):
            channels = self.plan.survey.shapes[step.op.tops[0]][1]
            buffer = self.buffer(len(bottoms[0]), channels, first)
            out = _inner(buffer, first)
        tops = step.kernel(bottoms, out, self.memory)
        for name, top, part, frame in zip(step.op.tops, tops, step.parts, step.frames, strict=True):
            if top is out and buffer is not None and part is not None:
                _surround(buffer, frame)
                self.values[name] = buffer
            else:
                self.hold(name, top, part, frame)
        for name in step.last:
            self.forget(name)

    def hold(self, name: str, made: Tensor, part: Part | None, frame: Frame) -> None:
        """Keep a value, with what goes around it."""
        if part is None or part.held == part.made:
            self.values[name] = made
            return
        buffer = self.buffer(made.shape[0], made.shape[1], part)
        _inner(buffer, part).copy_(made)
        _surround(buffer, frame)
        self.values[name] = buffer

    def buffer(self, batch: int, channels: int, part: Part) -> Tensor:
        """Borrow memory for what is held of a blob."""
        rows, columns = part.held
        buffer = self.memory.image(batch, channels, rows.size, columns.size)
        self.lent.append(buffer)
        return buffer

    def forget(self, name: str) -> None:
        """Drop a value, and give its memory back if no other lies there."""
        value = self.values.pop(name, None)
        buffer = None if value is None else self.home(value)
        if buffer is not None and all(self.home(other) is not buffer for other in self.values.values()):
            self.lent = [other for other in self.lent if other is not buffer]
            self.memory.give(buffer)

    def home(self, value: Tensor) -> Tensor | None:
        """Find the buffer that a value lies in; None where it has memory of its own."""
        place = value.data_ptr()
        return next((b for b in self.lent if b.data_ptr() <= place < b.data_ptr() + b.nbytes), None)

    def result(self, name: str) -> Tensor:
        """Give a wanted blob, in memory of its own."""
        value, part = self.values[name], self.plan.parts.get(name)
        if part is not None:
            rows, columns = place(spatial(self.plan.survey.shapes[name]), part.held)
            value = value[..., rows, columns]
        lent = self.home(value) is not None
        return value.clone(memory_format=torch.contiguous_format) if lent else value.contiguous()

    def end(self) -> None:
        """Give all memory back."""
        for name in list(self.values):
            self.forget(name)


def _inner(buffer: Tensor, part: Part) -> Tensor:
    """The place in a buffer for what is made."""
    rows, columns = place(part.made, part.held)
    return buffer[..., rows, columns]


def _surround(buffer: Tensor, frame: Frame) -> None:
    for (rows, columns), values in frame:
        place = buffer[..., rows, columns]
        if values is None:
            place.zero_()
        else:
            place.copy_(values)
