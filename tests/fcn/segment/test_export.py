"""Exports to ONNX and torch.export, with preprocessing and labels, at sizes that the export did not use."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.fcn.datasets import voc
from reproduction.fcn.images import caffe_input
from reproduction.fcn.nets import published_nets
from reproduction.fcn.segment import card, export
from reproduction.fcn.segment.export import ExportFormat
from tests.golden import seeded
from tests.helpers import thin_nets

ROWS = {"voc-fcn32s": 32, "voc-fcn8s": 32, "voc-fcn8s-atonce": 32, "voc-fcn-alexnet": 8, "siftflow-fcn16s": 32,
        "nyud-fcn32s-color-hha": 32}  # fmt: skip
FUSED = ("nyud-fcn32s-color-hha", "nyud-fcn32s-color-d")


def made(name, divisor=32):
    return thin_nets.net(name, divisor), card.published_card(published_nets.NETS[name])


@pytest.mark.parametrize("form", [ExportFormat("picture", "labels"), ExportFormat("blob", "scores")], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_onnx_computes_what_the_net_computes(name, form):
    net, about = made(name, ROWS[name])
    run = export.onnx_runner(export.export_onnx(net, about, form).SerializeToString())
    found = export.check_export(net, about, form, run)
    assert [each.size for each in found] == [size for size in export.SIZES for _ in about.labels]
    assert all(each.worst < 1e-3 for each in found)


def test_a_picture_goes_in_as_it_is_and_its_labels_come_out():
    net, about = made("voc-fcn8s")
    run = export.onnx_runner(export.export_onnx(net, about, ExportFormat()).SerializeToString())
    rgb = seeded.synth_image(41, 57, 3)
    blob = caffe_input.subtract_mean(rgb, np.array(voc.MEAN_BGR), flip=True)[None]
    with torch.inference_mode():
        want = net({"data": blob})["score"].max(dim=1).indices.numpy()
    [labels] = run({"data": rgb[None]})
    assert labels.dtype == np.uint8
    assert (labels != want).mean() < 1e-3


def test_the_preprocessing_of_onnx_is_exact():
    net, about = made("voc-fcn32s")
    both = [ExportFormat(inputs, "scores") for inputs in card.INPUTS]
    runs = [export.onnx_runner(export.export_onnx(net, about, form).SerializeToString()) for form in both]
    [a], [b] = (run(export.random_inputs(about, form, (33, 40))) for run, form in zip(runs, both, strict=True))
    assert np.array_equal(a, b)


def test_two_labellings_have_two_outputs_and_the_card_is_inside():
    net, about = made("siftflow-fcn16s")
    model = export.export_onnx(net, about, ExportFormat())
    assert [output.name for output in model.graph.output] == ["labels_sem", "labels_geo"]
    assert [x.dim_param for x in model.graph.output[0].type.tensor_type.shape.dim] == ["N", "H", "W"]
    kept = {each.key: each.value for each in model.metadata_props}
    assert kept.keys() == {"card", "form"}
    assert card.parse_card(kept["card"]) == about
    assert json.loads(kept["form"]) == ExportFormat().describe(about)
    assert {each.name: each.doc_string for each in model.graph.output} == ExportFormat().describe(about)["outputs"]
    assert {each.name: each.doc_string for each in model.graph.input} == ExportFormat().describe(about)["inputs"]
    onnx.checker.check_model(model, full_check=True)


def test_what_goes_in_and_comes_out_is_said():
    voc, fusion, early = (card.published_card(published_nets.NETS[f"{name}"]) for name in ("voc-fcn8s", *FUSED))
    assert ExportFormat("picture", "labels").describe(voc) == {
        "inputs": {"data": "(N, H, W, 3) uint8, R G B, 0 to 255, as it was read"},
        "outputs": {"labels": "(N, H, W) uint8, the class of each pixel"},
    }
    assert ExportFormat("blob", "scores").describe(voc) == {
        "inputs": {"data": "(N, 3, H, W) float32, B G R, minus 104.00699, 116.66877, 122.67892"},
        "outputs": {"scores": "(N, 21, H, W) float32, the scores of all classes before a softmax"},
    }
    assert ExportFormat("picture", "labels", "1").describe(voc)["outputs"] == {
        "labels": "(1, H, W) uint8, the class of each pixel"
    }
    assert ExportFormat("blob").describe(fusion)["inputs"] == {
        "color": "(N, 3, H, W) float32, B G R, minus 116.19, 97.203, 92.318",
        "hha": "(N, 3, H, W) float32, R G B, minus 132.431, 94.076, 118.477",
    }
    assert ExportFormat("blob").describe(early)["inputs"]["depth"] == (
        "(N, 1, H, W) float32, the natural logarithm of millimetres, minus 7.844"
    )


def test_a_program_of_torchs_runs_at_any_size(tmp_path):
    net, about = made("voc-fcn32s", 64)
    form = ExportFormat("picture", "labels")
    net({"data": torch.zeros(1, 3, *export.SIZES[-1])})  # a size that was seen must not become the only one
    torch.export.save(export.export_program(net, about, form), tmp_path / "net.pt2")
    run = export.program_runner(torch.export.load(tmp_path / "net.pt2"))
    assert all(each.worst < 1e-3 for each in export.check_export(net, about, form, run))


def test_another_net_is_noticed():
    net, about = made("voc-fcn32s")
    for outputs in card.OUTPUTS:
        form = ExportFormat("picture", outputs)
        other = export.export_onnx(thin_nets.net("voc-fcn32s", seed=2), about, form).SerializeToString()
        with pytest.raises(NetError, match=f"^the exported program computes other {outputs} than the net; got "):
            export.check_export(net, about, form, export.onnx_runner(other))


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_labels_of_scores_that_are_all_alike_are_not_checked(value):
    net, about = made("voc-fcn32s")
    with torch.no_grad():
        net.params["score_fr"][0].fill_(value)
        net.params["score_fr"][1].fill_(value)
    nonsense = np.full((1, 33, 47), 7, np.uint8)
    (found,) = export.check_export(net, about, ExportFormat("picture", "labels"), lambda inputs: [nonsense], [(33, 47)])
    assert found.is_empty


def test_labels_of_another_shape_are_noticed():
    net, about = made("voc-fcn32s")
    run = export.onnx_runner(export.export_onnx(net, about, ExportFormat("picture", "labels")).SerializeToString())
    with pytest.raises(NetError, match=r"^the exported program computes other labels than the net; got 1 at 33 x 47"):
        export.check_export(
            net, about, ExportFormat("picture", "labels"), lambda inputs: [run(inputs)[0][:, 1:]], [(33, 47)]
        )


def test_depth_is_no_picture():
    net, about = made("nyud-fcn32s-color-d")
    want = "nyud-fcn32s-color-d takes depth, which is not an image. Choose --input blob."
    for write in (export.export_onnx, export.export_program):
        with pytest.raises(ReproductionError) as error:
            write(net, about, ExportFormat())
        assert str(error.value) == want
    form = ExportFormat("blob")
    run = export.onnx_runner(export.export_onnx(net, about, form).SerializeToString())
    export.check_export(net, about, form, run, [(33, 47)])


def test_without_onnx_runtime_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ReproductionError) as error:
        export.onnx_runner(b"")
    assert str(error.value) == (
        "the package onnxruntime is not installed. Install it by `pip install 'fcn-reproduction[export]'`, or leave the"
        " check out with --no-check."
    )
