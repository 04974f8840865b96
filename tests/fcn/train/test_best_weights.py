"""The weights of the highest mean IU, kept next to the last ones, also by a training that was stopped or died."""

from dataclasses import replace

import numpy as np
import pytest

from reproduction.caffe.formats import caffemodel, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.training.signals import Action
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.segment import card
from reproduction.fcn.segment.segmenter import Segmenter, locate_weights
from reproduction.fcn.train import best_weights, custom_nets, log_file, recipes, training
from reproduction.fcn.train.log_file import Metrics, Validation
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from reproduction.fcn.train.validation import Validator
from tests.helpers import custom_folders, small_trainings

TIME = "2026-01-31T12:00:00+00:00"


def validation(iteration, mean_iu):
    return Validation(iteration, 1, {"label": Metrics(0.5, 0.5, mean_iu, 0.5, [0.5])}, time=TIME)


def test_the_first_of_the_highest_is_the_best():
    given = [validation(2, 0.25), validation(4, None), validation(6, 0.5), validation(8, 0.5)]
    assert best_weights.find_best(given) is given[2]
    assert best_weights.find_best([Validation(1, outputs={"loss": 1.0})]) is None
    assert best_weights.describe(given[2]) == "mean IU 50.00 % after 6 iterations"


@pytest.fixture
def scored(monkeypatch):
    """The validations of trainings get these scores by iteration, in place of those of the net."""
    scores = {2: 0.3, 4: 0.6, 6: 0.6, 8: 0.2}
    validate = Validator.__call__

    def call(self, iteration, *more):
        found = validate(self, iteration, *more)
        return replace(
            found, scores={top: replace(each, mean_iu=scores[iteration]) for top, each in found.scores.items()}
        )

    monkeypatch.setattr(Validator, "__call__", call)
    return scores


@pytest.fixture
def tiny(tmp_path):
    stage = recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "tiny"))
    return stage.with_solver(test_interval=2, snapshot=4)


@pytest.fixture
def options(tmp_path):
    return TrainingOptions(tmp_path / "out", small_trainings.data(tmp_path / "data"), keep_best=True)


def arrays(path):
    return weights.read(path).arrays()


def test_the_best_weights_are_those_of_their_iteration(tiny, options, scored):
    notes = []
    model = training.train(tiny, {}, options, TrainingCallbacks(notes.append))
    best, then = arrays(model.with_name("tiny-best.caffemodel")), model.parent / "snapshot/train_iter_4.caffemodel"
    assert all(np.array_equal(best[name], value) for name, value in arrays(then).items())
    assert not np.array_equal(best["conv1.weight"], arrays(model)["conv1.weight"])
    assert [note for note in notes if "best" in note] == [
        "tiny: kept as the best, mean IU 30.00 % after 2 iterations",
        "tiny: kept as the best, mean IU 60.00 % after 4 iterations",
    ]


class DiedError(Exception):
    pass


@pytest.mark.parametrize("place", ["kept", "logged", 5])
def test_a_run_that_was_interrupted_keeps_the_same(tiny, options, scored, place):
    whole = training.train(tiny, {}, replace(options, out=options.out / "whole"))
    want = whole.with_name("tiny-best.caffemodel").read_bytes()

    def die(about):
        if place == "kept" and "60.00" in str(about):
            raise DiedError
        if place == "logged" and isinstance(about, Validation) and about.iteration == 4:
            raise DiedError

    steps = []
    watch = TrainingCallbacks(
        die,
        step=steps.append,
        validated=die,
        action=lambda: Action.STOP if len(steps) == place else Action.NONE,
    )
    try:
        assert training.train(tiny, {}, options, watch) is None
    except DiedError:
        assert isinstance(place, str)
    model = training.train(tiny, {}, options)
    assert model.read_bytes() == whole.read_bytes()
    assert model.with_name("tiny-best.caffemodel").read_bytes() == want


def test_without_the_option_no_best_is_kept(tiny, options, scored):
    model = training.train(tiny, {}, replace(options, keep_best=False))
    assert not model.with_name("tiny-best.caffemodel").exists()


def test_a_training_that_starts_again_deletes_the_old_best(tiny, options, scored):
    folder = options.out / "tiny"
    folder.mkdir(parents=True)
    best_weights.best_path(folder).write_bytes(b"old")
    training.train(tiny, {}, replace(options, keep_best=False))
    assert not best_weights.best_path(folder).exists()


def test_the_card_names_the_best_weights_also_during_the_training(tmp_path, scored):
    photos = custom_folders.write(tmp_path / "photos")
    custom = custom_nets.inspect_folder(photos)
    stage = custom_nets.adapt_recipe("mini-fcn32s", custom).with_solver(max_iter=8, test_interval=2, snapshot=4)
    options = TrainingOptions(tmp_path / "runs", photos, keep_best=True, force=True)
    folder, found = tmp_path / "runs/mini-fcn32s", []

    def prepare():
        custom_nets.write_deploy_files(stage, custom, tmp_path / "runs", ())

    def look(*_):
        found.append(locate_weights(folder).name)

    vgg = tmp_path / "mini-vgg.caffemodel"
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=1).to_proto(), vgg)
    training.train(stage, {"mini-vgg": vgg}, options, TrainingCallbacks(validated=look), prepare=prepare)
    assert found == ["mini-fcn32s-best.caffemodel"] * 4
    prepare()  # as the same command does again
    record = card.load_card(folder / card.CARD_FILE)
    assert card.describe_choice(record, folder) == (
        f"{folder}/mini-fcn32s-best.caffemodel has the best weights: mean IU 60.00 % after 4 iterations."
        f" `--weights {folder}/mini-fcn32s.caffemodel` selects the last ones."
    )
    then = arrays(folder / "snapshot/train_iter_4.caffemodel")
    used = {name: value.numpy() for name, value in Segmenter.load(folder).net.state_dict().items()}
    assert all(np.array_equal(used[name], value) for name, value in then.items())
    validations = [each for each in log_file.read_log(folder / log_file.LOG_FILE) if isinstance(each, Validation)]
    assert best_weights.find_best(validations).iteration == 4
    best_weights.delete_best(folder)
    prepare()
    assert card.load_card(folder / card.CARD_FILE).weights == "mini-fcn32s.caffemodel"
    assert card.describe_choice(card.load_card(folder / card.CARD_FILE), folder) == ""
