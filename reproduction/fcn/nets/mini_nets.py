"""The nets of Mini-VOC: narrow copies of voc-fcn32s, -16s and -8s, and of the VGG16 that their training starts from.

They have the same layers with the same names, padding, crops and upsampling, but fewer channels: two CPU cores train
all four in a quarter of an hour. As published, each stage starts from the weights of the previous one and uses a lower
learning rate. Unlike published, the solver is Adam. The published solver (SGD on a loss summed over the pixels) needs a
hundred thousand iterations: on mini-fcn32s it reached 11 % mean IU after 500 iterations, and 16 % after 2,500 with the
best learning rate tried, where Adam reached 32 % after 500.
"""

from __future__ import annotations

from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, layer, layers
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.fcn.nets import published_nets
from reproduction.fcn.nets.published_nets import LEARN, MEAN_BGR, PublishedNet

CLASSIFIER = "mini-vgg"
BLOCKS = ((8, 2), (16, 2), (32, 3), (48, 3), (48, 3))  # as published_nets.VGG16_BLOCKS
WIDTH = 96  # channels of fc6 and fc7
DROPOUT = 0.1
CLASSES = 7

CROP = 96  # height and width of the classifier's input, in pixels
# With this padding, pool5 is 7 x 7 on a crop, as in VGG16 on 224 pixels, so fc6 converts to a 7 x 7 convolution.
PAD = 50
BATCH = {"train": 8, "val": 84}
OBJECTS = "../../data/mini/objects/"

CLASSIFIER_ITERATIONS = 1400

_ADAM = {"type": "Adam", "lr_policy": "multistep", "gamma": 0.2, "momentum": 0.9, "momentum2": 0.999}

# With VGG's Gaussian filler, activations vanish over thirteen layers; msra preserves their variance.
CONV_FILLER = {"type": "msra"}
# As in VGG: small weights. In the classifier, the outer cells of fc6's 7 x 7 kernel see mostly padding and learn
# little; in the fully convolutional net they see the image, and must not add noise.
FC6_FILLER = {"type": "gaussian", "std": 0.005}
FC_FILLER = {"type": "xavier"}


def _solver(max_iter: int) -> dict[str, Any]:
    """Return Adam's fields, with a learning rate that drops twice so that the last batches have little influence."""
    steps = [max_iter * 3 // 4, max_iter * 11 // 12]
    return _ADAM | {"max_iter": max_iter, "stepvalue": steps, "snapshot": max_iter // 2}


def _row(name: str, stride: int, parent: str, base_lr: float, max_iter: int) -> PublishedNet:
    return PublishedNet(
        name,
        "mini",
        stride,
        base_lr,
        f"mini/{name}.caffemodel",
        {parent: ""},
        blocks=BLOCKS,
        width=WIDTH,
        dropout=DROPOUT,
        data="../../data",
        solver=_solver(max_iter),
    )


#: The nets by name, in the order of training.
NETS: dict[str, PublishedNet] = {
    row.name: row
    for row in (
        _row("mini-fcn32s", 32, CLASSIFIER, 5e-4, 2400),
        _row("mini-fcn16s", 16, "mini-fcn32s", 3e-4, 1000),
        _row("mini-fcn8s", 8, "mini-fcn16s", 2e-4, 1000),
    )
}


def build_classifier(split: str) -> NetParameter:
    """Return the classifier: VGG16's layers, trained on images of single objects.

    Args:
        split: ``"train"`` or ``"val"``; ``"val"`` also computes the accuracy.
    """
    n, training = NetSpec(), split == "train"
    n["data"], n["label"] = layers(
        "ImageData",
        ntop=2,
        image_data_param={
            "source": f"{OBJECTS}{split}.txt",
            "root_folder": OBJECTS,
            "batch_size": BATCH[split],
            "shuffle": training,
        },
        transform_param={"crop_size": CROP, "mirror": training, "mean_value": list(MEAN_BGR)},
    )
    scores = _vgg(n)
    n["loss"] = layer("SoftmaxWithLoss", scores, n["label"])
    if not training:
        n["accuracy"] = layer("Accuracy", scores, n["label"])
    return n.to_proto()


def _vgg(n: NetSpec) -> Top:
    bottom = published_nets.vgg16_blocks(n, NETS["mini-fcn32s"], "data", pad=PAD, weight_filler=CONV_FILLER)
    for number in (6, 7):
        n[f"fc{number}"] = layer(
            "InnerProduct",
            bottom,
            num_output=WIDTH,
            param=LEARN,
            weight_filler=FC6_FILLER if number == 6 else FC_FILLER,
        )
        n[f"relu{number}"] = layer("ReLU", n[f"fc{number}"], in_place=True)
        bottom = n[f"drop{number}"] = layer("Dropout", n[f"relu{number}"], dropout_ratio=DROPOUT, in_place=True)
    n["fc8"] = layer("InnerProduct", bottom, num_output=CLASSES, param=LEARN, weight_filler=FC_FILLER)
    return n["fc8"]


def build_classifier_deploy() -> NetParameter:
    """Return the classifier for inference: an Input layer, probabilities instead of the loss, and no dropout."""
    n = NetSpec()
    n["data"] = layer("Input", name="input", input_param={"shape": {"dim": [1, 3, CROP, CROP]}})
    n["prob"] = layer("Softmax", _vgg(n))
    return NetParameter(layer=[part for part in n.to_proto().layer if part.type != "Dropout"])


def build_classifier_solver() -> SolverParameter:
    """Return the classifier's solver."""
    return SolverParameter(
        train_net="train.prototxt",
        test_net=["val.prototxt"],
        test_iter=[1],
        test_interval=CLASSIFIER_ITERATIONS // 4,
        display=20,
        average_loss=20,
        base_lr=5e-4,
        weight_decay=0.0005,
        snapshot_prefix="snapshot/train",
        **_solver(CLASSIFIER_ITERATIONS),
    )


def build_files(name: str) -> dict[str, NetParameter | SolverParameter]:
    """Return every prototxt of a net, by file name.

    Args:
        name: ``"mini-vgg"`` or a key of ``NETS``.
    """
    if name != CLASSIFIER:
        return published_nets.build_files(NETS[name])
    written: dict[str, NetParameter | SolverParameter] = {
        f"{split}.prototxt": build_classifier(split) for split in BATCH
    }
    return written | {"deploy.prototxt": build_classifier_deploy(), "solver.prototxt": build_classifier_solver()}
