"""Published nets for custom images: other classes, the published recipe, and the files that a training writes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn import datasets
from reproduction.fcn.images import decode
from reproduction.fcn.nets import mini_nets, net_files, registry
from reproduction.fcn.segment.segmenter import Segmenter
from reproduction.fcn.train import custom_nets, recipes, training
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from tests.helpers import annotated_folders
from tests.helpers import custom_folders as folders
from tests.helpers.cards import make_card


@pytest.fixture
def photos(tmp_path):
    return folders.write(tmp_path / "photos")


@pytest.mark.parametrize("name", ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet"])
def test_only_the_classes_the_data_and_the_rate_differ_from_the_published_recipe(name, photos):
    mine, record = custom_nets.adapt_recipe(name, custom_nets.inspect_folder(photos)), recipes.find_recipe(name)
    assert (mine.parents, mine.dataset) == (record.parents, "")
    assert mine.solver_param.test_iter == [1]
    base_lr, test_iter = record.solver_param.base_lr, record.solver_param.test_iter
    assert mine.with_solver(base_lr=base_lr, test_iter=test_iter).solver_param == record.solver_param
    for layer, its in zip(mine.train_net_param.layer[1:], record.train_net_param.layer[1:], strict=True):
        want = its.copy()
        if want.convolution_param.num_output == 21:
            want.convolution_param.num_output = 3
        assert layer == want
    data = datasets.from_layer(mine.train_net_param.layer[0].python_param, ["data", "label"], photos)
    assert (data.name, data.split, data.classes, data.ids) == ("folder", "train", folders.NAMES, data.ids)
    assert len(data) == 5


def test_the_rate_follows_the_size_of_the_pictures_where_pixels_add_up(photos):
    small = custom_nets.inspect_folder(photos)
    assert (small.pixels, small.side, small.shrunk) == (600, 500, 0)
    large = replace(small, pixels=4 * custom_nets.PUBLISHED_PIXELS)
    voc = registry.NETS["voc-fcn32s"]
    assert custom_nets.scale_base_lr(voc, large) == pytest.approx(2.5e-11)
    assert custom_nets.scale_base_lr(voc, replace(small, pixels=custom_nets.PUBLISHED_PIXELS)) == 1e-10
    assert custom_nets.scale_base_lr(registry.NETS["voc-fcn-alexnet"], large) == 1e-4
    assert custom_nets.scale_base_lr(registry.NETS["mini-fcn8s"], large) == registry.NETS["mini-fcn8s"].base_lr
    assert custom_nets.describe_changes([custom_nets.adapt_recipe("voc-fcn8s", large)], large) == [
        f"{photos}: 3 classes: background, cat, dog",
        "5 images to train on, 1 to validate on",
        "voc-fcn8s: score_pool3 and the upsampling layers are new, for 3 classes",
        "voc-fcn8s: base_lr 1e-14 is for images of 187,500 pixels; these have 750,000, which makes it 2.5e-15",
    ]


def test_nets_that_take_something_else_are_refused(photos):
    known = custom_nets.inspect_folder(photos)
    for name in ("nyud-fcn32s-hha", "siftflow-fcn8s"):
        with pytest.raises(
            ReproductionError,
            match=f"^{name} needs other inputs or labels than one image and one label map; want one of",
        ):
            custom_nets.adapt_recipe(name, known)
    with pytest.raises(ReproductionError, match=r"^mini-vgg classifies whole images, not their pixels"):
        custom_nets.adapt_recipe("mini-vgg", known)
    with pytest.raises(ReproductionError, match=r"^there is no net 'voc-fcn8' to train"):
        custom_nets.adapt_recipe("voc-fcn8", known)


def test_a_folder_is_told_from_a_data_root_and_from_vocs_tree(tmp_path, photos):
    assert custom_nets.is_custom_folder(photos)
    (photos / "classes.txt").unlink()
    assert custom_nets.is_custom_folder(photos)
    assert not custom_nets.is_custom_folder(tmp_path)
    voc = folders.write(tmp_path / "VOC2011", folders=("JPEGImages", "SegmentationClass"))
    assert custom_nets.is_custom_folder(voc)
    (voc / "classes.txt").unlink()
    assert not custom_nets.is_custom_folder(voc)
    assert not custom_nets.is_custom_folder(tmp_path / "nowhere")


def test_half_a_folder_is_not_passed_over_for_other_data(tmp_path):
    for number, inside in enumerate(("images/1.jpg", "labels/1.png", "1.jpg")):
        root = tmp_path / str(number)
        (root / inside).parent.mkdir(parents=True)
        (root / inside).write_bytes(b"")
        assert custom_nets.is_custom_folder(root)
        (root / "classes.txt").write_text("a\nb\n")
        assert custom_nets.is_custom_folder(root)
        assert refused(root).startswith("DIR: this is not a folder of images and labels; got ")
    (tmp_path / "1.jpg").write_bytes(b"")
    assert not custom_nets.is_custom_folder(tmp_path), "a data root may hold a picture too"


def test_pictures_without_a_label_are_counted(photos):
    (photos / "labels/p3.png").unlink()
    known = custom_nets.inspect_folder(photos)
    assert (
        custom_nets.describe_changes([], known)[1]
        == "4 images to train on, 1 to validate on; 1 without a label are skipped"
    )


def test_large_pictures_are_shrunk_with_their_labels_and_the_answer_has_their_size(tmp_path):
    photos = folders.write(tmp_path / "photos")
    known = custom_nets.inspect_folder(photos, side=15)
    assert (known.pixels, known.shrunk) == (150, 5)
    stage = custom_nets.adapt_recipe("mini-fcn32s", known)
    sample = datasets.from_layer(stage.train_net_param.layer[0].python_param, ["data", "label"], photos)[0]
    assert sample["data"].shape == (3, 10, 15)
    assert sample["label"].shape == (1, 10, 15)
    assert set(np.unique(sample["label"])) <= set(range(3)), "labels are not averaged"
    notes = custom_nets.describe_changes([], known)
    assert notes[2].startswith("5 images are longer than 15 pixels, and are shrunk to that size")
    about = make_card("mine", folders.NAMES, side=15)
    net = Net(net_files.build_deploy(stage.record), seed=1)
    torch.nn.init.normal_(net.params["score_fr"][0])
    found = Segmenter(about, net)(photos / "images/p0.jpg", scores=True)
    assert found.labels.shape == folders.SIZE
    small = net({"data": sample["data"][None]})["score"]
    want = torch.nn.functional.interpolate(small, folders.SIZE, mode="bilinear")[0].detach().numpy()
    np.testing.assert_allclose(found.scores, want, rtol=1e-5, atol=1e-5)


def refused(root, *more):
    with pytest.raises(DataError) as error:
        custom_nets.inspect_folder(root, *more)
    return str(error.value).replace(str(root), "DIR")


def test_what_is_missing_is_said_before_anything_is_trained(photos, tmp_path):
    (tmp_path / "one.txt").write_text("cat\n")
    assert refused(photos, tmp_path / "one.txt") == (
        "DIR: a data set needs at least two classes; got cat, want two classes or more."
    )
    with pytest.raises(DataError, match=r"^'side' is not a number of pixels; got -1\.$"):
        custom_nets.inspect_folder(photos, side=-1)
    (photos / "train.txt").write_text("p99\n")
    assert refused(photos) == "DIR: there is no training image."
    (photos / "train.txt").unlink()
    (photos / "images/p0.jpg").write_bytes(b"abc")
    assert refused(photos) == (
        "DIR/images/p0.jpg: not an image in a known format; got a file that begins with b'abc',"
        " want one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP."
    )
    (photos / "classes.txt").unlink()
    assert refused(photos) == (
        "DIR: the names of the classes are unknown; want --classes FILE or classes.txt, one name a line, the first"
        " for label 0."
    )


def test_a_training_leaves_a_folder_that_is_used_as_it_is(tmp_path):
    photos = folders.write(tmp_path / "photos", labels=folders.paint, names=None)
    (photos / "palette.txt").write_text("0 0 0 background\n128 0 0 cat\n0 128 0 dog\n")
    start = tmp_path / "mini-vgg.caffemodel"
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=1).to_proto(), start)
    known = custom_nets.inspect_folder(photos)
    stage = custom_nets.adapt_recipe("mini-fcn32s", known).with_solver(max_iter=2, snapshot=2, test_interval=2)
    told = []
    plan = TrainingOptions(tmp_path / "runs", photos, check_all=True)
    model = training.train(stage, {"mini-vgg": start}, plan, TrainingCallbacks(note=told.append))
    assert "  new: score_fr" in "\n".join(told).splitlines()
    place = custom_nets.write_deploy_files(stage, known, tmp_path / "runs", [start])
    assert place == tmp_path / "runs/mini-fcn32s"
    made = Segmenter.load(place)
    assert made.classes == {"label": folders.NAMES}
    assert made.card.labels["label"].colours == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert list(made.card.source) == ["from mini-vgg.caffemodel"]
    snapshot = Segmenter.load(place, place / "snapshot/train_iter_2.caffemodel")
    made.scorer = made.net  # not compiled, which rounds differently
    found = made(photos / "images/p0.jpg", scores=True)
    np.testing.assert_array_equal(snapshot(photos / "images/p0.jpg").labels, found.labels)
    net = Net(prototxt.loads(prototxt.dumps(net_files.build_deploy(stage.record)), NetParameter))
    net.copy_from(caffemodel.load(model, NetParameter))
    sample = datasets.from_layer(stage.train_net_param.layer[0].python_param, ["data", "label"], photos)[0]
    want = net({"data": sample["data"][None]})["score"][0].detach().numpy()
    np.testing.assert_array_equal(found.scores, want)
    assert found.labels.shape == decode.read_rgb(photos / "images/p0.jpg").shape[:2]


def test_a_label_that_is_wrong_anywhere_stops_the_training_before_it_starts(tmp_path):
    photos = folders.write(tmp_path / "photos", n=30, labels=lambda i: folders.label(i) * (100 if i == 17 else 1))
    stage = custom_nets.adapt_recipe("mini-fcn32s", custom_nets.inspect_folder(photos))
    start = tmp_path / "mini-vgg.caffemodel"
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=1).to_proto(), start)
    with pytest.raises(
        ReproductionError, match=r"^mini-fcn32s: .*labels/p17.png: labels out of range; got 100, 200 in "
    ):
        training.train(stage, {"mini-vgg": start}, TrainingOptions(tmp_path / "runs", photos, check_all=True))


def test_names_in_annotations_that_are_not_classes_are_stated(tmp_path):
    for i in range(2):
        annotated_folders.image(tmp_path / f"{i}.jpg", i)
        annotated_folders.labelme(tmp_path / f"{i}.json")
    (tmp_path / "classes.txt").write_text("background\ndog\n")
    known = custom_nets.inspect_folder(tmp_path)
    stage = custom_nets.adapt_recipe("mini-fcn32s", known)
    how = "LabelMe JSON, labels next to the images; later shapes cover earlier ones; not among the classes: cat"
    assert custom_nets.describe_changes([stage], known)[0] == f"{tmp_path}: {how}"


def test_an_empty_folder_is_an_error_before_weights_are_sought(tmp_path):
    find = partial(custom_nets.find_custom_data, tmp_path, None, None, 500, may_be_missing=False)
    with pytest.raises(DataError, match=r"the folder is empty\. docs/own_data\.md shows"):
        find(["voc-fcn32s"])
    assert find(["mini-fcn32s"]) is None, "its images are drawn there"
