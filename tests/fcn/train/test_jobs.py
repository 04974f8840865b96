"""Many trainings in several processes: their order, their scores, and what is not done twice."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import hashes
from reproduction.caffe.training.signals import Action
from reproduction.fcn.train import jobs
from tests.helpers import listed_jobs, small_trainings
from tests.helpers.paths import ROOT

KEYS = ["seed1/first", "seed1/left", "seed1/right"]


@pytest.fixture
def tiny(tmp_path):
    """Write the data and the nets; return the function that lists the jobs."""
    small_trainings.data(tmp_path / "data")
    small_trainings.tiny(tmp_path / "tiny")
    return partial(listed_jobs.list_jobs, tmp_path / "tiny")


def run(list_jobs, folder, processes=1, out="out"):
    return {each.key: each for each in jobs.run_jobs(list_jobs, folder / out, folder / "data", processes)}


def weights(folder, out="out"):
    return {path.stem: hashes.hash_file(path) for path in folder.glob(f"{out}/seed1/*/*.caffemodel")}


def test_a_parent_is_trained_once_before_the_jobs_that_start_from_it(tiny, tmp_path):
    results = run(tiny, tmp_path)
    assert list(results) == KEYS
    assert results["seed1/first"].evaluation is None
    assert len(results["seed1/left"].evaluation.images) == len(small_trainings.VALIDATED)
    starts = [
        small_trainings.read_json_lines(tmp_path / f"out/seed1/{name}/log.jsonl")[0] for name in ("left", "right")
    ]
    digest = weights(tmp_path)["first"]
    assert [start["settings"]["weights of tiny"] for start in starts] == [f"sha256 {digest}"] * 2


def test_what_is_trained_and_scored_is_not_done_again(tiny, tmp_path):
    before = run(tiny, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    again = run(tiny, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert again["seed1/left"].evaluation.images == before["seed1/left"].evaluation.images


def test_a_stopped_job_resumes_with_the_same_weights(tiny, tmp_path):
    run(tiny, tmp_path, out="whole")
    (first, *_) = jobs.collect_jobs(tiny()).values()
    calls = iter([Action.NONE] * 3 + [Action.STOP])
    with pytest.raises(ReproductionError, match="seed1/first: the training was stopped"):
        jobs.run_job(first, tmp_path / "out", tmp_path / "data", lambda: next(calls))
    run(tiny, tmp_path)
    assert weights(tmp_path) == weights(tmp_path, "whole")


def test_two_processes_train_what_one_trains(tiny, tmp_path):
    results = run(tiny, tmp_path, processes=2)
    assert sorted(results) == KEYS
    run(tiny, tmp_path, out="alone")
    assert weights(tmp_path) == weights(tmp_path, "alone")


PROGRAM = """
import sys
from functools import partial
from pathlib import Path

from reproduction.fcn.train import jobs
from tests.helpers import listed_jobs

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    list_jobs = partial(listed_jobs.list_jobs, folder / "tiny", 1_000_000)
    for _ in jobs.run_jobs(list_jobs, folder / "out", folder / "data", processes=2):
        pass
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no process groups")
def test_a_killed_program_leaves_no_process_and_resumes(tiny, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(command, start_new_session=True, env=environment)
    log = tmp_path / "out/seed1/first/log.jsonl"
    wait_for(lambda: log.is_file() and len(log.read_text().splitlines()) > 8)
    program.kill()
    program.wait()
    wait_for(lambda: not group_exists(program.pid))
    assert list(tmp_path.glob("out/seed1/first/snapshot/*.solverstate"))


def wait_for(condition, seconds=120):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
