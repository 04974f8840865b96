"""Trainings that the paper compares its nets with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.train import ablations, feeds, recipes, training
from reproduction.fcn.train.sample_changes import PatchSampling
from reproduction.fcn.train.training import TrainingOptions
from tests.helpers import small_mini_voc


@pytest.fixture
def mini(monkeypatch, tmp_path):
    """A small Mini-VOC; return its data root."""
    small_mini_voc.shrink(monkeypatch)
    mini_voc.generate(tmp_path / "data")
    return tmp_path / "data"


def layers(recipe, kind):
    return {layer.name: layer for layer in recipe.train_net_param.layer if layer.type == kind}


@pytest.mark.parametrize("name", ["voc-fcn32s", "mini-fcn32s"])
def test_only_the_last_layer_learns(name):
    before = recipes.find_recipe(name)
    stage = ablations.fix_all_but_scores(before)
    rates = {name: [spec.lr_mult for spec in layer.param] for name, layer in layers(stage, "Convolution").items()}
    assert rates.pop("score_fr") == [1, 2]
    assert rates
    assert all(each == [0, 0] for each in rates.values())
    assert before.train_net_param == recipes.find_recipe(name).train_net_param, "the net's own training stays as it is"


def test_its_training_moves_nothing_else(tmp_path, mini):
    start = tmp_path / "mini-vgg.caffemodel"
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=3).to_proto(), start)
    fixed = ablations.fix_all_but_scores(recipes.find_recipe("mini-fcn32s"))
    stage = replace(fixed, test_net_param=None).with_solver(max_iter=2)
    result = training.train(stage, {"mini-vgg": start}, TrainingOptions(tmp_path / "out", mini))
    given, learnt = weights.read(start).arrays(), weights.read(result).arrays()
    for name, array in given.items():
        if name.startswith("conv"):
            np.testing.assert_array_equal(learnt[name], array)
    assert learnt["score_fr.weight"].any(), "it starts from zero"


def test_score_layers_start_from_random_numbers():
    drawn = layers(ablations.draw_scores(recipes.find_recipe("mini-fcn16s")), "Convolution")
    changed = {name for name, layer in drawn.items() if layer.convolution_param.weight_filler.type == "gaussian"}
    assert changed == {"score_fr", "score_pool4"}


def test_upsampling_learns_where_it_is_asked_to():
    recipe = recipes.find_recipe("mini-fcn8s")
    rates = {
        name: [spec.lr_mult for spec in layer.param]
        for name, layer in layers(ablations.learn_upsampling(recipe, ["upscore2"]), "Deconvolution").items()
    }
    assert rates == {"upscore2": [1], "upscore_pool4": [0], "upscore8": [0]}
    every = layers(ablations.learn_upsampling(recipe), "Deconvolution").values()
    assert all(layer.param[0].lr_mult == 1 for layer in every)


def test_the_rule_of_momentum_and_batch():
    assert ablations.match_momentum(0.9, 20, 1) == pytest.approx(0.9947, abs=1e-4)
    assert ablations.match_momentum(0.99, 1, 20) == pytest.approx(0.818, abs=1e-3)
    assert ablations.match_momentum(0.9, 5, 5) == pytest.approx(0.9)
    # By the rule, what an image adds to the momentum fades at the same rate, per image.
    assert ablations.match_momentum(0.9, 20, 1) ** 20 == pytest.approx(0.9)


def test_a_batch_is_of_as_many_images_and_the_updates_as_many_times_fewer():
    solver = ablations.set_batch(
        recipes.find_recipe("mini-fcn32s").with_solver(max_iter=400), 20, 0.9, 1e-8
    ).solver_param
    assert (solver.type, solver.lr_policy, list(solver.stepvalue)) == ("SGD", "fixed", [])
    assert (solver.iter_size, solver.max_iter) == (20, 20)
    assert solver.momentum == pytest.approx(0.9)
    assert solver.base_lr == pytest.approx(1e-8)


@pytest.mark.parametrize(("name", "weight"), [("mini-fcn32s", 4.0), ("voc-fcn-alexnet", None)])
def test_patches_come_in_batches_as_many_times_larger(name, weight):
    """A loss that is summed is weighted; one that is a mean over the pixels that count needs no weight."""
    before = recipes.find_recipe(name)
    sampled = ablations.sample_patches(before, 0.25)
    assert sampled.solver_param.iter_size == 4 * before.solver_param.iter_size
    assert sampled.changes == (PatchSampling(0.25),)
    (loss,) = layers(sampled, "SoftmaxWithLoss").values()
    assert list(loss.loss_weight) == ([weight] if weight else [])


def test_patches_give_the_gradient_of_the_whole_image_on_average(mini):
    recipe = recipes.find_recipe("mini-fcn32s")
    feed = feeds.open_feed(recipe.train_net_param, mini, Phase.TRAIN)
    inputs = feed(0)
    sampled = ablations.sample_patches(recipe, 0.5)
    (sampling,) = sampled.changes

    def loss(stage, label):
        net = Net(stage.train_net_param, Phase.TRAIN, inputs=feed.shapes, seed=1)
        named = {"data": torch.from_numpy(inputs["data"]), "label": torch.from_numpy(label)}
        return float(net.loss(net(named)).detach())

    whole = loss(recipe, inputs["label"])  # the scores are 0, so that every pixel has the same loss
    rows = {top: array[0] for top, array in inputs.items()}
    parts = [loss(sampled, sampling(rows, ["label"], 1, draw)["label"][None]) for draw in range(6)]
    labels = inputs["label"]
    shares = [(sampling(rows, ["label"], 1, draw)["label"] != 255).sum() / (labels != 255).sum() for draw in range(6)]
    assert parts == pytest.approx([2 * whole * share for share in shares], rel=1e-3)


def test_classes_are_weighted_by_the_inverse_of_their_share(mini):
    counts = np.array([60, 30, 10])
    found = np.array(ablations.find_class_weights(counts))
    assert found * counts == pytest.approx([100 / 3] * 3, rel=1e-5)
    with pytest.raises(ReproductionError, match="mini-vgg: the labels of whole images are not balanced here"):
        ablations.balance_classes(recipes.find_recipe("mini-vgg"), mini)
    with pytest.raises(DataError, match="a class without a pixel"):
        ablations.find_class_weights(np.array([1, 0]))
    dataset = mini_voc.MiniSBD("train", mini)
    counted = ablations.count_pixels(dataset)
    top = next(iter(dataset.label_classes))
    assert counted.sum() == sum(array[top].size for array in dataset)
    weighted = ablations.weigh_classes(recipes.find_recipe("mini-fcn32s"), [0.5, *[2.0] * 6])
    text = prototxt.dumps(weighted.train_net_param)
    assert "weight_by_label_freqs: true" in text
    assert text.count("class_weighting: 2") == 6
    labels = torch.zeros(1, 1, 4, 4)
    shapes = {"data": (1, 3, 4, 4), "label": (1, 1, 4, 4)}
    losses = [
        Net(stage.train_net_param, Phase.TRAIN, inputs=shapes)({"data": torch.zeros(1, 3, 4, 4), "label": labels})[
            "loss"
        ]
        for stage in (recipes.find_recipe("mini-fcn32s"), weighted)
    ]
    assert float(losses[1].detach()) == pytest.approx(0.5 * float(losses[0].detach()))
