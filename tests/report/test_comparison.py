"""Recorded comparisons of nets: their scores follow from their confusions, and the newest is found."""

import math
from dataclasses import replace

import numpy as np
import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn.scoring import score
from reproduction.report import comparison
from tests.helpers.paths import ROOT

RECORDED = sorted((ROOT / "weights/results" / comparison.FOLDER).glob("*.json"))


def test_there_is_a_recorded_comparison():
    assert RECORDED


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_scores_follow_from_the_confusions(path):
    found = comparison.load_comparison(path)
    for net in found.nets:
        assert [run.seed for run in net.runs] == list(found.seeds)
        for run in net.runs:
            scores = score.compute_scores(np.asarray(run.scores.confusion, np.int64))
            assert math.isclose(run.scores.mean_iu, scores.mean_iu)
            assert np.allclose(list(run.scores.class_iu.values()), scores.class_iu)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_net_learned_more_than_the_background(path):
    for net in comparison.load_comparison(path).nets:
        background, *objects = net.class_iu().values()
        assert net.mean_iu > background / (1 + len(objects)) + 0.05, net.title


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_net_was_given_the_same_number_of_updates(path):
    found = comparison.load_comparison(path)
    for net in found.nets:
        assert net.iterations == found.iterations + (0 if net.classifier else found.classifier_iterations)


def test_the_newest_is_found_by_its_time(tmp_path):
    found = comparison.load_comparison(RECORDED[0])
    with pytest.raises(DataError, match="there is no recorded comparison"):
        comparison.load_newest(tmp_path)
    for year in ("2031", "2030"):
        comparison.record_comparison(replace(found, measured=f"{year}{found.measured[4:]}"), tmp_path)
    assert comparison.load_newest(tmp_path).measured.startswith("2031")
    assert comparison.load_newest(tmp_path).nets == found.nets
