"""fcn infer and fcn export with a prototxt and weights of any net."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.net.net import Net
from reproduction.commands import export, infer, start
from reproduction.fcn.segment.any_net import NetOptions
from reproduction.fcn.segment.classifier import Classifier
from reproduction.fcn.segment.segmenter import Segmenter
from tests.helpers import classifiers
from tests.helpers.any_nets import ARGMAX, FC, write_net
from tests.helpers.paths import GOLDEN


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")

    def call(module, *args):
        monkeypatch.setattr(sys, "argv", ["fcn", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            start.run(lambda: module.main(list(map(str, args))))
        return end.value.code, *capsys.readouterr()

    return call


def test_a_classifier_prints_its_best_classes(run, tmp_path):
    net, weights = write_net(tmp_path, FC)
    (tmp_path / "names.txt").write_text("".join(f"thing {i}\n" for i in range(7)))
    given = ("photo.png", "--net", net, "--weights", weights, "--mean", "104,117,123", "--classes", "names.txt")
    code, out, err = run(infer, *given, "--top", 2)
    options = NetOptions(mean=(104, 117, 123), classes=tmp_path / "names.txt")
    best = Classifier.from_prototxt(net, weights, options)("photo.png").top(2)
    assert code == 0
    assert out.splitlines() == [
        "photo.png:", *(f"  {each.score:<8.4g} {each.label:>4}  {each.name}" for each in best)
    ]  # fmt: skip
    assert err.splitlines() == [
        "note: channels are in the order B, G, R, as Caffe reads images.",
        "note: images are resized to 12 x 16, the size of 'data'.",
        "note: 'prob' holds scores of 7 classes for each image.",
    ]
    code, out, _ = run(infer, "none.png", *given, "--json")
    assert code == 1
    (found,) = json.loads(out)
    assert (found["image"], len(found["classes"])) == ("photo.png", 5)
    assert found["classes"][0]["name"] == best[0].name


@pytest.mark.parametrize("layers", ["", ARGMAX], ids=["scores", "labels"])
def test_any_segmentation_net_segments(run, tmp_path, layers):
    net, weights = write_net(tmp_path, layers)
    code, out, _ = run(infer, "photo.png", "--net", net, "--weights", weights, "--mean", "5", "-o", "out")
    assert code == 0
    assert out.startswith("photo.png: 30 x 20, ")
    with Image.open("out/photo.png") as labels:
        want = Segmenter.from_prototxt(net, weights, NetOptions(mean=(5,)))("photo.png").labels
        assert np.array_equal(np.asarray(labels), want)


def test_a_net_is_exported_as_it_is(run, tmp_path):
    net, weights = write_net(tmp_path, FC)
    code, out, err = run(export, net, "--weights", weights)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("deploy.onnx: thin, ")
    assert lines[1] == "  data (N, 3, 12, 16) -> prob (N, 7)"
    assert [line.rsplit(" ", 1)[0] for line in lines[2:]] == [
        "  checked for data (1, 3, 12, 16): prob, differs by",
        "  checked for data (2, 3, 12, 16): prob, differs by",
    ]
    session = onnxruntime.InferenceSession("deploy.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["form"]) == {"inputs": {"data": "(N, 3, 12, 16)"}, "outputs": {"prob": "(N, 7)"}}
    assert json.loads(said["source"])["file"] == "thin.caffemodel"
    assert run(export, net, "--weights", weights, "--size", "20x24")[0] == 1, "the weights are of another size"
    net, weights = write_net(tmp_path, ARGMAX)
    code, out, _ = run(export, net, "--weights", weights, "--outputs", "conv", "--size", "20x24", "--json", "-o", "x")
    assert code == 0
    assert json.loads(out)["form"]["outputs"] == {"conv": "(N, 4, conv_axis2, conv_axis3)"}
    assert json.loads(out)["checked"][0]["inputs"] == {"data": [1, 3, 20, 24]}


@pytest.mark.parametrize("name", ["alexnet", "resnet50"])
def test_a_thin_classifier_goes_to_onnx_and_to_classes(run, tmp_path, name):
    prototxt.dump(classifiers.NETS[name](32), tmp_path / "deploy.prototxt")
    caffemodel.dump(classifiers.net(name, 32).to_proto(), tmp_path / "w.caffemodel")
    code, out, err = run(export, "deploy.prototxt", "--weights", "w.caffemodel")
    assert (code, err) == (0, "")
    side = 227 if name == "alexnet" else 224
    assert out.splitlines()[1].startswith(f"  data (N, 3, {side}, {side}) -> ")
    code, out, _ = run(
        infer, "photo.png", "--net", "deploy.prototxt", "--weights", "w.caffemodel", "--mean", "104,117,123"
    )
    assert code == 0
    assert len(out.splitlines()) == 6


def test_a_thin_u_net_goes_to_onnx_and_to_labels(run, tmp_path):
    spec = prototxt.load_net(GOLDEN / "unet.prototxt")[0]
    for layer in spec.layer:
        if layer.type in ("Convolution", "Deconvolution") and layer.convolution_param.num_output > 2:
            layer.convolution_param.num_output //= 16
            layer.convolution_param.weight_filler.type = "xavier"
    prototxt.dump(spec, tmp_path / "deploy.prototxt")
    shapes = {"data": (1, 1, 220, 220)}
    caffemodel.dump(Net(spec, inputs=shapes, seed=1).to_proto(), tmp_path / "w.caffemodel")
    given = ("deploy.prototxt", "--weights", "w.caffemodel", "--size", "220")
    code, out, _ = run(export, *given)
    assert code == 0
    assert out.splitlines()[1] == "  data (N, 1, H, W) -> score (N, 2, score_axis2, score_axis3)"
    code, out, _ = run(infer, "photo.png", "--net", *given)
    assert code == 0
    with Image.open("segmented/photo.png") as labels:
        assert labels.size == (30, 20)


def test_a_net_is_exported_with_its_preprocessing(run, tmp_path):
    net, weights = write_net(tmp_path, FC)
    given = (net, "--weights", weights, "--input", "picture", "--mean", "104,117,123", "-o", "x.onnx")
    assert run(export, *given)[0] == 0
    pixels = np.random.default_rng(4).integers(0, 256, (12, 16, 3), np.uint8)
    (label,) = onnxruntime.InferenceSession("x.onnx").run(None, {"data": pixels[None]})
    options = NetOptions(mean=(104, 117, 123))
    assert label.tolist() == [Classifier.from_prototxt(net, weights, options)(pixels).top(1)[0].label]


def test_a_program_is_written_too(run, tmp_path):
    net, weights = write_net(tmp_path)
    code, out, _ = run(export, net, "--weights", weights, "--format", "program")
    assert code == 0
    assert out.splitlines()[1] == "  data (10, 3, H, W) -> conv (10, 4, conv_axis2, conv_axis3)"


def test_mistakes_are_one_line(run, tmp_path):
    net, weights = write_net(tmp_path, FC)
    code, _, err = run(infer, "photo.png", "--net", net)
    assert code == 2
    assert err.endswith(f"error: {net} is a prototxt; name its weights with --weights FILE\n")
    code, _, err = run(infer, "photo.png", "--net", "mini-fcn8s", "--mean", "3")
    assert code == 2
    assert err.splitlines()[-1].startswith("fcn infer: error: --mean, --scale, ")
    assert run(export, net, "--weights", weights, "--outputs", "prob", "--output", "scores")[0] == 2
    assert run(infer, "photo.png", "--net", net, "--weights", weights, "--mean", "none.binaryproto")[::2] == (
        1, "error: none.binaryproto: the mean image cannot be read (no such file or directory).\n",
    )  # fmt: skip
    for option in ("--size=3x", "--size=a", "--scale=x", "--input-shape=3"):
        assert run(export, net, "--weights", weights, option)[0] == 2
    (tmp_path / "more.prototxt").write_text(
        net.read_text() + 'layer { name: "l" type: "EuclideanLoss" bottom: "fc" bottom: "prob" top: "l" }'
    )
    code, _, err = run(export, "more.prototxt", "--weights", weights)
    assert code == 1
    assert err == (
        "error: layer 'l' (EuclideanLoss), line 9: this type cannot be written as ONNX. Export the net up to the blobs"
        " before: fc, prob.\n"
    )
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize(
    ("module", "given"), [(export, ["absent.prototxt"]), (infer, ["photo.png", "--net", "absent.prototxt"])]
)
def test_a_missing_prototxt_is_not_taken_for_the_name_of_a_net(run, tmp_path, module, given):
    _, weights = write_net(tmp_path, FC)
    code, out, err = run(module, *given, "--weights", weights)
    assert (code, out) == (1, "")
    assert err == "error: absent.prototxt: no such file or directory.\n"
