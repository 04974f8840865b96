"""What every Caffe layer type is: a class named as the prototxt's ``type``, with its whole meaning in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reproduction.caffe import fillers
from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.geometry import INT_MAX, Shape, check_shape
from reproduction.caffe.layers.memory import Keeps, Rereads
from reproduction.caffe.layers.quick.borders import AnyBlob, whole
from reproduction.caffe.schema import FillerParameter, LayerParameter, Message, ParamSpec
from reproduction.caffe.schema.message import UINT32

# Fields that every layer honours (the graph or the net reads them), whatever its type.
COMMON = frozenset(
    ["name", "type", "bottom", "top", "phase", "loss_weight", "param", "blobs", "propagate_down", "include", "exclude"]
)  # fmt: skip

# Fields that choose an implementation or a log, and never change a result.
NO_EFFECT = frozenset({"engine", "force_nd_im2col", "share_in_parallel", "debug_info", "stable_prod_grad"})


class Layer(nn.Module):
    """One layer of a net.

    A subclass says which fields it honours, how many bottoms and tops it takes, which parameter blobs it has, the
    shapes of its tops and their values. A field that Caffe reads is honoured or an error; one that Caffe itself
    ignores in layers of this type is a warning.

    Attributes:
        reads: the honoured fields as ``param.field``, e.g. ``pooling_param.kernel_size``.
        refuses: the fields with which Caffe refuses a layer of this type, in the same form, or ``param`` alone.
        bottoms: least and greatest number of bottoms; None for no limit.
        tops: least and greatest number of tops; None for no limit.
        paired: whether there must be as many tops as bottoms (Caffe's EqualNumBottomTopBlobs).
        is_loss: whether the first top has loss weight 1 unless the prototxt says otherwise.
        differentiable: which bottoms a gradient may reach; None for all. Labels are never among them.
        spec: the layer's message, upgraded.
        generator: the source of random numbers for fillers and dropout; None is torch's own.
        changes_blobs: whether a forward in training writes the layer's own blobs; its gradient does not read them.
        in_place_values: whether Caffe computes the right values in place.
        in_place_gradient: whether it passes on the gradient of these values in place.
        positive: whether no value of the top is below 0.
        can_overwrite: whether the layer can compute its top in the memory of its bottom, and its gradient from it.
        top_is_free: whether the top is memory of its own that the layer's gradient does not need, so that the next
            layer may overwrite it.
        inplace: whether the net lets the layer compute its top in the memory of its bottom: the prototxt names them
            alike, and the layer before has a free top.
        in_blas_order: whether to add products in the order of Caffe's BLAS; see ``blas``.
        reshaped: parameters of other layers that this one reads in another shape, by its own name for them: the layer,
            its name for the parameter, and the shape here. A view made once would not follow a copy of the net.
        totals: gradients of the parameters by number, to which a backward in that order adds, as Caffe's does. It takes
            them out, and what it returns for these parameters are the sums.

    Source: BVLC/caffe@9b89154 include/caffe/layer.hpp.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    refuses: ClassVar[frozenset[str]] = frozenset()
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    paired: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    differentiable: ClassVar[tuple[int, ...] | None] = None
    changes_blobs: ClassVar[bool] = False
    can_overwrite: ClassVar[bool] = False
    top_is_free: ClassVar[bool] = False
    in_place_values: ClassVar[bool] = True
    in_place_gradient: ClassVar[bool] = True

    inplace: bool = False
    in_blas_order: bool = False
    positive: bool = False

    def __init__(self, spec: LayerParameter, bottoms: Sequence[Shape], generator: torch.Generator | None = None):
        super().__init__()
        self.spec = spec
        self.generator = generator
        self.blob_names: list[str] = []
        self.reshaped: dict[str, tuple[Layer, str, Shape]] = {}
        self.totals: dict[int, Tensor] = {}
        self._check_counts(len(bottoms))
        self._check_fields()
        self.setup(list(bottoms))

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the parameters and make the blobs; the shapes are those of the first forward."""

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give the shapes of the tops for these shapes of the bottoms.

        Raises:
            NetError: the bottoms do not fit the layer; the net adds the layer's name.
        """
        raise NotImplementedError(type(self).__name__)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        raise NotImplementedError(type(self).__name__)

    def run(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...]:
        """Compute the tops from blobs whose rows and columns may repeat; hooks see whole ones."""
        if not torch.compiler.is_exporting() and any(0 in x.shape for x in bottoms):
            shapes = self.shapes([tuple(x.shape) for x in bottoms])
            if shapes and all(0 in shape for shape in shapes):
                return self._empty(shapes, [whole(x) for x in bottoms])
        hooks = (self._forward_pre_hooks, self._forward_hooks, self._backward_pre_hooks, self._backward_hooks)
        tops = None if any(hooks) else self.repeat(*bottoms)
        return self(*map(whole, bottoms)) if tops is None else tops

    @staticmethod
    def _empty(tops: list[Shape], bottoms: list[Tensor]) -> tuple[Tensor, ...]:
        """Return tops without values, as Caffe's loops over no images do; torch refuses many such sizes."""
        gradient = sum((x.sum() * 0 for x in bottoms[1:]), bottoms[0].sum() * 0)
        return tuple(bottoms[0].new_zeros(top) + gradient for top in tops)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Compute tops whose rows and columns may repeat as the bottoms' do; None where they have to be whole."""
        return None

    def shares(self) -> tuple[bool, bool]:
        """Say whether in Caffe the tops are the first bottom's own memory: of the values, and of the gradient.

        For a layer without bottoms it is the memory of the first parameter.
        """
        return False, False

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return whether Caffe's backward overwrites the gradient of parameter ``index`` instead of adding to it.

        Caffe's solver, and ``import caffe``, follow it; autograd's gradients always add up.

        Args:
            index: number of the parameter.
            bottoms: shapes of the bottoms.
        """
        return False

    def rereads(self) -> Rereads:
        """Return which values Caffe's backward reads again; where that is not known, none."""
        return Rereads.NOTHING

    def keeps(self) -> Keeps:
        """Return what the layer leaves in place of the values that it overwrites."""
        return Keeps.NOTHING

    @property
    def param_specs(self) -> list[ParamSpec]:
        """How each parameter learns as far as the layer's own message says; Caffe's defaults for the rest."""
        return [*self.spec.param, *(ParamSpec() for _ in self.blob_names[len(self.spec.param) :])]

    def __getattr__(self, name: str) -> Any:
        """Return a view of another layer's parameter; all other names are those of ``nn.Module``."""
        if name in self.__dict__.get("reshaped", ()):
            owner, its_name, shape = self.reshaped[name]
            return getattr(owner, its_name).view(shape)
        return super().__getattr__(name)

    @property
    def blobs(self) -> list[Tensor]:
        """The parameter blobs in Caffe's order: ``weight``, ``bias``, ``2``, ``3`` ..."""
        return [getattr(self, name) for name in self.blob_names]

    def add_blob(self, shape: Shape, filler: FillerParameter | None = None) -> nn.Parameter:
        """Append a parameter blob, filled as the filler says; Caffe's default filler is the constant zero.

        Raises:
            NetError: there is not memory enough, or the filler cannot fill the shape.
        """
        index = len(self.blob_names)
        name = ("weight", "bias")[index] if index < 2 else str(index)
        check_shape(shape, f"the {name}")
        try:
            blob = nn.Parameter(torch.empty(shape))
        except RuntimeError:
            raise NetError(f"the {name} does not fit in memory", got=shape) from None
        fillers.fill(blob.data, filler or FillerParameter(), self.generator)
        self.register_parameter(name, blob)
        self.blob_names.append(name)
        return blob

    def _check_counts(self, bottoms: int) -> None:
        for name, got, (low, high) in (
            ("bottoms", bottoms, type(self).bottoms),
            ("tops", len(self.spec.top), type(self).tops),
        ):
            if got < low or (high is not None and got > high):
                want = low if low == high else f"at least {low}" if high is None else f"{low} to {high}"
                raise NetError(f"wrong number of {name}", got=got, want=want)
        if self.paired and bottoms != len(self.spec.top):
            raise NetError("there must be as many tops as bottoms", got=len(self.spec.top), want=bottoms)

    def _check_fields(self) -> None:
        """Refuse the fields that Caffe refuses, and warn of those that it ignores."""
        spec, ignored = self.spec, []
        for field, message in spec.set_fields():
            if field.name in COMMON:
                continue
            _check_integers(message)
            for name in caffemodel.foreign_fields(message):
                raise NetError(f"{name!r} is a field of a fork of Caffe", remedy="Call upgrade.upgrade_net first.")
            names = [f"{field.name}.{inner.name}" for inner, _ in message.set_fields() if inner.name not in NO_EFFECT]
            for name in self.refuses.intersection([field.name, *names]):
                raise NetError(f"{spec.type} layers take no {name!r}", remedy="Remove it, as in Caffe.")
            unread = [name for name in names if name not in self.reads]
            foreign = not any(name.startswith(f"{field.name}.") for name in self.reads)
            ignored += [field.name] if unread and foreign else unread
        if ignored:
            warn(
                NetError(
                    f"{spec.type} layers do not read {', '.join(map(repr, ignored))}, here and in Caffe",
                    layer=spec.name,
                    type=spec.type,
                    line=spec.line,
                    remedy=f"Remove {'it' if len(ignored) == 1 else 'them'}, or check the layer's type.",
                )
            )


def _check_integers(message: Message) -> None:
    """Refuse unsigned integers that Caffe's code, which keeps them as ``int``, takes for negative ones."""
    for field, value in message.set_fields():
        if field.kind is UINT32:
            for each in value if field.repeated else (value,):
                if each > INT_MAX:
                    raise NetError(f"{field.name} is too large", got=each, want=f"at most {INT_MAX}")


def canonical_axis(axis: int, axes: int) -> int:
    """Count a negative axis from the end, as Blob::CanonicalAxisIndex does.

    Raises:
        NetError: there is no such axis.
    """
    if not -axes <= axis < axes:
        raise NetError("there is no such axis", got=axis, want=f"-{axes} to {axes - 1}")
    return axis % axes
