"""The nets of Mini-VOC: narrow copies of voc-fcn32s, -16s and -8s, and the VGG that the first starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase, SolverParameter
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.datasets.spec import PublishedNet
from reproduction.fcn.nets import mini_nets, net_files, published_nets, surgery
from reproduction.fcn.nets.receptive_field import compute_net_figures
from tests.helpers.paths import ROOT

NAMES = [mini_nets.CLASSIFIER, *mini_nets.NETS]


def each_net(test):
    return pytest.mark.parametrize("row", mini_nets.NETS.values(), ids=lambda row: row.name)(test)


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_prototxt_is_what_is_written(name):
    for file, message in mini_nets.build_files(name).items():
        path = ROOT / "prototxt" / name / file
        assert prototxt.load(path, type(message)) == message
        if isinstance(message, NetParameter):
            assert prototxt.load_net(path) == (message, [])


def without_widths(spec: LayerParameter) -> LayerParameter:
    spec = spec.copy()
    spec.convolution_param.clear("num_output")
    spec.dropout_param.clear("dropout_ratio")
    return spec


@each_net
def test_a_mini_net_is_its_model_but_for_widths_and_dropout(row: PublishedNet):
    model = published_nets.NETS[row.name.replace("mini", "voc")]
    for mine, its in zip(row.data_layers, model.data_layers, strict=True):
        pairs = zip(net_files.build_net(row, mine).layer, net_files.build_net(model, its).layer, strict=True)
        data, *rest = [(without_widths(one), without_widths(other)) for one, other in pairs]
        assert all(one == other for one, other in rest)
        assert data[0].python_param.layer == data[1].python_param.layer
    assert compute_net_figures(net_files.build_deploy(row)).receptive_field == 404


def test_the_table_agrees_with_the_data():
    source = mini_voc.SPEC
    assert [head.classes for head in source.heads] == [mini_voc.CLASSES]
    assert source.test_iter == mini_voc.VAL
    assert mini_nets.BATCH["val"] == mini_voc.OBJECTS["val"]
    assert mini_nets.CROP < mini_voc.OBJECT_SIZE
    for split, tree in zip((source.train, source.test), ("sbdd/dataset", "pascal/VOC2011"), strict=True):
        assert source.folders[split.keys[0]] == f"{mini_voc.FOLDER}/{tree}"


def test_stages_follow_each_other():
    names = NAMES
    assert [row.parents for row in mini_nets.NETS.values()] == [{name: ""} for name in names[:-1]]
    rates = [row.base_lr for row in mini_nets.NETS.values()]
    assert rates == sorted(rates, reverse=True)


def test_all_weights_together_are_small():
    total = sum(compute_net_figures(net_files.build_deploy(row)).parameters for row in mini_nets.NETS.values())
    total += sum(p.numel() for p in Net(mini_nets.build_classifier_deploy()).parameters())
    assert 4 * total < 7.9e6


def test_the_classifier_is_the_first_net_seen_through_a_window():
    """fc7 of the convolutional net, in the middle of a picture, is the classifier's fc7 for the same surroundings."""
    classifier = Net(mini_nets.build_classifier_deploy(), seed=1)
    row = mini_nets.NETS["mini-fcn32s"]
    net = Net(net_files.build_deploy(row))
    surgery.initialize(net, row, {mini_nets.CLASSIFIER: classifier.to_proto()})
    picture = torch.randn(1, 3, mini_nets.CROP, mini_nets.CROP) * 50
    want = classifier({"data": picture}, blobs=["fc7"])["fc7"]
    # The classifier pads less; with its padding the net has one window, and nothing to crop.
    message = NetParameter(
        layer=[
            spec
            for spec in net_files.build_deploy(row).layer
            if not {"score_fr", "upscore"} & {*spec.bottom, *spec.top}
        ]
    )
    message.layer[1].convolution_param.pad = [mini_nets.PAD]
    windowed = Net(message)
    windowed.copy_from(net.to_proto())
    got = windowed({"data": picture}, blobs=["fc7"])["fc7"]
    assert got.shape == (1, row.width, 1, 1)
    torch.testing.assert_close(got[:, :, 0, 0], want)


@pytest.mark.parametrize("split", mini_nets.BATCH)
def test_the_classifier_learns_from_what_it_is_fed(split):
    shapes = {"data": (2, 3, mini_nets.CROP, mini_nets.CROP), "label": (2,)}
    net = Net(mini_nets.build_classifier(split), Phase.TRAIN, inputs=shapes, seed=1)
    inputs = {"data": np.random.default_rng(0).normal(0, 50, shapes["data"]), "label": np.array([1, 6])}
    blobs = net(inputs)
    assert set(blobs) == ({"loss"} if split == "train" else {"loss", "accuracy"})
    assert 0.5 < float(blobs["loss"].detach()) < 20
    net.loss(blobs).backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_solvers_say_what_stages_need(name):
    solver = mini_nets.build_files(name)["solver.prototxt"]
    assert isinstance(solver, SolverParameter)
    assert solver.train_net == "train.prototxt"
    assert solver.test_net == ["val.prototxt"]
    assert solver.snapshot <= solver.max_iter
    assert solver.snapshot_prefix == "snapshot/train"
