"""The sizes of U-Net and of the ports, and the pixels that their scores belong to."""

from dataclasses import replace

import pytest
import torch

from reproduction.caffe.net.net import Net
from reproduction.caffe.net.netspec import NetSpec, crop_fields, layers
from reproduction.fcn.nets import net_files, systems


def thin_net(name, *size):
    """Build a thin system with random weights for images of a size."""
    record = replace(systems.NETS[name], divisor=64)
    deploy = net_files.build_deploy(record)
    channels = 1 if record.grey_mean is not None else 3
    net = Net(deploy, inputs={"data": (1, channels, *size)}, seed=1)
    with torch.no_grad():
        for blobs in net.params.values():
            blobs[0].normal_(0, (2 / blobs[0][0].numel()) ** 0.5, generator=torch.Generator().manual_seed(1))
    return net


def test_unet_has_the_sizes_and_offsets_of_its_paper():
    net = thin_net("unet", 572, 572)
    sizes = {"d0c": 568, "d1c": 280, "d2c": 136, "d3c": 64, "d4c": 28, "u3a": 56, "u2a": 104, "u1a": 200, "score": 388}
    assert {blob: net.blob_shapes[blob][2:] for blob in sizes} == {blob: (size, size) for blob, size in sizes.items()}
    spec = systems.NETS["unet"]
    crops = [layer for layer in net_files.build_net(spec, spec.dataset.train).layer if layer.type == "Crop"]
    assert [crop.crop_param.offset for crop in crops] == [[4], [16], [40], [88], [spec.framing.mirror]]


@pytest.mark.parametrize("size", [(1, 1), (31, 40), (97, 130)])
@pytest.mark.parametrize("name", ["unet", "keras-fcn8", "keras-fcn32", "tf-fcn-vgg19"])
def test_each_pixel_of_an_image_of_any_size_has_scores_and_labels(name, size):
    record = systems.NETS[name]
    image = torch.zeros(1, 1 if record.grey_mean is not None else 3, *size)
    framed = record.framing.frame_tensor(image)
    net = thin_net(name, *framed.shape[2:])
    scores = net({"data": framed})["score"]
    assert record.framing.crop_scores(scores, size).shape[2:] == size
    labels = record.framing.frame_labels(image[0].numpy(), 255)[0]
    if name == "unet":  # the net crops its labels itself
        labels = labels[92 : 92 + scores.shape[2], 92 : 92 + scores.shape[3]]
    assert labels.shape == scores.shape[2:]


def test_keras_fcn32_s_margin_is_the_distance_of_a_pixel_from_its_scores():
    record, n = systems.NETS["keras-fcn32"], NetSpec()
    n["data"], n["label"] = layers("Input", ntop=2, input_param={"shape": [{"dim": [1, 3, 64, 64]}] * 2})
    record.add_layers(n, record)
    assert crop_fields(n["score"], n["data"])["offset"] == [record.framing.margin]
