"""The layers that begin a net with what the caller, the prototxt or the weights hold."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reproduction.caffe import fillers
from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.formats import files
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.schema import BlobShape, FillerParameter

_LIST_BYTES = 1 << 28  # of a list of files; ImageNet's has 48 MB


class Source(Layer):
    """A layer that brings in values from outside torch, onto the device and in the type of the net."""

    bottoms: ClassVar[tuple[int, int | None]] = (0, 0)
    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        """Follow the net's device and type by a buffer, since there may be no parameter that moves with the net."""
        self.register_buffer("_like", torch.empty(0), persistent=False)

    def seek(self, draw: int) -> None:
        """Let the next forward be number ``draw``, from 0, whatever was read before."""

    def place(self, values: Tensor | npt.NDArray[Any]) -> Tensor:
        """Bring values to the net's device and type."""
        return torch.as_tensor(values).to(self.get_buffer("_like"))


class Shuffle:
    """The orders of a list that is read again and again, each a function of a seed and of what it is the order of.

    Args:
        wanted: whether to mix at all.
        generator: gives the seed; None is torch's own.
    """

    def __init__(self, wanted: bool, generator: torch.Generator | None):
        self._seed = int(torch.randint(2**31, (), generator=generator)) if wanted else None
        self._order = lru_cache(maxsize=2)(self._make)

    def __call__(self, count: int, *key: int) -> npt.NDArray[np.int64]:
        """Give the order of ``count`` things, of the epoch and the file, say, in ``key``."""
        return self._order(count, key)

    def _make(self, count: int, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
        if self._seed is None:
            return np.arange(count)
        return np.random.default_rng([self._seed, *key]).permutation(count)


_LIST_BYTES = 64 << 20


def read_list(source: str) -> str:
    """Read the text file that names a layer's data files.

    Raises:
        DataError: it is missing, not a regular file or not text.
    """
    try:
        return files.read_regular(source, _LIST_BYTES).decode()
    except OSError as error:
        raise DataError(
            f"the list of files cannot be read: {(error.strerror or 'error').lower()}", path=source
        ) from None
    except UnicodeDecodeError:
        raise DataError("the list of files is not text", path=source) from None


def _shape(shape: BlobShape) -> Shape:
    if min(shape.dim, default=0) < 0:
        raise NetError("a shape cannot have negative sizes", got=tuple(shape.dim))
    return tuple(shape.dim)


def _each_top(values: list[Any], tops: int, name: str) -> list[Any]:
    """Spread what is given once, or once for each top, over the tops."""
    if len(values) not in (1, tops):
        raise NetError(f"{name} must be given once, or once for each top", got=len(values), want=f"1 or {tops}")
    return values * tops if len(values) == 1 else values


class Input(Layer):
    """What the caller feeds: ``net({"data": images})``.

    Shapes:
        tops  ``input_param.shape``, given once or once for each top; the caller may feed other sizes

    Source: BVLC/caffe@9b89154 src/caffe/layers/input_layer.cpp L8-L24.
    """

    reads = frozenset({"input_param.shape"})
    bottoms = (0, 0)
    tops = (1, None)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give the declared shapes."""
        shapes = self.spec.input_param.shape
        if not shapes:
            wanted = ", ".join(f"{top!r}: (1, 3, H, W)" for top in self.spec.top)
            raise NetError("there is no shape", remedy=f"Write one into input_param, or pass inputs={{{wanted}}}.")
        return [_shape(shape) for shape in _each_top(shapes, len(self.spec.top), "shape")]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Refuse: there is nothing to compute.

        Raises:
            NetError: always; whoever runs the net feeds the tops.
        """
        raise NetError(
            "an Input layer has no values of its own", got=f"tops {', '.join(self.spec.top)}", remedy="Feed them."
        )


class DummyData(Source):
    """Blobs from fillers: constant ones, or new random ones at every forward.

    Shapes:
        tops  ``shape``, or the old num, channels, height and width, each given once or once for each top

    Attributes:
        constant: for each top, whether every forward fills it alike.

    Source: BVLC/caffe@9b89154 src/caffe/layers/dummy_data_layer.cpp L9-L109.
    """

    reads = frozenset(
        f"dummy_data_param.{name}" for name in ("data_filler", "num", "channels", "height", "width", "shape")
    )

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the fillers."""
        super().setup(bottoms)
        given = list(self.spec.dummy_data_param.data_filler) or [FillerParameter()]
        self._fillers: list[FillerParameter] = _each_top(given, len(self.spec.top), "data_filler")
        self.constant = tuple(filler.type == "constant" for filler in self._fillers)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give the declared shapes."""
        param, tops = self.spec.dummy_data_param, len(self.spec.top)
        legacy = [param.num, param.channels, param.height, param.width]
        if not any(legacy):
            return [_shape(shape) for shape in _each_top(param.shape, tops, "shape")]
        if param.shape:
            raise NetError("shape and num, channels, height, width are both set", want="one kind")
        names = ("num", "channels", "height", "width")
        columns = [_each_top(values, tops, name) for values, name in zip(legacy, names, strict=True)]
        return list(zip(*columns, strict=True))

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Fill the tops."""
        tops = [torch.empty(shape) for shape in self.shapes([])]
        for top, filler in zip(tops, self._fillers, strict=True):
            fillers.fill(top, filler, self.generator)
        return tuple(self.place(top) for top in tops)


class Parameter(Layer):
    """A learned blob as a top.

    Shapes:
        top     ``parameter_param.shape``

    Blobs:
        weight  the same, zeros to begin with

    Source: BVLC/caffe@9b89154 include/caffe/layers/parameter_layer.hpp L10-L41.
    """

    reads = frozenset({"parameter_param.shape"})
    bottoms = (0, 0)

    def setup(self, bottoms: list[Shape]) -> None:
        """Make the blob."""
        self.add_blob(_shape(self.spec.parameter_param.shape))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give the blob's shape."""
        return [_shape(self.spec.parameter_param.shape)]

    def shares(self) -> tuple[bool, bool]:
        """Return that the top is the blob's own memory."""
        return True, True

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return True: the gradient of the blob is that of the top, which its reader overwrites."""
        # Upstream bug, kept: a Parameter's gradient is that of its top, which every backward overwrites, so that with
        # iter_size it is that of the last sample (parameter_layer.hpp L33). Autograd's gradients add up.
        return True

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Give the blob, as a view."""
        return (self.blobs[0].view_as(self.blobs[0]),)


class MemoryData(Source):
    """Batches from arrays that the caller hands over with ``reset``, around and around.

    Shapes:
        data   (batch_size, channels, height, width)
        label  (batch_size, 1, 1, 1)

    Source: BVLC/caffe@9b89154 src/caffe/layers/memory_data_layer.cpp L12-L125.
    """

    reads = frozenset(f"memory_data_param.{name}" for name in ("batch_size", "channels", "height", "width"))
    tops = (2, 2)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the sizes."""
        super().setup(bottoms)
        param = self.spec.memory_data_param
        self._size = (param.batch_size, param.channels, param.height, param.width)
        if min(self._size) < 1:
            raise NetError("batch_size, channels, height and width must be positive", got=self._size)
        self._arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        self._first: int | None = None
        self._position = 0

    def reset(self, data: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Take new arrays and begin with their first instance.

        Args:
            data: (n, channels, height, width), n a multiple of the batch size; used as it is, without a copy.
            labels: n numbers.

        Raises:
            NetError: the arrays do not fit.

        Source: BVLC/caffe@9b89154 src/caffe/layers/memory_data_layer.cpp L91-L105.
        """
        batch, *size = self._size
        if data.ndim != 4 or list(data.shape[1:]) != size:
            raise NetError("the data do not fit memory_data_param", got=data.shape, want=("n", *size))
        if not len(data) or len(data) % batch:
            raise NetError("the data must be a multiple of batch_size", got=len(data), want=f"a multiple of {batch}")
        if labels.size != len(data):
            raise NetError("there must be one label for each instance", got=labels.size, want=len(data))
        self._arrays = data, labels.reshape(-1, 1, 1, 1)
        self._first = None
        self._position = 0

    def seek(self, draw: int) -> None:
        """Go to a batch; the first one asked for after ``reset`` is the first of the arrays."""
        if self._first is None:
            self._first = draw
        if self._arrays is not None:
            self._position = (draw - self._first) * self._size[0] % len(self._arrays[0])

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give the declared shapes."""
        return [self._size, (self._size[0], 1, 1, 1)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Give the next batch."""
        if self._arrays is None:
            raise NetError("there are no data yet", remedy="Hand them over with the layer's reset(data, labels).")
        begin, end = self._position, self._position + self._size[0]
        self._position = end % len(self._arrays[0])
        return tuple(self.place(np.ascontiguousarray(array[begin:end])) for array in self._arrays)


LAYERS = (Input, DummyData, Parameter, MemoryData)
