"""The recipe behind the golden files of the systems: seeded weights and inputs of nets that upstream does not have."""

import hashlib
import json
import re

import numpy as np

from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter
from tests.golden import seeded
from tests.helpers import canonical_prototxt
from tests.helpers.paths import GOLDEN, ROOT

FILES = sorted((GOLDEN / "systems").glob("*_*x*.npz"))
CLASSES = {"unet": 2, "tf-fcn-vgg19": 2}
_BILINEAR = re.compile(r"upscore|upsem|up\d$")


def make_inputs(name, split, height, width, seed):
    """Return the images and labels of a system; those of U-Net are grey, and FCN-32's labels as large as its scores."""
    classes = CLASSES.get(name, 21)
    arrays = seeded.inputs(["data", "label"], height, width, classes, seed)
    if name == "unet":
        arrays["data"] = ((seeded.synth_image(height, width, seed)[..., 0].astype(np.float32) - 128) / 64)[None, None]
    if name == "keras-fcn32":
        arrays["label"] = seeded.inputs(["label"], height + 32, width + 32, classes, seed)["label"]
    return {top: np.ascontiguousarray(array, np.float32) for top, array in arrays.items()}


def make_weight(layer, index, shape, seed=1):
    """Return a seeded parameter; BatchNorm's statistics are doubled, with the factor 2 by which Caffe divides them."""
    random = seeded.rng(f"{layer}/{index}/{seed}")
    if layer.startswith("bn") and index == 2:
        return np.full(shape, 2, np.float32)
    if layer.startswith("bn"):
        variance = 5000.0 if layer == "bn_conv1" else 1.0
        drawn = random.standard_normal(shape) * 0.3 * np.sqrt(variance) if index == 0 else None
        return np.float32(2 * (random.uniform(0.5, 1.5, shape) * variance if drawn is None else drawn))
    if layer.startswith("scale") and index == 0:
        return np.float32(random.uniform(0.5, 1.0, shape) * (0.5 if layer.endswith("2c") else 1))
    if layer.startswith("scale"):
        return np.float32(random.standard_normal(shape) * 0.1)
    return seeded.make_weight(layer, index, shape, _BILINEAR.match(layer) is not None, seed)


def thinned(name, factor, *, frozen=False) -> NetParameter:
    """Return a system's training net with its widths divided, without dropout, and maybe with frozen statistics."""
    net, _ = prototxt.load_net(ROOT / "prototxt" / name / "train.prototxt")
    for layer in net.layer:
        param = layer.convolution_param
        for field in ("num_output", "group"):
            if getattr(param, field) >= 64:
                setattr(param, field, getattr(param, field) // factor)
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
        if layer.type == "BatchNorm" and frozen:
            layer.batch_norm_param.use_global_stats = True
    return net


def layers_digest(path):
    """Return the SHA-256 of what a prototxt says of its layers, without the data layer, fillers, and defaults."""
    layers = canonical_prototxt.parse(path.read_text())["layer"]
    said = [_without_fillers(layer) for layer in layers if layer["type"] != ["Python"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _without_fillers(message):
    if not isinstance(message, dict):
        return message
    return {
        name: [_without_fillers(value) for value in values]
        for name, values in message.items()
        if not name.endswith("filler") and (name, values) not in (("stride", [1.0]), ("pad", [0.0]))
    }
