"""Layers whose class is written in Python against the interface of pycaffe: numpy arrays and four methods.

The class is never imported by the name in the prototxt, since that would run code that a file chooses: the caller
passes the classes to the net.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.blob import Blob, BlobVec, RawBlobVec
from reproduction.caffe.layers.data import BaseDataLayer
from reproduction.caffe.layers.pycaffe_vectors import BoolVec
from reproduction.caffe.schema import LayerParameter, Message, Phase
from reproduction.caffe.typing import Array

#: The classes that dialects offer for Python layers of published programs, by the module and name in a prototxt.
PUBLISHED: dict[tuple[str, str], type[Any]] = {}

# A mapping of (module, layer), "module.layer" or "layer" to the class, or a function of module and layer.
PythonLayers = Mapping[Any, type[Any]] | Callable[[str, str], type[Any]]


class UserLayer:
    """The base class of Python layers, pycaffe's ``caffe.Layer``.

    A subclass defines ``setup(bottom, top)``, ``reshape(bottom, top)``, ``forward(bottom, top)`` and
    ``backward(top, propagate_down, bottom)``, where ``bottom`` and ``top`` are vectors of ``Blob``.

    Attributes:
        param_str: The field ``param_str`` of the prototxt.
        param_str_: The same string under its name before 2015.
        phase: 0 in training, 1 in testing. For a class that reads ``param_str_``, it is a ``NamedPhase``.
        blobs: The parameters, which ``setup`` adds by ``self.blobs.add_blob(*shape)``.

    Source: BVLC/caffe@9b89154 include/caffe/layers/python_layer.hpp L13-L61.
    """

    param_str: str = ""
    param_str_: str = ""
    phase: int = 0
    type = "Python"

    def __init__(self, layer_param: LayerParameter):
        self.blobs = BlobVec()


K = TypeVar("K", bound=type[Any])


def publish(module: str, layer: str = "") -> Callable[[K], K]:
    """Return a decorator that offers a class for the Python layers of a published program.

    It is used for nets that name this module if their caller neither passes a class nor, with ``import caffe``, has the
    module.

    Args:
        module: The field ``module`` of the prototxt.
        layer: The field ``layer`` of the prototxt; by default, the name of the class.
    """

    def add(kind: K) -> K:
        PUBLISHED[module, layer or kind.__name__] = kind
        return kind

    return add


class NamedPhase(int):
    """A phase that is shown by its name, ``TRAIN`` or ``TEST``, as in the Caffe fork of Faster R-CNN.

    Source: rbgirshick/caffe-fast-rcnn@0dcd397 python/caffe/_caffe.cpp L212-L215, L268.
    """

    @property
    def name(self) -> str:
        """``TRAIN`` or ``TEST``."""
        return Phase(self).name

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"caffe._caffe.Phase.{self.name}"


def _reads_old_param_str(kind: type[Any]) -> bool:
    """Return whether a class was written for the Caffe fork of Fast or Faster R-CNN: it reads ``param_str_``.

    Source: rbgirshick/caffe-fast-rcnn@0dcd397 include/caffe/layers/python_layer.hpp L27.
    """
    functions = (each for base in kind.__mro__ for each in vars(base).values() if isinstance(each, types.FunctionType))
    return any("param_str_" in function.__code__.co_names for function in functions)


def find_python_class(known: PythonLayers | None, module: str, layer: str) -> type[Any]:
    """Return the class of a Python layer from the classes that the caller of the net has passed.

    Args:
        known: The classes by ``(module, layer)``, ``"module.layer"`` or ``"layer"``, or a function that maps module and
            layer to the class; None for none.
        module: The field ``module`` of the prototxt.
        layer: The field ``layer`` of the prototxt, the name of the class.

    Returns:
        The class of the caller, or else the one that a dialect offers; see ``publish``.

    Raises:
        NetError: If the class is not found.
    """
    name = f"{module}.{layer}"
    if isinstance(known, Mapping):
        for key in ((module, layer), name, layer):
            if key in known:
                return known[key]
    elif known is not None:
        try:
            return known(module, layer)
        except Exception as error:
            lacks_module = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
            if not (lacks_module and _find_published(module, layer)):
                raise NetError(f"the Python class {name!r} was not found: {_format_exception(error)}") from error
    if published := _find_published(module, layer):
        return published
    raise NetError(
        f"the Python class {name!r} is not known",
        remedy=f"Pass python_layers={{({module!r}, {layer!r}): {layer or 'Class'}}}; "
        "nothing is imported because a file names it.",
    )


def _find_published(module: str, layer: str) -> type[Any] | None:
    Message.import_late_fields()
    return PUBLISHED.get((module, layer))


@register
class Python(BaseDataLayer):
    """A layer that calls the methods of a Python class.

    ``setup`` is called once, ``reshape`` and ``forward`` in each forward pass, and ``backward`` in each backward pass.
    The gradients of bottoms and parameters are zero before ``backward`` writes to them. If the layer works in place,
    bottom and top are the same ``Blob``.

    Args:
        layer_param: The layer's message.
        bottoms: The shapes of the bottoms.
        generator: Not used; other layers draw random numbers from it.
        python_layers: The Python classes that may be used; see ``find_python_class``.
        blobs: The net's blobs by name, which the class reads and writes; missing tops are added. None creates new ones.

    Attributes:
        user: The object of the Python class.

    Shapes:
        bottoms  any shape
        tops     the shapes that ``reshape`` sets

    Blobs:
        those that ``setup`` adds

    Raises:
        NetError: If the class is not known or one of its methods raises an exception, which is then the ``__cause__``.

    Source: BVLC/caffe@9b89154 include/caffe/layers/python_layer.hpp L13-L61.
    """

    reads = frozenset({"python_param.module", "python_param.layer", "python_param.param_str"})
    bottoms = (0, None)
    tops = (0, None)

    def __init__(
        self,
        layer_param: LayerParameter,
        bottoms: Sequence[Shape],
        generator: torch.Generator | None = None,
        python_layers: PythonLayers | None = None,
        blobs: MutableMapping[str, Blob] | None = None,
    ):
        self._known, self._net_blobs = python_layers, blobs
        super().__init__(layer_param, bottoms, generator)

    def setup(self, bottoms: list[Shape]) -> None:
        """Create an object of the Python class and call its ``setup``."""
        super().setup(bottoms)
        param = self.layer_param.python_param
        kind = find_python_class(self._known, param.module, param.layer)
        blobs = self._net_blobs
        if blobs is None:
            blobs = {name: Blob(*shape) for name, shape in zip(self.layer_param.bottom, bottoms, strict=True)}
        self._bottoms = RawBlobVec.from_items(blobs[bottom] for bottom in self.layer_param.bottom)
        self._tops = RawBlobVec.from_items(blobs.setdefault(top, Blob()) for top in self.layer_param.top)
        self.user = self._construct(kind)
        if not hasattr(self.user, "blobs"):
            self.user.blobs = BlobVec()
        self.user.param_str = self.user.param_str_ = param.param_str
        self.user.phase = (NamedPhase if _reads_old_param_str(kind) else int)(self.layer_param.phase)
        self._call("setup", self._bottoms, self._tops)
        self._register()

    def _construct(self, kind: type[Any]) -> Any:
        # As in pycaffe, the constructor receives the message; one that is inherited from `object` accepts no argument.
        try:
            return kind() if kind.__init__ is object.__init__ else kind(self.layer_param)
        except Exception as error:
            raise NetError(f"{kind.__name__} cannot be created: {_format_exception(error)}") from error

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Call ``reshape`` of the Python class and return the shapes of the tops that it has set."""
        for blob, shape in zip(self._bottoms, bottoms, strict=True):
            blob.reshape(*shape)
        self._call("reshape", self._bottoms, self._tops)
        self._register()
        return [top.sizes for top in self._tops]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops by ``reshape`` and ``forward`` of the Python class."""
        if not self.layer_param.top:
            self._run_forward(bottoms)
            return ()
        return _PythonFunction.apply(self, len(bottoms), *bottoms, *self.blobs)  # type: ignore[no-any-return, no-untyped-call]

    def _register(self) -> None:
        """Register the blobs that the Python layer has added as parameters of the net."""
        for blob in self.user.blobs[len(self.blob_names) :]:
            parameter = self.add_blob(blob.sizes)
            parameter.data = torch.from_numpy(blob.data)  # shared memory: arrays that the layer stores stay valid

    def _update_parameter_blobs(self) -> None:
        for blob, parameter in zip(self.user.blobs, self.blobs, strict=True):
            blob.show(_to_array(parameter))

    def _run_forward(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        like = self.get_buffer("_like")
        for blob, bottom in zip(self._bottoms, bottoms, strict=True):
            blob.show(_to_array(bottom).copy() if blob in self._tops else _to_array(bottom))
        for top in self._tops:
            top.retype(np.dtype(str(like.dtype).removeprefix("torch.")))
        self._update_parameter_blobs()
        self.call_forward()
        for blob, parameter in zip(self.user.blobs, self.blobs, strict=True):
            if parameter.device.type != "cpu":  # on the CPU, they share memory
                parameter.data.copy_(torch.from_numpy(blob.data))
        return tuple(self.to_net_tensor(top.data.copy()) for top in self._tops)

    def _run_backward(
        self, bottoms: Sequence[Tensor], tops: Sequence[Tensor], diffs: Sequence[Tensor], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Return the gradients of the bottoms and parameters, or None where ``wanted`` is False."""
        for blob, bottom in zip(self._bottoms, bottoms, strict=True):
            blob.show(_to_array(bottom))
        for blob, top, diff in zip(self._tops, tops, diffs, strict=True):
            blob.show(_to_array(top).copy(), _to_array(diff).copy())
        self._update_parameter_blobs()
        try:
            self.call_backward(wanted[: len(bottoms)])
        except NetError as error:  # called by autograd, so the net cannot add the layer's name
            raise error.at(self.layer_param.place) from error.__cause__
        blobs = [*self._bottoms, *self.user.blobs]
        return [
            self.to_net_tensor(blob.diff.copy()) if want else None for blob, want in zip(blobs, wanted, strict=True)
        ]

    def call_forward(self) -> None:
        """Call ``reshape`` and ``forward`` of the Python class on the blobs that it was created with."""
        self._call("reshape", self._bottoms, self._tops)
        self._call("forward", self._bottoms, self._tops)
        self._register()

    def call_backward(self, propagate_down: Sequence[bool]) -> None:
        """Call ``backward`` of the Python class on the blobs that it was created with.

        Args:
            propagate_down: For each bottom, whether its gradient is needed.
        """
        self._call("backward", self._tops, BoolVec.from_items(propagate_down), self._bottoms)

    def _call(self, method: str, *arguments: object) -> None:
        try:
            getattr(self.user, method)(*arguments)
        except Exception as error:
            raise NetError(f"{method}() of {type(self.user).__name__} raised {_format_exception(error)}") from error


def _format_exception(error: Exception) -> str:
    """Return type and message of an exception in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _to_array(tensor: Tensor) -> Array:
    """Return a tensor as an array; on the CPU, they share memory if the tensor is contiguous."""
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


class _PythonFunction(Function):
    @staticmethod
    def forward(ctx: Any, layer: Python, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        tops = layer._run_forward(tensors[:count])
        ctx.layer, ctx.count = layer, count
        ctx.save_for_backward(*tensors[:count], *tops)
        return tops

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *diffs: Tensor) -> tuple[Tensor | None, ...]:
        bottoms, tops = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        return None, None, *ctx.layer._run_backward(bottoms, tops, diffs, ctx.needs_input_grad[2:])
