"""The layers Input, DummyData, Parameter and MemoryData, and helpers of the layers that read files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe import fillers
from reproduction.caffe.errors import DataError, NetError, StrPath, cannot_read
from reproduction.caffe.formats import files
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import BlobShape, FillerParameter
from reproduction.caffe.typing import Array, Int64


class BaseDataLayer(Layer):
    """The base class of layers that load or create data and convert them to the device and dtype of the net."""

    bottoms: ClassVar[tuple[int, int | None]] = (0, 0)
    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        """Register an empty buffer, which is moved and converted with the net and so has its device and dtype."""
        self.register_buffer("_like", torch.empty(0), persistent=False)

    def seek(self, draw: int) -> None:
        """Choose the batch that the next forward pass returns, e.g. to resume a training.

        Args:
            draw: The number of the batch, from 0. Earlier forward passes have no influence.
        """

    def to_net_tensor(self, values: Tensor | Array) -> Tensor:
        """Return values as a tensor of the net's device and dtype."""
        return torch.as_tensor(values).to(self.get_buffer("_like"))


def stack_batch(instances: Iterable[tuple[StrPath, Sequence[Array]]], remedy: str = "") -> tuple[Array, ...]:
    """Stack the instances of a batch, and return one array for each top.

    Args:
        instances: For each instance, its file or place for errors, and its array for each top.
        remedy: The remedy if they differ in size.

    Raises:
        DataError: If the arrays for the first top differ in shape.
    """
    loaded: list[Sequence[Array]] = []
    for place, arrays in instances:
        loaded.append(arrays)
        got, want = arrays[0].shape, loaded[0][0].shape
        if got != want:
            raise DataError("the images of a batch must have one size", path=place, got=got, want=want, remedy=remedy)
    return tuple(np.stack(top) for top in zip(*loaded, strict=True))


class BatchLayer(BaseDataLayer):
    """The base class of layers that load the instances of a batch one by one; the last one is followed by the first.

    A subclass implements ``settings``, ``load`` and ``place``.

    Attributes:
        sized_by: The fields that give the instances of a batch the same size, for errors.
    """

    sized_by: ClassVar[str] = "crop_size"

    def settings(self) -> Any:
        """Return the message that has the fields ``source``, ``batch_size`` and others."""
        raise NotImplementedError(type(self).__name__)

    def load(self, number: int) -> Sequence[Array]:
        """Load an instance by its number, counted over all epochs, and return one array for each top."""
        raise NotImplementedError(type(self).__name__)

    def place(self, number: int) -> str:
        """Return where an instance is, for errors: its file, or its place in one."""
        raise NotImplementedError(type(self).__name__)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check ``batch_size``."""
        super().setup(bottoms)
        check_positive(self.settings(), "batch_size")
        self._next = 0

    def seek(self, draw: int) -> None:
        """Choose the batch that the next forward pass returns.

        Args:
            draw: The number of the batch, from 0.
        """
        self._next = draw * self.settings().batch_size

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Load the next instance, and return the shapes of the tops for a batch of such."""
        return [(self.settings().batch_size, *array.shape) for array in self.load(self._next)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Load the next batch."""
        numbers = range(self._next, self._next + self.settings().batch_size)
        instances = ((self.place(number), self.load(number)) for number in numbers)
        batch = stack_batch(instances, f"Set {self.sized_by}, or batch_size: 1.")
        self._next = numbers.stop
        return tuple(map(self.to_net_tensor, batch))


class Shuffle:
    """Random orders of the items of a list, for example one order for each epoch.

    An order depends only on a seed and a key, so that it can be computed without those before it, e.g. to resume a
    training.

    Args:
        enabled: Whether to shuffle; otherwise all orders are ascending.
        generator: The generator from which the seed is drawn; None for torch's default generator.
    """

    def __init__(self, enabled: bool, generator: torch.Generator | None):
        self._seed = int(torch.randint(2**31, (), generator=generator)) if enabled else None
        self._order = lru_cache(maxsize=2)(self._permute)

    def __call__(self, count: int, *key: int) -> Int64:
        """Return a permutation of the indices ``0 ... count - 1``.

        Args:
            count: The number of items.
            key: Numbers that identify the order, e.g. the epoch, or the epoch and the position of the file.
        """
        return self._order(count, key)

    def _permute(self, count: int, key: tuple[int, ...]) -> Int64:
        if self._seed is None:
            return np.arange(count)
        return np.random.default_rng([self._seed, *key]).permutation(count)


def read_file_list(source: str) -> str:
    """Return the text of a file that lists data files, e.g. the ``source`` of an ImageData layer.

    Raises:
        DataError: If the file is missing, not a regular file, larger than 64 MiB or not UTF-8 text.
    """
    try:
        return files.read_text(source, 64 << 20)  # ImageNet's list has 48 MB
    except OSError as error:
        raise cannot_read(error, "the list of files", source) from None


def _shape(shape: BlobShape) -> Shape:
    if min(shape.dim, default=0) < 0:
        raise NetError("a shape cannot have negative sizes", got=tuple(shape.dim))
    return tuple(shape.dim)


def _one_for_each_top(values: list[Any], tops: int, name: str) -> list[Any]:
    """Return one value for each top; a single value is repeated."""
    if len(values) not in (1, tops):
        raise NetError(f"{name} must be given once, or once for each top", got=len(values), want=f"1 or {tops}")
    return values * tops if len(values) == 1 else values


@register
class Input(Layer):
    """A layer whose tops the caller feeds, e.g. by ``net({"data": images})``.

    Shapes:
        tops  ``input_param.shape``, one for all tops or one for each; the caller may feed other sizes

    Source: BVLC/caffe@9b89154 src/caffe/layers/input_layer.cpp L8-L24.
    """

    reads = frozenset({"input_param.shape"})
    bottoms = (0, 0)
    tops = (1, None)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        shapes = self.layer_param.input_param.shape
        if not shapes:
            wanted = ", ".join(f"{top!r}: (1, 3, H, W)" for top in self.layer_param.top)
            raise NetError("there is no shape", remedy=f"Write one into input_param, or pass inputs={{{wanted}}}.")
        return [_shape(shape) for shape in _one_for_each_top(shapes, len(self.layer_param.top), "shape")]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Raise ``NetError``, since the caller of the net must feed the tops.

        Raises:
            NetError: Always.
        """
        raise NetError(
            "an Input layer computes no values",
            got=f"tops {', '.join(self.layer_param.top)}",
            remedy="Feed them.",
        )


@register
class DummyData(BaseDataLayer):
    """A layer that fills its tops by fillers in each forward pass.

    Shapes:
        tops  ``shape``, or the older fields num, channels, height and width; each has one value for all tops or one
              for each

    Attributes:
        constant: For each top, whether its filler is ``constant``, so that all forward passes return the same values.

    Source: BVLC/caffe@9b89154 src/caffe/layers/dummy_data_layer.cpp L9-L109.
    """

    reads = frozenset(
        f"dummy_data_param.{name}" for name in ("data_filler", "num", "channels", "height", "width", "shape")
    )

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the fillers; the default is a constant 0."""
        super().setup(bottoms)
        given = list(self.layer_param.dummy_data_param.data_filler) or [FillerParameter()]
        self._fillers: list[FillerParameter] = _one_for_each_top(given, len(self.layer_param.top), "data_filler")
        self.constant = tuple(filler.type == "constant" for filler in self._fillers)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        param, tops = self.layer_param.dummy_data_param, len(self.layer_param.top)
        legacy = {name: getattr(param, name) for name in ("num", "channels", "height", "width")}
        if not any(legacy.values()):
            return [_shape(shape) for shape in _one_for_each_top(param.shape, tops, "shape")]
        if param.shape:
            raise NetError("shape and num, channels, height, width are both set", want="one kind")
        columns = [_one_for_each_top(values, tops, name) for name, values in legacy.items()]
        return list(zip(*columns, strict=True))

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return new tops, filled by the fillers."""
        tops = [torch.empty(shape) for shape in self.shapes([])]
        for top, filler in zip(tops, self._fillers, strict=True):
            fillers.fill(top, filler, self.generator)
        return tuple(self.to_net_tensor(top) for top in tops)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add constants, whose batch size is that of the message.

        Raises:
            NetError: If a filler is random.
        """
        if not all(self.constant):
            raise NetError("random values cannot be written as ONNX", want="constant fillers")
        onnx.fix_batch()
        onnx.fix_sizes()
        return [onnx.constant(top.numpy(), f"top{i}") for i, top in enumerate(self.forward())]


@register
class Parameter(Layer):
    """A layer without bottoms that returns a learned blob as its top.

    Shapes:
        top     ``parameter_param.shape``

    Blobs:
        weight  ``parameter_param.shape``, initialized with zeros

    Source: BVLC/caffe@9b89154 include/caffe/layers/parameter_layer.hpp L10-L41.
    """

    reads = frozenset({"parameter_param.shape"})
    bottoms = (0, 0)
    shares = (True, True)  # in Caffe, the top uses the memory of the parameter

    def setup(self, bottoms: list[Shape]) -> None:
        self.add_blob(_shape(self.layer_param.parameter_param.shape))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return [_shape(self.layer_param.parameter_param.shape)]

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return True: the parameter has the gradient of the top, which each of Caffe's backward passes overwrites."""
        # Upstream bug, kept: the gradient of a Parameter layer is that of its top, which each backward pass overwrites,
        # so that with iter_size only the last batch counts (parameter_layer.hpp L33). Autograd accumulates gradients.
        return True

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (self.blobs[0].view_as(self.blobs[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the parameter as a constant."""
        return onnx.blobs()


@register
class MemoryData(BaseDataLayer):
    """Batches of the arrays that the caller passes to ``reset``; the last batch is followed by the first.

    Shapes:
        data   (batch_size, channels, height, width)
        label  (batch_size, 1, 1, 1)

    Source: BVLC/caffe@9b89154 src/caffe/layers/memory_data_layer.cpp L12-L125.
    """

    reads = frozenset(f"memory_data_param.{name}" for name in ("batch_size", "channels", "height", "width"))
    tops = (2, 2)

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.layer_param.memory_data_param
        check_positive(param, "batch_size", "channels", "height", "width")
        self._size = (param.batch_size, param.channels, param.height, param.width)
        self._arrays: tuple[Array, Array] | None = None
        self._first: int | None = None
        self._position = 0

    def reset(self, data: Array, labels: Array) -> None:
        """Use new arrays and start at their first instance.

        Args:
            data: An array (n, channels, height, width), where n is a multiple of the batch size. It is not copied.
            labels: An array of n numbers.

        Raises:
            NetError: If the shapes do not fit the layer or each other.

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
        """Choose the batch that the next forward pass returns.

        Args:
            draw: The number of the batch. The number of the first call after ``reset`` stands for the first batch.
        """
        if self._first is None:
            self._first = draw
        if self._arrays is not None:
            self._position = (draw - self._first) * self._size[0] % len(self._arrays[0])

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return [self._size, (self._size[0], 1, 1, 1)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self._arrays is None:
            raise NetError("there are no data yet", remedy="Pass them to the layer's reset(data, labels).")
        begin, end = self._position, self._position + self._size[0]
        self._position = end % len(self._arrays[0])
        return tuple(self.to_net_tensor(np.ascontiguousarray(array[begin:end])) for array in self._arrays)
