"""NetSpec: nets in Python, as ``n.pool1 = L.Pooling(n.relu1_2, pool=P.Pooling.MAX, kernel_size=2, stride=2)``.

A thin layer over ``reproduction.caffe.net.netspec``, which orders and names the layers. Each keyword is checked against
the schema when it is passed, not only when the net is converted to a message. As in pycaffe, layer types that only a
fork of Caffe knows are allowed, and a program may change ``top.fn.params`` until the net is converted.

Source: BVLC/caffe@9b89154 python/caffe/net_spec.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError, ReproductionError, did_you_mean, spelling_hint
from reproduction.caffe.net import netspec
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.types import TYPES
from reproduction.pycaffe.proto import caffe_pb2
from reproduction.pycaffe.proto.message import NoFieldError, ProtoMessage, unwrap, wrap


class MissingTopError(NetError, KeyError, AttributeError):
    """Raised when a program reads a top that its NetSpec does not have; also a KeyError, as in pycaffe."""


class Top(netspec.Top):
    """One output blob of a layer in a NetSpec; pass it to the functions of ``layers`` as the bottom of another layer.

    Attributes:
        fn: The layer.
        n: The index of this top among the layer's tops.
    """

    function: Function

    @property
    def fn(self) -> Function:
        """The layer whose output this is."""
        return self.function

    @property
    def n(self) -> int:
        """The index of this top among the layer's tops."""
        return self.index

    def to_proto(self) -> Any:
        """Return this top's layer and all layers that it depends on, as a ``caffe_pb2.NetParameter``."""
        return to_proto(self)


class Function(netspec.Function):
    """A layer in a NetSpec, with its fields and its inputs; the functions of ``layers`` create it.

    Args:
        type_name: The layer's type.
        inputs: The tops that the layer reads.
        params: The layer's fields by name, such as ``num_output``, and optionally ``ntop`` (the number of tops) and
            ``in_place``, which are removed from the dict.

    Attributes:
        params: The layer's fields by name; a program may change them until the net is converted to a message.
        tops: The outputs.

    Raises:
        TypeError: If an input is not a Top.
        ReproductionError: If a field is unknown, or a value does not fit its field.
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
    def layer_param(self) -> LayerParameter:
        """A ``LayerParameter`` built from the layer's type and its current ``params``, without bottoms and tops."""
        return self._build(self.params)

    def _build(self, fields: Mapping[str, Any]) -> LayerParameter:
        layer: ProtoMessage = caffe_pb2.LayerParameter(type=self.type)
        known = LayerParameter.fields
        own = {each.name: part for part in TYPES.get(self.type, ()) for each in _fields(getattr(layer, part))}
        for name, value in fields.items():
            if name not in known and name not in own:
                remedy = spelling_hint(name, [*own, *known]) if own else spelling_hint(self.type, TYPES)
                raise NoFieldError(f"unknown field {name!r}", place=self.type, remedy=remedy)
            try:
                assign_proto(layer if name in known else getattr(layer, own[name]), name, value)
            except ReproductionError as error:
                raise error.at(self.type) from None
        return unwrap(layer)  # type: ignore[return-value]


def _fields(message: ProtoMessage) -> list[Any]:
    return message.DESCRIPTOR.fields


class NetSpec:
    """A net definition, to which a program adds layers by assigning their tops.

    For a NetSpec ``n``, ``n.conv1 = layers.Convolution(n.data, num_output=64)`` adds a layer and names its top
    ``conv1``. ``n["conv1"]`` is the same as ``n.conv1``.

    Raises:
        MissingTopError: If a program reads a top that it has not assigned.
        NetError: If a program assigns something other than a top or a layer without tops.
    """

    _spec: netspec.NetSpec

    def __init__(self) -> None:
        object.__setattr__(self, "_spec", netspec.NetSpec())

    @property
    def tops(self) -> dict[str, Any]:
        """The tops by the names that the program has assigned them to, in the order of assignment."""
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
        """Return the net as a ``caffe_pb2.NetParameter``, with all layers that the named tops depend on."""
        return wrap(self._spec.to_proto())


class Layers:
    """The class of the object ``layers``, whose attributes create layers, as in ``layers.ReLU(n.conv1)``.

    The arguments are the layer's bottoms, the keyword arguments its fields. The result is the layer's top; with
    ``ntop`` greater than 1 it is a tuple of tops, with ``ntop=0`` the layer (a ``Function``).
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
    """The class of the object ``params``, which looks up enum values of Caffe, such as ``params.Pooling.MAX``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(caffe_pb2, f"{name}Parameter")


layers = Layers()
params = Parameters()


def to_proto(*tops: Top | Function) -> Any:
    """Return the layers of the given tops, and all layers that these depend on, as a ``caffe_pb2.NetParameter``.

    Tops without a name are named after their layer's type and a number, such as ``Convolution1``.
    """
    return wrap(netspec.to_proto(*tops))


def assign_proto(proto: Any, name: str, val: Any) -> None:
    """Set a field of a message from Python values.

    Args:
        proto: The message.
        name: The field's name.
        val: A dict for a sub-message. For a repeated field, a list or a single item, which is appended.

    Raises:
        ReproductionError: If there is no such field, or the value does not fit it.
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
    """Return a dict from the names of layers' messages to the names of their fields in ``LayerParameter``.

    The endings ``Parameter`` and ``_param`` are left out: for example, ``ConvolutionParameter`` is the type of the
    field ``convolution_param``, so that ``Convolution`` maps to ``convolution``. If a fork's field has a message of
    BVLC Caffe, as ``relu6_param`` has, the message maps to BVLC's field.
    """
    layer = caffe_pb2.LayerParameter()
    names = [field.name for field in _fields(layer) if field.name.endswith("_param")]
    names.sort(key=lambda name: LayerParameter.field(name).dialect is None)
    return {
        type(getattr(layer, name)).__name__.removesuffix("Parameter"): name.removesuffix("_param") for name in names
    }
