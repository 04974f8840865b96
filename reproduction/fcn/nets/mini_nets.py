"""The nets of Mini-VOC: narrow copies of voc-fcn32s, -16s and -8s, and of the VGG16 that their training starts from.

They have the same layers with the same names, padding, crops and upsampling, but fewer channels: two CPU cores train
all four in a quarter of an hour. As published, each stage starts from the weights of the previous one and uses a lower
learning rate. Unlike published, the solver is Adam, see ``mini_voc.adam_fields``.
"""

from __future__ import annotations

from collections.abc import Callable

from reproduction.caffe.net.netspec import NetSpec, Top, layer, layers
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.fcn.datasets import voc
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.datasets.spec import PublishedNet
from reproduction.fcn.nets import net_files, published_nets
from reproduction.fcn.nets.parts import LEARN

CLASSIFIER = "mini-vgg"
CROP = 96  # height and width of the classifier's input, in pixels
# With this padding, pool5 is 7 x 7 on a crop, as in VGG16 on 224 pixels, so fc6 converts to a 7 x 7 convolution.
PAD = 50
BATCH = {"train": 8, "val": 84}
OBJECTS = f"../../data/{mini_voc.FOLDER}/objects/"

CLASSIFIER_ITERATIONS = 1400

# With VGG's Gaussian filler, activations vanish over thirteen layers; msra preserves their variance.
CONV_FILLER = {"type": "msra"}
# As in VGG: small weights. In the classifier, the outer cells of fc6's 7 x 7 kernel see mostly padding and learn
# little; in the fully convolutional net they see the image, and must not add noise.
FC6_FILLER = {"type": "gaussian", "std": 0.005}
FC_FILLER = {"type": "xavier"}

#: The nets by name, in the order of training.
NETS: dict[str, PublishedNet] = {net.name: net for net in mini_voc.NETS}
_FIRST = mini_voc.NETS[0]  # whose trunk the classifier has


def build_classifier(split: str, add_layers: Callable[[NetSpec], Top] | None = None) -> NetParameter:
    """Return the prototxt of a classifier of images of single objects: ``mini-vgg``, or one with other layers.

    Args:
        split: The split that its data layer reads: ``train``, or ``val``, whose net also computes the accuracy.
        add_layers: A function that adds the layers to a specification that has the top ``data``, and returns the top of
            the scores; None for VGG16's layers.
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
        transform_param={"crop_size": CROP, "mirror": training, "mean_value": list(voc.MEAN_BGR)},
    )
    scores = (add_layers or _vgg)(n)
    n["loss"] = layer("SoftmaxWithLoss", scores, n["label"])
    if not training:
        n["accuracy"] = layer("Accuracy", scores, n["label"])
    return n.to_proto()


def _vgg(n: NetSpec) -> Top:
    bottom = published_nets.vgg16_blocks(n, _FIRST, "data", pad=PAD, weight_filler=CONV_FILLER)
    for number in (6, 7):
        n[f"fc{number}"] = layer(
            "InnerProduct",
            bottom,
            num_output=_FIRST.width,
            param=LEARN,
            weight_filler=FC6_FILLER if number == 6 else FC_FILLER,
        )
        n[f"relu{number}"] = layer("ReLU", n[f"fc{number}"], in_place=True)
        bottom = n[f"drop{number}"] = layer("Dropout", n[f"relu{number}"], dropout_ratio=_FIRST.dropout, in_place=True)
    n["fc8"] = layer(
        "InnerProduct", bottom, num_output=len(_FIRST.heads[0].classes), param=LEARN, weight_filler=FC_FILLER
    )
    return n["fc8"]


def build_classifier_deploy() -> NetParameter:
    """Return ``mini-vgg`` for inference: an Input layer, probabilities instead of the loss, and no dropout."""
    n = NetSpec()
    n["data"] = layer("Input", name="input", input_param={"shape": {"dim": [1, 3, CROP, CROP]}})
    n["prob"] = layer("Softmax", _vgg(n))
    return NetParameter(layer=[part for part in n.to_proto().layer if part.type != "Dropout"])


def build_classifier_solver(iterations: int = CLASSIFIER_ITERATIONS, base_lr: float = 5e-4) -> SolverParameter:
    """Return the solver prototxt of the classifier ``mini-vgg``, or of one that is trained as it is.

    Args:
        iterations: The number of updates.
        base_lr: The learning rate at the start.
    """
    return SolverParameter(
        train_net="train.prototxt",
        test_net=["val.prototxt"],
        test_iter=[1],
        test_interval=iterations // 4,
        display=20,
        average_loss=20,
        base_lr=base_lr,
        weight_decay=0.0005,
        snapshot_prefix="snapshot/train",
        **mini_voc.adam_fields(iterations),
    )


def build_files(name: str) -> dict[str, NetParameter | SolverParameter]:
    """Return every prototxt of a net of Mini-VOC, by file name.

    Args:
        name: ``"mini-vgg"`` or a key of ``NETS``.
    """
    if name != CLASSIFIER:
        return net_files.build_files(NETS[name])
    written: dict[str, NetParameter | SolverParameter] = {
        f"{split}.prototxt": build_classifier(split) for split in BATCH
    }
    return written | {"deploy.prototxt": build_classifier_deploy(), "solver.prototxt": build_classifier_solver()}
