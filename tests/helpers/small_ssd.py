"""A small SSD with seeded weights: two feature maps, Normalize, and boxes of two classes."""

from pathlib import Path

from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase

CLASSES = 3
VARIANCES = "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"


def head(name, bottom, boxes):
    """Return the layers that predict from a feature map: a convolution each for locations and scores, flattened."""
    text = ""
    for kind, channels in (("loc", boxes * 4), ("conf", boxes * CLASSES)):
        stem = f"{name}_{kind}"
        text += f"""
        layer {{ name: "{stem}" type: "Convolution" bottom: "{bottom}" top: "{stem}" convolution_param {{ num_output:
          {channels} kernel_size: 3 pad: 1 weight_filler {{ type: "gaussian" std: 0.3 }} }} }}
        layer {{ name: "{stem}_perm" type: "Permute" bottom: "{stem}" top: "{stem}_perm"
          permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
        layer {{ name: "{stem}_flat" type: "Flatten" bottom: "{stem}_perm" top: "{stem}_flat" }}"""
    return text


SMALL_SSD = f"""
    layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: 48 dim: 64 }} }} }}
    layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {{ num_output: 8
      kernel_size: 3 stride: 4 weight_filler {{ type: "msra" }} }} }}
    layer {{ name: "norm" type: "Normalize" bottom: "conv1" top: "norm" norm_param {{ across_spatial: false
      channel_shared: false scale_filler {{ type: "constant" value: 5 }} }} }}
    layer {{ name: "conv2" type: "Convolution" bottom: "norm" top: "conv2" convolution_param {{ num_output: 8
      kernel_size: 3 stride: 2 weight_filler {{ type: "msra" }} }} }}
    {head("one", "norm", 2)} {head("two", "conv2", 4)}
    layer {{ name: "one_prior" type: "PriorBox" bottom: "norm" bottom: "data" top: "one_prior" prior_box_param {{
      min_size: 12 max_size: 20 clip: false {VARIANCES} }} }}
    layer {{ name: "two_prior" type: "PriorBox" bottom: "conv2" bottom: "data" top: "two_prior" prior_box_param {{
      min_size: 20 max_size: 32 aspect_ratio: 2 clip: false {VARIANCES} }} }}
    layer {{ name: "loc" type: "Concat" bottom: "one_loc_flat" bottom: "two_loc_flat" top: "loc" }}
    layer {{ name: "conf" type: "Concat" bottom: "one_conf_flat" bottom: "two_conf_flat" top: "conf" }}
    layer {{ name: "prior" type: "Concat" bottom: "one_prior" bottom: "two_prior" top: "prior"
      concat_param {{ axis: 2 }} }}
    layer {{ name: "by_box" type: "Reshape" bottom: "conf" top: "by_box" reshape_param {{ shape {{ dim: 0 dim: -1
      dim: {CLASSES} }} }} }}
    layer {{ name: "softmax" type: "Softmax" bottom: "by_box" top: "softmax" softmax_param {{ axis: 2 }} }}
    layer {{ name: "flat" type: "Flatten" bottom: "softmax" top: "flat" }}
    layer {{ name: "found" type: "DetectionOutput" bottom: "loc" bottom: "flat" bottom: "prior" top: "found"
      detection_output_param {{ num_classes: {CLASSES} background_label_id: 0 code_type: CENTER_SIZE
      share_location: true nms_param {{ nms_threshold: 0.45 top_k: 50 }} keep_top_k: 40
      confidence_threshold: 0.35 }} }}"""


def write_small_ssd(folder: Path, stem: str) -> None:
    """Write ``STEM.prototxt`` and ``STEM.caffemodel`` to a folder."""
    net = Net(prototxt.loads(SMALL_SSD, NetParameter), Phase.TEST, seed=1)
    (folder / f"{stem}.prototxt").write_text(SMALL_SSD)
    caffemodel.dump(net.to_proto(), folder / f"{stem}.caffemodel")
