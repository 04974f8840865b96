"""Thin forms of nine nets for Mini-VOC, and the classifiers that they start from, to be compared at an equal budget.

Each net is the published or the later one with fewer channels; its layers, windows, crops and upsampling are the same.
The nets of one trunk start from one classifier, which is trained on Mini-VOC's images of single objects by the recipe
of ``mini_nets``. ``list_thin_nets`` states in which stages each net is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, layer
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.datasets.spec import VGG16_BLOCKS, NetRecord, PublishedNet
from reproduction.fcn.nets import mini_nets, parts, systems
from reproduction.fcn.nets.systems import googlenet, resnet50, system, unet, vgg_ports
from reproduction.fcn.nets.systems.system import System

# With Caffe's 0.999, the statistics after a few hundred updates would be those of all of them, also of the first.
MOVING_AVERAGE = 0.9
SEEDS = (1, 2, 3)  # of the trainings of a comparison


@dataclass(frozen=True)
class Budget:
    """What each net is given.

    Attributes:
        iterations: updates of each net after its classifier, of one image each, in all of its stages together.
        classifier_iterations: updates of each classifier, of ``mini_nets.BATCH`` images of single objects each. A net
            without a classifier is given as many more updates of one image.
    """

    iterations: int = 500
    classifier_iterations: int = 500


@dataclass(frozen=True)
class ThinNet:
    """A net of the comparison.

    Attributes:
        title: its name on pages.
        classifier: the classifier that its first stage starts from; empty for a net without one.
        stages: the records of its nets in the order of training, the last of which is the net itself. The solver of
            each states the number of updates.
        follows: the text that it follows.
        remark: what differs from the full net besides the number of channels, as a sentence; or empty.
    """

    title: str
    classifier: str
    stages: tuple[NetRecord, ...]
    follows: str
    remark: str = ""

    @property
    def record(self) -> NetRecord:
        """The record of the net itself."""
        return self.stages[-1]


VGG, GOOGLENET, RESNET = "mini-vgg", "mini-googlenet", "mini-resnet50"
#: By how much the layers of a trunk's nets have fewer channels; mini-vgg's are those of the other recipes.
DIVISORS = {VGG: 8, GOOGLENET: 4, RESNET: 8, "": 8}
#: The learning rate of each classifier, and of the nets of its trunk; that of the net without one is under "".
CLASSIFIER_RATES = {VGG: 5e-4, GOOGLENET: 1e-3, RESNET: 2e-3}
_RATES = {VGG: 5e-4, GOOGLENET: 1e-3, RESNET: 1e-3, "": 1e-3}
_POOL = 3  # height and width of the last map of GoogLeNet on the classifier's images
_AT_ONCE = "mini-fcn8s-atonce"
_UNET_SCORE = "conv_u0d-score"
# The channels of mini-vgg by those of VGG16, for the nets that start from it.
_VGG = mini_voc.NETS[0]
_WIDTHS = {
    vgg_ports.WIDTH: _VGG.width,
    **{full: thin for (full, _), (thin, _) in zip(VGG16_BLOCKS, _VGG.blocks, strict=True)},
}
_PAPER = "Shelhamer, Long, Darrell, PAMI 2017"

# In the thin trunk, pool3, pool4 and fc7 have norms of one size; the paper's 0.0001 and 0.01 give them that in VGG16.
_SCALES = {"pool4": 1.0, "pool3": 1.0}


def list_thin_nets(budget: Budget) -> tuple[ThinNet, ...]:
    """Return the nets of the comparison with the given numbers of updates.

    The first of several stages has half of the updates; the two further ones of FCN-8s share the others.
    """
    whole, more = budget.iterations, budget.iterations // 2
    first = _published("mini-fcn32s", whole - more)
    return (
        ThinNet("FCN-32s", VGG, (_published("mini-fcn32s", whole),), _PAPER),
        ThinNet("FCN-16s", VGG, (first, _published("mini-fcn16s", more)), _PAPER),
        ThinNet(
            "FCN-8s",
            VGG,
            (first, _published("mini-fcn16s", more - more // 2), _published("mini-fcn8s", more // 2)),
            _PAPER,
        ),
        ThinNet(
            "FCN-8s at-once",
            VGG,
            (replace(_published("mini-fcn8s", whole), name=_AT_ONCE, parents={VGG: ""}, at_once=True, scales=_SCALES),),
            _PAPER,
            "The fixed scales of pool4 and pool3 are 1: in the thin trunk their values are as large as those of fc7.",
        ),
        _thin_system(
            "FCN-GoogLeNet",
            "voc-fcn-googlenet",
            GOOGLENET,
            whole,
            "The average over the whole map at the end of the classifier is left out, as it would blur scenes of few"
            f" cells; dropout is {_VGG.dropout:g}, as in the nets on VGG16.",
            add_layers=_add_fcn_googlenet,
        ),
        _thin_system("FCN-8s, ResNet-50", "voc-fcn8s-resnet50", RESNET, whole),
        _thin_system("FPN, ResNet-50", "voc-fpn-resnet50", RESNET, whole),
        _thin_system(
            "U-Net",
            "unet",
            "",
            whole + budget.classifier_iterations,
            "The image is in color and is not scaled, and the scores start from zero.",
            add_layers=_add_unet,
            new_layers=(_UNET_SCORE,),
            grey_mean=None,
            scale=1.0,
        ),
        _thin_system("Keras' FCN-8", "keras-fcn8", VGG, whole, widths=_WIDTHS),
    )


def _published(name: str, iterations: int) -> PublishedNet:
    """Return the record of one of Mini-VOC's copies of voc-fcn32s, -16s and -8s, with another solver."""
    return replace(mini_nets.NETS[name], base_lr=_RATES[VGG], solver=mini_voc.adam_fields(iterations))


def _thin_system(title: str, name: str, classifier: str, iterations: int, remark: str = "", **fields: Any) -> ThinNet:
    """Return a thin form of a system for Mini-VOC.

    Args:
        title: Its title.
        name: The name of the system.
        classifier: The classifier that it starts from; empty for none.
        iterations: The number of updates.
        remark: See ``ThinNet``.
        fields: Further fields of its record.
    """
    net = systems.NETS[name]
    record = replace(
        net,
        name=f"mini-{name.removeprefix('voc-')}",
        dataset=mini_voc.SPEC,
        base_lr=_RATES[classifier],
        parents={classifier: ""} if classifier else {},
        normalize=False,
        data="../../data",
        divisor=DIVISORS[classifier],
        solver=mini_voc.adam_fields(iterations),
        **fields,
    )
    return ThinNet(title, classifier, (record,), net.follows, remark)


def _add_fcn_googlenet(n: NetSpec, net: System) -> None:
    googlenet.add_layers(n, net, pool=1)
    _lower_dropout(n)


def _lower_dropout(n: NetSpec) -> None:
    """Set the dropout of GoogLeNet to that of mini-vgg: a thin net has too few channels to drop 40 % of them."""
    n["pool5/drop_7x7_s1"].function.layer_param.dropout_param.dropout_ratio = _VGG.dropout


def _add_unet(n: NetSpec, net: System) -> None:
    """Add U-Net with scores that start from zero: its filler is for images that are scaled to values of about 1."""
    unet.add_layers(n, net)
    n[net.heads[0].score].function.layer_param.convolution_param.clear("weight_filler")


def build_classifier(name: str, split: str) -> NetParameter:
    """Return the prototxt of a classifier, with BatchNorm by the statistics of the batch in training.

    Args:
        name: ``mini-vgg``, ``mini-googlenet`` or ``mini-resnet50``.
        split: See ``mini_nets.build_classifier``.
    """
    net_param = mini_nets.build_classifier(split, _TRUNKS[name])
    for part in net_param.layer:
        if part.type == "BatchNorm":
            part.batch_norm_param.use_global_stats = split != "train"
            part.batch_norm_param.moving_average_fraction = MOVING_AVERAGE
    return net_param


def _add_googlenet(n: NetSpec) -> Top:
    """Add GoogLeNet as a classifier."""
    thin = partial(system.thin, divisor=DIVISORS[GOOGLENET])
    top = googlenet.add_trunk(n, n["data"], thin, pad=3, pool=_POOL, weight_filler=mini_nets.CONV_FILLER)
    _lower_dropout(n)
    return _add_scores(n, "loss3/classifier", top)


def _add_resnet(n: NetSpec) -> Top:
    """Add ResNet-50 as a classifier."""
    thin = partial(system.thin, divisor=DIVISORS[RESNET])
    top = resnet50.add_trunk(n, n["data"], thin, weight_filler=mini_nets.CONV_FILLER)["res5c"]
    n["pool5"] = layer("Pooling", top, pool="AVE", global_pooling=True)
    return _add_scores(n, "fc", n["pool5"])


def _add_scores(n: NetSpec, name: str, bottom: Top) -> Top:
    classes = len(mini_voc.CLASSES)
    n[name] = layer("InnerProduct", bottom, num_output=classes, param=parts.LEARN, weight_filler=mini_nets.FC_FILLER)
    return n[name]


_TRUNKS: dict[str, Callable[[NetSpec], Top] | None] = {VGG: None, GOOGLENET: _add_googlenet, RESNET: _add_resnet}
