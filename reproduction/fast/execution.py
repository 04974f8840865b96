"""Execute a plan: compute the requested blobs of a net for inputs of the size that the plan was made for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reproduction.fast.blob_regions import BlobRegions
from reproduction.fast.buffers import BufferPool
from reproduction.fast.kernels import LayerForward
from reproduction.fast.plan import Border, ExecutionPlan, ExecutionStep
from reproduction.fast.regions import Region


def execute(
    plan: ExecutionPlan, inputs: Mapping[str, Tensor], buffers: BufferPool, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Compute the requested blobs by the steps of a plan.

    Args:
        plan: The plan, made for inputs of these shapes.
        inputs: The inputs by name.
        buffers: Allocator of the buffers.
        dtype: Dtype of the layers that run uncompiled and of the results; the buffers may have another one.

    Returns:
        The blobs by the names in ``plan.wanted``, which are versioned: such as ``conv1#2`` for the values of ``conv1``
        after a layer has overwritten them in place.
    """
    execution = _Execution(plan, buffers, dtype)
    for name, value in inputs.items():
        execution.store_input(name, value)
    for step in plan.steps:
        execution.run_step(step)
    results = {name: execution.copy_result(name).to(dtype) for name in plan.wanted}
    for name in list(execution.values):
        execution.drop(name)
    return results


class _Execution:
    """One execution of a plan.

    Attributes:
        values: The stored region of each blob, by name.
        in_use: The buffers in use; several values may be views of one buffer.
    """

    def __init__(self, plan: ExecutionPlan, buffers: BufferPool, dtype: torch.dtype):
        self.plan, self.buffers, self.dtype = plan, buffers, dtype
        self.values: dict[str, Tensor] = {}
        self.in_use: list[Tensor] = []

    def store_input(self, name: str, value: Tensor) -> None:
        """Store the needed region of an input, with its border."""
        blob = self.plan.regions.get(name)
        if blob is not None:
            rows, columns = blob.computed
            value = value[..., rows.start : rows.stop, columns.start : columns.stop]
        self._store(name, value, blob, self.plan.input_borders[name])

    def run_step(self, step: ExecutionStep) -> None:
        """Compute the tops of a step, and free the blobs that no later step reads."""
        bottoms = [
            self.values[name] if read is None else self.values[name][..., read[0], read[1]] for name, read in step.reads
        ]
        if isinstance(step.kernel, LayerForward):
            bottoms = [bottom.to(self.dtype) for bottom in bottoms]
        first = step.regions[0] if step.regions else None
        buffer = out = None
        if first is not None and (step.kernel.needs_out or first.stored != first.computed):
            channels = self.plan.facts.shapes[step.op.tops[0]][1]
            buffer = self._allocate(len(bottoms[0]), channels, first)
            out = _view_computed(buffer, first)
        tops = step.kernel(bottoms, out, self.buffers)
        for name, top, blob, border in zip(step.op.tops, tops, step.regions, step.borders, strict=True):
            if top is out and buffer is not None:
                _fill_border(buffer, border)
                self.values[name] = buffer
            else:
                self._store(name, top, blob, border)
        for name in step.last_uses:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Drop a value, and release its buffer if no other value uses it."""
        value = self.values.pop(name, None)
        buffer = None if value is None else self._find_buffer(value)
        if buffer is not None and all(self._find_buffer(other) is not buffer for other in self.values.values()):
            self.in_use = [other for other in self.in_use if other is not buffer]
            self.buffers.release(buffer)

    def copy_result(self, name: str) -> Tensor:
        """Return a complete requested blob, contiguous and outside of the reused buffers."""
        value, blob = self.values[name], self.plan.regions.get(name)
        if blob is not None:
            rows, columns = Region.from_shape(self.plan.facts.shapes[name]).slices_in(blob.stored)
            value = value[..., rows, columns]
        is_reused = self._find_buffer(value) is not None
        return value.clone(memory_format=torch.contiguous_format) if is_reused else value.contiguous()

    def _store(self, name: str, computed: Tensor, blob: BlobRegions | None, border: Border) -> None:
        """Store the computed region of a blob, copied into a buffer with its border if it has one."""
        if blob is not None and blob.stored != blob.computed:
            buffer = self._allocate(computed.shape[0], computed.shape[1], blob)
            _view_computed(buffer, blob).copy_(computed)
            _fill_border(buffer, border)
            computed = buffer
        self.values[name] = computed

    def _allocate(self, batch: int, channels: int, blob: BlobRegions) -> Tensor:
        """Allocate the buffer ``(N, C, H, W)`` for the stored region of a blob."""
        rows, columns = blob.stored
        buffer = self.buffers.allocate_image(batch, channels, rows.size, columns.size)
        self.in_use.append(buffer)
        return buffer

    def _find_buffer(self, value: Tensor) -> Tensor | None:
        """Return the buffer that a value is a view of, or None if the value is not in a buffer."""
        start = value.data_ptr()
        return next((b for b in self.in_use if b.data_ptr() <= start < b.data_ptr() + b.nbytes), None)


def _view_computed(buffer: Tensor, blob: BlobRegions) -> Tensor:
    """Return the view of a buffer that the computed region of a blob is written to."""
    rows, columns = blob.computed.slices_in(blob.stored)
    return buffer[..., rows, columns]


def _fill_border(buffer: Tensor, border: Border) -> None:
    for (rows, columns), values in border:
        strip = buffer[..., rows, columns]
        if values is None:
            strip.zero_()
        else:
            strip.copy_(values)
