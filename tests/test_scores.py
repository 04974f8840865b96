"""The scores of whole nets on whole data sets, by the commands of the README.

Mini-VOC always runs: its images are drawn, its weights are in the repository. The nets of the paper run if their
weights and data are present.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import mini_nets, registry
from reproduction.fcn.scoring.score import METRICS
from reproduction.report import record
from tests.helpers.paths import ROOT

MINI = ROOT / "weights" / "mini"
PAPER = ("voc", "nyud", "siftflow", "pascalcontext")
UNCHECKED = {"nyud": ["nyud-fcn32s-color-d"], "siftflow": ["siftflow-fcn32s"]}  # no weights, no score


def reproduce(name, *folders):
    """Score a set by the tool; returns how it ended, and the report."""
    command = [
        sys.executable,
        "-m",
        "reproduction",
        "reproduce",
        name,
        *(f"--{what}={place}" for what, place in folders),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done, dict(folders).get("report", ROOT / "reports") / name / "scores.json"


def assert_the_table(done, path, unchecked=()):
    """Every net was measured and matches what it must, but for those that nothing can check; the exit code says so."""
    assert done.returncode == (3 if unchecked else 0), done.stderr
    report = record.load_report(path)
    assert report.limit is None
    assert {name.partition(",")[0] for name, _ in report.unchecked()} == set(unchecked)
    for net in report.nets:
        if net.net not in unchecked:
            assert net.measured
            for measured in net.measured:
                assert measured.compared_with.tolerance_points <= 1
                assert list(measured.mismatches()) == []
    return report


def test_mini_voc_scores_what_was_recorded(tmp_path):
    """Pictures, weights, conversion, nets, scores, table: what is recorded comes out again."""
    shutil.copytree(MINI, tmp_path / "weights" / "mini")
    done, path = reproduce("mini", *((what, tmp_path / what) for what in ("weights", "data", "report")))
    report = assert_the_table(done, path)
    assert {net.measured[0].compared_with.column for net in report.nets} == {"recorded"}
    recorded = record.load_report(MINI / "scores.json")
    assert [net.net for net in report.nets] == [net.net for net in recorded.nets] == list(mini_nets.NETS)
    for net, before in zip(report.nets, recorded.nets, strict=True):
        for metric in METRICS:
            now, then = getattr(net.measured[0], metric), getattr(before.measured[0], metric)
            assert now == pytest.approx(then, abs=1e-4)
    mean_iu = [net.measured[0].mean_iu for net in report.nets]
    assert mean_iu[1] - mean_iu[0] >= 0.02
    assert mean_iu[2] - mean_iu[1] >= 0.02


def test_what_is_recorded_is_of_the_weights_beside_it():
    recorded = json.loads((MINI / "scores.json").read_text())
    for net in recorded["nets"]:
        data = (MINI / net["weights"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == net["weights_sha256"]
    assert recorded["split"]["count"] == 80


def test_weights_and_their_logs_are_there_and_small():
    names = {mini_nets.CLASSIFIER, *mini_nets.NETS}
    for name in names:
        assert (MINI / f"{name}.log.jsonl").is_file()
    assert {path.stem for path in MINI.glob("*.caffemodel")} == names
    assert sum(path.stat().st_size for path in MINI.glob("*.caffemodel")) <= 8_000_000


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_nets_score_what_was_published(name):
    missing = local_files.find_missing(
        local_files.load_manifest().select(name), local_files.FileRoots(ROOT / "weights", ROOT / "data")
    )
    if missing:
        said = ", ".join(entry.name for entry in missing)
        pytest.skip(f"not here: {said}; `make reproduce-{name}` or `fcn fetch --set {name}` fetches them")
    done, path = reproduce(name)
    report = assert_the_table(done, path, UNCHECKED.get(name, ()))
    assert {net.net for net in report.nets} == {row.name for row in registry.NETS.values() if row.dataset.name == name}
