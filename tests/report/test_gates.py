"""Every number that a page shows as checked can fail: wrong scores of each of the fifteen nets fail the tool."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from reproduction.fcn.nets import published_nets
from reproduction.fcn.reproduce import paper
from reproduction.fcn.scoring.score import compute_scores
from reproduction.report import markdown, record
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport

UNKNOWN = "siftflow-fcn32s"  # the one net of which no score was ever printed
PAPER_ONLY = [name for name in published_nets.NETS if not name.startswith("voc-") and name != UNKNOWN]


@pytest.fixture
def judge(monkeypatch):
    return importlib.import_module("reproduction.commands.reproduce").judge


def report(name, points=0.0, metric="mean_iu", rule=None, *, trained=False, limit=None):
    """A run of a net that scores what it must, but for one metric, which is off by some points."""
    row, measured = published_nets.NETS[name], []
    for head in row.heads:
        classes = head.classes
        rows = record.find_references(name, head.label, trained=trained)
        found = LabelScores.from_scores(head.label, compute_scores(np.eye(len(classes), dtype=np.int64)), classes, rows)
        right = dict(found.compared_with.values) if found.compared_with else {"mean_iu": 0.5}
        if metric in right:
            right[metric] += points / 100
        by_rule = right.get("mean_iu") if rule is None else rule
        measured.append(replace(found, **right, mean_iu_published_rule=by_rule))
    split = ScoredSplit("test", 100, "0" * 40)
    nets_of_it = [NetResult(name, "", "w", "f" * 64, 1.0, measured)]
    return ScoreReport(
        row.dataset.name, "2026-01-31T12:00:00+00:00", split, limit, "cpu", "exact", {"torch": "2"}, nets_of_it
    )


@pytest.mark.parametrize("name", published_nets.NETS)
def test_a_wrong_score_fails_and_the_right_one_does_not(judge, capsys, name):
    right = judge(report(name), 0)
    assert (right, capsys.readouterr().err.startswith("not checked: ")) == (
        (3, True) if name == UNKNOWN else (0, False)
    )
    tolerance = 1.0 if name in PAPER_ONLY else 0.1
    for points in (-30.0, -tolerance - 0.01, tolerance + 0.01):
        code = judge(report(name, points), 0)
        said = capsys.readouterr().err
        if name == UNKNOWN:
            assert (code, said.splitlines()[0]) == (3, f"not checked: {name}, sem; no score of it is known.")
        else:
            unit = "point" if tolerance == 1 else "points"
            assert (code, said) == (1, f"error: off by more than {tolerance:g} {unit}: {name}.\n")
    if name != UNKNOWN:
        assert judge(report(name, tolerance - 0.01), 0) == 0


@pytest.mark.parametrize("name", published_nets.NETS)
def test_every_metric_that_is_compared_can_fail(judge, name):
    held = report(name).nets[0].measured[0].compared_with
    for metric in held.values if held else ():
        assert judge(report(name, 2.0, metric), 0) == 1


@pytest.mark.parametrize("name", published_nets.NETS)
def test_a_part_of_the_images_is_not_checked(judge, capsys, name):
    assert judge(report(name, -30.0, limit=20), 0) == 3
    assert f"not checked: {name}" in capsys.readouterr().err


@pytest.mark.parametrize("name", PAPER_ONLY)
def test_the_verdict_says_what_speaks_against_the_papers_number(name):
    (verdict, *_) = markdown.format_verdicts(report(name))
    if name == "siftflow-fcn16s":
        assert "of other weights, those of CVPR 2015" in verdict
    else:
        assert "not checked against the paper's text" in verdict


def test_weights_of_ones_own_are_held_to_the_table_within_a_point(judge):
    assert judge(report("nyud-fcn32s-color-d", 0.9, trained=True), 0) == 0
    assert judge(report("nyud-fcn32s-color-d", -1.1, trained=True), 0) == 1


def test_a_metric_that_was_not_measured_does_not_match(judge):
    run = report("voc-fcn8s")
    (net,) = run.nets
    for nothing in (None, float("nan")):
        broken = replace(run, nets=[replace(net, measured=[replace(net.measured[0], fw_iu=nothing)])])
        assert judge(broken, 0) == 1
        assert "f.w. IU was not measured" in next(markdown.format_verdicts(broken))


@pytest.mark.parametrize(("points", "rule", "code"), [(4.0, 0.41, 0), (0.5, 0.2, 0), (4.0, 0.2, 1), (-4.0, 0.44, 1)])
def test_sift_flow_is_compared_by_both_rules_for_absent_classes(judge, points, rule, code):
    run = report("siftflow-fcn8s", points, rule=rule)
    assert judge(run, 0) == code
    said = next(line for line in markdown.format_verdicts(run) if "published score.py" in line)
    assert said == (
        f"siftflow-fcn8s, sem: mean IU is {41.2 + points:.4f} ({points:+.2f}) with absent classes left out and"
        f" {100 * rule:.4f} ({100 * rule - 41.2:+.2f}) as the published score.py counts them."
    )


def test_a_number_that_the_published_readme_states_was_checked():
    row = paper.find_paper_row("voc-fcn8s-atonce")
    assert row.figures["mean_iu"].verified
    assert not row.figures["fw_iu"].verified
    assert paper.find_caveat(paper.find_paper_row("voc-fcn-alexnet")) == "", (
        "the README repeats CVPR's number of these weights"
    )
