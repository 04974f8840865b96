"""The ledger of measured scores: what may be added, and that its totals follow from its confusions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.fcn.nets import registry
from reproduction.fcn.scoring.score import compute_scores
from reproduction.report import ledger
from reproduction.report.record import LabelScores, NetResult
from tests.helpers import report_runs
from tests.helpers.paths import ROOT


def measure(seed=0, net_name="voc-fcn8s", measured="2026-01-31T12:00:00+00:00"):
    confusion = np.random.default_rng(seed).integers(0, 1000, (3, 3))
    confusion[2] = 0  # a class without a pixel, whose IU is NaN in memory and null in a file
    confusion[:, 2] = 0
    scores = LabelScores.from_scores("label", compute_scores(confusion), ["a", "b", "c"], [report_runs.LOOSE])
    found = NetResult(net_name, "", "a.caffemodel", "f" * 64, 1.5, [scores], "predictions/a")
    return replace(report_runs.report(found, NetResult("voc-fcn16s", "not scored")), measured=measured)


def test_an_entry_keeps_the_scores_and_who_measured_them(tmp_path):
    path = ledger.write_entry(measure(), " Ada Lovelace ", tmp_path / "results")
    (entry,) = ledger.load_entries(tmp_path / "results")
    assert path.name.startswith("voc-2026-01-31-")
    assert entry.by == "Ada Lovelace"
    (net,) = entry.nets
    assert (net.net, net.predictions) == ("voc-fcn8s", "")
    assert not net.measured[0].references
    assert net.measured[0].confusion == measure().nets[0].measured[0].confusion


def test_the_same_run_is_one_entry_and_another_run_another(tmp_path):
    for seed in (0, 0, 1):
        ledger.write_entry(measure(seed), "Ada", tmp_path)
    assert len(ledger.load_entries(tmp_path)) == 2


def test_the_newest_entry_of_a_net_is_found(tmp_path):
    for seed, day in enumerate(("2026-03-01", "2026-05-01", "2026-04-01")):
        ledger.write_entry(measure(seed, measured=f"{day}T12:00:00+00:00"), "Ada", tmp_path)
    entries = ledger.load_entries(tmp_path)
    found = ledger.find_newest(entries, "voc-fcn8s")
    assert found
    entry, scores = found
    assert entry.measured.startswith("2026-05-01")
    assert scores.mean_iu == measure(1).nets[0].measured[0].mean_iu
    assert ledger.find_newest(entries, "voc-fcn32s") is None
    assert ledger.load_entries(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("changes", "by", "problem"),
    [
        ({"limit": 5}, "Ada", "not all images were scored"),
        ({"split": None}, "Ada", "not all images were scored"),
        ({"nets": []}, "Ada", "no net was scored"),
        ({}, "  ", "there is no name of the person who measured it"),
        ({}, "a\x1b[2Jb", "there is no name of the person who measured it"),
        ({"measured": "yesterday"}, "Ada", "the time is not in the form of ISO 8601, but 'yesterday'"),
    ],
)
def test_incomplete_runs_are_not_added(tmp_path, changes, by, problem):
    with pytest.raises(ReproductionError, match=f"cannot be added to the ledger: {problem}"):
        ledger.write_entry(replace(measure(), **changes), by, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda net: net.update(weights_sha256="unknown"), "voc-fcn8s: there is no SHA-256 of the weights"),
        (lambda net: net["measured"][0].update(mean_iu=0.9), "voc-fcn8s: mean_iu is 0.9, but follows from"),
        (lambda net: net["measured"][0].update(fw_iu=None), "voc-fcn8s: fw_iu is None, but follows from"),
        (lambda net: net["measured"][0]["class_iu"].update(c=0.5), "voc-fcn8s: IU of c is 0.5, but follows from"),
    ],
)
def test_scores_that_do_not_follow_from_the_confusion_are_found(tmp_path, change, problem):
    path = ledger.write_entry(measure(), "Ada", tmp_path)
    document = json.loads(path.read_text())
    change(document["nets"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=problem) as caught:
        ledger.load_entries(tmp_path)
    assert path.name in str(caught.value)


def test_the_ledger_of_this_project_is_consistent():
    entries = ledger.load_entries(ROOT / "weights" / ledger.FOLDER)
    assert entries
    for entry in entries:
        assert {net.net: registry.NETS[net.net].dataset.name for net in entry.nets} == {
            net.net: entry.set for net in entry.nets
        }
