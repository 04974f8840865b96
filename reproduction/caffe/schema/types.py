"""The layer types of BVLC Caffe, and the messages that each of them reads."""

from collections.abc import Iterable

from reproduction.caffe.schema.layer import LayerParameter

# Layer types whose message has another name, and types that read none or several.
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

# Messages that several types share: not types themselves.
_NOT_TYPES = {"Loss", "Recurrent", "Transformation"}

#: Every layer type of BVLC Caffe, with the fields of LayerParameter in which its keywords are looked for.
TYPES: dict[str, tuple[str, ...]] = {
    field.message.__name__.removesuffix("Parameter"): (name,)
    for name, field in LayerParameter.fields.items()
    if name.endswith("_param") and field.message and field.message.__name__.removesuffix("Parameter") not in _NOT_TYPES
} | _BORROWED


def unknown_types(layers: Iterable[LayerParameter]) -> dict[str, list[int]]:
    """Return the types of these layers that Caffe does not have, as an error lists them, with their lines."""
    found: dict[str, list[int]] = {}
    for layer in layers:
        if layer.type and layer.type not in TYPES:
            found.setdefault(f"layer type {layer.type!r}", []).append(layer.line)
    return found
