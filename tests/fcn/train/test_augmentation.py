"""Augmentation: images and labels move together, and the same draw is always changed alike."""

from dataclasses import replace

import numpy as np
import pytest

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.schema import Phase
from reproduction.caffe.training.signals import Action
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.train import augmentation, feeds, recipes, training
from reproduction.fcn.train.augmentation import Augmentation
from reproduction.fcn.train.feeds import DatasetFeed
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from tests.helpers import custom_folders, small_trainings

MIRROR, JITTER = Augmentation(jitter=0), Augmentation(mirror=False, jitter=8)


def sample(size=(40, 60)):
    """A sample whose image shows the label of each pixel, plus 1 so that none is 0."""
    label = np.random.default_rng(0).integers(0, 5, (1, *size)).astype(np.uint8)
    return {"data": np.repeat(label, 3, axis=0).astype(np.float32) + 1, "label": label}


def changes(change, count=40):
    return [change(sample(), ["label"], 1337, draw) for draw in range(count)]


def test_half_of_the_samples_are_mirrored_and_twice_is_the_same():
    found = changes(MIRROR)
    mirrored = [not np.array_equal(each["data"], sample()["data"]) for each in found]
    assert 10 < sum(mirrored) < 30
    for draw, each in enumerate(found):
        again = MIRROR(each, ["label"], 1337, draw)
        assert all(np.array_equal(again[top], sample()[top]) for top in again)
    first = found[mirrored.index(True)]
    assert np.array_equal(first["data"], sample()["data"][:, :, ::-1])
    assert first["data"].flags.c_contiguous


@pytest.mark.parametrize("change", [MIRROR, JITTER, Augmentation()])
def test_the_label_moves_with_the_image(change):
    for each in changes(change):
        image, label = each["data"][0], each["label"][0]
        assert np.array_equal(np.where(label == 255, 0, label + 1), image)
        assert each["data"].dtype == np.float32


def test_uncovered_pixels_are_void_and_of_the_mean_colour():
    shifts = set()
    for each in changes(JITTER):
        void = each["label"][0] == 255
        assert (void.all(axis=0) | void.all(axis=1)[:, None] == void).all(), "whole rows and columns at a border"
        shifts.add((int(void.all(axis=1).sum()), int(void.all(axis=0).sum())))
        assert not each["data"][:, void].any()
    assert max(dy for dy, _ in shifts) == max(dx for _, dx in shifts) == 8
    assert len(shifts) > 20


def test_small_images_keep_half_of_their_pixels():
    for draw in range(30):
        found = Augmentation()({"label": np.ones((1, 10, 4), np.uint8)}, ["label"], 1, draw)["label"][0]
        assert (found == 1).any(axis=1).sum() >= 5
        assert (found == 1).any(axis=0).sum() >= 2


def test_a_shift_has_a_direction():
    array = np.arange(12).reshape(1, 3, 4)
    assert augmentation.shift(array, 1, -2, 99)[0].tolist() == [[99] * 4, [2, 3, 99, 99], [6, 7, 99, 99]]
    assert augmentation.shift(array, 0, 0, 99) is array


def test_a_draw_is_always_changed_alike(tmp_path):
    custom_folders.write(tmp_path)
    feed = DatasetFeed(Folder("train", tmp_path), [Augmentation()])
    in_order = [feed(draw) for draw in range(6)]
    later = DatasetFeed(Folder("train", tmp_path), [Augmentation()])
    for draw in (4, 5, 1):
        found = later(draw)
        assert all(np.array_equal(found[top], in_order[draw][top]) for top in found)
    other = DatasetFeed(Folder("train", tmp_path, seed=2), [Augmentation()])
    assert not all(np.array_equal(other(draw)["label"], in_order[draw]["label"]) for draw in range(6))
    assert feed.description.endswith(", augmented by mirror, jitter of up to 32 pixels")
    assert DatasetFeed(Folder("train", tmp_path)).description.endswith("order 1337")


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    plain = recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "tiny"))
    tiny = replace(plain, changes=(Augmentation(),))
    options = TrainingOptions(tmp_path / "out", small_trainings.data(tmp_path / "data"))
    want = training.train(tiny, {}, replace(options, out=tmp_path / "whole")).read_bytes()
    assert want != training.train(plain, {}, replace(options, out=tmp_path / "plain")).read_bytes()
    steps = []
    watch = TrainingCallbacks(step=steps.append, action=lambda: Action.STOP if len(steps) == 3 else Action.NONE)
    assert training.train(tiny, {}, options, watch) is None
    with pytest.raises(ReproductionError, match="the folder has a run with another data"):
        training.train(plain, {}, options)
    assert training.train(tiny, {}, options).read_bytes() == want


def test_names_select_what_is_changed():
    assert Augmentation.from_names(["mirror"]) == Augmentation(jitter=0)
    assert Augmentation.from_names(["jitter", "mirror"]) == Augmentation()
    with pytest.raises(ReproductionError) as error:
        Augmentation.from_names(["mirror", "rotate"])
    assert str(error.value) == "--augment: there is no such change of samples; got rotate, want mirror or jitter."


def test_lists_of_whole_images_are_not_augmented(tmp_path):
    net = recipes.find_recipe("mini-vgg").train_net_param
    with pytest.raises(NetError, match="an ImageData layer is not augmented"):
        feeds.open_feed(net, tmp_path, Phase.TRAIN, changes=[Augmentation()])
