"""The training log: complete lines, and every iteration once."""

import json
import resource

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.training.events import Step
from reproduction.fcn.train import log_file
from reproduction.fcn.train.log_file import Metrics, Resume, Start, TrainingLog, Validation


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "log.jsonl"


RUN = {"stage": "tiny", "time": "2026-01-31T12:00:00+00:00", "device": "cpu", "processes": 1, "versions": {}}


def write(path, start, stop, validate=()):
    log = TrainingLog(path, start)
    log.write((Resume if start else Start)(start, **RUN, solver=""))
    for i in range(start, stop):
        log.write(Step(i, float(i), 0.5))
        if i + 1 in validate:
            log.write(Validation(i + 1))
    log.sync()
    log.close()


def found(path):
    records = map(json.loads, path.read_text().split("\n")[:-1])  # complete lines
    return [(record["record"][:2], record["iteration"]) for record in records]


def test_a_log_is_one_json_object_a_line(path):
    write(path, 0, 2)
    start, *steps = path.read_text().splitlines()
    assert start.startswith('{"record": "start", "iteration": 0, "stage": "tiny", ')
    assert steps == [
        '{"record": "iteration", "iteration": 0, "loss": 0.0, "loss_per_pixel": null, "lr": 0.5, "images": []}',
        '{"record": "iteration", "iteration": 1, "loss": 1.0, "loss_per_pixel": null, "lr": 0.5, "images": []}',
    ]


def test_what_is_read_is_what_was_written(path):
    metrics = Metrics(0.5, 0.25, None, 1.0, [0.5, None])
    classes = {"label": ["background", "cat"]}
    records = [
        Start(0, **RUN, solver="max_iter: 2", classes=classes, settings={"seed": 7}, initialised="a: copied"),
        Step(0, 5.0, 1e-10, loss_per_pixel=0.5, images=["a.png"]),
        Resume(1, **RUN, solver="max_iter: 2", classes=classes),
        Validation(1, 3, {"label": metrics}, time="2026-01-31T12:00:00+00:00", notes=["one class"]),
        Validation(2, outputs={"loss": 2.0}, notes=[]),
    ]
    log = TrainingLog(path)
    for record in records:
        log.write(record)
    log.close()
    assert list(map(repr, log_file.read_log(path))) == list(map(repr, records)), "as text, since NaN is not itself"


def test_a_resumed_run_leaves_every_iteration_once(path):
    write(path, 0, 5, validate={2, 4})
    write(path, 2, 4, validate={4})
    assert found(path) == [("st", 0), ("it", 0), ("it", 1), ("va", 2), ("re", 2), ("it", 2), ("it", 3), ("va", 4)]
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines() if '"iteration",' in line] == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_a_run_that_starts_again_leaves_nothing_of_the_old_one(path):
    write(path, 0, 3)
    write(path, 0, 1)
    assert found(path) == [("st", 0), ("it", 0)]


def test_a_line_that_was_cut_off_is_left_out_and_written_again(path):
    write(path, 0, 3)
    path.write_bytes(path.read_bytes()[:-7])
    assert found(path) == [("st", 0), ("it", 0), ("it", 1)]
    write(path, 2, 3)
    assert found(path) == [("st", 0), ("it", 0), ("it", 1), ("re", 2), ("it", 2)]


def test_what_is_no_number_is_not_written(path):
    log = TrainingLog(path)
    with pytest.raises(ValueError, match="Out of range float"):
        log.write(Step(0, float("nan"), 0.5))
    log.close()
    assert found(path) == []


@pytest.mark.parametrize("line", [b"iteration 5\n", b"[]\n", b"7\n", b'{"record": "start"}\n', b"\xff\n"])
def test_what_is_no_log_is_refused(path, line):
    write(path, 0, 1)
    path.write_bytes(path.read_bytes() + line)
    before = path.read_bytes()
    with pytest.raises(ReproductionError) as caught:
        TrainingLog(path, 1)
    assert str(caught.value).startswith(f"{path}:3: not a training log: ")
    assert path.read_bytes() == before


def test_a_thin_copy_has_all_but_most_iterations(path, tmp_path):
    write(path, 0, 5, validate={3})
    log_file.copy_thinned(path, tmp_path / "thin.jsonl", 2)
    assert found(tmp_path / "thin.jsonl") == [("st", 0), ("it", 0), ("it", 2), ("va", 3), ("it", 4)]
    kept = (tmp_path / "thin.jsonl").read_bytes().splitlines()
    assert set(kept) < set(path.read_bytes().splitlines())


def test_a_log_that_is_not_there_is_said(path):
    with pytest.raises(ReproductionError) as caught:
        list(log_file.read_log(path))
    assert str(caught.value) == f"{path}: there is no training log."


def test_a_full_disk_is_said_and_leaves_whole_lines(path):
    write(path, 0, 3)
    log, limits = TrainingLog(path, 2), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(ReproductionError) as caught:
            log.write(Step(2, 2.0, 0.5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.close()
    assert str(caught.value) == f"{path}: cannot be written: file too large."
    assert found(path) == [("st", 0), ("it", 0), ("it", 1)]
