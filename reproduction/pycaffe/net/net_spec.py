"""Nets written as ``n.pool1 = L.Pooling(n.relu1_2, pool=P.Pooling.MAX, kernel_size=2, stride=2)``.

A thin layer over ``reproduction.caffe.net.netspec``, which orders and names the layers. Each keyword is checked against
the schema when it is passed, not only when the net is written. As in pycaffe, a layer of a type that only a fork of
Caffe knows can be written, and ``top.fn.params`` may be changed until the net is written.

Source: BVLC/caffe@9b89154 python/caffe/net_spec.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError, ReproductionError, did_you_mean, misspelt
from reproduction.caffe.net import netspec
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.types import TYPES
from reproduction.pycaffe.proto import caffe_pb2
from reproduction.pycaffe.proto.message import NoFieldError, ProtoMessage, plain, show


class MissingTopError(NetError, KeyError, AttributeError):
    """A NetSpec is asked for a top that it does not have; pycaffe raises a KeyError."""


class Top(netspec.Top):
    """One output blob of a layer.

    Attributes:
        fn: the layer.
        n: which of its tops it is.
    """

    function: Function

    @property
    def fn(self) -> Function:
        """The layer."""
        return self.function

    @property
    def n(self) -> int:
        """Which of the layer's tops it is."""
        return self.index

    def to_proto(self) -> Any:
        """Write the layers that this top needs; see ``to_proto``."""
        return to_proto(self)


class Function(netspec.Function):
    """A layer, its parameters and its inputs.

    Args:
        type_name: the layer's type.
        inputs: tops of other layers.
        params: fields of the layer, and ``ntop`` and ``in_place``, which are taken out of it.

    Attributes:
        params: the fields; what is changed here is written.
        tops: the outputs.

    Raises:
        TypeError: an input is no Top.
        ReproductionError: a field is unknown, or a value does not fit its field.
    """

    tops: tuple[Top, ...]

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: dict[str, Any]):
        for index, each in enumerate(inputs):
            if not isinstance(each, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(each)})")  # pycaffe's words
        self.type_name, self.inputs, self.params = type_name, inputs, params
        self.ntop: int = params.pop("ntop", 1)
        super().__init__(type_name, inputs, params, ntop=self.ntop, in_place=params.pop("in_place", False))
        self.tops = tuple(Top(self, index) for index in range(self.ntop))

    @property
    def spec(self) -> LayerParameter:
        """The LayerParameter that ``params`` say now."""
        return self._written(self.params)

    def _written(self, fields: Mapping[str, Any]) -> LayerParameter:
        layer: ProtoMessage = caffe_pb2.LayerParameter(type=self.type)
        known = layer.DESCRIPTOR.fields_by_name
        own = {each.name: part for part in TYPES.get(self.type, ()) for each in _fields(getattr(layer, part))}
        for name, value in fields.items():
            if name not in known and name not in own:
                remedy = misspelt(name, [*own, *known]) if own else misspelt(self.type, TYPES)
                raise NoFieldError(f"unknown field {name!r}", place=self.type, remedy=remedy)
            try:
                assign_proto(layer if name in known else getattr(layer, own[name]), name, value)
            except ReproductionError as error:
                raise error.at(self.type) from None
        return plain(layer)  # type: ignore[return-value]


def _fields(message: ProtoMessage) -> list[Any]:
    return message.DESCRIPTOR.fields


class NetSpec:
    """A net in the making: each top that is assigned to an attribute, or an item, is named by it.

    Raises:
        MissingTopError: a top is read that was not assigned.
        NetError: something is assigned that is neither a top nor a layer without tops.
    """

    _spec: netspec.NetSpec

    def __init__(self) -> None:
        object.__setattr__(self, "_spec", netspec.NetSpec())

    @property
    def tops(self) -> dict[str, Any]:
        """The tops by name, in the order of assignment."""
        return self._spec.tops

    def __setattr__(self, name: str, value: Any) -> None:
        self._spec[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.tops:
            raise MissingTopError(f"the net has no top {name!r} yet", remedy=did_you_mean(name, self.tops))
        return self.tops[name]

    __setitem__ = __setattr__

    def __getitem__(self, name: str) -> Any:
        return self.__getattr__(name)

    def to_proto(self) -> Any:
        """Write every named top and all that it needs, bottoms first, as a ``caffe_pb2.NetParameter``."""
        return show(self._spec.to_proto())


class Layers:
    """``layers``: each attribute is a function that writes a layer of that type and returns its top or tops.

    ``ntop`` is the number of tops, of which several are returned as a tuple; for none, the layer is returned.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*args: Top, **kwargs: Any) -> Any:
            function = Function(name, args, kwargs)
            if function.ntop == 1:
                return function.tops[0]
            return function.tops or function

        return layer


class Parameters:
    """``params``: values of enums, such as ``params.Pooling.MAX``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(caffe_pb2, f"{name}Parameter")


layers = Layers()
params = Parameters()


def to_proto(*tops: Top | Function) -> Any:
    """Write the layers that the tops need as a ``caffe_pb2.NetParameter``, unnamed ones called by type and number."""
    return show(netspec.to_proto(*tops))


def assign_proto(proto: Any, name: str, val: Any) -> None:
    """Set a field of a message from Python values: dicts are messages, and one value is a list of one.

    Raises:
        ReproductionError: there is no such field, or the value does not fit it.
    """
    field = getattr(proto, name)
    if hasattr(field, "extend"):
        for item in val if isinstance(val, (list, tuple, np.ndarray)) else [val]:
            if isinstance(item, dict):
                added = field.add()
                for key, value in item.items():
                    assign_proto(added, key, value)
            else:
                field.append(item)
    elif isinstance(val, dict):
        field.SetInParent()
        for key, value in val.items():
            assign_proto(field, key, value)
    else:
        setattr(proto, name, val)


def param_name_dict() -> dict[str, str]:
    """Map the names of parameter messages to those of their fields, without their endings: Convolution, convolution."""
    layer = caffe_pb2.LayerParameter()
    names = [field.name for field in _fields(layer) if field.name.endswith("_param")]
    return {
        type(getattr(layer, name)).__name__.removesuffix("Parameter"): name.removesuffix("_param") for name in names
    }
