"""docs/own_data.md: its commands, run in order on a small Mini-VOC."""

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from reproduction.caffe.formats import caffemodel, weights
from reproduction.caffe.net.net import Net
from reproduction.commands import parsers, start
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.segment import card
from reproduction.fcn.segment.segmenter import Segmenter
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs/own_data.md").read_text()


def blocks(kind):
    """The code of the page, of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of ten pictures of Mini-VOC, and the weights that its nets start from."""
    for name, value in (("TRAIN", 10), ("VAL", 1), ("IN_BOTH", 9), ("OBJECTS", {"train": 7, "val": 7})):
        monkeypatch.setattr(mini_voc, name, value)
    tree = mini_voc.generate(tmp_path / "data") / "pascal/VOC2011"
    shutil.copytree(tree / "JPEGImages", tmp_path / "photos/images")
    shutil.copytree(tree / "SegmentationClass", tmp_path / "photos/labels")
    shutil.copy(tree / "classes.txt", tmp_path / "photos")
    (tmp_path / "weights/mini").mkdir(parents=True)
    made = Net(mini_nets.build_classifier_deploy(), seed=1).to_proto()
    caffemodel.dump(made, tmp_path / "weights/mini/mini-vgg.caffemodel")
    shutil.copy(min((tmp_path / "photos/images").iterdir()), tmp_path / "photos/images/beach.jpg")
    shutil.copy(min((tmp_path / "photos/labels").iterdir()), tmp_path / "photos/labels/beach.png")
    return tmp_path


def test_the_commands_of_the_page_lead_from_photos_to_segmented_pictures(photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert [name for _, name, *_ in commands] == [
        "check-data", "train", "infer", "evaluate", "export", "convert",
    ]  # fmt: skip
    for _, name, *args in commands:
        module = importlib.import_module(f"reproduction.commands.{name.replace('-', '_')}")
        monkeypatch.setenv("REPRODUCTION_HOME", str(photos))
        few = [re.sub(r"^\d+,\d+,\d+$", "3,2,2", arg) for arg in args]
        monkeypatch.setattr(sys, "argv", [name, *few])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        said = capsys.readouterr()
        assert end.value.code == 0, f"{name}\n{said.out}{said.err}"
    for block in blocks("python"):
        exec(compile(block, "own_data.md", "exec"), {})
    labels = np.array(Image.open("segmented/beach.png"))
    assert labels.shape == np.array(Image.open("photos/images/beach.jpg")).shape[:2]
    about = card.parse_card(onnx.load("mine.onnx").metadata_props[0].value)
    assert about.labels["label"].classes == mini_voc.CLASSES
    assert card.parse_card(weights.read("mine.safetensors").metadata[card.METADATA_KEY]).labels == about.labels


def test_the_names_of_the_classes_may_lie_elsewhere(photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    Path("photos/classes.txt").rename("names.txt")
    train = importlib.import_module("reproduction.commands.train")
    monkeypatch.setenv("REPRODUCTION_HOME", str(photos))
    command = "train.py --data photos --classes names.txt --net mini-fcn32s --out runs --iterations 1 --limit 1"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as end:
        start.run(train.main)
    said = capsys.readouterr()
    assert (end.value.code, said.err) == (0, "")
    assert said.out.splitlines()[:3] == [
        f"photos: 7 classes: {', '.join(mini_voc.CLASSES)}",
        "9 images to train on, 2 to validate on",
        "mini-fcn32s: score_fr and the upsampling layers are new, for 7 classes",
    ]
    assert {"card.json", "deploy.prototxt", "mini-fcn32s.caffemodel"} <= {
        path.name for path in Path("runs/mini-fcn32s").iterdir()
    }
    found = Segmenter.load("runs/mini-fcn32s")("photos/images/beach.jpg")
    assert found.classes == mini_voc.CLASSES


def test_the_other_commands_of_the_page_name_options_that_there_are():
    for block in blocks("console"):
        for line in re.findall(r"^\$ fcn (.*)$", block, re.MULTILINE):
            name, *args = shlex.split(line)
            text = parsers.make_parser(name).format_help()
            assert all(f"{arg} " in text.replace("\n", " ") for arg in args if arg.startswith("--")), line


def test_a_net_of_other_classes_does_not_start_from_published_scores(photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    module = importlib.import_module("reproduction.commands.train")
    monkeypatch.setenv("REPRODUCTION_HOME", str(photos))
    (photos / "weights/fcn32s-heavy-pascal.caffemodel").write_bytes(b"published")
    monkeypatch.setattr(sys, "argv", ["train.py", "--net", "voc-fcn16s", "--data", "photos", "--out", "runs"])
    with pytest.raises(SystemExit) as end:
        start.run(module.main)
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "error: runs/voc-fcn32s/voc-fcn32s.caffemodel: voc-fcn32s with your classes is missing. Train it first"
        " with --net voc-fcn32s, or both with --stages voc-fcn32s,NET.\n"
    )
