"""The nets of Mini-VOC: thin copies of voc-fcn32s, -16s and -8s, and the thin VGG that their training starts from.

The same layers under the same names, with the same padding, crops and upsamplings, but fewer channels: two cores train
all four in a quarter of an hour.
"""

from __future__ import annotations

from typing import Any

from reproduction.caffe.netspec import NetSpec, Top, layer, layers
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.fcn import nets
from reproduction.fcn.nets import LEARN, MEAN_BGR, Published

CLASSIFIER = "mini-vgg"
BLOCKS = ((8, 2), (16, 2), (32, 3), (48, 3), (48, 3))  # as nets.VGG16_BLOCKS
WIDTH = 96  # of fc6 and fc7
DROPOUT = 0.2
CLASSES = 7

CROP = 128  # height and width of what the classifier sees, pixels
# fc6 sees 7 x 7 windows of the crop, as VGG16's does of 224 pixels, and so becomes the same convolution.
PAD = 34
BATCH = {"train": 16, "val": 84}
OBJECTS = "../../data/mini/objects/"

# Weights that halve the spread of the values in every layer but the first: 15 layers lead from pixels to scores.
FILLER = {"type": "xavier"}


def _row(name: str, stride: int, parent: str, **solver: Any) -> Published:
    return Published(
        name,
        "mini",
        stride,
        solver.pop("base_lr"),
        f"mini/{name}.caffemodel",
        {parent: ""},
        blocks=BLOCKS,
        width=WIDTH,
        dropout=DROPOUT,
        data="../../data",
        solver=solver,
    )


#: The nets by name, in the order of their training.
NETS: dict[str, Published] = {
    row.name: row
    for row in (
        _row("mini-fcn32s", 32, CLASSIFIER, base_lr=1e-8),
        _row("mini-fcn16s", 16, "mini-fcn32s", base_lr=1e-9),
        _row("mini-fcn8s", 8, "mini-fcn16s", base_lr=1e-10),
    )
}


def classifier(split: str) -> NetParameter:
    """Write the classifier: VGG16's layers on single things.

    Args:
        split: ``train`` or ``val``; the latter tells the accuracy too.
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
    bottom = nets.vgg16_blocks(n, NETS["mini-fcn32s"], "data", pad=PAD, weight_filler=FILLER)
    for number in (6, 7):
        n[f"fc{number}"] = layer("InnerProduct", bottom, num_output=WIDTH, param=LEARN, weight_filler=FILLER)
        n[f"relu{number}"] = layer("ReLU", n[f"fc{number}"], in_place=True)
        bottom = n[f"drop{number}"] = layer("Dropout", n[f"relu{number}"], dropout_ratio=DROPOUT, in_place=True)
    n["fc8"] = layer("InnerProduct", bottom, num_output=CLASSES, param=LEARN, weight_filler=FILLER)
    return n["fc8"]


def classifier_deploy() -> NetParameter:
    """Write the classifier for pictures alone: probabilities instead of the loss, and no dropout."""
    n = NetSpec()
    n["data"] = layer("Input", name="input", input_param={"shape": {"dim": [1, 3, CROP, CROP]}})
    n["prob"] = layer("Softmax", _vgg(n))
    return NetParameter(layer=[part for part in n.to_proto().layer if part.type != "Dropout"])


def classifier_solver() -> SolverParameter:
    """Write the classifier's solver."""
    return SolverParameter(
        train_net="train.prototxt",
        test_net=["val.prototxt"],
        test_iter=[1],
        test_interval=100,
        display=20,
        average_loss=20,
        base_lr=0.01,
        lr_policy="multistep",
        stepvalue=[600, 900],
        gamma=0.2,
        momentum=0.9,
        weight_decay=0.0005,
        max_iter=1000,
        snapshot=200,
        snapshot_prefix="snapshot/train",
    )


def files(name: str) -> dict[str, NetParameter | SolverParameter]:
    """Write every prototxt of a net, by file name.

    Args:
        name: ``mini-vgg`` or a key of ``NETS``.
    """
    if name != CLASSIFIER:
        return nets.files(NETS[name])
    written: dict[str, NetParameter | SolverParameter] = {f"{split}.prototxt": classifier(split) for split in BATCH}
    return written | {"deploy.prototxt": classifier_deploy(), "solver.prototxt": classifier_solver()}
