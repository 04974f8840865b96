"""The content of training logs, and which of them belong to one chain."""

import json

import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn.train.log_file import Metrics
from reproduction.report import training_history
from tests.helpers import report_runs


def test_a_log_is_read(tmp_path):
    report_runs.log(tmp_path, "b", 8, made=6, parents=["a"], classes=["background", "cat", "dog"], resumed=[2, 4])
    stage = training_history.load_history(tmp_path / "b")
    assert (stage.name, stage.max_iter, stage.done, stage.resumed) == ("b", 8, 6, 2)
    assert [step.loss_per_pixel for step in stage.steps] == [2.0, 1.0, 2 / 3, 0.5, 0.4, 2 / 6]
    assert [validation.iteration for validation in stage.validations] == [2, 4, 6]
    assert stage.validations[1].scores == {"label": Metrics(0.45, 0.3, 0.25, 0.4, [0.25, None, 0.125])}
    assert stage.start.classes == {"label": ["background", "cat", "dog"]}
    assert stage.parents == ["a"]


def test_how_long_it_took_is_known_of_a_training_without_a_stop(tmp_path):
    whole = training_history.load_history(report_runs.log(tmp_path, "whole", 4, ended="2026-01-31T13:01:02.400+00:00"))
    assert str(whole.duration) == "1:01:02"
    assert training_history.load_history(report_runs.log(tmp_path, "old", 4)).duration is None
    stopped = training_history.load_history(
        report_runs.log(tmp_path, "stopped", 4, resumed=[2], ended="2026-01-31T13:01:02.400+00:00")
    )
    assert stopped.duration is None
    with pytest.raises(DataError, match=r'log\.jsonl:3: .*: time is "soon"; want a time or nothing\.$'):
        training_history.load_history(report_runs.log(tmp_path, "odd", 4, ended="soon"))


def test_a_net_whose_labels_are_of_images_has_outputs(tmp_path):
    stage = training_history.load_history(report_runs.log(tmp_path, "vgg", 4))
    assert stage.validations[0].outputs == {"accuracy": 0.25, "loss": 2.0}
    assert not stage.validations[0].scores


def test_a_training_that_has_just_begun_has_done_nothing(tmp_path):
    stage = training_history.load_history(report_runs.log(tmp_path, "n", 4, made=0))
    assert (stage.done, stage.validations) == (0, [])


def test_stages_are_put_together_by_the_weights_they_started_from(tmp_path):
    for name, parents, minute in (("16s", ["32s"], 3), ("32s", ["vgg"], 2), ("other", [], 0), ("8s", ["16s"], 4)):
        report_runs.log(tmp_path, name, 4, parents=parents, time=f"2026-01-31T12:0{minute}:00+00:00")
    chains = training_history.group_chains(
        training_history.load_history(folder) for folder in training_history.find_run_folders(tmp_path)
    )
    assert [[stage.name for stage in chain] for chain in chains] == [["other"], ["32s", "16s", "8s"]]


def test_a_net_of_two_parents_joins_them(tmp_path):
    for name, parents, minute in (("color", [], 1), ("hha", [], 2), ("both", ["color", "hha"], 3)):
        report_runs.log(tmp_path, name, 4, parents=parents, time=f"2026-01-31T12:0{minute}:00+00:00")
    chains = training_history.group_chains(
        training_history.load_history(folder) for folder in training_history.find_run_folders(tmp_path)
    )
    assert [[stage.name for stage in chain] for chain in chains] == [["color", "hha", "both"]]


def test_trainings_are_found_in_their_folder_and_in_that_above(tmp_path):
    one, two = report_runs.log(tmp_path, "a", 4), report_runs.log(tmp_path, "b", 4)
    assert training_history.find_run_folders(tmp_path) == [one, two]
    assert training_history.find_run_folders(one) == [one]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        training_history.find_run_folders(tmp_path / "empty")
    assert str(error.value) == (
        f"{tmp_path}/empty: the folder contains no training; want NET/log.jsonl. fcn train writes it."
    )


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"record": "iteration", "iteration": 0, "loss": 1, "loss_per_pixel": 1, "lr": 1}],
    ],
)
def test_a_log_without_a_start_is_refused(tmp_path, records):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError) as error:
        training_history.load_history(tmp_path)
    assert str(error.value) == f"{tmp_path}/log.jsonl: this log has no start."


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"time": "now"}, 'time is "now"; want a time as 2026'),
        ({"time": "2026-01-31T12:00:00"}, "want a time as 2026"),
        ({"processes": "2"}, 'processes is "2"; want an integer'),
        ({"versions": {"torch": None}}, "versions.torch is null; want a string"),
        ({"classes": {"label": "abc"}}, 'classes.label is "abc"; want a list'),
        ({"classes": {"label": [f"c{i}" for i in range(300)]}}, "want 1 to 255 names"),
        ({"stage": "\ud800"}, "is not text"),
        ({"initialised": 10**200}, "initialised is 1000"),
        ({"stage": None, "settings": 5}, "not a training log"),
        ({"solver": 7}, "not a training log"),
        ({"solver": "max_iter: x"}, "max_iter"),
    ],
)
def test_a_log_that_was_tampered_with_is_refused(tmp_path, change, text):
    path = report_runs.log(tmp_path, "n", 4) / "log.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | change) + "\n" + rest)
    with pytest.raises(ValueError, match=text) as error:
        training_history.load_history(path.parent)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"record": "iteration", "iteration": -1}, "iteration is -1; want a number from 0 to"),
        ({"record": "iteration", "iteration": 4, "loss": 1e200, "loss_per_pixel": None}, "loss is 1e+200; want"),
        (
            {"record": "iteration", "iteration": 4, "loss": 1, "loss_per_pixel": "x"},
            'loss_per_pixel is "x"; want a num',
        ),
        ({"record": "iteration", "iteration": 4, "loss": 1}, "lr is missing"),
        ({"record": "validation", "iteration": 4, "images": "x"}, 'images is "x"; want an integer'),
        ({"record": "validation", "iteration": 4, "outputs": {"a": [1]}}, "outputs.a is [1]; want a number"),
        (
            {"record": "validation", "iteration": 4, "scores": {"label": {"mean_iu": 2}}},
            "scores.label.mean_iu is 2; w",
        ),
        (
            {"record": "validation", "iteration": 4, "scores": {"label": {"mean_iu": 0.5}}},
            "scores.label.pixel_acc is ",
        ),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(tmp_path, record, text):
    path = report_runs.log(tmp_path, "n", 4) / "log.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(DataError) as error:
        training_history.load_history(path.parent)
    assert text in str(error.value)
    assert f"{path}:10: not a training log: " in str(error.value)
