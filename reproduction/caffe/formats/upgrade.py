"""Upgrade nets and solvers in old forms to the current form, as Caffe does when it reads a file.

V0 is the form of 2013 (``layers { layer { type: "conv" ... } bottom: ... }``), V1 that of 2014
(``layers { type: CONVOLUTION ... }``). Nets from text and from caffemodels are upgraded in memory, without a copy of
their blobs.

Source: BVLC/caffe@9b89154 src/caffe/util/upgrade_proto.cpp.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reproduction.caffe.errors import (
    NetError,
    ReproductionError,
    append_unknown_names,
    did_you_mean,
    spelling_hint,
    warn,
)
from reproduction.caffe.formats import fork_fields
from reproduction.caffe.schema import (
    LayerParameter,
    Message,
    NetParameter,
    SolverParameter,
    SolverType,
    V0LayerParameter,
    V1LayerParameter,
    V1LayerType,
)
from reproduction.caffe.schema.types import has_type

# V0 types whose names are not those of V1 in lower case.
_V0_RENAMED = {
    "conv": V1LayerType.CONVOLUTION,
    "images": V1LayerType.IMAGE_DATA,
    "innerproduct": V1LayerType.INNER_PRODUCT,
    "pool": V1LayerType.POOLING,
}
_V0_SAME = (
    "accuracy", "bnll", "concat", "data", "dropout", "euclidean_loss", "flatten", "hdf5_data", "hdf5_output", "im2col",
    "infogain_loss", "lrn", "multinomial_logistic_loss", "relu", "sigmoid", "softmax", "softmax_loss", "split", "tanh",
    "window_data",
)  # fmt: skip
_V0_TYPES = {name: V1LayerType[name.upper()] for name in _V0_SAME} | _V0_RENAMED

# The fields of V0 that V1 names differently. A type has the fields that its V1 message has.
_V0_RENAMED_FIELDS = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
    "det_fg_threshold": "fg_threshold",
    "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
}

# The transformation of images: V0 field -> field of transform_param, for layers of any type.
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}

# V1 types whose current names are not the same words in CamelCase.
_V1_RENAMED = {
    "NONE": "", "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "IM2COL": "Im2col", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH",
}  # fmt: skip
_V1_TYPES: dict[enum.IntEnum, str] = {}  # the current name of each V1 type


def add_v1_types(kinds: type[enum.IntEnum], renamed: Mapping[str, str]) -> None:
    """Add the types of V1 layers that an enum has, such as those of a fork of Caffe.

    Args:
        kinds: the enum.
        renamed: the current names of the types for which these are not the same words in CamelCase.
    """
    _V1_TYPES.update({kind: renamed.get(kind.name, kind.name.title().replace("_", "")) for kind in kinds})
    if kinds is not V1LayerType:
        V1LayerParameter.fields["type"].fork_enums += (kinds,)


add_v1_types(V1LayerType, _V1_RENAMED)

_IMAGE_TYPES = (V1LayerType.DATA, V1LayerType.IMAGE_DATA, V1LayerType.WINDOW_DATA)  # with a transformation

_SOLVER_TYPES = dict(zip(SolverType, ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"), strict=True))


# Functions that dialects register. Each converts the fields of a Caffe fork in an upgraded net, in place, and returns
# sentences that describe the changes; the bool is True if Crop layers get the offsets of the Caffe of 2015.
TRANSLATIONS: list[Callable[[NetParameter, bool], list[str]]] = []

# Functions for one layer that dialects register, which run before these. Each converts the fields of a fork, in place,
# and returns whether the layer has changed; the sentence is for the names of all changed layers.
LAYER_TRANSLATIONS: list[tuple[Callable[[LayerParameter], bool], str]] = []

# Set by ``layers.choice``: the function that chooses the dialect of each layer whose type several forks have, given the
# layers, the dialect that was asked for and the number of blobs by name of the layer.
Choose = Callable[[Sequence[LayerParameter], str, Mapping[str, int]], list[str]]
CHOOSE_CLASSES: list[Choose] = []

# The suffix of the name of a Scale layer that was split off a BatchNorm layer.
SPLIT_OFF = "/scale_bias"


def upgrade_net(
    net: NetParameter, *, legacy_crop: bool = False, dialect: str = "", weights: NetParameter | None = None
) -> list[str]:
    """Upgrade a net to the current form, in place, and convert the fields of Caffe forks to BVLC's.

    Args:
        net: the net, in any form.
        legacy_crop: set the offset of each Crop layer that has none as the Caffe of 2015 did, which derived it from the
            layers between the two bottoms. Caffe 1.0 uses 0. It is always done for nets in the V0 or V1 form.
        dialect: the name of the fork to take where several have layers of one type; by default, it is found from the
            fields, the bottoms and tops, the blobs and the other layers.
        weights: the weights that the net will have, whose numbers of blobs may tell the dialect of a layer.

    Returns:
        Sentences that describe what was upgraded; an empty list for a net in the current form.

    Raises:
        NetError: If Caffe would reject the old form, or would lose a part of it.
        ReproductionError: If there is no such dialect.

    Source: BVLC/caffe@9b89154 src/caffe/util/upgrade_proto.cpp L23-86.
    """
    newer = list(net.layer) if net.layers else []
    if newer and not _has_order(net.layers, newer):
        raise NetError(
            "the net has both 'layers', the older form, and 'layer'",
            layer=net.layers[0].name or net.layers[0].layer.name,
            line=net.layers[0].line,
            remedy="Write all of them as 'layer'.",
        )
    notes: list[str] = []
    if any(layer.has("layer") for layer in net.layers):
        notes += _upgrade_v0(net)
    elif net.layers:
        notes.append(f"Upgraded {_count_layers(net.layers)} from V1, the form of 2014.")
    notes += _upgrade_transforms(net)
    was_old = bool(net.layers)
    if was_old:
        upgraded = [*map(_from_v1, net.layers), *newer]
        net.layer = sorted(upgraded, key=lambda layer: layer.line) if newer else upgraded  # type: ignore[assignment]
        net.clear("layers")
    if net.input:
        notes.append(_upgrade_inputs(net))
    if dialect or not all(has_type(layer.type) for layer in net.layer):
        Message.import_late_fields()
    for layer in net.layer:
        fork_fields.read_params(layer)
    for convert, sentence in LAYER_TRANSLATIONS:
        notes += _convert_layers(net, convert, sentence)
    for translate in TRANSLATIONS:
        notes += translate(net, was_old or legacy_crop)
    notes += _convert_layers(net, _upgrade_batch_norm, "lr_mult and decay_mult of {} became 0.")
    counts = {layer.name: len(layer.blobs) for layer in weights.layer} if weights else {}
    for choose in CHOOSE_CLASSES:
        notes += choose(net.layer, dialect, counts)
    return notes


def _has_order(old: Sequence[V1LayerParameter], new: Sequence[LayerParameter]) -> bool:
    """Return whether the lines of a prototxt tell the order of V1 layers and current layers of one net."""
    # Caffe refuses any net with both forms. But who replaces a data layer of an old net writes an Input layer, which
    # the old form lacks, and means a net that runs.
    lines, others = {layer.line for layer in old}, {layer.line for layer in new}
    return 0 not in lines | others and not lines & others and not any(layer.has("layer") for layer in old)


def upgrade_solver(solver: SolverParameter) -> list[str]:
    """Upgrade a solver to the current form, in place: ``solver_type``, an enum, becomes ``type``, a string.

    Returns:
        Sentences that describe what was upgraded.

    Raises:
        NetError: If both ``solver_type`` and ``type`` are set.

    Source: BVLC/caffe@9b89154 src/caffe/util/upgrade_proto.cpp L1042-1098.
    """
    if not solver.has("solver_type"):
        return []
    if solver.has("type"):
        raise NetError(
            "the solver has both 'solver_type', the older form, and 'type'",
            got=f"{solver.solver_type.name} and {solver.type!r}",
            remedy="Remove 'solver_type'.",
        )
    old = solver.solver_type
    solver.type = _SOLVER_TYPES[old]
    solver.clear("solver_type")
    return [f"solver_type: {old.name} became type: {solver.type!r}."]


def _upgrade_v0(net: NetParameter) -> list[str]:
    """Convert V0 layers to V1 layers, and padding layers to the ``pad`` of the layers that follow them (L115-140)."""
    kept = _without_padding(net)
    _check_v0_types(kept)
    padding = [layer.layer.name for layer in net.layers if layer.layer.type == "padding"]
    lost = [field.name for field, _ in net.set_fields() if field.name in ("state", "debug_info", "input_shape")]
    for name in lost:
        net.clear(name)
    net.layers = [_from_v0(layer) for layer in kept]  # type: ignore[assignment]
    notes = [f"Upgraded {_count_layers(kept)} from V0, the form of 2013."]
    if padding:
        notes.append(f"The padding of {quote_names(padding)} became 'pad' of what follows.")
    if lost:
        notes.append(f"Dropped {quote_names(lost)} of the net, which V0 did not have.")
    return notes


def _without_padding(net: NetParameter) -> list[V1LayerParameter]:
    """Return the layers without padding layers, whose ``pad`` is moved to the layers that read them (L142-199)."""
    kept = []
    makers: dict[str, V1LayerParameter | None] = dict.fromkeys(net.input)
    for layer in net.layers:
        if layer.layer.type != "padding":
            kept.append(layer)
        for i, blob in enumerate(layer.bottom):
            if blob not in makers:
                raise _v0_error(f"no layer before it makes its bottom {blob!r}", layer, did_you_mean(blob, makers))
            source = makers[blob]
            if source is None or source.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
                remedy = f"{source.layer.name!r} pads for 'conv' and 'pool' layers with one bottom."
                raise _v0_error("it cannot follow a padding layer", layer, remedy)
            if len(source.bottom) != 1 or len(source.top) != 1:
                raise _v0_error("a padding layer has one bottom and one top", source)
            layer.layer.pad = source.layer.pad
            layer.bottom[i] = source.bottom[0]
        makers.update(dict.fromkeys(layer.top, layer))
    return kept


def _check_v0_types(layers: Iterable[V1LayerParameter]) -> None:
    unknown = [layer for layer in layers if layer.layer.has("type") and layer.layer.type not in _V0_TYPES]
    if unknown:
        others: dict[str, list[int]] = {}
        for layer in unknown[1:]:
            others.setdefault(f"layer type {layer.layer.type!r}", []).append(layer.line)
        first = unknown[0].layer.type
        near = (did_you_mean if len(first) > 3 else spelling_hint)(first, _V0_TYPES)  # 'bn' is not a misspelt 'bnll'
        raise _v0_error("unknown type", unknown[0], append_unknown_names(near, others))


def _from_v0(old: V1LayerParameter) -> V1LayerParameter:
    """Return the V1 form of a V0 layer, with its bottoms and tops (L201-551)."""
    if not old.has("layer"):
        # Upstream bug, fixed: if a net mixes V0 and V1 layers, Caffe drops everything but the bottoms and tops of the
        # V1 layers (upgrade_proto.cpp L211). This package raises an error.
        raise NetError(
            "the net mixes layers of V0, the form of 2013, and of V1",
            layer=old.name,
            line=old.line,
            remedy="Write all of them as 'layer'.",
        )
    v0 = old.layer
    new = V1LayerParameter(bottom=old.bottom, top=old.top)
    new.line = old.line
    ignored: list[str] = []
    for field, value in v0.set_fields():
        if field.name == "type":
            new.type = _V0_TYPES[v0.type]
        elif field.name in ("name", "blobs", "blobs_lr", "weight_decay"):
            setattr(new, field.name, value)
        elif field.name in _V0_TRANSFORM:
            setattr(new.transform_param, _V0_TRANSFORM[field.name], value)
        elif field.name == "hdf5_output_param" and v0.type == "hdf5_output":
            new.hdf5_output_param = value
        else:
            name = _find_v1_name(field.name, new.type)
            if not name:
                ignored.append(field.name)
                continue
            home: Message = getattr(new, _home(new.type))
            try:
                setattr(home, name, [value] if home.field(name).repeated else value)
            except ReproductionError as error:  # V0's new_height and new_width may be negative, V1's may not
                raise error.at(_v0_error("", old).place) from None
    if ignored:
        remedy = f"Remove {'it' if len(ignored) == 1 else 'them'}, or check the layer's type."
        warn(_v0_error(f"{v0.type} layers do not read {quote_names(ignored)}, here and in Caffe", old, remedy))
    return new


def _find_v1_name(name: str, kind: V1LayerType) -> str:
    """Return the name that a field of V0 has in the message of a V1 type; an empty string if the type lacks it."""
    if (name, kind) == ("shuffle_images", V1LayerType.HDF5_DATA):  # which got its ``shuffle`` after V0
        return ""
    name = _V0_RENAMED_FIELDS.get(name, name)
    home = V1LayerParameter.fields.get(_home(kind))
    field = home.message.fields.get(name) if home and home.message else None
    return name if field and field.dialect is None else ""


def _home(kind: V1LayerType) -> str:
    """Return the name of the field of V1LayerParameter for the parameters of a type, if it has any."""
    return f"{kind.name.lower()}_param"


def _v0_error(problem: str, layer: V1LayerParameter, remedy: str = "") -> NetError:
    v0: V0LayerParameter = layer.layer
    return NetError(problem, layer=v0.name, type=v0.type, line=layer.line, remedy=remedy)


def _upgrade_transforms(net: NetParameter) -> list[str]:
    """Move the image transformations of V1 data layers to ``transform_param`` (L608-667)."""
    fields = ("scale", "mean_file", "crop_size", "mirror")
    data = [(layer, getattr(layer, _home(layer.type))) for layer in net.layers if layer.type in _IMAGE_TYPES]
    old = [layer.name for layer, param in data if any(param.has(name) for name in fields)]
    if not old:
        return []
    for layer, param in data:
        # If one layer needs the upgrade, Caffe sets both messages in all data layers, even if they are empty.
        param.present = layer.transform_param.present = True
        for name in fields:
            if param.has(name):
                setattr(layer.transform_param, name, getattr(param, name))
                param.clear(name)
    return [f"The transformations of {quote_names(old)} moved to 'transform_param'."]


def _from_v1(old: V1LayerParameter) -> LayerParameter:
    """Return the current form of a V1 layer (L691-874)."""
    new = LayerParameter()
    new.line = old.line
    for field, value in old.set_fields():
        if field.name == "type":
            new.type = _V1_TYPES[old.type]
        elif field.name == "param":
            _each_param(new, "name", value)
        elif field.name == "blob_share_mode":
            _each_param(new, "share_mode", value)
        elif field.name == "blobs_lr":
            _each_param(new, "lr_mult", value)
        elif field.name == "weight_decay":
            _each_param(new, "decay_mult", value)
        else:
            setattr(new, field.name, value)
    return new


def _each_param(layer: LayerParameter, name: str, values: list[Any]) -> None:
    for i, value in enumerate(values):
        param = layer.param[i] if i < len(layer.param) else layer.param.add()
        setattr(param, name, value)


def _upgrade_inputs(net: NetParameter) -> str:
    """Convert the net's ``input`` fields to an Input layer, or drop them if they have no shapes (L968-1003)."""
    names = list(net.input)
    shapes = [list(shape.dim) for shape in net.input_shape]
    dims = list(net.input_dim)
    # Upstream bug, fixed: Caffe ignores surplus `input_shape` fields of a net and crashes if one is missing
    # (upgrade_proto.cpp L982-991). This package raises an error in both cases.
    if shapes and len(shapes) != len(names):
        raise NetError("each input has one 'input_shape'", got=len(shapes), want=len(names))
    if not shapes and dims:
        if len(dims) != 4 * len(names):
            raise NetError("each input has four 'input_dim'", got=len(dims), want=4 * len(names))
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    for name in ("input", "input_shape", "input_dim"):
        net.clear(name)
    if not shapes:  # as in caffemodels
        return f"Dropped the input fields of {quote_names(names)}, which have no shape."
    shape = [{"dim": dims} for dims in shapes]
    net.layer.insert(0, LayerParameter(name="input", type="Input", top=names, input_param={"shape": shape}))
    return f"An Input layer now produces {quote_names(names)}."


def _upgrade_batch_norm(layer: LayerParameter) -> bool:
    """Set lr_mult and decay_mult of a BatchNorm layer with three ``param`` to 0; return whether they differed.

    The statistics of BatchNorm are not learned; old nets had to set the multipliers themselves (L1017-1032).
    """
    if layer.type != "BatchNorm" or len(layer.param) != 3:
        return False
    was_set = any(param.lr_mult or param.decay_mult for param in layer.param)
    for param in layer.param:
        param.lr_mult = param.decay_mult = 0.0
    return was_set


def _convert_layers(net: NetParameter, convert: Callable[[LayerParameter], bool], sentence: str) -> list[str]:
    """Convert each layer in place, and return the sentence for the names of those that have changed."""
    converted = [layer.name for layer in net.layer if convert(layer)]
    return [sentence.format(quote_names(converted))] if converted else []


def _count_layers(layers: Sequence[V1LayerParameter]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"


def quote_names(names: Iterable[str]) -> str:
    """Return names in quotes, separated by commas, for a sentence about an upgrade."""
    return ", ".join(map(repr, names))
