"""Trainings that the paper compares its nets with."""

from dataclasses import replace

import numpy as np
import pytest

from reproduction.caffe.formats import caffemodel, weights
from reproduction.caffe.net.net import Net
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.train import ablations, recipes, training
from reproduction.fcn.train.training import TrainingOptions
from tests.helpers import small_mini_voc


@pytest.mark.parametrize("name", ["voc-fcn32s", "mini-fcn32s"])
def test_only_the_last_layer_learns(name):
    before = recipes.find_recipe(name)
    stage = ablations.fix_all_but_scores(before)
    assert stage.name == f"{name}-fixed"
    rates = {
        layer.name: [spec.lr_mult for spec in layer.param]
        for layer in stage.train_net_param.layer
        if layer.type == "Convolution"
    }
    assert rates.pop("score_fr") == [1, 2]
    assert rates
    assert all(each == [0, 0] for each in rates.values())
    assert before.train_net_param == recipes.find_recipe(name).train_net_param, "the net's own training stays as it is"


def test_its_training_moves_nothing_else(tmp_path, monkeypatch):
    small_mini_voc.shrink(monkeypatch)
    mini_voc.generate(tmp_path / "data")
    start = tmp_path / "mini-vgg.caffemodel"
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=3).to_proto(), start)
    fixed = ablations.fix_all_but_scores(recipes.find_recipe("mini-fcn32s"))
    stage = replace(fixed, test_net_param=None).with_solver(max_iter=2)
    result = training.train(stage, {"mini-vgg": start}, TrainingOptions(tmp_path / "out", tmp_path / "data"))
    given, learnt = weights.read(start).arrays(), weights.read(result).arrays()
    for name, array in given.items():
        if name.startswith("conv"):
            np.testing.assert_array_equal(learnt[name], array)
    assert learnt["score_fr.weight"].any(), "it starts from zero"
