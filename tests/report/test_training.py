"""The page of trainings: its numbers are those of the logs, over all stages."""

import dataclasses
import json
import re

import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn.scoring.score import METRICS
from reproduction.fcn.segment import card
from reproduction.report import training, training_history
from tests.helpers import report_runs
from tests.helpers.cards import make_card
from tests.report.test_page import Cells

CLASSES = ["background", "cat", "<dog>"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    report_runs.log(folder, "mini-vgg", 20, time="2026-01-31T12:00:00+00:00")
    report_runs.log(folder, "mini-fcn32s", 40, parents=["mini-vgg"], classes=CLASSES, time="2026-01-31T12:10:00+00:00")
    report_runs.log(
        folder, "mini-fcn16s", 24, made=13, parents=["mini-fcn32s"], classes=CLASSES, resumed=[6],
        time="2026-01-31T12:20:00+00:00", ended="2026-01-31T12:30:00+00:00",
    )  # fmt: skip
    training.write_page(training_history.find_run_folders(folder), folder / "index.html")
    return folder


@pytest.fixture(scope="module")
def text(runs):
    return (runs / "index.html").read_text()


def charts(text):
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(each) for each in found]


def test_curves_run_over_all_stages(text):
    loss, scores, accuracy, test_loss = charts(text)
    assert [(stage["name"], stage["start"]) for stage in loss["stages"]] == [
        ("mini-vgg", 0), ("mini-fcn32s", 20), ("mini-fcn16s", 60),
    ]  # fmt: skip
    assert loss["x"] == [0, 84]
    assert len(loss["lines"][0]["x"]) == 20 + 40 + 13
    assert loss["lines"][0]["x"][20:22] == [20, 21]
    assert loss["lines"][0]["y"][20:22] == [2, 1]
    assert [line["name"] for line in scores["lines"]] == ["pixel acc.", "mean acc.", "mean IU", "f.w. IU"]
    assert scores["lines"][2]["x"] == [30, 40, 50, 60, 66, 72]
    assert scores["lines"][2]["text"] == ["12.50", "25.00", "37.50", "50.00", "12.50", "25.00"]
    assert accuracy["stages"] == [{"name": "mini-vgg", "start": 0}], "of the stages that have it"
    assert accuracy["lines"][0]["y"] == [0.25, 0.5, 0.75, 1]
    assert test_loss["lines"][0]["name"] == "loss"


def test_a_stage_whose_last_validation_is_not_its_best_says_so(text, runs):
    best = training_history.load_history(runs / "mini-fcn16s").best
    assert best.scores["label"].mean_iu == 0.25
    assert "highest" not in text
    stage = training_history.load_history(runs / "mini-fcn16s")
    changed = dataclasses.replace(stage, validations=[*reversed(stage.validations)])
    assert f"highest 25.00, after {best.iteration} iterations</small>" in training.format_page([changed])


def test_every_validation_stands_in_a_table(text, runs):
    cells = Cells(text)
    for name in ("mini-fcn32s", "mini-fcn16s"):
        for validation in training_history.load_history(runs / name).validations:
            for metric in METRICS:
                value = getattr(validation.scores["label"], metric)
                (cell,) = cells.having(data_stage=name, data_iteration=str(validation.iteration), data_metric=metric)
                assert cell["text"] == f"{100 * value:.2f}"


def test_each_stage_says_how_far_it_is(text):
    badges = [entry["text"] for entry in Cells(text).classed("badge")]
    assert badges == ["✓ all 20 iterations", "✓ all 40 iterations", "13 of 24 iterations"]
    assert "resumed 1 time</dd>" in text


def test_the_classes_are_those_of_the_last_validation_beside_the_stages_before(text):
    cells = Cells(text)
    assert [entry["text"] for entry in cells.classed("bar-name")] == CLASSES
    assert [entry["text"] for entry in cells.classed("bar-value")] == ["25.00", "\N{EN DASH}", "12.50"]
    ticks = [entry["title"] for entry in cells.classed("tick") if "title" in entry]
    assert ticks == ["mini-fcn32s: 50.00", "mini-fcn32s: 25.00"]


def test_classes_have_the_colours_of_the_nets_card(tmp_path):
    folder = report_runs.log(tmp_path, "mini-fcn32s", 4, classes=CLASSES)
    assert "background:#800000" in training.format_page([training_history.load_history(folder)])
    card.write_card(make_card("mini-fcn32s", CLASSES, [(0, 0, 0), (1, 2, 3), (4, 5, 6)]), folder / card.CARD_FILE)
    text = training.format_page([training_history.load_history(folder)])
    assert "background:#010203" in text
    assert "background:#800000" not in text


def test_what_ran_is_said(text):
    for said in ("2026-01-31T12:10:00+00:00", "torch 2.13.0", "weights of mini-vgg", "conv1_1: copied", "base_lr: 0.5"):
        assert said in text


def test_it_is_said_how_long_it_took(tmp_path, text):
    assert "<dd>2026-01-31T12:30:00+00:00</dd>" in text, "with a stop it is not known"
    report_runs.log(tmp_path, "n", 4, ended="2026-01-31T12:00:09+00:00")
    assert "<dd>2026-01-31T12:00:09+00:00, after 0:00:09</dd>" in training.format_page(
        [training_history.load_history(tmp_path / "n")]
    )


def test_the_page_needs_nothing_but_itself(text):
    cells = Cells(text)
    assert {link.partition(":")[0] for link in cells.links if not link.startswith("#")} == {"data"}
    assert len(cells.ids) == len(set(cells.ids))


def test_trainings_that_have_nothing_to_do_with_each_other_are_shown_apart(tmp_path):
    for name in ("a", "b"):
        report_runs.log(tmp_path, name, 4, classes=CLASSES)
    text = training.format_page(
        training_history.load_history(folder) for folder in training_history.find_run_folders(tmp_path)
    )
    assert len(charts(text)) == 4
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == ["a", "b"]


def test_a_training_that_has_just_begun_is_shown(tmp_path):
    report_runs.log(tmp_path, "n", 4, made=0, classes=CLASSES)
    text = training.format_page([training_history.load_history(tmp_path / "n")])
    assert "not validated yet" in text
    assert charts(text) == []


def test_many_losses_are_shown_as_means_and_ranges(tmp_path):
    report_runs.log(tmp_path, "n", 2000, classes=CLASSES)
    (loss, _) = charts(training.format_page([training_history.load_history(tmp_path / "n")]))
    assert loss["lines"][0]["name"] == "loss, mean and range of 5 iterations"
    assert len(loss["lines"][0]["x"]) == 400


def test_a_loss_of_zero_is_shown(tmp_path):
    path = report_runs.log(tmp_path, "n", 4, classes=CLASSES) / "log.jsonl"
    path.write_text(path.read_text().replace('"loss_per_pixel": 0.5', '"loss_per_pixel": 0'))
    (loss, _) = charts(training.format_page([training_history.load_history(tmp_path / "n")]))
    assert loss["log"] is False


def test_a_log_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError) as error:
        training.write_page([tmp_path], tmp_path / "index.html")
    assert str(error.value) == f"{tmp_path}/log.jsonl: there is no training log."
    assert not (tmp_path / "index.html").exists()


NAMES = ["s$\\frac{$", "a\x1b[31m\x00", "\u202etxt.exe", "<b>&'\"", "\udcff", "\u6f22" * 9, "%s{}", "a\nb"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_makes_a_page(tmp_path, name):
    """Names are no formulas, no markup, and nothing that XML cannot hold."""
    folder = report_runs.log(tmp_path, "n", 4, classes=["background", name, "c"])
    log = folder / "log.jsonl"
    first, rest = log.read_text().split("\n", 1)
    log.write_text(json.dumps(json.loads(first) | {"stage": name}) + "\n" + rest)
    training.write_page([folder], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<b>&'" not in text


LOSSES = [[1e100, 1e-100], [5e-324, 1e100], [0, 0], [-1e100, 1e100], [1e100] * 2, [5e-324] * 2]


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.filterwarnings("error")
def test_any_losses_make_a_page(tmp_path, losses):
    folder = report_runs.log(tmp_path, "n", 3, made=0)
    with (folder / "log.jsonl").open("a") as file:
        for number, loss in enumerate(losses):
            record = {"record": "iteration", "iteration": number, "loss": loss, "loss_per_pixel": None, "lr": 1.0}
            file.write(json.dumps(record) + "\n")
    training.write_page([folder], tmp_path / "page.html")


def test_a_validation_without_a_pixel_that_counts_makes_a_page(tmp_path):
    folder = report_runs.log(tmp_path, "n", 3, made=0, classes=["a", "b"])
    scores = dict.fromkeys(["pixel_acc", "mean_acc", "mean_iu", "fw_iu"]) | {"class_iu": [None, None]}
    record = {"record": "validation", "iteration": 3, "images": 1, "scores": {"label": scores}}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    training.write_page([folder], tmp_path / "page.html")
