"""Execute one run of a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduction.fast.kernels import Plain
from reproduction.fast.memory import Memory
from reproduction.fast.ops import spatial
from reproduction.fast.plan import Frame, Part, Plan, Step, place


class Run:
    """One run of a plan: its blobs and their buffers.

    Args:
        made: The plan.
        memory: Allocator of the buffers.
        dtype: Dtype of the layers that run uncompiled; the buffers may have another one.

    Attributes:
        values: The part of each blob that is stored, by name.
        lent: The buffers in use; several values may be views of one buffer.
    """

    def __init__(self, made: Plan, memory: Memory, dtype: torch.dtype):
        self.plan = made
        self.memory = memory
        self.dtype = dtype
        self.values: dict[str, Tensor] = {}
        self.lent: list[Tensor] = []

    def feed(self, name: str, value: Tensor) -> None:
        """Store an input, with its frame."""
        part = self.plan.parts.get(name)
        if part is None:
            self.values[name] = value
            return
        rows, columns = part.made
        self.hold(name, value[..., rows.start : rows.stop, columns.start : columns.stop], part, self.plan.feeds[name])

    def take(self, step: Step) -> None:
        """Execute a step: compute its tops, and free the blobs that no later step reads."""
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
        """Store a computed part of a blob, copied into a buffer with its frame if it has one."""
        if part is None or part.held == part.made:
            self.values[name] = made
            return
        buffer = self.buffer(made.shape[0], made.shape[1], part)
        _inner(buffer, part).copy_(made)
        _surround(buffer, frame)
        self.values[name] = buffer

    def buffer(self, batch: int, channels: int, part: Part) -> Tensor:
        """Allocate the buffer ``(N, C, H, W)`` for the stored part of a blob."""
        rows, columns = part.held
        buffer = self.memory.image(batch, channels, rows.size, columns.size)
        self.lent.append(buffer)
        return buffer

    def forget(self, name: str) -> None:
        """Drop a value, and free its buffer if no other value uses it."""
        value = self.values.pop(name, None)
        buffer = None if value is None else self.home(value)
        if buffer is not None and all(self.home(other) is not buffer for other in self.values.values()):
            self.lent = [other for other in self.lent if other is not buffer]
            self.memory.give(buffer)

    def home(self, value: Tensor) -> Tensor | None:
        """Return the buffer that a value is a view of, or None if the value is not in a buffer."""
        place = value.data_ptr()
        return next((b for b in self.lent if b.data_ptr() <= place < b.data_ptr() + b.nbytes), None)

    def result(self, name: str) -> Tensor:
        """Return a whole requested blob, contiguous and outside of the reused buffers."""
        value, part = self.values[name], self.plan.parts.get(name)
        if part is not None:
            rows, columns = place(spatial(self.plan.survey.shapes[name]), part.held)
            value = value[..., rows, columns]
        lent = self.home(value) is not None
        return value.clone(memory_format=torch.contiguous_format) if lent else value.contiguous()

    def end(self) -> None:
        """Drop all values and free all buffers."""
        for name in list(self.values):
            self.forget(name)


def _inner(buffer: Tensor, part: Part) -> Tensor:
    """Return the view of a buffer that the computed part of a blob is written to."""
    rows, columns = place(part.made, part.held)
    return buffer[..., rows, columns]


def _surround(buffer: Tensor, frame: Frame) -> None:
    for (rows, columns), values in frame:
        place = buffer[..., rows, columns]
        if values is None:
            place.zero_()
        else:
            place.copy_(values)
