"""fcn evaluate: its output and exit codes. A small net replaces the published ones."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.formats import prototxt
from reproduction.commands import start
from reproduction.fcn import datasets
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.images import caffe_input
from reproduction.fcn.nets import mini_nets, net_files
from reproduction.fcn.scoring.evaluate import evaluate
from reproduction.fcn.segment import any_net
from reproduction.fcn.segment.any_net import NetOptions, load_any_net
from reproduction.fcn.segment.card_scorer import CardScorer
from reproduction.fcn.segment.segmenter import Segmenter
from reproduction.fcn.train import custom_nets
from reproduction.report import record
from tests.helpers import any_nets, dataset_trees, small_mini_voc
from tests.helpers import custom_folders as folders
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

IDS = ["2007_000033", "2007_000042", "2007_000061"]


class Fake(torch.nn.Module):
    """Scores of a pixel are a linear function of its colour."""

    def __init__(self, **classes: int):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.tables = {blob: torch.randn(count, 3, generator=draw) for blob, count in classes.items()}

    def forward(self, inputs, blobs=None):
        return {blob: torch.einsum("kc,nchw->nkhw", self.tables[blob], inputs["data"]) for blob in blobs}


@pytest.fixture
def loaded():
    """What was loaded: the name of the net, its weights and the device, of each."""
    return []


@pytest.fixture
def tool(loaded, monkeypatch, capsys, tmp_path):
    module = importlib.import_module("reproduction.commands.evaluate")

    def call(net, *args):
        def load(name, message, model, *, device):
            loaded.append((name, model, device))
            return net

        monkeypatch.setattr(any_net, "load_net_with_weights", load)
        monkeypatch.setattr(module, "compiled", lambda net, precision: net)  # Fake is nothing to compile
        monkeypatch.chdir(tmp_path)
        for name in ("w", "w.npz"):
            Path(name).write_bytes(b"weights")
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def root(tmp_path):
    dataset_trees.voc(tmp_path / "data/pascal/VOC2011", {"seg11valid": IDS, "val": IDS})
    return tmp_path / "data"


VOC21 = Fake(score=21)


def test_it_prints_four_metrics_and_every_class(tool, loaded, root, tmp_path):
    code, out, err = tool(VOC21, "--net", "voc-fcn8s", "--weights", "w.npz", "--data", root, "--out", tmp_path / "png")
    assert (code, loaded) == (0, [("voc-fcn8s", Path("w.npz"), "cpu")])
    lines = out.splitlines()
    result = evaluate(VOC21, datasets.open_split("voc", "seg11valid", root)).scores["label"]
    assert lines[0] == "voc-fcn8s on voc seg11valid, 3 images"
    assert lines[2] == "pixel acc.   mean acc.     mean IU     f.w. IU"
    shown = [f"{100 * value:.2f}" for value in (result.pixel_acc, result.mean_acc, result.mean_iu, result.fw_iu)]
    assert lines[3].split() == shown
    assert "mean IU as the published score.py computes it, absent classes as 0: " in out
    assert [line.split()[0] for line in lines[-23:-2]] == list(datasets.load_class_names("voc"))
    assert lines[-1] == "reports/voc-fcn8s/index.html"
    assert err == "", "what is done in a second needs no bar"
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == [
        *(f"{image_id}.png" for image_id in IDS),
        "state.jsonl",
    ]


def test_pictures_that_are_drawn_are_not_to_be_fetched(tool, tmp_path):
    code, _, err = tool(VOC21, "--net", "mini-fcn8s", "--data", tmp_path / "none")
    assert (code, err) == (
        1, f"error: {tmp_path}/none/mini: its images are not drawn yet. `fcn reproduce mini` draws them.\n",
    )  # fmt: skip


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_a_limit_is_a_number_of_images(tool, capsys, monkeypatch, number):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--net", "voc-fcn8s", "--limit", number])
    with pytest.raises(SystemExit, match="2"):
        sys.modules["reproduction.commands.evaluate"].main()
    assert capsys.readouterr().err.endswith(f"error: argument --limit: {number} is not 1 or more\n")


def test_the_progress_of_a_resumed_run_starts_where_it_was(tool, monkeypatch):
    made = []

    class Bar:
        def __init__(self, *options, quiet):
            self.options, self.quiet, self.n = options, quiet, options[-1]
            made.append(self)

        def update(self, n):
            self.n += n

        def close(self):
            pass

    bars_module = sys.modules["reproduction.commands.bars"]
    monkeypatch.setattr(bars_module, "bar", Bar)
    with bars_module.Bars(quiet=True) as bars:
        move = bars("images", "image")
        move(2, 5)
        move(4, 5)
    assert [(bar.options, bar.quiet, bar.n) for bar in made] == [(("images", 5, "image", 2), True, 4)]


def test_json_holds_the_confusion(tool, tmp_path, monkeypatch):
    dataset_trees.siftflow(tmp_path / "sift-flow", {"test": ["a", "b"]})
    net = Fake(score_sem=33, score_geo=3)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/siftflow-fcn8s-heavy.safetensors").touch()
    monkeypatch.setenv("REPRODUCTION_HOME", str(tmp_path))
    code, out, err = tool(net, "--net", "siftflow-fcn8s", "--data", tmp_path, "--json", "-q", "--limit", 1)
    assert code == 0
    assert err == "", "the included list says that no image was trained on"
    found = json.loads(out)
    assert (found["net"], found["dataset"], found["split"], found["images"]) == (
        "siftflow-fcn8s",
        "siftflow",
        "test",
        1,
    )
    assert found["weights"] == str(tmp_path / "weights/siftflow-fcn8s-heavy.safetensors")
    result = evaluate(net, datasets.open_split("siftflow", "test", tmp_path), limit=1).scores
    for top, names in (("sem", "siftflow-sem"), ("geo", "siftflow-geo")):
        assert found["scores"][top]["confusion"] == result[top].confusion.tolist()
        assert found["scores"][top]["mean_iu"] == result[top].mean_iu
        assert tuple(found["scores"][top]["class_iu"]) == datasets.load_class_names(names)


def test_a_stopped_run_says_that_it_resumes(tool, root, tmp_path, monkeypatch):
    class Stopped(Fake):
        def forward(self, inputs, blobs=None):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().forward(inputs, blobs)

    command = ("--net", "voc-fcn8s", "--weights", "w", "--data", root, "--state", tmp_path / "state.jsonl")
    code, out, err = tool(Stopped(score=21), *command)
    assert (code, out) == (130, "")
    assert err.endswith("the same command resumes from here.\nerror: stopped.\n")
    code, out, err = tool(VOC21, *command)
    assert code == 0
    assert out.startswith("voc-fcn8s on voc seg11valid, 3 images\n")


def test_images_that_may_have_been_trained_on_are_noted(tool, root):
    code, _, err = tool(VOC21, "--net", "voc-fcn8s", "--weights", "w", "--data", root, "--split", "val", "-q")
    assert code == 0
    assert err == (
        f"note: nothing in {root} says which images the published nets were trained on; val may contain some of them.\n"
    )


def test_training_images_are_refused_unless_forced(tool, root):
    dataset_trees.sbd(root / "sbdd/dataset", {"train": IDS[:2]})
    (root / "pascal/VOC2011/ImageSets/Segmentation/seg11valid.txt").unlink()
    command = ("--net", "voc-fcn8s", "--weights", "w", "--data", root, "--split", "val", "-q")
    code, out, err = tool(VOC21, *command)
    assert (code, out) == (1, "")
    assert err == (
        "error: voc val: 2 of 3 images were in the training set of the published nets, the first is '2007_000033'."
        " Score another split (seg11valid for VOC), or force it if the net was trained on others.\n"
    )
    assert tool(VOC21, *command, "--force")[0] == 0


def launch(launcher, *args):
    command = [sys.executable, *launcher, "-m", "reproduction", "evaluate", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Mini-VOC in small, and its nets with seeded weights."""
    folder = tmp_path_factory.mktemp("drawn")
    small_mini_voc.weights(folder / "weights")
    with pytest.MonkeyPatch.context() as patch:
        small_mini_voc.shrink(patch)
        mini_voc.generate(folder / "data")
    return folder


def test_two_processes_count_what_one_does(drawn):
    command = (
        "--net",
        "mini-fcn8s",
        "--weights",
        drawn / "weights/mini/mini-fcn8s.caffemodel",
        "--data",
        drawn / "data",
        "--report",
        drawn / "report",
    )
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    one, two = run_tool("evaluate", *command, "--json", "-q"), launch(launcher, *command, "--json", "-q")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert one.stderr == ""
    assert two.stdout == one.stdout
    found = json.loads(one.stdout)
    told = record.load_report(drawn / "report/scores.json")
    assert told.set == "mini", "and not VOC, whose layout it has"
    assert "<h1>Mini-VOC</h1>" in (drawn / "report/index.html").read_text()
    (net,) = told.nets
    assert net.measured[0].mean_iu == found["scores"]["label"]["mean_iu"]
    assert len(net.measured[0].images) == 3
    assert (drawn / "report/index.html").read_text().count('<article class="shot">') == 3
    assert (found["images"], found["split"]) == (3, "val")
    assert list(found["scores"]["label"]["class_iu"]) == list(mini_voc.CLASSES)
    assert len([iu for iu in found["scores"]["label"]["class_iu"].values() if iu]) > 1


def test_a_net_of_ones_own_is_scored_on_a_data_set(drawn, tmp_path):
    prototxt.dump(net_files.build_deploy(mini_nets.NETS["mini-fcn16s"]), tmp_path / "deploy.prototxt")
    weights = drawn / "weights/mini/mini-fcn16s.caffemodel"
    own = ("--prototxt", tmp_path / "deploy.prototxt", "--dataset", "mini", "--split", "val")
    same = ("--weights", weights, "--data", drawn / "data", "--report", tmp_path / "report", "--json", "-q")
    by_name, by_file = run_tool("evaluate", "--net", "mini-fcn16s", *same), run_tool("evaluate", *own, *same)
    assert (by_name.returncode, by_file.returncode) == (0, 0), by_file.stderr
    first, second = json.loads(by_name.stdout), json.loads(by_file.stdout)
    assert second["scores"] == first["scores"]
    assert (second["net"], second["dataset"]) == (str(tmp_path / "deploy.prototxt"), "mini")
    assert record.load_report(tmp_path / "report/scores.json").set == "mini"
    text = (tmp_path / "deploy.prototxt").read_text().replace('"data"', '"image"').replace('"score"', '"classes"')
    (tmp_path / "deploy.prototxt").write_text(text)
    described = run_tool("evaluate", *own, *same, "--mean", "104.00699,116.66877,122.67892", "--size", "96x128")
    assert described.returncode == 0, described.stderr
    third = json.loads(described.stdout)["scores"]["label"]
    assert third["mean_iu"] == pytest.approx(first["scores"]["label"]["mean_iu"], abs=0.1)
    assert third["mean_iu"] != first["scores"]["label"]["mean_iu"], "images were resized"


def test_card_scorers_compute_what_the_net_computes(drawn, tmp_path):
    dataset = datasets.open_split("mini", "val", drawn / "data", ["data", "label"])
    sample = {"data": torch.from_numpy(dataset[0]["data"])[None]}
    for layers in ("", any_nets.ARGMAX):
        options = NetOptions(mean=(1, 2, 3))
        about, net, _ = load_any_net(*any_nets.write_net(tmp_path, layers), options)
        found = CardScorer(about, net, dataset)(sample, blobs=["score"])["score"]
        rgb = caffe_input.read_rgb(dataset.file("data", dataset.ids[0]))
        want = Segmenter.from_prototxt(*any_nets.write_net(tmp_path, layers), options)(rgb).labels
        assert np.array_equal(found[0].argmax(0).numpy(), want)


def test_a_net_is_scored_on_the_pictures_of_ones_own_that_it_learnt_from(tool, tmp_path):
    colours = np.array([[9, 9, 9], [200, 0, 0], [0, 200, 0]], np.uint8)
    photos = folders.write(tmp_path / "photos", labels=lambda i: colours[folders.label(i)], names=None)
    (photos / "palette.txt").write_text("9 9 9 background\n200 0 0 cat\n0 200 0 dog\n")
    known = custom_nets.inspect_folder(photos)
    stage = custom_nets.adapt_recipe("mini-fcn32s", known)
    folder = custom_nets.write_deploy_files(stage, known, tmp_path / "runs", [])
    prototxt.dump(stage.train_net_param, folder / "train.prototxt")
    (folder / "mini-fcn32s.caffemodel").write_bytes(b"weights")
    code, out, err = tool(Fake(score=3), "--net", folder, "--data", photos, "-q")
    assert (code, err) == (0, "")
    assert out.startswith("mini-fcn32s on folder val, 1 images\n")
    scored = out.split("\n\n")[1:]
    report = tmp_path / "reports/mini-fcn32s"
    assert {path.name for path in report.iterdir()} == {"index.html", "predictions", "scores.json", "scores.md"}
    assert (report / "scores.md").read_text().startswith("# photos: its nets, measured here\n")
    page = (report / "index.html").read_text()
    assert "<title>photos: scores</title>" in page
    assert page.count("background:#c80000") >= 2, "cats are painted as in the labels, in bars and pictures"
    # Labels in other colours are scored by another palette, from an option or the folder.
    other = np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3]], np.uint8)
    folders.write(tmp_path / "other", labels=lambda i: other[folders.label(i)])
    (tmp_path / "other.txt").write_text("1 1 1 background\n2 2 2 cat\n3 3 3 dog\n")
    same = ("--net", folder, "--data", tmp_path / "other", "-q")
    assert "colours of no class" in tool(Fake(score=3), *same)[2]
    assert tool(Fake(score=3), *same, "--palette", tmp_path / "other.txt")[1].split("\n\n")[1:] == scored
    (tmp_path / "other.txt").rename(tmp_path / "other/palette.txt")
    assert tool(Fake(score=3), *same)[1].split("\n\n")[1:] == scored
    page = (report / "index.html").read_text()
    assert page.count("background:#c80000") >= 2, "the net's own colours, not those of the data set"
    assert "background:#020202" not in page
    with Image.open(next((report / "predictions").glob("*.png"))) as labels:
        assert labels.getpalette()[:9] == colours.flatten().tolist()
    # Labels that mean something else are not scored as if they did not.
    (photos / "palette.txt").write_text("9 9 9 background\n200 0 0 dog\n0 200 0 cat\n")
    assert tool(Fake(score=3), "--net", folder, "--data", photos, "-q") == (
        1, "",
        (
            f"error: {photos}: the images have other classes than the net; got background, dog, cat, want background,"
            " cat, dog.\n"
        ),
    )  # fmt: skip
    assert f"nor the name of a net; want {folder}.\n" in tool(VOC21, "--net", tmp_path / "runs")[2]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--prototxt", "a.prototxt"], 2, "--prototxt needs --weights, --dataset and --split"),
        (["--net", "mini-fcn8s", "--limit", "0"], 2, "argument --limit: 0 is not 1 or more"),
        (["--net", "mini-fcn8s", "--dataset", "voc"], 2, "--dataset belongs to --prototxt; a net that has a name has"),
        (["--net", "mini-fcn8s", "--prototxt", "a.prototxt"], 2, "not allowed with argument --net"),
        (
            ["--prototxt", "a.prototxt", "--weights", "w", "--dataset", "voc", "--split", "val"],
            1,
            "error: a.prototxt: no such file or directory.\n",
        ),
        (
            ["--prototxt", "deploy.prototxt", "--weights", "w", "--dataset", "vok", "--split", "val"],
            1,
            "error: no data set is called 'vok'; want one of ",
        ),
        (
            ["--prototxt", "deploy.prototxt", "--weights", "w", "--dataset", "nyud", "--split", "val"],
            1,
            "error: nyud has no 'data'; want one of color, depth, hha, label.",
        ),
    ],
)
def test_mistakes_with_ones_own_net_are_one_line(tool, args, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prototxt.dump(net_files.build_deploy(mini_nets.NETS["mini-fcn16s"]), Path("deploy.prototxt"))
    ended, out, err = tool(VOC21, *args)
    assert (ended, out) == (code, "")
    assert said in err
    assert code == 2 or err.count("\n") == 1


def test_help_shows_an_example_that_parses():
    done = run_tool("evaluate", "--help")
    assert done.returncode == 0
    assert "fcn evaluate --net voc-fcn8s" in done.stdout


def test_mistakes_end_in_one_line(tool, tmp_path):
    done = run_tool("evaluate", "--net", "voc-fcn8", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?\n"
    code, out, err = tool(VOC21, "--net", "nyud-fcn32s-color-d", "--data", tmp_path)
    assert (code, out) == (1, "")
    assert err == (
        f"error: {tmp_path}: NYUDv2 is not here; looked for nyud, nyud/nyud."
        " Fetch it with fcn fetch, or point to the folder that holds it.\n"
    )
    dataset_trees.nyud(tmp_path / "nyud", {"test": ["5001"]})
    code, out, err = tool(VOC21, "--net", "nyud-fcn32s-color-d", "--data", tmp_path)
    assert (code, err) == (
        1,
        "error: no weights of nyud-fcn32s-color-d were published. Name your own with --weights.\n",
    )
