"""Execute a plan: compute the requested blobs of a net for inputs of the size that the plan was made for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reproduction.fast.buffers import BufferPool
from reproduction.fast.kernels import LayerForward
from reproduction.fast.plan import Border, BufferPlace, ExecutionPlan, ExecutionStep
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
    execution = _Execution(buffers, dtype)
    for name, value in inputs.items():
        execution.store_input(plan, name, value)
    for step in plan.steps:
        execution.run_step(step)
    results = {name: execution.copy_result(plan, name).to(dtype) for name in plan.wanted}
    for buffer in execution.in_use.values():
        buffers.release(buffer)
    return results


class _Execution:
    """One execution of a plan.

    Attributes:
        values: The stored region of each blob, by name.
        in_use: The buffers in use, by name; several values may be views of one buffer.
    """

    def __init__(self, buffers: BufferPool, dtype: torch.dtype):
        self.buffers, self.dtype = buffers, dtype
        self.values: dict[str, Tensor] = {}
        self.in_use: dict[str, Tensor] = {}

    def store_input(self, plan: ExecutionPlan, name: str, value: Tensor) -> None:
        """Store the needed region of an input, with its border."""
        blob = plan.regions.get(name)
        if blob is not None:
            rows, columns = blob.computed
            value = value[..., rows.start : rows.stop, columns.start : columns.stop]
        self.values[name] = self._store(name, value, plan.input_places[name])

    def run_step(self, step: ExecutionStep) -> None:
        """Compute the tops of a step, and free the blobs that no later step reads."""
        values = self.values
        bottoms = [values[name] if read is None else values[name][..., read[0], read[1]] for name, read in step.reads]
        if isinstance(step.kernel, LayerForward):
            bottoms = [bottom.to(self.dtype) for bottom in bottoms]
        place = step.places[0] if step.places else None
        if place is None:
            tops = step.kernel(bottoms, None, self.buffers)
        else:
            stored = self._allocate(step.tops[0], place)
            _, *others = step.kernel(
                bottoms, stored if place.computed is None else stored[place.computed], self.buffers
            )
            tops = (stored, *others)
        for position, name in enumerate(step.tops):
            values[name] = self._store(name, tops[position], step.places[position]) if position else tops[0]
        for name in step.last_uses:
            values.pop(name, None)
        for name in step.released:
            self.buffers.release(self.in_use.pop(name))

    def copy_result(self, plan: ExecutionPlan, name: str) -> Tensor:
        """Return a complete requested blob, contiguous and outside of the reused buffers."""
        value, blob = self.values[name], plan.regions.get(name)
        if blob is not None:
            rows, columns = Region.from_shape(plan.facts.shapes[name]).slices_in(blob.stored)
            value = value[..., rows, columns]
        is_reused = name in plan.buffered
        return value.clone(memory_format=torch.contiguous_format) if is_reused else value.contiguous()

    def _store(self, name: str, computed: Tensor, place: BufferPlace | None) -> Tensor:
        """Return a computed region, copied to a buffer with its border if it has one."""
        if place is None:
            return computed
        stored = self._allocate(name, place)
        (stored if place.computed is None else stored[place.computed]).copy_(computed)
        return stored

    def _allocate(self, name: str, place: BufferPlace) -> Tensor:
        """Return a new buffer for a blob, with its border."""
        stored = self.in_use[name] = self.buffers.allocate_image(*place.shape)
        _fill_border(stored, place.border)
        return stored


def _fill_border(buffer: Tensor, border: Border) -> None:
    for (rows, columns), values in border:
        strip = buffer[..., rows, columns]
        if values is None:
            strip.zero_()
        else:
            strip.copy_(values)
