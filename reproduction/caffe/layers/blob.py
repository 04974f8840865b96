"""Blobs as pycaffe shows them: a live, writable array of values and one of their gradient.

Caffe writes every result to the same place again, and programs rely on it: an array that was taken before a forward
shows the new values after it. Here a result is taken over as it is, without a copy, as long as nobody holds an array
of the blob and could notice; where somebody does, the values go to that array's place.
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
from reproduction.caffe.layers.checks import legacy_shape
from reproduction.caffe.layers.vectors import IntVec, Vector

Array = npt.NDArray[Any]

_CPU = torch.device("cpu")


class Memory:
    """A number of values in a row, which blobs show in their shapes and may share.

    They are zeros, which take no memory, until they are written or looked at.

    Args:
        size: how many.
        dtype: their type.

    Source: BVLC/caffe@9b89154 include/caffe/syncedmem.hpp.
    """

    def __init__(self, size: int = 0, dtype: npt.DTypeLike = np.float32):
        self.size, self.dtype = size, np.dtype(dtype)
        self._values: Tensor | None = None
        self._held: weakref.ref[Array] | None = None

    @classmethod
    def of(cls, values: Tensor) -> Memory:
        """Make one of the values of a tensor, in its memory."""
        made = cls(values.numel(), str(values.dtype).removeprefix("torch."))
        made._take(values)
        return made

    @property
    def is_zero(self) -> bool:
        """Whether nothing was written or looked at yet."""
        return self._values is None

    @property
    def is_held(self) -> bool:
        """Whether somebody holds the array."""
        return self._array_held() is not None

    def clear(self) -> None:
        """Make all values zero."""
        array = self._array_held()
        if array is None:
            self._values = None
        else:
            array[...] = 0

    def array(self) -> Array:
        """The values as an array, writable. While it, or a view of it, is held, they stay where they are."""
        array = self._array_held()
        if array is None:
            array = self._row(_CPU).numpy()
            self._held = weakref.ref(array)
        return array

    def tensor(self, shape: Shape, device: torch.device) -> Tensor:
        """The first values, in a shape, on a device: their own memory where they are there already."""
        values = self._made(device)
        if values.shape != shape:
            values = self._row(device)[: math.prod(shape)].view(shape)
        return values

    def put(self, values: Tensor) -> bool:
        """Take a tensor's values, and its memory unless an array is held.

        Returns:
            Whether they were taken; not where they are too many, or fewer while nothing holds the place.
        """
        array = self._array_held()
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
        # .data, not .detach(): what autograd has saved must not be found changed when an array is written to.
        self._values = values.data

    def _row(self, device: torch.device) -> Tensor:
        """Lay the values out in a row, whatever the order in memory that the layer gave them."""
        values = self._made(device)
        if values.dim() != 1 or not values.is_contiguous():
            values = values.contiguous().view(-1)
            if self._array_held() is None:
                self._values = values
        return values

    def _array_held(self) -> Array | None:
        return None if self._held is None else self._held()

    def _made(self, device: torch.device) -> Tensor:
        if self._values is None:
            self._values = torch.from_numpy(np.zeros(self.size, self.dtype))  # takes memory when it is written to
        values = self._values
        if values.device != device:
            values = values.to(device)
            if self._array_held() is None:
                self._values = values
        return values


class Blob:
    """An array and its gradient, as pycaffe shows them: live and writable.

    Args:
        shape: the sizes of the axes; none for one number.

    Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L216-L280, L465-L490; src/caffe/blob.cpp L21-L44.
    """

    def __init__(self, *shape: int):
        self._data, self._diff = Memory(), Memory()
        self._shape: Shape = ()
        self.reshape(*shape)

    @property
    def data(self) -> Array:
        """The values; write into it by ``data[...] =``."""
        return self._data.array()[: self.count].reshape(self._shape)

    @property
    def diff(self) -> Array:
        """The gradient; write into it by ``diff[...] =``."""
        return self._diff_made().array()[: self.count].reshape(self._shape)

    def reshape(self, *shape: int) -> None:
        """Change the shape; the values stay, in order, unless there is more room to make, which is filled with 0.

        Raises:
            NetError: a size is negative or no integer, or the blob would be larger than Caffe's can be.
        """
        try:
            sizes = tuple(int(size) for size in shape)
        except (TypeError, ValueError, OverflowError):
            raise NetError("a blob's sizes are integers, one an argument", got=shape) from None
        if min(sizes, default=0) < 0:
            raise NetError("a blob cannot have negative sizes", got=sizes)
        check_shape(sizes)
        self._shape = sizes
        if self.count > self._data.size:
            self._data = Memory(self.count, self._data.dtype)

    def values(self, device: torch.device = _CPU) -> Tensor:
        """The values as a tensor without a gradient; on the CPU, one with the blob's own memory."""
        return self._data.tensor(self._shape, device)

    def gradient(self, device: torch.device = _CPU) -> Tensor:
        """The gradient, as ``values``."""
        return self._diff_made().tensor(self._shape, device)

    def put(self, values: Tensor) -> None:
        """Take the shape and the values of a tensor, and its memory unless somebody holds ``data``."""
        self._shape = tuple(values.shape)
        if not self._data.put(values):
            self._data = Memory.of(values)

    def put_gradient(self, values: Tensor) -> None:
        """Take the gradient of a tensor in the blob's shape, and its memory as ``put`` does."""
        if not self._diff_made().put(values):
            self._diff = Memory.of(values)

    def add_gradient(self, values: Tensor) -> None:
        """Add a tensor of the blob's shape to the gradient."""
        if self.has_gradient:
            self.gradient(values.device).add_(values)
        else:
            self.put_gradient(values)

    @property
    def is_held(self) -> bool:
        """Whether a program holds ``data`` or a view of it, so that new values go to the same place."""
        return self._data.is_held

    @property
    def has_gradient(self) -> bool:
        """Whether the gradient was ever written or looked at; else it is zero."""
        return not self._diff_made().is_zero

    def clear_gradient(self) -> None:
        """Make the gradient zero."""
        self._diff.clear()

    def share(self, other: Blob, *, diff: bool = False) -> None:
        """Use the values of another blob of as many, in its memory, and with ``diff`` its gradient too.

        Source: BVLC/caffe@9b89154 src/caffe/blob.cpp L96-L106 (ShareData, ShareDiff).
        """
        self._data = other._data
        if diff:
            self._diff = other._diff_made()

    def show(self, data: Array, diff: Array | None = None) -> None:
        """Become a view of these contiguous arrays; without ``diff``, of a gradient of zeros made when asked for."""
        self._shape = data.shape
        self._data = Memory.of(torch.from_numpy(data))
        self._diff = Memory() if diff is None else Memory.of(torch.from_numpy(diff))

    def retype(self, dtype: np.dtype[Any]) -> None:
        """Change the type of the values."""
        if dtype != self._data.dtype:
            self._data = Memory.of(torch.from_numpy(self._data.array().astype(dtype)))

    def _diff_made(self) -> Memory:
        if self._diff.size != self.count or self._diff.dtype != self._data.dtype:
            self._diff = Memory(self.count, self._data.dtype)
        return self._diff

    @property
    def sizes(self) -> Shape:
        """The sizes of the axes."""
        return self._shape

    @property
    def shape(self) -> IntVec:
        """The sizes of the axes, as a new vector."""
        return IntVec.of(self._shape)

    @property
    def count(self) -> int:
        """How many values there are."""
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        """Size of the first axis; 1 if there is none. Likewise ``channels``, ``height`` and ``width``."""
        return legacy_shape(self._shape)[0]

    @property
    def channels(self) -> int:
        """Size of the second axis; see ``num``."""
        return legacy_shape(self._shape)[1]

    @property
    def height(self) -> int:
        """Size of the third axis; see ``num``."""
        return legacy_shape(self._shape)[2]

    @property
    def width(self) -> int:
        """Size of the fourth axis; see ``num``."""
        return legacy_shape(self._shape)[3]


class RawBlobVec(Vector[Blob]):
    """Blobs that belong to a net, such as the bottoms and tops of a Python layer."""

    kind = (Blob,)


class BlobVec(Vector[Blob]):
    """The parameter blobs of a layer.

    Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L245-L258, L534-L536.
    """

    kind = (Blob,)

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros."""
        self.append(Blob(*shape))
