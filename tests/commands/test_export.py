"""fcn export, its earlier names and hubconf.py: exports from the command line."""

import ast
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import WeightsError
from reproduction.caffe.formats import hashes, prototxt
from reproduction.commands import program
from reproduction.fcn.segment import card, export
from reproduction.fcn.segment.segmenter import Segmenter
from tests.golden import seeded
from tests.helpers import thin_nets
from tests.helpers.cards import make_card
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A thin voc-fcn32s as a training leaves it, with classes of its own."""
    made = tmp_path_factory.mktemp("runs") / "mine"
    made.mkdir()
    prototxt.dump(thin_nets.deploy("voc-fcn32s", 64), made / "deploy.prototxt")
    thin_nets.write(made / "w.caffemodel", "voc-fcn32s", 64)
    card.write_card(make_card("mine", [f"c{i}" for i in range(21)], weights="w.caffemodel"), made / card.CARD_FILE)
    return made


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(name, *args):
        with pytest.raises(SystemExit) as end:
            program.main([name, *map(str, args)])
        return end.value.code, *capsys.readouterr()

    return call


def test_onnx_is_written_checked_and_runs(tool, folder):
    code, out, err = tool("export-onnx", folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("mine.onnx: mine, ")
    assert lines[1] == "  data (picture) -> labels"
    assert [line.split(": ")[0] for line in lines[2:]] == [
        f"  checked at {size}" for size in ("33 x 47", "64 x 64", "70 x 131")
    ]
    rgb = seeded.synth_image(29, 41, 2)
    [labels] = onnxruntime.InferenceSession("mine.onnx").run(None, {"data": rgb[None]})
    assert (labels[0] != Segmenter.load(folder)(rgb).labels).mean() < 1e-3


def test_everything_is_json_for_machines(tool, folder):
    code, out, _ = tool(
        "export-onnx", folder, "--json", "--no-check", "--input", "blob", "--output", "scores", "-o", "x.onnx"
    )
    said = json.loads(out)
    assert code == 0
    assert said["card"]["source"] == {"file": "w.caffemodel", "sha256": hashes.hash_file(folder / "w.caffemodel")}
    assert said["form"]["inputs"]["data"].startswith("(N, 3, H, W) float32, B G R, minus 104.00699, ")
    assert (said["file"], said["input"], said["output"], said["checked"]) == ("x.onnx", "blob", "scores", [])
    assert said["bytes"] == Path("x.onnx").stat().st_size


def test_a_program_is_written_with_its_card(tool, folder):
    code, out, _ = tool("export-program", folder, "--no-check", "-o", "mine.pt2")
    assert code == 0
    assert out.endswith("  not checked\n")
    extra = {card.CARD_FILE: "", export.FORMAT_FILE: ""}
    rgb = seeded.synth_image(29, 41, 2)
    (labels,) = torch.export.load("mine.pt2", extra_files=extra).module()(torch.from_numpy(rgb)[None])
    assert np.array_equal(labels[0].numpy(), Segmenter.load(folder)(rgb).labels)
    assert card.parse_card(extra[card.CARD_FILE]).net == "mine"
    assert json.loads(extra[export.FORMAT_FILE])["outputs"] == {"labels": "(1, H, W) uint8, the class of each pixel"}


def programs(name):
    """The Python in a tool's help, by paragraphs."""
    doc = ast.get_docstring(ast.parse((ROOT / f"reproduction/commands/{name}.py").read_text()))
    return [
        "".join(f"{line[4:]}\n" for line in text.splitlines())
        for text in doc.split("\n\n")
        if text.startswith("    ") and not text.startswith("    fcn ")
    ]


def test_the_programs_in_the_help_run(tool, folder):
    rgb = seeded.synth_image(29, 41, 2)
    Image.fromarray(rgb).convert("L").save("photo.jpg")  # not every picture has three channels
    given = {"onnxruntime": onnxruntime, "torch": torch, "np": np, "Image": Image, "json": json, "cv2": cv2}
    ran = 0
    for text in programs("export"):
        name = "export-program" if "torch" in text else "export-onnx"
        code = text.replace("voc-fcn8s.", "mine.")
        if "cv2" in code and int(cv2.__version__.split(".")[0]) < 5:
            continue  # OpenCV 4 reads no Crop at sizes that it is not told
        form = ("--input", "blob", "--output", "scores") if "cv2" in code else ()
        assert tool(name, folder, "--no-check", *form)[0] == 0
        exec(code, given)
        ran += 1
        if "labels" not in given:
            continue
        labels = np.asarray(given["labels"]).reshape(29, 41)
        assert (labels != Segmenter.load(folder)("photo.jpg").labels).mean() < 1e-3
    assert ran >= 3
    assert given["classes"] == [f"c{i}" for i in range(21)]


def test_mistakes_are_one_line(tool, tmp_path):
    assert tool("export-onnx", "voc-fcn8")[::2] == (
        1, "error: there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?\n",
    )  # fmt: skip
    assert tool("export-onnx", "nyud-fcn32s-color-d", "--weights", "w")[::2] == (
        1, "error: nyud-fcn32s-color-d takes depth, which is not an image. Choose --input blob.\n",
    )  # fmt: skip
    assert tool("export-program", "voc-fcn8s", "--weights", "none")[::2] == (
        1,
        "error: none: there is no such weights file.\n",
    )
    assert tool("export-onnx", "voc-fcn8s", "--input", "jpeg")[0] == 2
    for name in ("export-onnx", "export-program"):  # before half a minute has gone by
        assert tool(name, "voc-fcn8s", "--weights", "none", "-o", "no/net")[::2] == (
            1, "error: no/net: cannot be written: no such file or directory.\n",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_onnx_it_is_named(tool, folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)  # an import of it then fails
    for more in ((), ("--size", "64x64"), ("--input", "blob")):
        code, _, err = tool("export-onnx", folder, *more)
        assert (code, err) == (
            1, "error: the package onnx is not installed. Install it by `pip install 'fcn-reproduction[export]'`.\n",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_torch_hub_gives_a_segmenter(monkeypatch, tmp_path):
    thin_nets.patch(monkeypatch, 64)
    model = thin_nets.write(tmp_path / "w.caffemodel", "voc-fcn8s", 64)
    loaded = torch.hub.load(str(ROOT), "voc_fcn8s", source="local", weights=model)
    assert loaded(seeded.synth_image(29, 41, 2)).labels.shape == (29, 41)
    with pytest.raises(WeightsError):
        torch.hub.load(str(ROOT), "siftflow_fcn8s", source="local", weights=tmp_path / "none")


def test_a_plan_for_one_size_is_written_and_checked(tool, folder):
    code, out, err = tool("export", folder, "--size", "64x81", "--output", "scores", "-o", "x.onnx")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()[2:]] == ["  checked at 64 x 81"]
    session = onnxruntime.InferenceSession("x.onnx")
    assert session.get_inputs()[0].shape == [1, 64, 81, 3]
    assert "(1, 64, 81, 3) uint8" in session.get_modelmeta().custom_metadata_map["form"]
    assert tool("export", folder, "--size", "64x81", "--format", "program")[0] == 2
