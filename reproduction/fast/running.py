"""The blobs of one run of a plan: what is held of each, and in which memory."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduction.fast.kernels import Plain
from reproduction.fast.memory import Memory
from reproduction.fast.ops import spatial
from reproduction.fast.plan import Frame, Part, Plan, Step, place


class Run:
    """The blobs of one run.

    Attributes:
        dtype: in which layers compute that run as they are; buffers may have another.
        values: what is held of each.
        lent: buffers; several values may lie in one.
    """

    def __init__(self, made: Plan, memory: Memory, dtype: torch.dtype):
        self.plan = made
        self.memory = memory
        self.dtype = dtype
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
        if isinstance(step.kernel, Plain):
            bottoms = [bottom.to(self.dtype) for bottom in bottoms]
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
