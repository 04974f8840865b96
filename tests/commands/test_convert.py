"""fcn convert: its output, its errors, and that it leaves no partial file."""

import importlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from reproduction.caffe.errors import WeightsError
from reproduction.caffe.formats import caffemodel, hashes, prototxt, weights
from reproduction.commands import start
from reproduction.fcn.nets import published_nets
from reproduction.fcn.segment import card
from reproduction.fcn.segment.convert import compare_blobs
from tests.helpers import thin_nets
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

GOLDEN = ROOT / "tests/golden"
SNAPSHOT = GOLDEN / "snapshot/snapshot_iter_3.caffemodel"
VGG = GOLDEN / "legacy/v1_tiny_vgg.caffemodel"
VGG_NET = GOLDEN / "legacy/v1_tiny_vgg.prototxt"


DATABASE_NET = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param { batch_size: 8 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } data_param { batch_size: 2 } }
layer { name: "conv1_1" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "conv2_1" type: "Convolution" bottom: "a" top: "b"
        convolution_param { num_output: 6 kernel_size: 5 group: 2 } }
"""


def tool(*args: object) -> subprocess.CompletedProcess[str]:
    return run_tool("convert", *args)


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool in this process; returns exit code and output."""
    module = importlib.import_module("reproduction.commands.convert")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["convert_caffemodel.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


def refused(*args: object) -> str:
    done = tool(*args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").rstrip("\n")


def test_without_an_output_it_prints_what_the_file_holds():
    done = tool(VGG)
    notes = "".join(f"  {note}\n" for note in weights.read(VGG).notes)
    assert "V1" in notes
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{VGG}: caffemodel V1, net 'TINY_VGG_V1'\n"
        "  Upgraded 11 layers from V1, the form of 2014.\n"
        "  An Input layer now produces 'data'.\n"
        "\n"
        "layer    type          blobs\n"
        "conv1_1  Convolution   4x3x3x3  4\n"
        "conv2_1  Convolution   6x2x5x5  6\n"
        "fc6      InnerProduct  10x384  10\n"
        "fc8      InnerProduct  5x10  5 (float64)\n"
        "\n"
        "4,323 parameters in 4 layers, 0.0 MB\n"
    )


def test_it_goes_from_every_format_to_every_other(tmp_path):
    source, want = SNAPSHOT, weights.read(SNAPSHOT).arrays()
    for suffix in (".safetensors", ".npz", ".pt", ".caffemodel.h5", ".caffemodel"):
        out = tmp_path / f"net{suffix}"
        done = tool(source, "-o", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"\nwrote {out}\n")
        found = weights.read(out).arrays()
        assert {name: values.tobytes() for name, values in found.items()} == {
            name: values.tobytes() for name, values in want.items()
        }
        source = out
    judge = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    assert judge["score_pool4.bias"].tobytes() == want["score_pool4.bias"].tobytes()


def test_with_a_net_every_parameter_is_accounted_for(tmp_path):
    done = tool(VGG, "--prototxt", VGG_NET, "-o", tmp_path / "net.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\nevery parameter of {VGG_NET} is in the file, and no others\n" in done.stdout

    text = VGG_NET.read_text()
    less, more, other = (tmp_path / f"{name}.prototxt" for name in ("less", "more", "other"))
    less.write_text(text.replace('name: "fc8"', 'name: "fc8_voc"'))
    assert refused(VGG, "--prototxt", less, "-o", tmp_path / "no.npz") == (
        f"{VGG}: these are not the weights of {less}; got no weights for fc8_voc; surplus weights for fc8."
    )
    more.write_text(text.replace("num_output: 5 ", "num_output: 6 "))
    assert refused(VGG, "--prototxt", more, "-o", tmp_path / "no.npz") == (
        f"{VGG}: layer 'fc8' blob 0 has another shape; got (1, 1, 5, 10), want (6, 10), as the net. "
        "To train this layer from its filler, rename it."
    )
    other.write_text("type: 'SGD'")
    assert str(other) in refused(VGG, "--prototxt", other, "-o", tmp_path / "no.npz")
    assert not (tmp_path / "no.npz").exists()


def test_a_net_fed_by_a_data_layer_is_checked_too():
    """The snapshot is of a thinned voc-fcn16s: its names fit the published net, its shapes do not."""
    text = refused(SNAPSHOT, "--prototxt", ROOT / "prototxt/voc-fcn16s/val.prototxt")
    assert text == (
        f"{SNAPSHOT}: layer 'conv1_1' blob 0 has another shape; got (2, 3, 3, 3), want (64, 3, 3, 3), as the net. "
        "To train this layer from its filler, rename it."
    )
    text = refused(VGG, "--prototxt", ROOT / "prototxt/nyud-fcn32s-color-d/test.prototxt")
    assert text.startswith(f"{VGG}: layer 'conv2_1' blob 0 has another shape; got (6, 2, 5, 5), want (128, 64, 3, 3)")


def test_a_net_that_reads_a_database_is_checked_too(tmp_path):
    net = tmp_path / "train_val.prototxt"
    net.write_text(DATABASE_NET)
    assert refused(VGG, "--prototxt", net) == (
        f"{VGG}: these are not the weights of {net}; got surplus weights for fc6, fc8."
    )


CROPPED = """
input: "data" input_shape { dim: 1 dim: 3 dim: 12 dim: 12 }
layer { name: "conv1_1" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 4 kernel_size: 3 pad: 2 } }
layer { name: "conv2_1" type: "Convolution" bottom: "a" top: "b"
        convolution_param { num_output: 6 kernel_size: 5 pad: 4 group: 2 } }
layer { name: "crop" type: "Crop" bottom: "b" bottom: "data" top: "c" }
"""


def test_a_net_with_the_crops_of_2015_is_a_warning_of_one_line_unless_the_switch_is_there(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(CROPPED)
    args = [VGG, "--prototxt", path, "--drop", "fc6", "fc8"]
    done = tool(*args)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: layer 'crop' (Crop), line 7: no offset is set; Caffe 1.0 takes 0, ")
    done = tool(*args, "--legacy-crop")
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_compares_every_blob_before_and_after(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    done = tool(VGG, "--prototxt", VGG_NET, "-o", tmp_path / "net.pt", "--verify", tmp_path / "photo.png", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["equal_blobs"] == 8
    assert report["written"] == str(tmp_path / "net.pt")
    assert report["upgrades"] == weights.read(VGG).notes
    assert report["layers"][0] == {
        "name": "conv1_1",
        "type": "Convolution",
        "shapes": [[4, 3, 3, 3], [4]],
        "dtypes": ["float32", "float32"],
    }


def test_verify_notices_a_layer_that_was_lost():
    message, before = prototxt.load_net(VGG_NET)[0], weights.read(VGG)
    inputs = {"data": np.ones((1, 3, 32, 32), np.float32)}
    after = weights.read(VGG)
    assert compare_blobs(message, inputs, before, after) == 8
    after.net.layer[:] = [layer for layer in after.net.layer if layer.name != "fc8"]
    with pytest.raises(WeightsError, match="the converted net computes something else; got blobs fc8"):
        compare_blobs(message, inputs, before, after)


def test_a_broken_picture_to_verify_with_is_said_before_anything_is_written(tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_text("none")
    text = refused(VGG, "--prototxt", VGG_NET, "-o", tmp_path / "net.pt", "--verify", photo)
    assert text.startswith(f"{photo}: not an image in a known format; ")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_the_input_is_never_overwritten(tmp_path):
    model = tmp_path / "net.caffemodel"
    model.write_bytes(SNAPSHOT.read_bytes())
    (tmp_path / "link.caffemodel").symlink_to(model)
    for out in (model, tmp_path / "link.caffemodel"):
        assert refused(model, "-o", out) == f"{out}: this is the file to read. Name another with -o."
    assert model.read_bytes() == SNAPSHOT.read_bytes()


def test_what_cannot_be_read_or_written_is_one_line_and_leaves_nothing(tmp_path):
    absent = tmp_path / "absent.caffemodel"
    assert refused(absent) == f"{absent}: no such file or directory."
    assert refused(VGG_NET) == (
        f"{VGG_NET}: this is a net's prototxt, not weights. Name the binary file; a prototxt contains no weights."
    )
    empty = tmp_path / "empty.npz"
    np.savez(empty)
    assert refused(empty) == (
        f"{empty}: the file contains no weights; got 0 layers without parameters. "
        "Pass the trained model, not the net's definition or the solver's state."
    )
    assert refused(VGG, "-o", tmp_path / "net.onnx") == (
        f"{tmp_path}/net.onnx: the ending is not that of a format of weights; "
        "got '.onnx', want .caffemodel, .h5, .hdf5, .npz, .pt, .pth, .safetensors."
    )
    nowhere = tmp_path / "no/net.npz"
    assert refused(VGG, "-o", nowhere) == f"{nowhere}: cannot be written: no such file or directory."
    assert [path.name for path in tmp_path.iterdir()] == ["empty.npz"]


def test_names_that_a_terminal_would_obey_are_shown_as_python_writes_them(tmp_path):
    net = caffemodel.load(VGG)
    net.layers[0].name, net.layers[1].name = "\x1b[31mred", "\udcff"
    caffemodel.dump(net, tmp_path / "net.caffemodel")
    done = tool(tmp_path / "net.caffemodel")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("args", [["--verify", "x.jpg"], ["--input", "data=3xy"], []])
def test_wrong_usage_is_exit_code_2(args):
    done = tool(*([VGG] if args else []), *args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_examples_of_the_help_are_in_the_help_and_parse():
    done = tool("--help")
    assert done.returncode == 0
    examples = re.findall(r"^    fcn convert .*$", done.stdout, re.MULTILINE)
    assert len(examples) == 8


def layers_of_pytorch_fcn(name):
    """The weights of the modules of wkentaro/pytorch-fcn (torchfcn/models), by the names of its layers."""
    vgg = [f"conv{block}_{i}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
    skips = {"32s": [], "16s": ["score_pool4"], "8s": ["score_pool3", "score_pool4"]}
    ups = {"32s": ["upscore"], "16s": ["upscore2", "upscore16"], "8s": ["upscore2", "upscore8", "upscore_pool4"]}
    stride = "8s" if "8s" in name else name[-3:]
    learned = [*vgg, "fc6", "fc7", "score_fr", *skips[stride]]
    return {f"{layer}.{kind}" for layer in learned for kind in ("weight", "bias")} | {
        f"{layer}.weight" for layer in ups[stride]
    }


@pytest.mark.parametrize("name", ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce"])
def test_weights_go_to_pytorch_fcn_and_back(name, tmp_path, convert):
    folder = tmp_path / name
    folder.mkdir()
    prototxt.dump(thin_nets.deploy(name, 64), folder / "deploy.prototxt")
    model = thin_nets.write(tmp_path / "a.caffemodel", name, 64)
    drop = ["--drop", "scale_pool4", "scale_pool3"] if "atonce" in name else []
    assert convert(model, "-o", tmp_path / "a.pth", *drop)[0] == 0
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert state.keys() == layers_of_pytorch_fcn(name)
    checkpoint = {"arch": "FCN", "model_state_dict": state, "best_mean_iu": np.float64(0.6)}
    torch.save(checkpoint, tmp_path / "model_best.pth.tar")
    code, out, _ = convert(tmp_path / "model_best.pth.tar", "-o", tmp_path / "b.caffemodel", "--net", folder)
    assert code == 0
    assert ("scale_pool3: 0.0001 everywhere, as the prototxt states" in out) == bool(drop)
    mine, theirs = weights.read(tmp_path / "b.caffemodel").arrays(), weights.read(model).arrays()
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)


def test_safetensors_say_what_they_hold(tmp_path, convert):
    folder = tmp_path / "voc-fcn32s"
    folder.mkdir()
    prototxt.dump(thin_nets.deploy("voc-fcn32s", 64), folder / "deploy.prototxt")
    model = thin_nets.write(tmp_path / "a.caffemodel", "voc-fcn32s", 64)
    assert convert(model, "-o", tmp_path / "a.safetensors", "--net", folder)[0] == 0
    about = card.parse_card(weights.read(tmp_path / "a.safetensors").metadata[card.METADATA_KEY])
    assert about == card.add_source(card.published_card(published_nets.NETS["voc-fcn32s"]), model)
    assert about.labels["label"].classes[15] == "person"
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:  # as the help has it
        said = json.loads(file.metadata()["card"])
    assert said["inputs"]["data"]["order"] == "BGR"
    assert said["labels"]["label"]["classes"] == list(about.labels["label"].classes)
    assert convert(model, "-o", tmp_path / "b.safetensors")[0] == 0
    source = json.loads(weights.read(tmp_path / "b.safetensors").metadata["source"])
    assert source == {"file": "a.caffemodel", "sha256": hashes.hash_file(model)}
    assert convert(tmp_path / "a.safetensors", "-o", tmp_path / "c.safetensors")[0] == 0
    assert card.METADATA_KEY in weights.read(tmp_path / "c.safetensors").metadata, "a card is not lost"


def test_what_cannot_be_left_out_is_named(convert):
    assert convert(VGG, "--drop", "fc9")[::2] == (
        1, f"error: {VGG}: there is no layer 'fc9' with weights to omit. Did you mean 'fc8'?\n",
    )  # fmt: skip
    assert convert(VGG, "--net", "voc-fcn9")[::2] == (
        1, "error: there is no net 'voc-fcn9'. Did you mean 'voc-fcn8s'?\n",
    )  # fmt: skip
