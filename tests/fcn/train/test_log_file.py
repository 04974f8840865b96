"""The training log: complete lines, and every iteration once."""

import json
import resource

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.train import log_file
from reproduction.fcn.train.log_file import TrainingLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "log.jsonl"


def write(path, start, stop, validate=()):
    log = TrainingLog(path, start)
    log.write(log_file.RESUME if start else log_file.START, start)
    for i in range(start, stop):
        log.write(log_file.ITERATION, i, loss=float(i))
        if i + 1 in validate:
            log.write(log_file.VALIDATION, i + 1)
    log.sync()
    log.close()


def found(path):
    return [(record["record"][:2], record["iteration"]) for record in log_file.read_records(path)]


def test_a_log_is_one_json_object_a_line(path):
    write(path, 0, 2)
    assert path.read_text() == (
        '{"record": "start", "iteration": 0}\n'
        '{"record": "iteration", "iteration": 0, "loss": 0.0}\n'
        '{"record": "iteration", "iteration": 1, "loss": 1.0}\n'
    )


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
        log.write(log_file.ITERATION, 0, loss=float("nan"))
    log.close()
    assert found(path) == []


@pytest.mark.parametrize("line", [b"iteration 5\n", b"[]\n", b"7\n", b'{"record": "start"}\n', b"\xff\n"])
def test_what_is_no_log_is_refused(path, line):
    write(path, 0, 1)
    path.write_bytes(path.read_bytes() + line)
    before = path.read_bytes()
    with pytest.raises(ReproductionError) as caught:
        TrainingLog(path, 1)
    assert str(caught.value).startswith(f"{path}:3: this is no log of a training: ")
    assert path.read_bytes() == before


def test_a_thin_copy_has_all_but_most_iterations(path, tmp_path):
    write(path, 0, 5, validate={3})
    log_file.copy_thinned(path, tmp_path / "thin.jsonl", 2)
    assert found(tmp_path / "thin.jsonl") == [("st", 0), ("it", 0), ("it", 2), ("va", 3), ("it", 4)]
    kept = (tmp_path / "thin.jsonl").read_bytes().splitlines()
    assert set(kept) < set(path.read_bytes().splitlines())


def test_a_log_that_is_not_there_is_said(path):
    with pytest.raises(ReproductionError) as caught:
        list(log_file.read_records(path))
    assert str(caught.value) == f"{path}: there is no such log of a training."


def test_a_full_disk_is_said_and_leaves_whole_lines(path):
    write(path, 0, 3)
    log, limits = TrainingLog(path, 2), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(ReproductionError) as caught:
            log.write(log_file.ITERATION, 2, loss=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.close()
    assert str(caught.value) == f"{path}: cannot be written: file too large."
    assert found(path) == [("st", 0), ("it", 0), ("it", 1)]
