"""fcn train: its output, how it resumes, and its exit codes."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reproduction.caffe.formats import caffemodel, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.training.events import Step
from reproduction.commands import parsers, start
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.train import log_file, recipes, training
from tests.helpers import annotated_folders, custom_folders, small_mini_voc, small_trainings
from tests.helpers.paths import ROOT


@pytest.fixture
def tool(monkeypatch, capsys):
    module = importlib.import_module("reproduction.commands.train")
    monkeypatch.setenv("REPRODUCTION_HOME", "no home")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def where(tmp_path):
    small_trainings.data(tmp_path / "data")
    small_trainings.tiny(tmp_path / "tiny")
    return ("--data", tmp_path / "data", "--out", tmp_path / "out")


def numbers(text):
    """The text with what differs from run to run taken out."""
    return re.sub(r"\d+(\.\d+)? images/s, [\d:]+ left", "N images/s, T left", text)


def test_a_training_shows_its_course(tool, where, tmp_path):
    code, out, err = tool("--solver", tmp_path / "tiny/solver.prototxt", *where, "--iterations", 4)
    assert (code, err) == (0, "")
    lines = numbers(out).splitlines()
    assert lines[0] == "tiny: 4 iterations, a snapshot every 2, a validation every 4"
    steps = iterations(tmp_path / "out/tiny")
    loss, pixel = steps[0].loss, steps[0].loss_per_pixel
    assert lines[1] == f"iteration 0, loss {loss:.6g} ({pixel:.4f} per pixel), lr 1e-07, N images/s, T left"
    mean = (steps[1].loss + steps[2].loss) / 2
    assert lines[2].startswith(f"iteration 2, loss {mean:.6g} (")
    assert lines[3] == "tiny after 4 iterations, 3 images"
    assert lines[4].split("  ")[0] == "pixel acc."
    assert re.fullmatch(r" +\d+\.\d\d" * 4, lines[5])
    assert lines[-1] == f"tiny: trained, {tmp_path}/out/tiny/tiny.caffemodel"


def test_quiet_is_quiet(tool, where, tmp_path):
    code, out, err = tool("--solver", tmp_path / "tiny/solver.prototxt", *where, "-q", "--validate", 8, "--limit", 1)
    assert (code, err) == (0, "")
    assert [line.split(",")[0] for line in out.splitlines() if "class" not in line] == [
        "tiny: 8 iterations",
        "tiny after 8 iterations",
        *out.splitlines()[2:4],
        "tiny: trained",
    ]


def test_a_chain_starts_each_net_from_the_one_before(tool, where, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "find_recipe", small_trainings.stage)
    vgg16 = small_trainings.imagenet(tmp_path / "vgg16.caffemodel")
    command = ("--stages", "voc-fcn32s, voc-fcn16s", "--init", vgg16, *where, "--iterations", "2,1", "--limit", 1)
    code, out, err = tool(*command)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if "starts from" in line or ": 1" in line or "iterations, a" in line] == [
        "voc-fcn32s starts from",
        next(line for line in out.splitlines() if line.startswith("  vgg16: 15 layers copied")),
        "voc-fcn32s: 2 iterations, a snapshot every 4000, a validation every 4000",
        "voc-fcn16s starts from",
        "  voc-fcn32s: 16 layers copied; ignored: upscore; untouched: upscore2, score_pool4, upscore16",
        "voc-fcn16s: 1 iterations, a snapshot every 4000, a validation every 4000",
    ]
    assert tool(*command)[1] == (
        f"voc-fcn32s: already trained for 2 iterations\nvoc-fcn32s: trained, {tmp_path}/out/voc-fcn32s/"
        "voc-fcn32s.caffemodel\nvoc-fcn16s: already trained for 1 iterations\n"
        f"voc-fcn16s: trained, {tmp_path}/out/voc-fcn16s/voc-fcn16s.caffemodel\n"
    )
    page = (tmp_path / "out/index.html").read_text()
    assert '<h2 id="chain-title-1">voc-fcn32s → voc-fcn16s</h2>' in page
    assert page.count("✓") == 2
    # A later command finds what this one has made.
    code, out, err = tool("--net", "voc-fcn8s", *where, "--iterations", 1, "--limit", 1)
    assert (code, err) == (0, "")
    assert "  voc-fcn16s: 18 layers copied; ignored: upscore16" in out
    assert "voc-fcn32s → voc-fcn16s → voc-fcn8s</h2>" in (tmp_path / "out/index.html").read_text()


def test_a_log_that_is_broken_ends_no_training(tool, where, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "find_recipe", small_trainings.stage)
    vgg16 = small_trainings.imagenet(tmp_path / "vgg16.caffemodel")
    (tmp_path / "out/other").mkdir(parents=True)
    (tmp_path / "out/other/log.jsonl").write_text("{}\n")
    code, out, err = tool("--net", "voc-fcn32s", "--init", vgg16, *where, "--iterations", 1, "--limit", 1)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        f"the page of this training was not written: {tmp_path}/out/other/log.jsonl:1:"
        " not a training log: record is missing."
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--net", "voc-fcn8"], "there is no net 'voc-fcn8' to train. Did you mean 'voc-fcn8s'?"),
        (
            ["--net", "voc-fcn32s"],
            (
                "no home/weights/VGG_ILSVRC_16_layers.caffemodel: the training starts from the weights of vgg16, which"
                " are missing. Fetch them with `fcn fetch vgg16`, or name their file with --init."
            ),
        ),
        (
            ["--net", "nyud-fcn32s-color-hha", "--init", "a.caffemodel"],
            (
                "--init: the training starts from other weights; got a.caffemodel, want those of"
                " nyud-fcn32s-color and those of nyud-fcn32s-hha."
            ),
        ),
        (
            ["--net", "mini-vgg", "--init", "a.caffemodel"],
            "--init: the training starts from other weights; got a.caffemodel, want none.",
        ),
        (
            ["--stages", "voc-fcn32s,voc-fcn16s", "--iterations", "1,2,3"],
            "--iterations takes one number, or one for each stage; got 3, want 2.",
        ),
        (["--net", "voc-fcn32s", "--device", "abacus"], None),
        (["--net", "voc-fcn32s", "--init", "a.caffemodel"], "a.caffemodel: there is no such weights file."),
    ],
)
def test_mistakes_end_in_one_line(tool, where, args, said):
    code, out, err = tool(*args, *where)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said is None or err == f"error: {said}\n"


def test_pictures_of_ones_own_are_taken_with_their_classes_beside_them(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    custom_folders.write("photos", names=None)
    Path("names.txt").write_text("background\ncat\ndog\n")
    code, out, err = tool("--data", "photos", "--classes", "names.txt", "--net", "voc-fcn32s")
    assert (code, out) == (1, "")
    assert err.startswith(
        "error: no home/weights/VGG_ILSVRC_16_layers.caffemodel: the training starts from the weights"
    )


@pytest.mark.parametrize("net", ["voc-fcn32s", "mini-fcn32s"])
def test_nothing_is_learnt_instead_of_what_was_named(tool, tmp_path, monkeypatch, net):
    """Photos without labels are no place to draw other pictures in, and to learn from those."""
    monkeypatch.chdir(tmp_path)
    custom_folders.write("photos", names=None)
    shutil.rmtree("photos/labels")
    assert tool("--data", "photos", "--net", net) == (
        1, "",
        (
            "error: photos: this is not a folder of images and labels; got images/, want images/ and labels/, or"
            " JPEGImages/ and SegmentationClass/.\n"
        ),
    )  # fmt: skip
    assert [path.name for path in Path("photos").iterdir()] == ["images"]


def test_a_data_root_that_is_not_there_is_missed_first(tool):
    assert tool("--data", "nowhere", "--net", "voc-fcn32s") == (1, "", "error: nowhere: there is no such folder.\n")


def test_from_scratch_a_net_starts_from_no_weights():
    module = importlib.import_module("reproduction.commands.train")
    (stage,) = module.find_stages(parsers.make_parser("train").parse_args(["--net", "mini-fcn16s", "--scratch"]), None)
    assert (stage.name, stage.parents, stage.record.parents) == ("mini-fcn16s", (), {})
    assert stage.dataset == "mini"


def test_what_to_train_must_be_said_once(tool, where):
    code, out, err = tool(*where)
    assert (code, out) == (2, "")
    assert err.endswith("error: choose what to train: --net, --stages or --solver\n")
    assert tool("--net", "voc-fcn32s", "--stages", "voc-fcn32s", *where)[0] == 2
    assert tool("--stages", "voc-fcn32s", "--solver", "solver.prototxt", *where)[0] == 2
    for more in (("--init", "a.caffemodel"), ("--solver", "solver.prototxt")):
        code, _, err = tool("--net", "voc-fcn8s-resnet50", "--scratch", *more, *where)
        assert code == 2
        assert err.endswith("error: --scratch needs --net, and excludes --init and --solver\n")
    for wrong in ("0", "-2", "many", "1,,2"):
        code, out, err = tool("--net", "voc-fcn32s", f"--iterations={wrong}", *where)
        assert (code, out) == (2, "")
        assert err.endswith("is not 1 or more\n")


def test_a_net_of_mini_voc_needs_the_one_before(tool, where, tmp_path, monkeypatch):
    monkeypatch.setattr(local_files, "INCLUDED_WEIGHTS", tmp_path / "nothing included")
    code, out, err = tool("--net", "mini-fcn16s", *where)
    assert (code, out) == (1, "")
    assert err == (
        f"error: {tmp_path}/out/mini-fcn32s/mini-fcn32s.caffemodel: the training starts from the weights of"
        " mini-fcn32s, which are missing. Train mini-fcn32s first, or name their file with --init.\n"
    )


def launch(args, *launcher, **env):
    command = [sys.executable, *launcher, "-m", "reproduction", "train", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def iterations(folder):
    return [record for record in log_file.read_log(folder / "log.jsonl") if isinstance(record, Step)]


def test_a_run_that_was_killed_or_interrupted_goes_on_to_the_same_bits(where, tmp_path):
    solver = small_trainings.SOLVER.replace("max_iter: 8", "max_iter: 150").replace("snapshot: 2", "snapshot: 20")
    path = small_trainings.tiny(tmp_path / "tiny", solver=solver)
    stage = recipes.load_solver_recipe(path).with_solver(test_interval=1000)
    training.train(stage, {}, training.TrainingOptions(tmp_path / "whole", tmp_path / "data"))
    command = ["--solver", path, *where, "--validate", "1000"]
    for number, after in ((signal.SIGKILL, 30), (signal.SIGINT, 90), (None, None)):
        running = launch(command)
        log = tmp_path / "out/tiny/log.jsonl"
        while number and running.poll() is None and not (log.exists() and f'"iteration": {after},' in log.read_text()):
            time.sleep(0.02)
        if number:
            running.send_signal(number)
        out, err = running.communicate()
        assert err == ""
        assert running.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, None: 0}[number]
        assert out.endswith("run the same command again to resume.\n") == (number == signal.SIGINT)
    whole, parts = tmp_path / "whole/tiny", tmp_path / "out/tiny"
    assert (parts / "tiny.caffemodel").read_bytes() == (whole / "tiny.caffemodel").read_bytes()
    assert iterations(parts) == iterations(whole)
    assert len(iterations(whole)) == 150


def test_two_processes_learn_what_one_does(where, tmp_path):
    solver = small_trainings.SOLVER.replace("max_iter: 8", "max_iter: 4 iter_size: 3")
    command = ["--solver", small_trainings.tiny(tmp_path / "tiny", solver=solver), *where[:2], "--out"]
    alone = launch([*command, tmp_path / "one"])
    together = launch([*command, tmp_path / "two"], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    _, (two, err) = alone.communicate(), together.communicate()
    assert (alone.returncode, together.returncode) == (0, 0), err
    assert two.count("tiny: trained") == 1
    logs = [iterations(tmp_path / name / "tiny") for name in ("one", "two")]
    for mine, theirs in zip(*logs, strict=True):
        assert mine.images == theirs.images
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert mine.loss_per_pixel == pytest.approx(theirs.loss_per_pixel, rel=1e-5)
    first, second = (weights.read(tmp_path / name / "tiny/tiny.caffemodel").arrays() for name in ("one", "two"))
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-7)
    scores = [
        [record.scores for record in log_file.read_log(tmp_path / name / "tiny/log.jsonl") if hasattr(record, "scores")]
        for name in ("one", "two")
    ]
    assert scores[0] == scores[1]
    assert scores[0]


def test_help_shows_an_example(tool):
    code, out, err = tool("--help")
    assert (code, err) == (0, "")
    assert "fcn train --net voc-fcn32s" in out


def test_a_mini_training_draws_its_data_and_goes_on_to_the_next_stage(tool, tmp_path, monkeypatch):
    small_mini_voc.shrink(monkeypatch)
    where = ("--data", tmp_path / "data", "--out", tmp_path / "out")
    code, out, err = tool(
        "--stages", "mini-vgg,mini-fcn32s", *where, "--iterations", "1", "--limit", "1", "--keep", "1"
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"data: drawn, {tmp_path}/data/mini"
    assert lines[-1] == f"mini-fcn32s: trained, {tmp_path}/out/mini-fcn32s/mini-fcn32s.caffemodel"
    start = next(log_file.read_log(tmp_path / "out/mini-fcn32s/log.jsonl"))
    assert start.initialised.startswith("mini-vgg: 15 layers copied; reshaped: fc6 0 ")
    code, out, err = tool("--net", "mini-fcn32s", *where, "--iterations", "2", "--limit", "1", "--keep", "1")
    assert (code, err) == (0, "")
    assert "drawn" not in out
    assert {path.stem for path in (tmp_path / "out/mini-fcn32s/snapshot").iterdir()} == {"train_iter_2"}


def test_own_data_in_cocos_format_with_every_option(tool, tmp_path, monkeypatch):
    for i in range(5):
        annotated_folders.image(tmp_path / f"photos/images/{i}.jpg", i)
    annotated_folders.coco(tmp_path / "photos/annotations.json", [f"{i}.jpg" for i in range(5)])
    vgg = tmp_path / "mini-vgg.caffemodel"
    caffemodel.dump(Net(mini_nets.build_classifier_deploy(), seed=1).to_proto(), vgg)
    runs = tmp_path / "runs"
    options = ("--data", tmp_path / "photos", "--out", runs, "--init", vgg, "--augment", "--tensorboard")
    losses = ("--balance", "--patches", 0.5)
    code, out, err = tool("--net", "mini-fcn32s", *options, *losses, "--iterations", 2, "--validate-every", 1)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    found = "COCO JSON in annotations.json; of overlapping instances the smaller one is drawn last; crowds are void"
    assert lines[:3] == [
        f"{tmp_path}/photos: {found}",
        f"{tmp_path}/photos: 3 classes: background, cat, dog",
        "4 images to train on, 1 to validate on",
    ]
    assert "training images are augmented: mirror, jitter of up to 32 pixels" in lines
    assert (runs / "mini-fcn32s/train.prototxt").read_text().count("class_weighting: ") == 3
    assert "iter_size: 2" in (runs / "mini-fcn32s/solver.prototxt").read_text()
    assert any(line.startswith("mini-fcn32s: kept as the best, mean IU ") for line in lines)
    best = runs / "mini-fcn32s/mini-fcn32s-best.caffemodel"
    assert lines[-2] == f"mini-fcn32s: the weights of the highest mean IU are in {best}"
    assert best.is_file()
    assert list((runs / "mini-fcn32s/tensorboard").glob("events.*"))
    assert "the page no longer reloads itself" in (runs / "index.html").read_text()


def test_augmentation_is_what_the_paper_tried(tool, where):
    assert tool("--net", "voc-fcn32s", *where, "--augment", "rotate")[::2] == (
        1,
        "error: --augment: there is no such change of samples; got rotate, want mirror or jitter.\n",
    )
    assert tool("--net", "voc-fcn32s", *where, "--validate", 2, "--validate-every", 2)[0] == 2
