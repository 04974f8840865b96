"""The blobs of pycaffe: writable numpy arrays ``data`` and ``diff``, which always show the current values.

Caffe writes all results of a blob to the same memory, and programs rely on it: an array that they have stored before a
forward pass shows the new values after it. Here a new tensor replaces the old one without a copy as long as no array of
the blob is referenced; otherwise its values are copied to the memory of that array.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape, check_shape
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.pycaffe_vectors import IntVec, Vector
from reproduction.caffe.typing import Array

_CPU = torch.device("cpu")


class SyncedMemory:
    """One-dimensional memory that one or several blobs use, on the CPU or another device.

    The values are zeros at first. Memory for them is allocated at the first access.

    Args:
        size: The number of values.
        dtype: The dtype of the values.

    Source: BVLC/caffe@9b89154 include/caffe/syncedmem.hpp.
    """

    def __init__(self, size: int = 0, dtype: npt.DTypeLike = np.float32):
        self.size, self.dtype = size, np.dtype(dtype)
        self._values: Tensor | None = None
        self._held: weakref.ref[Array] | None = None

    @classmethod
    def from_tensor(cls, values: Tensor) -> SyncedMemory:
        """Return a ``SyncedMemory`` that shares the memory of a tensor."""
        memory = cls(values.numel(), str(values.dtype).removeprefix("torch."))
        memory._take(values)
        return memory

    @property
    def is_zero(self) -> bool:
        """True if no memory is allocated yet, so that all values are zero."""
        return self._values is None

    @property
    def is_held(self) -> bool:
        """Whether the program still references the result of ``array`` or a view of it, which must stay up to date."""
        return self._held_array() is not None

    def clear(self) -> None:
        """Set all values to zero."""
        array = self._held_array()
        if array is None:
            self._values = None
        else:
            array[...] = 0

    def array(self) -> Array:
        """Return the values as a writable one-dimensional array.

        As long as the program references this array or a view of it, new values are copied to it.
        """
        array = self._held_array()
        if array is None:
            array = self._row(_CPU).numpy()
            self._held = weakref.ref(array)
        return array

    def tensor(self, shape: Shape, device: torch.device) -> Tensor:
        """Return the first values as a tensor of this shape and device.

        It shares memory with this object, except if the values are on another device where an array of them is
        referenced.
        """
        values = self._values_on(device)
        if values.shape != shape:
            values = self._row(device)[: math.prod(shape)].view(shape)
        return values

    def put(self, values: Tensor) -> bool:
        """Replace the values by those of a tensor.

        The memory of the tensor is used without a copy, unless the program still references the result of ``array``:
        then the values are copied to that array.

        Returns:
            True if the values were replaced. False if there are too many or, without a referenced array, if their
            number or dtype differs.
        """
        array = self._held_array()
        if array is None:
            if values.numel() != self.size or str(values.dtype) != f"torch.{self.dtype}":
                return False
            self._take(values)
        elif values.numel() > self.size:
            return False
        elif array.ctypes.data != values.data_ptr():
            torch.from_numpy(array)[: values.numel()].view(values.shape).copy_(values)
        return True

    def _take(self, values: Tensor) -> None:
        # Unlike .detach(), .data does not share a version counter, so that autograd raises no error after a write.
        self._values = values.data

    def _row(self, device: torch.device) -> Tensor:
        """Return the values as a contiguous 1-D tensor; a layer may have returned another memory format."""
        values = self._values_on(device)
        if values.dim() != 1 or not values.is_contiguous():
            values = values.contiguous().view(-1)
            if self._held_array() is None:
                self._values = values
        return values

    def _held_array(self) -> Array | None:
        return None if self._held is None else self._held()

    def _values_on(self, device: torch.device) -> Tensor:
        if self._values is None:
            self._values = torch.from_numpy(np.zeros(self.size, self.dtype))  # allocated when it is written to
        values = self._values
        if values.device != device:
            values = values.to(device)
            if self._held_array() is None:
                self._values = values
        return values


class Blob:
    """An array and its gradient with the interface of pycaffe's ``Blob``.

    Args:
        shape: The sizes of the axes; no arguments for a scalar.

    Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L216-L280, L465-L490; src/caffe/blob.cpp L21-L44.
    """

    def __init__(self, *shape: int):
        self._data, self._diff = SyncedMemory(), SyncedMemory()
        self._shape: Shape = ()
        self.reshape(*shape)

    @property
    def data(self) -> Array:
        """The values as an array that shares the blob's memory; assign by ``data[...] = values``."""
        return self._data.array()[: self.count].reshape(self._shape)

    @property
    def diff(self) -> Array:
        """The gradient as an array that shares the blob's memory; assign by ``diff[...] = values``."""
        return self._allocated_diff().array()[: self.count].reshape(self._shape)

    def reshape(self, *shape: int) -> None:
        """Change the shape.

        Values and their order stay the same. If the new shape needs more memory, all values become zeros.

        Raises:
            NetError: If a size is negative or not an integer, or the blob would be larger than Caffe allows.
        """
        try:
            sizes = tuple(int(size) for size in shape)
        except (TypeError, ValueError, OverflowError):
            raise NetError("the sizes of a blob must be integers, one for each argument", got=shape) from None
        if min(sizes, default=0) < 0:
            raise NetError("a blob cannot have negative sizes", got=sizes)
        check_shape(sizes)
        self._shape = sizes
        if self.count > self._data.size:
            self._data = SyncedMemory(self.count, self._data.dtype)

    def values(self, device: torch.device = _CPU) -> Tensor:
        """Return the values as a tensor without autograd history, which shares memory with the blob if possible."""
        return self._data.tensor(self._shape, device)

    def gradient(self, device: torch.device = _CPU) -> Tensor:
        """Return the gradient as a tensor, which shares memory with the blob if that is on the same device."""
        return self._allocated_diff().tensor(self._shape, device)

    def put(self, values: Tensor) -> None:
        """Replace shape and values by those of a tensor.

        The blob uses the memory of the tensor without a copy. If the program still references an array from ``data``,
        the values are copied to that array instead, if they fit into it.
        """
        self._shape = tuple(values.shape)
        if not self._data.put(values):
            self._data = SyncedMemory.from_tensor(values)

    def put_gradient(self, values: Tensor) -> None:
        """Replace the gradient by a tensor of the blob's shape.

        The blob uses the memory of the tensor without a copy. If the program still references an array from ``diff``,
        the values are copied to that array instead.
        """
        if not self._allocated_diff().put(values):
            self._diff = SyncedMemory.from_tensor(values)

    def add_gradient(self, values: Tensor) -> None:
        """Add a tensor of the blob's shape to the gradient."""
        if self.has_gradient:
            self.gradient(values.device).add_(values)
        else:
            self.put_gradient(values)

    @property
    def is_held(self) -> bool:
        """Whether the program still references an array from ``data`` or a view of it, which must stay up to date."""
        return self._data.is_held

    @property
    def has_gradient(self) -> bool:
        """Whether memory of the gradient is allocated; if not, the gradient is zero."""
        return not self._allocated_diff().is_zero

    def clear_gradient(self) -> None:
        """Set the gradient to zero."""
        self._diff.clear()

    def share(self, other: Blob, *, diff: bool = False) -> None:
        """Use the memory of another blob, which has the same number of values.

        Args:
            other: The other blob.
            diff: Whether to share the gradient as well as the values.

        Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L96-L106 (ShareData, ShareDiff).
        """
        self._data = other._data
        if diff:
            self._diff = other._allocated_diff()

    def show(self, data: Array, diff: Array | None = None) -> None:
        """Use the memory of contiguous arrays, and take the shape of ``data``.

        Args:
            data: The values.
            diff: The gradient; None for zeros.
        """
        self._shape = data.shape
        self._data = SyncedMemory.from_tensor(torch.from_numpy(data))
        self._diff = SyncedMemory() if diff is None else SyncedMemory.from_tensor(torch.from_numpy(diff))

    def retype(self, dtype: np.dtype[Any]) -> None:
        """Convert the values to another dtype."""
        if dtype != self._data.dtype:
            self._data = SyncedMemory.from_tensor(torch.from_numpy(self._data.array().astype(dtype)))

    def _allocated_diff(self) -> SyncedMemory:
        if self._diff.size != self.count or self._diff.dtype != self._data.dtype:
            self._diff = SyncedMemory(self.count, self._data.dtype)
        return self._diff

    @property
    def sizes(self) -> Shape:
        """The sizes of the axes as a tuple; ``shape`` returns them as pycaffe's type."""
        return self._shape

    @property
    def shape(self) -> IntVec:
        """The sizes of the axes as a new ``IntVec``, pycaffe's type of a shape."""
        return IntVec.from_items(self._shape)

    @property
    def count(self) -> int:
        """The number of values."""
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        """Size of the first axis; 1 if there is none."""
        return legacy_shape(self._shape)[0]

    @property
    def channels(self) -> int:
        """Size of the second axis; 1 if there is none."""
        return legacy_shape(self._shape)[1]

    @property
    def height(self) -> int:
        """Size of the third axis; 1 if there is none."""
        return legacy_shape(self._shape)[2]

    @property
    def width(self) -> int:
        """Size of the fourth axis; 1 if there is none."""
        return legacy_shape(self._shape)[3]


class RawBlobVec(Vector[Blob]):
    """A vector of blobs of a net, such as the bottoms or tops of a Python layer."""

    kind = (Blob,)


class BlobVec(Vector[Blob]):
    """The parameter blobs of a layer.

    Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L245-L258, L534-L536.
    """

    kind = (Blob,)

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros with the given sizes of its axes."""
        self.append(Blob(*shape))
