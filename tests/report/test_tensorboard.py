"""Events for TensorBoard: they are read again by Google's protobuf messages, which tensorboardX includes."""

import builtins
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.training.events import Step
from reproduction.caffe.training.signals import Action
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.images import palette
from reproduction.fcn.train import recipes, training
from reproduction.fcn.train.log_file import Metrics, Validation
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from reproduction.report.tensorboard import TensorBoardWriter
from tests.helpers import custom_folders, small_trainings


def events(folder):
    """The events in a folder's files, in the order of the files' names."""
    found = []
    for path in sorted(Path(folder).glob("events.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):  # a length of 8 bytes, its checksum of 4, the event, its checksum of 4
            (length,) = struct.unpack_from("<Q", data, place)
            found.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += 16 + length
    return found


def values(folder):
    """The scalars by name, as (step, value)."""
    found = {}
    for event in events(folder):
        for each in event.summary.value:
            if each.HasField("simple_value"):
                found.setdefault(each.tag, []).append((event.step, each.simple_value))
    return found


def watch(writer, steps, **more):
    """The callbacks of a writer, which also append each step to a list."""

    def step(each):
        steps.append(each)
        writer.step(each)

    return TrainingCallbacks(
        begin=writer.begin, step=step, predicted=writer.predicted, validated=writer.validated, **more
    )


@pytest.fixture
def tiny(tmp_path):
    return recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "tiny"))


def test_a_training_writes_losses_rates_scores_and_images(tmp_path, tiny):
    options = TrainingOptions(tmp_path / "out", small_trainings.data(tmp_path / "data"))
    writer, steps = TensorBoardWriter(tmp_path / "out"), []
    training.train(tiny, {}, options, watch(writer, steps))
    writer.close()
    found = values(tmp_path / "out/tiny/tensorboard")
    assert found["loss"] == [(step.iteration, pytest.approx(step.loss)) for step in steps]
    assert found["loss_per_pixel"] == [(step.iteration, pytest.approx(step.loss_per_pixel)) for step in steps]
    assert found["learning_rate"] == [(step.iteration, pytest.approx(step.lr)) for step in steps]
    assert [step for step, _ in found["validation/mean_iu"]] == [4, 8]
    assert "validation/iu/0_background" in found
    images = [each for event in events(tmp_path / "out/tiny/tensorboard") for each in event.summary.value]
    tags = [each.tag for each in images if each.HasField("image")]
    assert tags == [f"label/{name}" for name in small_trainings.VALIDATED] * 2


def test_an_image_shows_photo_truth_and_prediction(tmp_path):
    custom_folders.write(tmp_path / "photos")
    data = Folder("val", tmp_path / "photos")
    writer = TensorBoardWriter(tmp_path)
    writer.begin(recipes.find_recipe("mini-fcn32s"), 0)
    prediction = custom_folders.label(9)
    writer.predicted(7, data, "p4", data[0], {"label": prediction})
    writer.predicted(7, data, "p0", data[0], {"label": prediction})  # it is not of the validation data
    writer.close()
    ((step, image),) = [
        (event.step, each.image)
        for event in events(tmp_path / "mini-fcn32s/tensorboard")
        for each in event.summary.value
        if each.HasField("image")
    ]
    (tmp_path / "a.png").write_bytes(image.encoded_image_string)
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (step, shown.shape) == (7, (20, 90, 3))
    assert np.array_equal(shown[:, 30:60], palette.paint(custom_folders.label(4)))
    assert np.array_equal(shown[:, 60:], palette.paint(prediction))


def test_a_resumed_training_hides_what_it_repeats(tmp_path, tiny):
    options = TrainingOptions(tmp_path / "out", small_trainings.data(tmp_path / "data"))
    steps = []

    def stop():
        return Action.STOP if len(steps) == 3 else Action.NONE

    for action in (stop, lambda: Action.NONE):
        writer = TensorBoardWriter(tmp_path / "out")
        training.train(tiny, {}, options, watch(writer, steps, action=action))
        writer.close()
    found = events(tmp_path / "out/tiny/tensorboard")
    assert [event.step for event in found if event.session_log.status == event.session_log.START] == [3]
    assert sorted(step for step, _ in values(tmp_path / "out/tiny/tensorboard")["loss"]) == list(range(8))
    writer = TensorBoardWriter(tmp_path / "out")
    writer.begin(tiny, 0)
    writer.close()
    assert not values(tmp_path / "out/tiny/tensorboard"), "a training that starts again deletes the old events"


def test_long_trainings_write_means(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    writer.begin(recipes.find_recipe("mini-fcn32s").with_solver(max_iter=6000), 0)
    for i in range(7):
        writer.step(Step(i, float(i), 0.1, loss_per_pixel=None))
    writer.validated(Validation(7, 1, {"label": Metrics(0.5, 0.5, None, 0.5, [0.5])}))
    writer.validated(Validation(7, outputs={"accuracy": 0.25}))
    writer.close()
    found = values(tmp_path / "mini-fcn32s/tensorboard")
    assert found["loss"] == [(2, 1.0), (5, 4.0)]
    assert found["validation/accuracy"] == [(7, 0.25)]
    assert "validation/mean_iu" not in found
    assert "loss_per_pixel" not in found


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    usual = builtins.__import__

    def without(name, *more):
        if name.startswith("tensorboardX"):
            raise ImportError(name)
        return usual(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ReproductionError) as error:
        TensorBoardWriter(tmp_path)
    assert str(error.value) == (
        "the package tensorboardX is not installed. Install it by `pip install 'fcn-reproduction[tensorboard]'`."
    )
