"""Nets that the paper compares its nets with: one layer alone, more skips, nearest upsampling."""

import pytest
import torch

from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fcn.nets import ablated_nets, net_files, surgery
from reproduction.fcn.nets.receptive_field import compute_net_figures


def deploy(record):
    return net_files.build_deploy(record)


@pytest.mark.parametrize(("number", "convolutions"), [(5, 13), (4, 10), (3, 7)])
@pytest.mark.parametrize("set_name", ["voc", "mini"])
def test_a_net_of_one_pooling_has_the_layers_up_to_it_alone(set_name, number, convolutions):
    record = ablated_nets.score_pool(set_name, number)
    net_param = deploy(record)
    names = [layer.name for layer in net_param.layer if layer.type == "Convolution"]
    assert len(names) == convolutions + 1
    assert names[-1] == f"score_pool{number}"
    assert surgery.find_new_layers(record) == names[-1:]
    assert compute_net_figures(net_param).max_stride == 2**number


@pytest.mark.parametrize("stride", [4, 2])
def test_finer_nets_have_one_more_skip_each(stride):
    record = ablated_nets.add_skip("mini", stride)
    net_param = deploy(record)
    names = [layer.name for layer in net_param.layer]
    assert len(set(names)) == len(names)
    pools = [name for name in names if name.startswith("score_pool") and not name.endswith("c")]
    assert pools == ["score_pool4", "score_pool3", "score_pool2", "score_pool1"][: 3 if stride == 4 else 4]
    assert surgery.find_new_layers(record) == pools[-1:]
    assert list(record.parents) == [f"mini-fcn{2 * stride}s"]
    assert net_param.layer[-2].convolution_param.stride == [stride]


@pytest.mark.parametrize("size", [(61, 70), (96, 97)])
@pytest.mark.parametrize(
    "record",
    [ablated_nets.score_pool("mini", 4), ablated_nets.add_skip("mini", 2), ablated_nets.upsample_nearest("mini")],
    ids=lambda record: record.name,
)
def test_scores_have_the_size_of_the_image(record, size):
    net = Net(deploy(record), Phase.TEST, inputs={"data": (1, 3, *size)})
    assert net.blob_shapes["score"] == (1, 7, *size)


def test_nearest_upsampling_repeats_scores():
    net_param = deploy(ablated_nets.upsample_nearest("mini"))
    net = Net(net_param, Phase.TEST, inputs={"data": (1, 3, 64, 64)})
    assert surgery.find_bilinear_layers(net) == []
    with torch.no_grad():
        net.params["score_fr"][1].copy_(torch.arange(7.0))
        fused, last = net({"data": torch.zeros(1, 3, 64, 64)}, blobs=["fuse_pool3", "nearest8"]).values()
    assert torch.equal(last, fused.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert torch.equal(last[0, :, 0, 0], torch.arange(7.0))
