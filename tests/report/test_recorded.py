"""Recorded measurements: written, read, and compared with new ones."""

import dataclasses
import json

import numpy as np
import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn.scoring.score import METRICS, compute_scores
from reproduction.report import markdown, record
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport

CLASSES = ("background", "fish", "kite")
MEAN_IU = {"mini-fcn32s": 0.45, "mini-fcn16s": 0.55, "mini-fcn8s": 0.58}


def measured(net, mean_iu=None, earlier=None, trained=False):
    found = LabelScores.from_scores(
        "label",
        compute_scores(np.arange(9).reshape(3, 3)),
        CLASSES,
        record.find_references(net, "label", earlier, trained=trained),
    )
    return dataclasses.replace(found, mean_iu=MEAN_IU[net] if mean_iu is None else mean_iu)


def report(earlier=None, *, limit=None, trained=False, **mean_iu):
    """A run of the three nets, some of which have another mean IU."""
    values = {name: mean_iu.get(name.replace("-", "_")) for name in MEAN_IU}
    return ScoreReport(
        set="mini",
        measured="2026-01-31T12:00:00+00:00",
        split=ScoredSplit("val", 80, "0" * 40),
        limit=limit,
        device="cpu",
        precision="float32",
        versions={"torch": "2.13.0"},
        nets=[
            NetResult(name, "", f"{name}.caffemodel", "f" * 64, 0.1, [measured(name, value, earlier, trained)])
            for name, value in values.items()
        ],
    )


TEXT = record.format_report(report())


def test_a_report_that_was_written_is_read_again(tmp_path):
    for kept in (report(), report(report()), dataclasses.replace(report(), split=None, limit=3)):
        record.write_report(kept, tmp_path / "scores.json")
        again = record.load_report(tmp_path / "scores.json")
        assert record.format_report(again) == record.format_report(kept)
        assert again.split == kept.split


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "Expecting value: line 1 column 1 (char 0); want JSON"),
        ("[]", "it is []; want an object"),
        ("{}", "it has no format; want 1"),
        ('{"format": 2}', "format is 2; want 1"),
        ('{"format": 1, "nets": 3}', "nets is 3; want a list"),
        (json.dumps(json.loads(record.format_report(report())) | {"device": []}), "device is []; want a string"),
        (TEXT.replace('"mean_iu": 0.45', '"mean_iu": "high"'), 'nets[0].measured[0].mean_iu is "high"; want a number'),
        (TEXT.replace('"mean_iu": 0.45', '"mean_iu": 1.5'), "nets[0].measured[0].mean_iu is 1.5; want a number from "),
        (TEXT.replace('"mean_iu": 0.45', '"mean_iu": NaN'), "NaN is not a number; want JSON"),
        (TEXT.replace('"mean_iu": 0.45', '"mean_iu": 1e999'), "a number is too large; want JSON"),
        (TEXT.replace('"count": ', '"count": -'), "split.count is -80; want 0 or more"),
        (TEXT.replace('"label": "label"', '"label": "\\ud800"'), 'the string "\\ud800" is not text; want JSON'),
        ("[" * 100_000, "it is nested too deeply; want JSON"),
        ("9" * 5000, "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; want JSON"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_said(tmp_path, text, what):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        record.load_report(path)
    assert str(error.value).startswith(f"{path}: not a report of scores: {what}")
    assert str(error.value).endswith(" fcn reproduce writes such files.")


def test_a_report_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError) as error:
        record.load_report(tmp_path / "no.json")
    assert str(error.value) == (
        f"{tmp_path}/no.json: there is no such report of scores. fcn reproduce writes such files."
    )


def test_recorded_scores_are_kept_with_all_digits_and_where_they_come_from():
    (reference,) = record.find_references("mini-fcn8s", "label", report())
    assert reference.column == "recorded"
    assert reference.values == {metric: getattr(measured("mini-fcn8s"), metric) for metric in METRICS}
    assert reference.source == f"measured here 2026-01-31, torch 2.13.0; weights {'f' * 64}"
    assert record.find_references("mini-fcn8s", "geo", report()) == []
    assert record.find_references("mini-fcn8s") == []


@pytest.mark.parametrize(("points", "off"), [(0.0099, False), (0.0101, True), (-0.0101, True)])
def test_more_than_a_hundredth_of_a_point_off_the_record_is_off(points, off):
    now = report(report(), mini_fcn8s=0.58 + points / 100)
    assert [entry[0] for entry in now.mismatches()] == (["mini-fcn8s"] if off else [])
    said = f"mini-fcn8s: **off** from recorded, more than 0.01 points: mean IU by {points:+.2f}."
    assert (said if off else "mini-fcn8s: within 0.01 points of recorded.") in list(markdown.format_verdicts(now))


@pytest.mark.parametrize(("points", "off"), [(0.99, False), (-1.01, True)])
def test_a_net_that_was_trained_anew_may_be_a_point_off(points, off):
    now = report(report(), trained=True, mini_fcn8s=0.58 + points / 100)
    assert bool(now.mismatches()) == off
    assert "mini-fcn32s: within 1 point of recorded." in list(markdown.format_verdicts(now))


def test_weights_of_ones_own_must_match_all_numbers_within_a_point():
    rows = record.find_references("voc-fcn8s", trained=True)
    assert {row.column: row.tolerance_points for row in rows} == {"paper": 1.0, "readme": 1.0, "rescored": 1.0}
    rows = record.find_references("voc-fcn8s")
    assert {row.column: row.tolerance_points for row in rows} == {"paper": 1.0, "readme": 0.1, "rescored": 0.1}


def test_each_stage_must_be_two_points_better_than_the_one_before():
    rises = report().stage_gains()
    assert [(rise.net, rise.parent, rise.least) for rise in rises] == [
        ("mini-fcn16s", "mini-fcn32s", 2),
        ("mini-fcn8s", "mini-fcn16s", 2),
    ]
    assert [rise.points for rise in rises] == [pytest.approx(10), pytest.approx(3)]
    assert all(rise.is_enough for rise in rises)
    flat = report(mini_fcn8s=0.5699)
    assert [rise.is_enough for rise in flat.stage_gains()] == [True, False]
    assert list(markdown.format_verdicts(flat))[-2:] == [
        "mini-fcn16s: mean IU changes by +10.00 points from mini-fcn32s; at least +2 is required.",
        "**mini-fcn8s: mean IU changes by +1.99 points from mini-fcn16s; at least +2 is required.**",
    ]


def test_a_part_of_the_pictures_says_nothing_of_stages():
    assert report(limit=3, mini_fcn8s=0.1).stage_gains() == []


def test_stages_of_published_nets_are_compared_but_nothing_is_asked_of_them():
    published = dataclasses.replace(
        report(),
        set="voc",
        nets=[NetResult(f"voc-fcn{end}", measured=[measured(f"mini-fcn{end}")]) for end in ("32s", "16s")],
    )
    (rise,) = published.stage_gains()
    assert (rise.net, rise.parent, rise.least, rise.is_enough) == ("voc-fcn16s", "voc-fcn32s", None, True)
    assert list(markdown.format_verdicts(published))[-1] == (
        "voc-fcn16s: mean IU changes by +10.00 points from voc-fcn32s."
    )


def test_the_table_has_a_column_for_each_source_that_says_something():
    table = markdown.format_scores(report(report()))
    assert table.splitlines()[0].split("|")[1:-1] == [
        " net         ",
        " metric     ",
        "         recorded ",
        " measured here ",
    ]
    assert "| mini-fcn8s  | mean IU    | 58.0000 (0.0000) |       58.0000 |" in table
    assert markdown.format_scores(report()).splitlines()[0] == "| net         | metric     | measured here |"
