import re

import pytest

from reproduction.fcn.reproduce import paper
from reproduction.fcn.scoring.score import METRICS

NETS = [
    *("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet"),
    *("nyud-fcn32s-color", "nyud-fcn32s-color-d", "nyud-fcn32s-hha", "nyud-fcn32s-color-hha"),
    *("siftflow-fcn32s", "siftflow-fcn16s", "siftflow-fcn8s"),
    *("pascalcontext-fcn32s", "pascalcontext-fcn16s", "pascalcontext-fcn8s"),
]


def find(edition, table, name):
    (row,) = (row for row in paper.ROWS if (row.edition, row.table, row.name) == (edition, table, name))
    return row


def test_table_2_is_as_printed():
    row = find(paper.CVPR, "table 2", "FCN-8s")
    assert [row[metric] for metric in METRICS] == [90.3, 75.9, 62.7, 83.2]
    assert row.verified
    assert row.net == "voc-fcn8s"


def test_the_published_nets_rows_are_those_of_the_edition_that_they_were_trained_for():
    assert paper.find_paper_row("voc-fcn32s")["mean_iu"] == 63.6
    assert paper.find_paper_row("voc-fcn-alexnet")["mean_iu"] == 48.0
    assert paper.find_paper_row("siftflow-fcn16s").edition == paper.CVPR
    assert paper.find_paper_row("siftflow-fcn8s")["geo_pixel_acc"] == 94.6
    assert paper.find_paper_row("siftflow-fcn32s") is None
    assert paper.find_paper_row("pascalcontext-fcn8s")["mean_iu"] == 39.1


def test_a_number_that_was_not_checked_says_so():
    row = paper.find_paper_row("voc-fcn16s")
    assert row.figures["mean_iu"].verified
    assert not row.figures["fw_iu"].verified
    assert not row.verified
    assert not paper.find_paper_row("nyud-fcn32s-hha").verified


def test_unverified_numbers_are_of_the_one_paper_whose_text_was_not_at_hand():
    for row in paper.ROWS:
        if not row.verified:
            assert row.edition == paper.PAMI, row
            assert "not compared with its text" in row.source, row


def test_the_readme_claims_five_scores():
    claims = {net: row["mean_iu"] for net in NETS if (row := paper.find_readme_row(net))}
    assert claims == {
        "voc-fcn32s": 63.6,
        "voc-fcn16s": 65.0,
        "voc-fcn8s": 65.5,
        "voc-fcn8s-atonce": 65.4,
        "voc-fcn-alexnet": 48.0,
    }


@pytest.mark.parametrize("net", ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce"])
def test_what_others_measured_rounds_to_what_was_published(net):
    again = paper.find_rescored_row(net)
    assert round(again["mean_iu"], 1) == pytest.approx(paper.find_readme_row(net)["mean_iu"])
    for metric in METRICS:
        assert again[metric] == pytest.approx(paper.find_paper_row(net)[metric], abs=0.06)


def test_rows_come_with_the_newest_edition_first_and_can_be_narrowed():
    editions = [row.edition for row in paper.find_rows("pascalcontext-fcn8s")]
    assert editions == [paper.PAMI, paper.AUTHOR, paper.ARXIV]
    assert [row["mean_iu"] for row in paper.find_rows("pascalcontext-fcn8s", paper.ARXIV)] == [35.1]
    assert paper.find_rows("no-such-net") == ()


def test_every_net_has_its_solver():
    solvers = {row.net: row for row in paper.ROWS if "base_lr" in row.figures}
    assert sorted(solvers) == sorted(NETS)
    assert solvers["siftflow-fcn8s"]["base_lr"] == 1e-12
    assert solvers["voc-fcn-alexnet"]["iter_size"] == 20


def test_every_row_names_its_source_and_holds_numbers():
    assert len(paper.ROWS) > 120
    for row in paper.ROWS:
        assert row.source, row
        assert row.measured_on, row
        assert row.figures, row
        assert row.net in {"", *NETS}, row
        for column, figure in row.figures.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", column)
            assert figure.value > 0
            if column in {*METRICS, "geo_pixel_acc"}:
                assert 5 < figure.value < 100


def test_rows_cannot_be_changed():
    with pytest.raises(TypeError):
        paper.ROWS[0].figures["mean_iu"] = paper.PublishedNumber(100.0, True)
