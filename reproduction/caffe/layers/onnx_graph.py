"""A builder of ONNX graphs, to which layers add their operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import NetError, ReproductionError, missing_package
from reproduction.caffe.geometry import Shape, Window
from reproduction.caffe.typing import Array

if TYPE_CHECKING:
    import onnx

    from reproduction.caffe.layers.base import Layer

OPSET = 17  # released in 2022; ONNX Runtime 1.12 and OpenCV 5 can read it
IR_VERSION = 8
PRODUCER = "fcn-reproduction"

_MOST_BYTES = (1 << 31) - (1 << 20)  # protobuf, in which ONNX is stored, cannot write 2 GB; 1 MB is for the operators

# ONNX's numbers of dtypes. Source: onnx/onnx.proto, TensorProto.DataType.
_DTYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


@dataclass
class OnnxNode:
    """One operator of a graph.

    Attributes:
        operator: The type of the operator, such as ``Conv``.
        inputs: Names of the values that it reads; an empty name stands for an optional input that is left out.
        outputs: Names of its outputs.
        attributes: Its attributes.
    """

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class OnnxValue:
    """An input or output of a graph.

    Attributes:
        name: Its name.
        dtype: The type of its elements.
        shape: The length of each axis, or a name for an axis of any length.
        doc: Description that is stored in the file.
    """

    name: str
    dtype: type[np.generic]
    shape: list[int | str]
    doc: str = ""


class OnnxGraph:
    """A builder of an ONNX graph, to which layers add operators and constants.

    Each value of the graph, such as the result of an operator, has a unique name. The package onnx is needed only by
    ``model``.

    Args:
        reserved: Names of outputs, which no other value gets.

    Attributes:
        nodes: The operators added so far.
        constants: The constant arrays added so far, by name; arrays are not copied.
        inputs: The inputs declared so far.
        outputs: The outputs declared so far.
        fixed_sizes: The layers, as text, whose operators are right only for the heights and widths (all axes from 2
            on) of the bottoms for which the net was built.
        fixed_batches: The same for their batch sizes.
    """

    def __init__(self, reserved: Sequence[str] = ()) -> None:
        self.nodes: list[OnnxNode] = []
        self.constants: dict[str, Array] = {}
        self.fixed_sizes: list[str] = []
        self.fixed_batches: list[str] = []
        self.inputs: list[OnnxValue] = []
        self.outputs: list[OnnxValue] = []
        self._reserved = {*reserved}
        self._names: set[str] = {*reserved}

    def element_type(self, dtype: npt.DTypeLike) -> int:
        """Return the number by which ONNX denotes a dtype."""
        return _DTYPES[np.dtype(dtype).name]

    def name(self, wish: str) -> str:
        """Reserve and return a name that no value of the graph has yet.

        Args:
            wish: The name if it is free; otherwise a number is appended, e.g. ``conv1_2``.
        """
        name, number = wish, 1
        while name in self._names:
            number += 1
            name = f"{wish}_{number}"
        self._names.add(name)
        return name

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str], doc: str = "") -> str:
        """Declare an input of the graph and return its name.

        Args:
            name: Name of the input.
            dtype: Type of its elements.
            shape: The length of each axis, or a name for an axis of any length.
            doc: Description that is stored in the file.
        """
        self.declare_input(self.name(name), dtype, shape, doc)
        return name

    def declare_input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str], doc: str = "") -> None:
        """Declare an input whose name was returned by ``name`` before; see ``input``.

        The shape can so depend on the operators that read it.
        """
        self.inputs.append(OnnxValue(name, dtype, list(shape), doc))

    def output(self, name: str, value: str, dtype: type[np.generic], shape: Sequence[int | str], doc: str = "") -> None:
        """Declare an output of the graph.

        Args:
            name: Name of the output, for programs that run the graph.
            value: Name of the value in the graph that the output consists of; if it is not ``name``, an Identity
                operator copies it.
            dtype: Type of its elements.
            shape: The length of each axis, or a name for an axis of any length.
            doc: Description that is stored in the file.
        """
        if value != name:
            own = name if name in self._reserved else self.name(name)
            self.nodes.append(OnnxNode("Identity", [value], [own], {}))
        self.outputs.append(OnnxValue(name, dtype, list(shape), doc))

    def constant(self, values: npt.ArrayLike, wish: str) -> str:
        """Add a constant array and return its name.

        Args:
            values: The array.
            wish: The name if it is free; otherwise a number is appended.
        """
        name = self.name(wish)
        self.constants[name] = np.asarray(values, order="C")
        return name

    def node(self, operator: str, inputs: Sequence[str], wish: str, **attributes: Any) -> str:
        """Add an operator with one output and return the name of the output.

        Args:
            operator: The type of the operator, e.g. ``Conv``.
            inputs: Names of values in the graph.
            wish: The name of operator and output if it is free; otherwise a number is appended.
            attributes: The attributes of the operator.
        """
        return self.node_with_outputs(operator, inputs, [wish], **attributes)[0]

    def node_with_outputs(
        self, operator: str, inputs: Sequence[str], wishes: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Add an operator with an output for each of ``wishes`` and return their names; see ``node``."""
        names = [self.name(wish) for wish in wishes]
        self.nodes.append(OnnxNode(operator, list(inputs), names, attributes))
        return names

    def model(self, name: str, notes: Mapping[str, str]) -> onnx.ModelProto:
        """Build the ONNX model from everything added so far, and check it.

        Args:
            name: Name of the net.
            notes: Metadata to store in the file, by key.

        Raises:
            NetError: If the constants are too large for one file of ONNX.
            ReproductionError: If the package onnx is not installed, or if the model is not valid ONNX, which indicates
                a bug in a layer's ``to_onnx``.
        """
        model = self._build(name, self.constants)
        import onnx

        onnx.helper.set_model_props(model, dict(notes))
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ReproductionError(f"the model is not valid ONNX: {next(iter(str(error).splitlines()))}") from None
        return model

    def serialize(self, *, as_inputs: bool = False) -> bytes:
        """Return the ONNX model as the bytes of its file, without the arrays of ``large_constants`` and unchecked.

        The runtime that reads it gets these arrays from memory, and checks the model.

        Args:
            as_inputs: Whether they are declared as inputs, after the others; otherwise they are external data.

        Raises:
            NetError: If the constants are too large for one file of ONNX.
            ReproductionError: If the package onnx is not installed.
        """
        large = self.large_constants
        model = self._build("net", {key: values for key, values in self.constants.items() if key not in large})
        import onnx

        for key, values in large.items():
            dtype = self.element_type(values.dtype)
            if as_inputs:
                model.graph.input.append(onnx.helper.make_tensor_value_info(key, dtype, values.shape))
            else:
                external = onnx.TensorProto.EXTERNAL
                tensor = onnx.TensorProto(name=key, dims=values.shape, data_type=dtype, data_location=external)
                tensor.external_data.add(key="location", value=key)
                model.graph.initializer.append(tensor)
        return bytes(model.SerializeToString())

    @property
    def large_constants(self) -> dict[str, Array]:
        """The constants of more than a kilobyte, by name; smaller ones can be shapes, which a reader looks at."""
        return {key: values for key, values in self.constants.items() if values.nbytes > 1024}

    def _build(self, name: str, constants: Mapping[str, Array]) -> onnx.ModelProto:
        """Return a model of everything added so far, but with these constants alone."""
        try:
            import onnx
        except ImportError:
            raise missing_package("onnx", "export") from None
        size = sum(values.nbytes for values in self.constants.values())
        if size >= _MOST_BYTES:
            got, remedy = f"{size / 2**30:.1f} GiB of weights", "Export a program of torch.export."
            raise NetError("an ONNX file holds less than 2 GiB", got=got, remedy=remedy)
        helper = onnx.helper
        nodes = [
            helper.make_node(node.operator, node.inputs, node.outputs, name=node.outputs[0], **node.attributes)
            for node in self.nodes
        ]
        inputs, outputs = (
            [helper.make_tensor_value_info(x.name, self.element_type(x.dtype), x.shape, x.doc) for x in values]
            for values in (self.inputs, self.outputs)
        )
        weights = [onnx.numpy_helper.from_array(values, key) for key, values in constants.items()]
        graph = helper.make_graph(nodes, name or "net", inputs, outputs, initializer=weights)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=PRODUCER,
        )


class OnnxLayer:
    """Adds the operators and constants of one layer to an ONNX graph, under names that begin with that of the layer.

    Args:
        graph: The graph.
        layer: The layer.
        shapes: The shapes of the bottoms for which the net was built.

    Attributes:
        shapes: The shapes of the bottoms for which the net was built. The number of axes and of channels is the same
            in every run of the graph; batch size, height and width are not, unless ``fix_sizes`` or ``fix_batch`` was
            called.
    """

    def __init__(self, graph: OnnxGraph, layer: Layer, shapes: Sequence[Shape] = ()):
        self._graph, self._layer = graph, layer
        self.shapes = list(shapes)

    @property
    def axes(self) -> int:
        """The number of axes of the first bottom."""
        return len(self.shapes[0])

    def fix_sizes(self) -> Shape:
        """Return height and width of the first bottom, and note that the operators are right only for these sizes."""
        self._graph.fixed_sizes.append(self._place)
        return self.shapes[0][2:]

    def fix_batch(self) -> None:
        """Note that the operators are right only for the batch size for which the net was built."""
        self._graph.fixed_batches.append(self._place)

    @property
    def _place(self) -> str:
        return f"{self._layer.layer_param.name!r} ({type(self._layer).__name__})"

    def node(self, operator: str, *inputs: str, step: str = "", top: int = 0, **attributes: Any) -> str:
        """Add an operator and return the name of its output.

        Args:
            operator: The type of the operator, e.g. ``Conv``.
            inputs: Names of values in the graph.
            step: For an intermediate result, what it is: its name is ``LAYER.step``. Without it, the output has the
                name of one of the layer's tops.
            top: The index of that top.
            attributes: The attributes of the operator.
        """
        param = self._layer.layer_param
        return self._graph.node(operator, inputs, f"{param.name}.{step}" if step else param.top[top], **attributes)

    def node_with_outputs(self, operator: str, *inputs: str, steps: Sequence[str], **attributes: Any) -> list[str]:
        """Add an operator with several outputs, intermediate results called ``LAYER.step``, and return their names."""
        name = self._layer.layer_param.name
        return self._graph.node_with_outputs(operator, inputs, [f"{name}.{step}" for step in steps], **attributes)

    def cast(self, value: str, dtype: type[np.generic], step: str = "") -> str:
        """Add the operator Cast, which converts a value to another dtype, and return the name of its output."""
        return self.node("Cast", value, step=step, to=self._graph.element_type(dtype))

    def number(self, value: float, name: str) -> str:
        """Add a constant float32 number and return its name, ``LAYER.name``."""
        return self.constant(np.float32(value), name)

    def constant(self, values: npt.ArrayLike, name: str) -> str:
        """Add a constant array and return its name, ``LAYER.name``."""
        return self._graph.constant(values, f"{self._layer.layer_param.name}.{name}")

    def blobs(self) -> list[str]:
        """Add the layer's parameters as constants and return their names."""
        return [self.constant(values, name) for name, values in self.arrays().items()]

    def arrays(self) -> dict[str, Array]:
        """Return the layer's parameters by their names in the layer, e.g. ``weight``."""
        blobs = zip(self._layer.blob_names, self._layer.blobs, strict=True)
        return {name: blob.detach().cpu().numpy() for name, blob in blobs}


def window_attributes(windows: Sequence[Window]) -> dict[str, Any]:
    """Return the attributes ``kernel_shape``, ``strides`` and ``pads`` of an ONNX operator with these windows."""
    return {
        "kernel_shape": [window.kernel for window in windows],
        "strides": [window.stride for window in windows],
        "pads": [window.pad for window in windows] * 2,
    }
