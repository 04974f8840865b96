"""The base class of all layer types, and the table of them.

A layer type is a class named after its ``type`` in the prototxt and decorated with ``register``. Everything that the
package knows of a type is in its class; ``docs/layers.md`` shows how to write one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from reproduction.caffe import fillers
from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.geometry import INT_MAX, CoordMap, Shape, Window, check_shape
from reproduction.caffe.layers.compiled_forms import CompiledForm
from reproduction.caffe.layers.fork_fields import NO_EFFECT, find_fork_fields
from reproduction.caffe.layers.quick.borders import AnyBlob, expand
from reproduction.caffe.schema import Dialect, Field, FillerParameter, LayerParameter, Message, ParamSpec
from reproduction.caffe.schema.scalar_types import UINT32
from reproduction.caffe.schema.types import TYPES

if TYPE_CHECKING:
    from reproduction.caffe.layers.onnx_graph import OnnxLayer

# Fields that the graph or the net reads for layers of every type.
COMMON = frozenset(
    ["name", "type", "bottom", "top", "phase", "loss_weight", "param", "blobs", "propagate_down", "include", "exclude"]
)  # fmt: skip


class Rereads(Flag):
    """The values of its bottom and top that the backward pass of a layer reads in Caffe, see ``Layer.rereads``.

    If an in-place layer has overwritten them after the forward pass, Caffe's gradient is wrong, and the net warns.
    Values that the layer reads from a copy that it has made are not included.

    Attributes:
        NOTHING: None.
        SIGN: Which values of the first bottom are above 0; e.g. ReLU.
        BOTTOM: The values of the first bottom.
        TOP: The values of the first top; e.g. Sigmoid.
        TO_LEARN: The values of the first bottom, but only if the layer's parameters are learned; e.g. Convolution.
    """

    NOTHING = 0
    SIGN = auto()
    BOTTOM = auto()
    TOP = auto()
    TO_LEARN = auto()


class Keeps(Flag):
    """What a layer that works in place preserves of the values that it overwrites, returned by ``Layer.keeps``.

    Attributes:
        NOTHING: None of them.
        SIGN: It is still known which values were above 0, at least where the layer passes a gradient; e.g. TanH.
        POSITIVE: The values that were at least 0 are unchanged; e.g. ReLU.
        VALUES: All values are unchanged; e.g. Dropout in testing.
    """

    NOTHING = 0
    SIGN = auto()
    POSITIVE = auto()
    VALUES = auto()


class Layer(nn.Module):
    """One layer of a net.

    A subclass declares the fields that it reads and the numbers of bottoms and tops that it accepts. It creates its
    parameter blobs in ``setup``, and computes the shapes of its tops in ``shapes`` and their values in ``forward``. A
    field that Caffe refuses in layers of this type raises ``NetError``; a field that Caffe ignores in them causes a
    warning.

    Args:
        layer_param: The layer's message.
        bottoms: The shapes of the bottoms.
        generator: The random number generator for fillers and dropout; None for torch's default generator.

    Attributes:
        reads: The fields that the layer uses, as ``param.field``, e.g. ``pooling_param.kernel_size``.
        refuses: The fields that Caffe refuses in a layer of this type, as ``param.field``, or ``param`` for the whole
            message.
        bottoms: Minimum and maximum number of bottoms; a maximum of None means no limit.
        tops: Minimum and maximum number of tops; a maximum of None means no limit.
        paired: Whether there must be as many tops as bottoms (Caffe's EqualNumBottomTopBlobs).
        dialect: The fork of Caffe that has this layer type; None for BVLC's. Several may have a type of the same name.
            The class of a fork for a type of BVLC's computes the layers that set a field which only this class reads.
        blob_counts: The possible numbers of parameter blobs, if they differ from those of other forks' layers of this
            name; otherwise empty.
        is_loss: Whether the loss weight of the first top is 1 by default.
        differentiable: Indices of the bottoms that receive a gradient; None for all of them.
        layer_param: The layer's message, upgraded to the current format. Layers may fill in fields.
        blob_names: Names of the parameter blobs, which are attributes: ``weight``, ``bias``, ``2``, ``3`` ...
        keeps_coordinates: Whether pixel (y, x) of the tops lies over pixel (y, x) of the bottoms. A type for which this
            depends on the message overrides ``coord_map`` instead.
        located_bottoms: The number of bottoms, from the first, that ``coord_map`` applies to; None for all of them.
        sizes_vary: Whether height and width of the tops depend on the values of the bottoms, as the number of rows of a
            list of detections does. ``shapes`` then returns an example.
        changes_blobs: Whether the forward pass in training writes to the layer's blobs, as that of BatchNorm does. The
            backward pass must not read them.
        in_place_values: Whether Caffe computes the correct tops if the layer works in place.
        in_place_gradient: Whether Caffe computes the correct gradient of these tops if the layer works in place.
        positive: Whether all values of the top are at least 0, whatever the bottom is.
        rereads: The values of bottom and top that the backward pass of this layer reads in Caffe.
        shares: Whether the tops use the memory of the first bottom in Caffe: for the values, and for the gradient. For
            a layer without bottoms, it is the memory of the first parameter.
        can_overwrite: Whether the layer can write its top to the memory of its bottom and compute the gradient from it.
        top_is_free: Whether the next layer may overwrite the top: it does not share memory with a bottom, and the
            backward pass of this layer does not read it.
        inplace: Whether to write the top to the memory of the bottom. The net sets it if the prototxt gives both the
            same name and the top of the layer before is free.
        in_blas_order: Whether to add up products in the order of Caffe's BLAS; see ``exact.blas``.
        reshaped: Parameters of other layers that this layer reads in another shape. Maps the name of the parameter here
            to its layer, its name there and the shape here. The view is made at each access, because a stored one would
            still refer to the old parameter after a deep copy of the net.
        totals: Gradients of earlier backward passes, by index of the parameter, to which the next one adds. Only used
            if ``in_blas_order`` is set: the backward pass then removes an entry, adds to it in Caffe's order, and
            returns the sum as the gradient of that parameter.

    Source: BVLC/caffe@9b89154 include/caffe/layer.hpp.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    refuses: ClassVar[frozenset[str]] = frozenset()
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    paired: ClassVar[bool] = False
    dialect: ClassVar[Dialect | None] = None
    blob_counts: ClassVar[tuple[int, ...]] = ()
    is_loss: ClassVar[bool] = False
    differentiable: ClassVar[tuple[int, ...] | None] = None
    keeps_coordinates: ClassVar[bool] = False
    located_bottoms: ClassVar[int | None] = None
    sizes_vary: ClassVar[bool] = False
    changes_blobs: ClassVar[bool] = False
    can_overwrite: ClassVar[bool] = False
    top_is_free: ClassVar[bool] = False
    in_place_values: ClassVar[bool] = True
    in_place_gradient: ClassVar[bool] = True

    inplace: bool = False
    in_blas_order: bool = False
    positive: bool = False
    rereads: Rereads = Rereads.NOTHING
    shares: tuple[bool, bool] = (False, False)

    def __init__(self, layer_param: LayerParameter, bottoms: Sequence[Shape], generator: torch.Generator | None = None):
        super().__init__()
        self.layer_param = layer_param
        self.generator = generator
        self.blob_names: list[str] = []
        self.reshaped: dict[str, tuple[Layer, str, Shape]] = {}
        self.totals: dict[int, Tensor] = {}
        self._check_counts(len(bottoms))
        self._check_fields()
        self.setup(list(bottoms))

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the settings in ``layer_param`` and create the parameter blobs; the constructor calls it once.

        Args:
            bottoms: The shapes of the bottoms.

        Raises:
            NetError: If a setting is invalid or does not fit the bottoms. The net adds the layer's name to the error.
        """

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops for the given shapes of the bottoms, without computing values.

        Raises:
            NetError: If the bottoms do not fit the layer. The net adds the layer's name to the error.
        """
        raise NotImplementedError(type(self).__name__)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops from the bottoms; both have the order of the prototxt."""
        raise NotImplementedError(type(self).__name__)

    # ---- facts that other parts of the package ask for. With these defaults, a layer runs as it is in a compiled net,
    # has no coordinates and no ONNX form.

    @classmethod
    def is_typical(cls, layer_param: LayerParameter) -> bool:
        """Return whether nets of this fork have such a layer, if layer types of several forks fit the message.

        For example, layers of Fast R-CNN and of SSD may have two bottoms, but only those of SSD usually have.
        """
        return True

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the map from the coordinates of the bottoms to those of the tops, or None if there is none.

        For example, a 2 x 2 pooling with stride 2 halves coordinates and shifts them by 1/4 pixel; InnerProduct has no
        map. ``netspec.crop`` and the offsets of old Crop layers are computed from these maps, without building the
        layer.

        Raises:
            NetError: If the message is invalid.
        """
        return CoordMap() if cls.keeps_coordinates else None

    @classmethod
    def sliding_windows(cls, layer_param: LayerParameter) -> list[Window]:
        """Return kernel, stride, padding and dilation of the layer along each spatial axis, or once for all axes.

        By default, the window is a single pixel. Receptive fields are computed from it, without building the layer.

        Raises:
            NetError: If the message is invalid.
        """
        return [Window(1)]

    def compiled_form(self, bottoms: list[Shape]) -> CompiledForm | None:
        """Return a description by which ``reproduction.compile`` can compute the layer faster in testing.

        None, the default, means that a compiled net calls the layer's ``forward``.

        Args:
            bottoms: The shapes of the bottoms; the sizes of images may change later, but not the number of axes.
        """
        return None

    def products(self, bottoms: list[Shape]) -> int:
        """Return how many times a forward pass multiplies an input by a weight; 0 without a weight matrix.

        Args:
            bottoms: The shapes of the bottoms.
        """
        return 0

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the layer's operators to an ONNX graph, for phase TEST and bottoms (N, C, H, W).

        Args:
            onnx: Adds operators and constants to the graph, with names that begin with that of the layer.
            bottoms: The names of the bottoms in the graph.

        Returns:
            The names of the tops in the graph.

        Raises:
            NetError: If there are no equivalent operators. The exporter adds the layer's name to the error.
        """
        raise NetError("this type cannot be written as ONNX")

    def run(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...]:
        """Compute the tops, by ``repeat`` if possible and otherwise by ``forward``.

        Args:
            bottoms: Tensors, ``RepeatedBlob`` or ``NormalizedBlob`` objects. A layer that has hooks is called with full
                tensors, so that the hooks see them.
        """
        if not torch.compiler.is_exporting() and any(0 in x.shape for x in bottoms):
            shapes = self.shapes([tuple(x.shape) for x in bottoms])
            if shapes and all(0 in shape for shape in shapes):
                return self._empty_tops(shapes, [expand(x) for x in bottoms])
        hooks = (self._forward_pre_hooks, self._forward_hooks, self._backward_pre_hooks, self._backward_hooks)
        tops = None if any(hooks) else self.repeat(*bottoms)
        return self(*map(expand, bottoms)) if tops is None else tops

    @staticmethod
    def _empty_tops(tops: list[Shape], bottoms: list[Tensor]) -> tuple[Tensor, ...]:
        """Return empty tops, as Caffe does for empty bottoms; many functions of torch raise an error for such sizes."""
        gradient = sum((x.sum() * 0 for x in bottoms[1:]), bottoms[0].sum() * 0)
        return tuple(bottoms[0].new_zeros(top) + gradient for top in tops)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Compute the tops without expanding a ``RepeatedBlob`` or ``NormalizedBlob``; return None if impossible."""
        return None

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return whether Caffe's backward pass overwrites the gradient of a parameter instead of adding to it.

        Autograd always adds; the solver and the ``import caffe`` interface ask this method in order to overwrite as
        well.

        Args:
            index: Index of the parameter.
            bottoms: Shapes of the bottoms.
        """
        return False

    def keeps(self) -> Keeps:
        """Return what the top still tells of the bottom if the layer works in place; by default nothing.

        For example, a ReLU keeps positive values and which values are positive. If the backward pass of an earlier
        layer needs more than that of the overwritten values, Caffe's gradient is wrong, and the net warns.
        """
        return Keeps.NOTHING

    @property
    def param_specs(self) -> list[ParamSpec]:
        """The ``param`` message (lr_mult, decay_mult, name) of each parameter blob; by default that of Caffe."""
        return [*self.layer_param.param, *(ParamSpec() for _ in self.blob_names[len(self.layer_param.param) :])]

    def __getattr__(self, name: str) -> Any:
        """Return the view of another layer's parameter for names in ``reshaped``; otherwise as ``nn.Module``."""
        if name in self.__dict__.get("reshaped", ()):
            owner, its_name, shape = self.reshaped[name]
            return getattr(owner, its_name).view(shape)
        return super().__getattr__(name)

    @property
    def blobs(self) -> list[Tensor]:
        """The parameter blobs in Caffe's order; as attributes, they are named ``weight``, ``bias``, ``2``, ``3`` ..."""
        return [getattr(self, name) for name in self.blob_names]

    def add_blob(self, shape: Shape, filler: FillerParameter | None = None) -> nn.Parameter:
        """Append a parameter blob, initialize it and return it.

        Args:
            shape: The shape of the blob.
            filler: The filler, which may run later if the net's weights are read from a file; None for zeros, Caffe's
                default, which a layer may overwrite in its ``setup``.

        Raises:
            NetError: If the blob is larger than Caffe allows, does not fit in memory or cannot be filled.
        """
        index = len(self.blob_names)
        name = ("weight", "bias")[index] if index < 2 else str(index)
        check_shape(shape, f"the {name}")
        try:
            blob = nn.Parameter(torch.empty(shape))
        except RuntimeError:
            raise NetError(f"the {name} does not fit in memory", got=shape) from None
        initialize = fillers.fill if filler is None else fillers.fill_parameter
        initialize(blob.data, filler or FillerParameter(), self.generator)
        self.register_parameter(name, blob)
        self.blob_names.append(name)
        return blob

    def _check_counts(self, bottoms: int) -> None:
        for name, got, (low, high) in (
            ("bottoms", bottoms, type(self).bottoms),
            ("tops", len(self.layer_param.top), type(self).tops),
        ):
            if got < low or (high is not None and got > high):
                want = low if low == high else f"at least {low}" if high is None else f"{low} to {high}"
                raise NetError(f"wrong number of {name}", got=got, want=want)
        if self.paired and bottoms != len(self.layer_param.top):
            raise NetError("there must be as many tops as bottoms", got=len(self.layer_param.top), want=bottoms)

    def _check_fields(self) -> None:
        """Raise ``NetError`` for fields that Caffe refuses, and warn about those that it ignores."""
        layer_param, ignored = self.layer_param, []
        for field, message in layer_param.set_fields():
            if field.name in COMMON or not field.has_effect:
                continue
            _check_integers(message)
            is_own = any(name.startswith(f"{field.name}.") for name in self.reads)
            if is_own:
                self._check_fork_fields(field, message)
            names = [
                f"{field.name}.{inner.name}"
                for inner, _ in message.set_fields()
                if inner.name not in NO_EFFECT and inner.has_effect
            ]
            for name in self.refuses.intersection([field.name, *names]):
                raise NetError(f"{layer_param.type} layers take no {name!r}", remedy="Remove it, as in Caffe.")
            unread = [name for name in names if name not in self.reads]
            ignored += [field.name] if unread and not is_own else unread
        if ignored:
            problem = f"{layer_param.type} layers do not read {', '.join(map(repr, ignored))}, here and in Caffe"
            remedy = f"Remove {'it' if len(ignored) == 1 else 'them'}, or check the layer's type."
            warn(NetError(problem, remedy=remedy).at(layer_param.place))

    def _check_fork_fields(self, param: Field[Any], message: Message) -> None:
        """Raise ``NetError`` for a field of a fork, in a message of this type, that this class does not read."""
        for name, dialect in find_fork_fields(param, message):
            if name not in self.reads:
                raise NetError(
                    f"{self.layer_param.type} layers do not read {name!r}",
                    got=f"a field or value of {dialect}",
                    want=f"one of {self.dialect or 'BVLC Caffe'}",
                )


#: The layer types, by the ``type`` of their layers in a prototxt; for a type of several dialects, the first class.
LAYERS: dict[str, type[Layer]] = {}

#: All classes of each layer type: BVLC's first, then those of dialects.
CLASSES: dict[str, list[type[Layer]]] = {}

L = TypeVar("L", bound=type[Layer])


def register(kind: L) -> L:
    """Add a class to the layer types under its own name; used as a decorator.

    Raises:
        TypeError: If there is a layer type of this name, unless it is of another dialect.
    """
    name, classes = kind.__name__, CLASSES.setdefault(kind.__name__, [])
    if any(each.dialect is kind.dialect for each in classes):
        raise TypeError(f"two classes are named {name}")
    classes.append(kind)
    classes.sort(key=lambda each: each.dialect is not None)
    LAYERS[name] = classes[0]
    params = sorted({field.partition(".")[0] for field in kind.reads} - COMMON)
    TYPES[name] = tuple(dict.fromkeys((*TYPES.get(name, ()), *params)))
    return kind


def _check_integers(message: Message) -> None:
    """Raise ``NetError`` for unsigned integers above ``INT_MAX``, which are negative as Caffe's ``int``."""
    for field, value in message.set_fields():
        if field.kind is UINT32:
            for each in value if field.repeated else (value,):
                if each > INT_MAX:
                    raise NetError(f"{field.name} is too large", got=each, want=f"at most {INT_MAX}")


def canonical_axis(axis: int, axes: int) -> int:
    """Return ``axis`` as an index from 0, counting negative ones from the end, as Blob::CanonicalAxisIndex does.

    Args:
        axis: The axis, from ``-axes`` to ``axes - 1``.
        axes: The number of axes of the blob.

    Raises:
        NetError: If ``axis`` is out of this range.
    """
    if not -axes <= axis < axes:
        raise NetError("there is no such axis", got=axis, want=f"-{axes} to {axes - 1}")
    return axis % axes
