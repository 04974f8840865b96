"""The paper's other tables: computed and published values."""

import dataclasses
import json

import numpy as np
import pytest

from reproduction.fcn.nets import systems
from reproduction.fcn.reproduce import paper, pipeline
from reproduction.fcn.scoring.score import METRICS, compute_scores
from reproduction.report import tables
from reproduction.report.record import LabelScores, NetResult
from tests.helpers import report_runs


def column(table, head):
    return [row[list(table.head).index(head)] for row in table.rows]


def test_table_1_comes_out_of_the_prototxts():
    table = tables.shape_table(pipeline.select_nets("voc"))
    alexnet, vgg = (next(row for row in table.rows if row[0] == name) for name in ("voc-fcn-alexnet", "voc-fcn32s"))
    assert alexnet[1:] == ["8", "8", "56,954,261", "57", "355", "355", "32", "32"]
    assert vgg[1:] == ["16", "16", "134,346,581", "134", "404", "404", "32", "32"]
    others = [row for row in table.rows if row[0] not in ("voc-fcn-alexnet", "voc-fcn32s")]
    assert {row[2] for row in others} == {""}, "the paper says nothing of these"
    assert table.sources[0].startswith("CVPR 2015, table 1: VOC 2011 val, 500 x 500, Tesla K40c")


def test_figures_of_fcn_googlenet_stand_beside_the_paper_s():
    (row,) = tables.shape_table([systems.NETS["voc-fcn-googlenet"]]).rows
    assert row[1:] == ["22", "22", "5,995,077", "6", "907", "907", "32", "32"]


def test_times_stand_beside_those_of_both_papers():
    table = tables.time_table({"voc-fcn32s": 0.1234, "mini-fcn8s": 0.01}, "cpu", 5, (500, 500))
    assert table.rows == [["voc-fcn32s", "123.4", "210", "100\\*"], ["mini-fcn8s", "10.0", "", ""]]
    assert "the mean of 5 after one more, on cpu" in table.about
    assert "not checked: the text of its paper was not at hand." in tables.format_page([table])


def test_every_printed_number_of_table_2_is_there():
    table = tables.skip_table(None, None, "voc")
    printed = {
        "voc-fcn32s-fixed": ["83.0", "59.7", "45.4", "72.0"],
        "voc-fcn32s": ["89.1", "73.3", "59.4", "81.4"],
        "voc-fcn16s": ["90.0", "75.7", "62.4", "83.0"],
        "voc-fcn8s": ["90.3", "75.9", "62.7", "83.2"],
    }
    assert {row[0]: row[2::2] for row in table.rows} == printed
    assert {cell for row in table.rows for cell in row[1::2]} == {"not measured"}


def test_strides_are_compared_by_their_scores():
    counts = np.eye(7, dtype=np.int64) + 1
    measured = LabelScores.from_scores("label", compute_scores(counts), [f"class {k}" for k in range(7)])
    report = report_runs.report(NetResult("mini-fcn8s", measured=[measured]), name="mini", limit=3)
    table = tables.skip_table(report, measured, "mini")
    shown = {row[0]: row[1::2] for row in table.rows}
    mine = [f"{100 * getattr(measured, metric):.2f}" for metric in METRICS]
    assert shown["mini-fcn8s"] == shown["mini-fcn32s-fixed"] == mine
    assert shown["mini-fcn16s"] == ["not measured"] * 4
    assert "Only 3 images were scored here." in table.about


def test_what_was_not_printed_is_said(monkeypatch):
    row = next(row for row in paper.ROWS if (row.edition, row.table, row.name) == (paper.CVPR, "table 2", "FCN-16s"))
    assert tables.format_figure(row, "forward_ms", "{:g}") == "not recorded"


@pytest.mark.parametrize("set_name", ["voc", "mini"])
def test_tables_are_text_and_json(set_name):
    table = tables.shape_table(pipeline.select_nets(set_name))
    text = tables.format_page([table])
    assert text.startswith("## Table 1: convolutions, parameters, receptive field, stride\n\n")
    assert all(row[0] in text for row in table.rows)
    document = json.loads(json.dumps([dataclasses.asdict(table)]))
    assert document[0]["rows"] == [list(row) for row in table.rows]
