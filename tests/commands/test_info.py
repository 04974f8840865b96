"""fcn info: what files of Caffe are, without building them, and a census of a folder."""

import json
import sys

import pytest

from reproduction.caffe.net.net_info import inspect_file
from reproduction.commands import info, start
from tests.helpers.any_nets import FC, write_net
from tests.helpers.paths import GOLDEN, ROOT


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["fcn", "info"])
        with pytest.raises(SystemExit) as end:
            start.run(lambda: info.main(list(map(str, args))))
        return end.value.code, *capsys.readouterr()

    return call


def test_a_net_is_described(run, tmp_path):
    net, weights = write_net(tmp_path, FC)
    assert run(net) == (0, f"""{net}: thin, a net's prototxt
  form      current, layers and fields of BVLC Caffe
  inputs    data (10, 3, 12, 16)
  outputs   prob (10, 7)
  size      5,495 parameters, 2.61e-05 GMAC an image
  layers    1 Input, 1 Convolution, 1 ReLU, 1 InnerProduct, 1 Softmax
  forward   runs
  backward  runs
  compiled  runs; unchanged: InnerProduct, Softmax
  ONNX      all layers
""", "")  # fmt: skip
    code, out, _ = run(weights)
    assert code == 0
    assert out.splitlines()[2] == "  size      5,495 parameters"


def test_large_nets_are_not_built():
    about = inspect_file(ROOT / "prototxt/voc-fcn8s/deploy.prototxt")
    assert (about.parameters, about.runs, about.without_onnx) == (134489759, True, [])
    assert round(about.products / 1e9) == 182


def test_a_training_net_is_described_with_guessed_inputs():
    about = inspect_file(ROOT / "prototxt/nyud-fcn32s-color-hha/trainval.prototxt")
    assert about.runs
    assert about.inputs["hha"] == (1, 3, 224, 224)
    assert about.inputs["label"] == (1, 1, 224, 224)
    assert about.notes[-1] == "the net reads its own data; the shapes of its inputs are guessed."
    assert about.without_onnx == ["SoftmaxWithLoss"]


def test_old_files_have_their_age():
    ages = {
        path.name: inspect_file(path).age for path in sorted((GOLDEN / "legacy").glob("*.*")) if path.suffix != ".npz"
    }
    assert {"V0", "V1"} <= set(ages.values())


def test_what_is_neither_a_file_nor_a_net_is_told_the_nets(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = "there is no such file, and no net of this name"
    assert run("voc-fcn8")[::2] == (1, f"error: voc-fcn8: {problem}. Did you mean 'voc-fcn8s'?\n")
    assert run("nothere")[2].startswith(
        f"error: nothere: {problem}. The nets are keras-fcn32, keras-fcn8, mini-fcn16s, "
    )
    assert "nets are" not in run("none.prototxt")[2]


def test_a_collection_is_counted(run, tmp_path):
    write_net(tmp_path, FC)
    (tmp_path / "solver.prototxt").write_text('net: "deploy.prototxt"\nbase_lr: 0.1\n')
    unknown = 'layer { name: "a" type: "Nonsense" } layer { name: "b" type: "Folly" some_param { x: 1 } }'
    for name in ("one", "two"):
        (tmp_path / f"{name}.prototxt").write_text(unknown)
    code, out, _ = run(tmp_path)
    lines = out.splitlines()
    assert code == 1
    assert lines[0].split() == ["file", "form", "layers", "parameters", "GMAC", "runs", "ONNX"]
    assert lines[1].split()[1:] == ["current", "5", "5,495", "2.61e-05", "yes", "yes"]
    assert lines[-3:] == [
        "3 nets: 1 can be read, 1 run, 1 with an ONNX form of all layers",
        "2 other files: 2 can be read",
        "    2  unknown field 'some_param' in LayerParameter",
    ]
    code, out, _ = run(tmp_path, "--json")
    found = {each["file"].rpartition("/")[2]: each for each in json.loads(out)}
    assert found["deploy.prototxt"]["layers"]["Convolution"] == 1
    assert "'Nonsense'" in found["one.prototxt"]["error"]
    assert "'Folly'" in found["one.prototxt"]["error"]


def test_forks_are_named(run, tmp_path):
    net, _ = write_net(tmp_path)
    net.write_text(net.read_text() + """layer { name: "p" type: "Permute" bottom: "conv" top: "p"
        permute_param { order: 0 order: 2 order: 3 order: 1 } }""")  # fmt: skip
    about = inspect_file(net)
    assert [fork.partition(" (")[0] for fork in about.forks] == ["SSD, Single Shot MultiBox Detector"]
    assert about.outputs == {"p": (10, 12, 16, 4)}
    assert "layers and fields of BVLC Caffe and SSD, " in run(net)[1].splitlines()[1]


def test_a_net_is_named_and_drawn(run, tmp_path):
    target = tmp_path / "net.svg"
    code, out, err = run("mini-fcn8s", "--figure", target)
    assert (code, err) == (0, f"wrote {target}\n")
    line = "381,677 learned parameters, 16 convolutions on the longest path, receptive field 404 px, stride 32"
    assert f"  table 1   {line}" in out.splitlines()
    drawn = target.read_text()
    assert all(f">{text}</text>" in drawn for text in ("mini-fcn8s", "SoftmaxWithLoss", "crop 31", "score_pool3"))


def test_one_prototxt_is_drawn_for_images_of_a_size(run, tmp_path):
    net, weights = write_net(tmp_path, FC)
    target = tmp_path / "net.svg"
    assert run(net, "--figure", target)[0] == 0
    assert ">thin</text>" in target.read_text()
    assert run("voc-fcn32s", "--figure", target, "--side", "96")[0] == 0
    assert ">21 \N{MULTIPLICATION SIGN} 96\N{SUPERSCRIPT TWO}</text>" in target.read_text()
    code, _, err = run(net, "--figure", "net.png")
    assert (code, err) == (1, "error: --figure writes SVG; got net.png, want a name that ends with .svg.\n")
    code, _, err = run(tmp_path, "--figure", tmp_path / "other.svg")
    assert (code, err) == (1, "error: --figure draws one net; got 2 files. Name one prototxt.\n")
    code, _, err = run(weights, "--figure", tmp_path / "other.svg")
    assert code == 1
    assert err.startswith(f"error: {weights}")
    assert not (tmp_path / "other.svg").exists()
