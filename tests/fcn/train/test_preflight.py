"""Trainings that cannot learn are refused before they start."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase, SolverParameter
from reproduction.fcn import datasets
from reproduction.fcn.scoring.score import compute_scores
from reproduction.fcn.train import preflight
from reproduction.fcn.train.losses import Loss
from tests.helpers import dataset_trees

GAUSSIAN = 'weight_filler { type: "gaussian" std: 1 }'
CONV2 = 'layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"'


def net(conv1=GAUSSIAN, conv2=GAUSSIAN, upscore='weight_filler { type: "bilinear" }', learn=1) -> Net:
    text = f"""
        layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: 4 dim: 4 }} }} }}
        layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 1 dim: 1 dim: 8 dim: 8 }} }} }}
        layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param {{ lr_mult: {learn} }}
                 param {{ lr_mult: {learn} }} convolution_param {{ num_output: 4 kernel_size: 1 {conv1} }} }}
        layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
        layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2" param {{ lr_mult: {learn} }}
                 param {{ lr_mult: {learn} }} convolution_param {{ num_output: 4 kernel_size: 1 {conv2} }} }}
        layer {{ name: "score" type: "Convolution" bottom: "conv2" top: "score" param {{ lr_mult: {learn} }}
                 param {{ lr_mult: {learn} }} convolution_param {{ num_output: 2 kernel_size: 1 }} }}
        layer {{ name: "upscore" type: "Deconvolution" bottom: "score" top: "upscore" param {{ lr_mult: 0 }}
                 convolution_param {{ num_output: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false group: 2
                                      {upscore} }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "upscore" bottom: "label" top: "loss" }}"""
    return Net(prototxt.loads(text, NetParameter), Phase.TRAIN, seed=1)


def said(problems):
    return [str(problem) for problem in problems]


def one(problems):
    (problem,) = problems
    return str(problem)


def test_a_net_whose_last_layer_is_zero_may_start():
    assert said(preflight.check_weights(net())) == []


def test_a_pretrained_layer_that_is_zero_is_named():
    assert one(preflight.check_weights(net(conv1=""))) == (
        "layer 'conv1' (Convolution), line 4: all weights are 0, so the layer cannot learn."
        " Start from weights that contain this layer, or set its weight_filler."
    )


def test_a_layer_that_is_the_same_everywhere_is_named():
    constant = 'weight_filler { type: "constant" value: 0.1 }'
    assert one(preflight.check_weights(net(conv2=constant))) == (
        "layer 'conv2' (Convolution), line 7: all weights are 0.1, so the layer cannot learn."
        " Start from weights that contain this layer, or set its weight_filler."
    )


def test_an_upsampling_of_zeros_is_named():
    assert one(preflight.check_weights(net(upscore=""))) == (
        "layer 'upscore' (Deconvolution), line 11: all weights are 0, so no gradient passes."
        " Use --net, which sets bilinear weights, or set weight_filler { type: 'bilinear' }."
    )


def test_a_score_that_the_stage_before_should_have_brought_is_named():
    (problem,) = preflight.check_weights(net(), new_layers=["score_pool4"])
    assert str(problem).startswith("layer 'score' (Convolution), line 9: all weights are 0, so the layer cannot learn.")


def test_weights_that_are_no_numbers_are_named():
    made = net()
    with torch.no_grad():
        made.params["conv2"][0][0, 0] = torch.nan
    assert one(preflight.check_weights(made)) == (
        "layer 'conv2' (Convolution), line 7: weights are not numbers. Start from other weights."
    )


def test_a_net_without_a_layer_that_learns_is_named():
    assert said(preflight.check_weights(net(learn=0)))[0] == "no layer is trained; want an lr_mult that is not 0."


def loss(**fields):
    given = {"layer": "loss", "label": "label", "classes": 21, "dense": True, "summed": True, "ignored": 255}
    return Loss(**{**given, "weight": 1.0, **fields})


def test_a_rate_for_the_mean_does_not_go_with_a_sum():
    assert one(preflight.check_learning_rate([loss()], SolverParameter(base_lr=1e-4))) == (
        "layer 'loss': the learning rate is too high for a loss that is summed over pixels;"
        " got base_lr 0.0001, want at most 1e-06; published are 1e-10 to 1e-14."
        " Lower base_lr, or set loss_param { normalize: true }."
    )
    assert preflight.check_learning_rate([loss()], SolverParameter(base_lr=1e-10)) == []
    assert preflight.check_learning_rate([loss(weight=1e-5)], SolverParameter(base_lr=1e-4)) == []


def test_a_rate_for_the_sum_does_not_go_with_a_mean():
    assert one(preflight.check_learning_rate([loss(summed=False)], SolverParameter(base_lr=1e-10))) == (
        "layer 'loss': the learning rate is too low for a loss that is a mean over pixels;"
        " got base_lr 1e-10, want at least 1e-07; published is 1e-4."
        " Raise base_lr, or set loss_param { normalize: false }."
    )
    assert preflight.check_learning_rate([loss(summed=False)], SolverParameter(base_lr=1e-4)) == []
    assert preflight.check_learning_rate([loss(summed=False, dense=False)], SolverParameter(base_lr=1e-10)) == []


@pytest.mark.parametrize("type", ["AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_a_rate_of_steps_that_do_not_grow_with_the_loss_goes_with_both(type):
    for summed, base_lr in ((True, 1e-3), (False, 1e-10)):
        assert preflight.check_learning_rate([loss(summed=summed)], SolverParameter(type=type, base_lr=base_lr)) == []


IDS = [f"2008_{i:06d}" for i in range(20)]


@pytest.fixture
def sbd(tmp_path):
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": IDS}, png=True)
    return tmp_path


def test_good_data_have_no_problem(sbd):
    assert preflight.check_dataset(datasets.open_split("sbd", "train", sbd), [loss()], every=True) == []


def test_data_of_other_classes_than_the_net_are_refused(sbd):
    (problem,) = preflight.check_dataset(datasets.open_split("sbd", "train", sbd), [loss(classes=60)])
    assert str(problem) == (
        "sbd train: the labels 'label' have another number of classes than layer 'loss'; got 21, want 60."
        " Use a net and a data set with the same classes."
    )


def test_files_that_are_missing_are_said(sbd):
    path = sbd / "sbdd/dataset/img" / f"{IDS[3]}.jpg"
    path.unlink()
    (problem,) = preflight.check_dataset(datasets.open_split("sbd", "train", sbd), [loss()])
    assert str(problem) == f"sbd train: 1 files are missing, the first is {path}. Extract the data set again."


def test_a_label_out_of_range_is_found_among_a_few_or_all(sbd):
    path = sbd / "sbdd/dataset/cls" / f"{IDS[0]}.png"
    dataset_trees.palette_png(path, np.full((26, 35), 77, np.uint8))
    dataset_trees.jpeg(sbd / "sbdd/dataset/img" / f"{IDS[0]}.jpg", np.zeros((26, 35, 3), np.uint8))
    (problem,) = preflight.check_dataset(datasets.open_split("sbd", "train", sbd), [loss()])
    assert str(problem).startswith(f"{path}: ")
    assert "77" in str(problem)


def test_every_picture_is_looked_at_when_asked(sbd):
    path = sbd / "sbdd/dataset/cls" / f"{IDS[1]}.png"
    path.write_bytes(b"nothing")
    dataset = datasets.open_split("sbd", "train", sbd)
    assert preflight.check_dataset(dataset, [loss()]) == []
    (problem,) = preflight.check_dataset(dataset, [loss()], every=True)
    assert str(problem).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("value", "got", "remedy"),
    [
        ((0, 255), "only class 0 and void", "In a mask of 0 and 255, 255 is void; write 1 for 255."),
        ((3, 3), "only class 3", "Check the label files: their pixels are class numbers, not colours."),
        ((255, 255), "only void", "Check the label files: their pixels are class numbers, not colours."),
    ],
)
def test_masks_that_say_the_same_everywhere_are_refused(tmp_path, value, got, remedy):
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": IDS[:2]}, png=True)
    for image_id in IDS[:2]:
        mask = np.full((30, 40), value[0], np.uint8)
        mask[5:9, 5:9] = value[1]
        dataset_trees.jpeg(tmp_path / "sbdd/dataset/img" / f"{image_id}.jpg", np.zeros((30, 40, 3), np.uint8))
        dataset_trees.palette_png(tmp_path / "sbdd/dataset/cls" / f"{image_id}.png", mask)
    (problem,) = preflight.check_dataset(datasets.open_split("sbd", "train", tmp_path), [loss()])
    assert str(problem) == (
        f"sbd train: the labels 'label' of 2 images have fewer than two classes; got {got}, want two classes or more."
        f" {remedy}"
    )


def test_pictures_that_are_learnt_from_are_not_validated_on(sbd):
    dataset_trees.voc(sbd / "pascal/VOC2011", {"val": ["2007_000033", *IDS[5:7]]})
    train, val = datasets.open_split("sbd", "train", sbd), datasets.open_split("voc", "val", sbd)
    assert one(preflight.check_overlap(train, val)) == (
        "voc val: 2 of 3 validation images are also training images, the first is '2008_000005'."
        " Validate on another split."
    )
    val.ids = val.ids[:1]
    assert preflight.check_overlap(train, val) == []


@dataclass
class Listed:
    entries: list = field(default_factory=list)


def test_labels_of_a_list_are_held_against_the_classes():
    good = Listed([("a.jpg", 0), ("b.jpg", 6)])
    assert preflight.check_image_list(good, loss(classes=7, dense=False)) == []
    (problem,) = preflight.check_image_list(good, loss(classes=6, dense=False))
    assert str(problem) == "b.jpg: the label is out of range; got 6, want 0 to 5."


COUNTS = np.array([[70, 0, 0], [20, 0, 0], [0, 0, 0]])


def test_a_net_that_says_one_class_is_recognised():
    names = {"label": ("background", "cat", "dog")}
    found = compute_scores(COUNTS)
    assert (found.mean_acc, found.mean_iu) == (1 / 2, found.pixel_acc / 2)
    (note,) = preflight.describe_collapse({"label": found}, names, 4000)
    assert note == (
        "after 4000 iterations the net predicts class 0 (background) for every pixel: mean acc. is 1/2. If the next"
        " validation shows the same, stop: the pretrained weights are missing, or the learning rate does not fit the"
        " loss."
    )
    both = {"label": found, "geo": compute_scores(COUNTS.T + COUNTS)}
    assert (
        "class 0 (background) of 'label' for every pixel"
        in preflight.describe_collapse(both, {**names, "geo": ()}, 1)[0]
    )


def test_a_net_that_says_two_is_not():
    assert (
        preflight.describe_collapse({"label": compute_scores(COUNTS + COUNTS[:, ::-1])}, {"label": ("a", "b", "c")}, 1)
        == []
    )
    alone = np.array([[70, 0], [0, 0]])
    assert preflight.describe_collapse({"label": compute_scores(alone)}, {"label": ("a", "b")}, 1) == []
