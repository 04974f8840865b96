"""The layer types of BVLC Caffe and of forks, and the messages that each of them reads."""

from collections.abc import Iterable

from reproduction.caffe.schema.layer import LayerParameter

# Layer types that read the message of another type, no message, or several.
_BORROWED = {
    "Deconvolution": ("convolution_param",),
    "Im2col": ("convolution_param",),
    "LSTM": ("recurrent_param",),
    "RNN": ("recurrent_param",),
    "SoftmaxWithLoss": ("softmax_param", "loss_param"),
    "InfogainLoss": ("infogain_loss_param", "softmax_param", "loss_param"),
    "SigmoidCrossEntropyLoss": ("loss_param",),
    "EuclideanLoss": (),
    "MultinomialLogisticLoss": (),
    **dict.fromkeys(("AbsVal", "BNLL", "BatchReindex", "Filter", "LSTMUnit", "Silence", "Split"), ()),
}

# Messages that are not named after a layer type.
_NOT_TYPES = {"Loss", "Recurrent", "Transformation"}

#: Every layer type, with the fields of LayerParameter that hold its parameters: those of BVLC Caffe, and those that
#: classes of layer types add.
TYPES: dict[str, tuple[str, ...]] = {
    field.message.__name__.removesuffix("Parameter"): (name,)
    for name, field in LayerParameter.fields.items()
    if name.endswith("_param") and field.message and field.message.__name__.removesuffix("Parameter") not in _NOT_TYPES
} | _BORROWED


def has_type(name: str) -> bool:
    """Return whether there is a layer type of this name; the layer types of forks are imported if BVLC has none."""
    if name not in TYPES:
        LayerParameter.import_late_fields()
    return name in TYPES


def unknown_types(layers: Iterable[LayerParameter]) -> dict[str, list[int]]:
    """Return the layer types that neither BVLC Caffe nor a known fork has, with the lines of the layers that have them.

    Returns:
        Lists of line numbers by a phrase such as ``layer type 'Interp'``, as ``append_unknown_names`` takes them.
    """
    found: dict[str, list[int]] = {}
    for layer in layers:
        if layer.type and not has_type(layer.type):
            found.setdefault(f"layer type {layer.type!r}", []).append(layer.line)
    return found
