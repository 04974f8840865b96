"""fcn experiments on a few images of Mini-VOC."""

import importlib
import json
import sys
from dataclasses import replace

import pytest

from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.commands import start
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.experiments import table
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.train import training
from tests.helpers import small_mini_voc


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    module = importlib.import_module("reproduction.commands.experiments")
    small_mini_voc.shrink(monkeypatch)
    monkeypatch.setenv("REPRODUCTION_HOME", str(tmp_path))
    weights = small_mini_voc.weights(tmp_path / "weights")
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=3).to_proto(), weights / "mini/mini-vgg.caffemodel")

    def call(*args):
        folders = ("--data", tmp_path / "data", "--report", tmp_path / "reports", "--out", tmp_path / "runs")
        monkeypatch.setattr(sys, "argv", ["experiments.py", *map(str, (*args, *folders))])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


def test_the_list_names_every_experiment(tool):
    code, out, _ = tool()
    assert code == 0
    assert all(name in out for name in table.EXPERIMENTS)
    assert tool("mask")[::2] == (
        1, "error: there is no experiment 'mask'. Did you mean 'masks'?\n",
    )  # fmt: skip


def test_an_experiment_is_trained_once_and_read_afterwards(tool, tmp_path, monkeypatch):
    masks = table.EXPERIMENTS["masks"]
    few = {label: masks.trials[label] for label in ("Reference", "Reference-BG", "FG-only")}
    monkeypatch.setitem(table.EXPERIMENTS, "masks", replace(masks, trials=few))
    code, out, err = tool("masks", "--iterations", 1, "--limit", 2)
    assert (code, err.count("error")) == (0, 0), err
    document = json.loads((tmp_path / "reports/mini/experiments.json").read_text())
    (result,) = document["results"]
    assert (result["name"], result["iterations"], result["seeds"], result["images"]) == ("masks", 1, [1], 2)
    assert [row["label"] for row in result["rows"]] == list(table.EXPERIMENTS["masks"].trials)
    assert all(0 <= row["figures"]["object_iu"][0] <= 1 for row in result["rows"])
    assert "84.8" in out
    assert "Foreground, background and shape" in (tmp_path / "reports/mini/experiments.html").read_text()
    trained = sorted(path.name for path in (tmp_path / "runs/mini/seed1").iterdir())
    assert trained == ["mini-fcn32s-fg-only", "mini-fcn32s-reference"]
    monkeypatch.setattr(training, "_Training", None)  # using it is an error
    assert tool("masks", "--iterations", 1, "--limit", 2)[1] == out


def test_results_of_several_runs_are_collected(tool, tmp_path):
    assert tool("bounds", "--limit", 1)[0] == 0
    assert tool("windows")[0] == 0
    document = json.loads((tmp_path / "reports/mini/experiments.json").read_text())
    assert [result["name"] for result in document["results"]] == ["bounds", "windows"]
    windows = {row["label"]: row["figures"] for row in document["results"][1]["rows"]}
    assert windows["the image"]["outputs"] == [100]
    assert windows["the image"]["products_an_output_millions"] < windows["a window"]["products_an_output_millions"]


def test_missing_data_end_the_run_in_one_line(tool, tmp_path):
    code, out, err = tool("voc", "fixed")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path}/data: PASCAL VOC 2011 or PASCAL VOC 2012 is not here; looked for ")


def test_mini_voc_is_the_default(tool):
    assert mini_voc.SPEC.name == "mini"
    assert "fcn experiments voc patches" in tool("--help")[1]
