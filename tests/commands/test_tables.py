"""fcn tables on a few images of Mini-VOC."""

import importlib
import json
import sys
from dataclasses import replace

import pytest

from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.commands import experiments, start
from reproduction.fcn.nets import forward_time, mini_nets
from reproduction.report import record
from tests.helpers import report_runs, small_mini_voc


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    module = importlib.import_module("reproduction.commands.tables")
    small_mini_voc.shrink(monkeypatch)
    monkeypatch.setenv("REPRODUCTION_HOME", str(tmp_path))
    (tmp_path / "weights/mini").mkdir(parents=True)  # without scores, which are otherwise those of this project

    def call(*args):
        folders = ("--data", tmp_path / "data", "--report", tmp_path / "reports", "--out", tmp_path / "runs")
        monkeypatch.setattr(sys, "argv", ["tables.py", *map(str, (*args, *folders))])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


def test_every_table_is_made_on_mini_voc(tool, tmp_path):
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=3).to_proto(), tmp_path / "vgg.caffemodel")
    code, out, _ = tool(
        "--trials", 1, "--size", "64x96", "--fixed", "--iterations", 2, "--init", tmp_path / "vgg.caffemodel"
    )
    assert code == 0
    document = json.loads((tmp_path / "reports/mini/tables.json").read_text())
    assert [table["name"] for table in document["tables"]] == ["shape", "time", "bound", "skip"]
    shape, time, bound, skip = document["tables"]
    assert [row[0] for row in shape["rows"]] == [row[0] for row in time["rows"]] == list(mini_nets.NETS)
    assert all(float(row[1]) > 0 for row in time["rows"])
    assert "an image of 64 x 96: the mean of 1 after one more" in time["about"]
    assert column(bound, 0) == ["128", "64", "32", "16", "8", "4"]
    assert column(bound, bound["head"].index("paper")) == ["50.9", "73.3", "86.1", "92.8", "96.4", "98.5"]
    assert float(skip["rows"][0][1]) > 0, "the net whose last layer alone learnt is scored"
    assert skip["rows"][1][1] == "not measured"
    text = (tmp_path / "reports/mini/tables.md").read_text()
    assert out == f"{text}\n{tmp_path}/reports/mini/tables.md\n"
    # Made again without training, it is scored where it lies.
    again = json.loads(tool("--only", "skip", "--json")[1])
    assert again["tables"][0]["rows"] == skip["rows"]


def column(table, number):
    return [row[number] for row in table["rows"]]


def test_upper_bounds_are_those_of_the_experiment(tool, tmp_path):
    code, out, _ = tool("--only", "bound", "--limit", 2)
    assert code == 0
    experiments.main(["bounds", "--limit", "2", f"--data={tmp_path}/data", f"--report={tmp_path}/other"])
    theirs = (tmp_path / "other/mini/experiments.md").read_text()
    table = out.rpartition("\n\n")[0]
    assert theirs.endswith(f"{table}\n")
    assert "the first 2 images" in " ".join(table.lower().split())


def test_scores_of_a_reproduction_are_taken_over(tool, tmp_path):
    report, _ = report_runs.run(tmp_path)
    (tmp_path / "reports/mini").mkdir(parents=True)
    nets = [replace(report.nets[0], net="mini-fcn16s")]
    record.write_report(replace(report, set="mini", nets=nets), tmp_path / "reports/mini/scores.json")
    code, out, _ = tool("--only", "skip", "--json")
    assert code == 0
    rows = {row[0]: row for row in json.loads(out)["tables"][0]["rows"]}
    assert rows["mini-fcn16s"][5] == f"{100 * report.nets[0].measured[0].mean_iu:.2f}"


def test_data_that_are_missing_are_missed_before_anything_is_timed(tool, monkeypatch):
    monkeypatch.setattr(forward_time, "measure_forward_time", None)  # calling it is an error
    code, out, err = tool("nyud")
    assert (code, out) == (1, "")
    assert err.endswith("The tables `--only shape time` need no data.\n")
    assert tool("--only", "time", "--size", "500x")[2].endswith("500x is not a size such as 224x224\n")


def test_what_is_missing_is_said_in_one_line(tool, tmp_path):
    code, out, err = tool("voc", "--only", "bound")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path}/data: PASCAL VOC 2011 or PASCAL VOC 2012 is not here; looked for ")
    assert err.count("\n") == 1
    code, out, err = tool("nyud", "--only", "skip")
    assert (code, out) == (1, "")
    assert err == "error: there is no net 'nyud-fcn32s' for Table 2. Leave `skip` out of --only.\n"
    code, out, err = tool("--size", "12x")
    assert code == 2


def test_help_shows_an_example(tool):
    code, out, _ = tool("--help")
    assert code == 0
    assert "fcn tables voc --only bound shape" in out
