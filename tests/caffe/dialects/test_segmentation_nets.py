"""Small nets in the manner of SegNet, PSPNet and CRF-RNN: trained, loaded, compiled, exported, used by a Segmenter."""

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import reproduction
from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import blobs, caffemodel, prototxt, upgrade
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.caffe.training import solver
from reproduction.fcn.segment import any_net
from reproduction.fcn.segment.card import Card, CardInput, CardLabels
from reproduction.fcn.segment.segmenter import Segmenter
from tests.helpers import tiny_training
from tests.helpers.parity import relative


def convolution(name, bottom, channels, kernel=3):
    return f"""
    layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
      num_output: {channels} kernel_size: {kernel} pad: {kernel // 2} weight_filler {{ type: "msra" }} }} }}"""


def norm(name, bottom, fields):
    return f"""
    layer {{ name: "{name}" type: "BN" bottom: "{bottom}" top: "{bottom}" bn_param {{ {fields} }} }}
    layer {{ name: "{name}_relu" type: "ReLU" bottom: "{bottom}" top: "{bottom}" }}"""


SEGNET_NORM = 'scale_filler { type: "constant" value: 1 } shift_filler { type: "constant" value: 0.001 }'
PSPNET_NORM = 'slope_filler { type: "constant" value: 1 } bias_filler { type: "constant" value: 0 } momentum: 0.5'
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 17 dim: 21 } } }'
DATA = """
layer { name: "data" type: "DenseImageData" top: "data" top: "label" dense_image_data_param {
  source: "FOLDER/list.txt" root_folder: "FOLDER/" batch_size: 2 } transform_param { mean_value: 128 scale: 0.01 } }
"""
SEGNET = (
    convolution("conv1", "data", 8)
    + norm("norm1", "conv1", SEGNET_NORM)
    + """
    layer { name: "pool" type: "Pooling" bottom: "conv1" top: "pool" top: "mask"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }"""
    + convolution("conv2", "pool", 8)
    + norm("norm2", "conv2", SEGNET_NORM)
    + """
    layer { name: "up" type: "Upsample" bottom: "conv2" bottom: "mask" top: "up"
      upsample_param { scale: 2 pad_out_h: true pad_out_w: true } }"""
    + convolution("score", "up", 2)
)
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { weight_by_label_freqs: true ignore_label: 255 class_weighting: 0.5 class_weighting: 2 } }
layer { name: "accuracy" type: "SegAccuracy" bottom: "score" bottom: "label" top: "accuracy"
  seg_accuracy_param { ignore_label: 255 } }
"""
PSPNET = (
    convolution("conv1", "data", 6)
    + norm("norm1", "conv1", PSPNET_NORM)
    + """
    layer { name: "level" type: "Pooling" bottom: "conv1" top: "level" pooling_param { pool: AVE kernel_size: 9 stride: 8 } }
    layer { name: "level_up" type: "Interp" bottom: "level" top: "level_up" interp_param { height: 17 width: 21 } }
    layer { name: "both" type: "Concat" bottom: "conv1" bottom: "level_up" top: "both" }
    layer { name: "small" type: "Interp" bottom: "both" top: "small" interp_param { shrink_factor: 2 } }"""  # noqa: E501
    + convolution("score_small", "small", 2, 1)
    + """
    layer { name: "score" type: "Interp" bottom: "score_small" top: "score" interp_param { zoom_factor: 2 } }"""
)
CRF = """
layer { name: "crf" type: "MultiStageMeanfield" bottom: "score" bottom: "score" bottom: "data" top: "pred"
  multi_stage_meanfield_param { num_iterations: 3 theta_alpha: 20 theta_beta: 30 theta_gamma: 3
    spatial_filter_weights_str: "3 3" bilateral_filter_weights_str: "5 5" } }
"""
NETS = {"segnet": SEGNET, "pspnet": PSPNET, "crfrnn": PSPNET + CRF}


def read(text):
    net = prototxt.loads(text, NetParameter)
    upgrade.upgrade_net(net)
    return net


def draw(folder, count=4):
    """Images of a bright square on noise, their label maps, and the list."""
    generator = np.random.default_rng(0)
    for i in range(count):
        image, labels = generator.integers(0, 100, (17, 21, 3), np.uint8), np.zeros((17, 21), np.uint8)
        top, left = generator.integers(0, 9, 2)
        image[top : top + 8, left : left + 8], labels[top : top + 8, left : left + 8] = 220, 1
        labels[0, 0] = 255
        Image.fromarray(image).save(folder / f"{i}.png")
        Image.fromarray(labels).save(folder / f"{i}_labels.png")
    (folder / "list.txt").write_text("".join(f"{i}.png {i}_labels.png\n" for i in range(count)))


@pytest.mark.parametrize("name", NETS)
def test_a_small_net_is_trained_from_files(tmp_path, name):
    draw(tmp_path)
    loss = LOSS if name != "crfrnn" else LOSS.replace('bottom: "score"', 'bottom: "pred"')
    param = tiny_training.param("base_lr: 0.1")
    param.net_param = read(DATA.replace("FOLDER", str(tmp_path)) + NETS[name] + loss)
    run = solver.build_solver(param)
    first = run.step(1)
    assert run.step(40) < 0.5 * first
    net = run.net.eval()
    _, recall, iou = net(blobs=["accuracy"])["accuracy"].flatten().tolist()
    assert min(recall, iou) > 0.75


def test_the_running_statistics_of_pspnet_are_saved_and_loaded(tmp_path):
    draw(tmp_path)
    param = tiny_training.param("base_lr: 0.1")
    param.net_param = read(DATA.replace("FOLDER", str(tmp_path)) + PSPNET + LOSS)
    run = solver.build_solver(param)
    run.step(3)
    stored = caffemodel.loads(caffemodel.dumps(run.net.to_proto()), NetParameter)
    upgrade.upgrade_net(stored)
    net = Net(read(INPUT + PSPNET)).eval()
    report = net.copy_from(stored)
    assert "norm1" in report.copied
    for mine, theirs in zip(net.layers["norm1"].blobs, run.net.layers["norm1"].blobs, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.any()


@pytest.mark.parametrize(("count", "dialect"), [(4, "pspnet"), (2, "segnet")])
def test_the_number_of_blobs_tells_the_fork_of_a_bn_layer_without_fields(count, dialect):
    net = prototxt.loads(INPUT + 'layer { name: "norm" type: "BN" bottom: "data" top: "norm" }', NetParameter)
    stored = NetParameter()
    stored.layer.add(name="norm", type="BN", blobs=[blobs.from_array(np.ones((1, 3, 1, 1), np.float32))] * count)
    upgrade.upgrade_net(net, weights=stored)
    built = Net(net)
    assert type(built.layers["norm"]).dialect.name == dialect
    built.copy_from(stored)


@pytest.mark.parametrize("name", NETS)
def test_a_small_net_computes_the_same_compiled_and_exported(name):
    net = Net(read(INPUT + NETS[name]), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    if name != "segnet":
        net.layers["norm1"].blobs[3].data.uniform_(0.5, 2, generator=generator)
    image = torch.randn(1, 3, 17, 21, generator=generator) * 50
    out = "pred" if name == "crfrnn" else "score"
    with torch.no_grad():
        want = net({"data": image})[out]
        assert relative(reproduction.compile(net)({"data": image})[out].numpy(), want.numpy()) < 1e-5
        wanted = net({"data": image}, blobs=["score"])["score"]
    graph = onnx_export.OnnxGraph()
    fed = {"data": graph.input("data", np.float32, (1, 3, 17, 21))}
    if name == "crfrnn":
        with pytest.raises(NetError, match=r"Export the net up to the blobs before: score"):
            onnx_export.add_layers(net, onnx_export.OnnxGraph(), fed, ["pred"])
    graph.output("out", onnx_export.add_layers(net, graph, fed, ["score"])["score"], np.float32, tuple(wanted.shape))
    session = onnxruntime.InferenceSession(graph.model("net", {}).SerializeToString())
    (got,) = session.run(None, {"data": image.numpy()})
    assert relative(got, wanted.numpy()) < 1e-5


@pytest.mark.parametrize("name", NETS)
def test_a_segmenter_labels_an_image_with_a_card(name):
    colours = ((0, 0, 0), (255, 0, 0))
    score = "pred" if name == "crfrnn" else "score"
    card = Card(
        net=name,
        inputs={"data": CardInput("color", "BGR", (104.0, 117.0, 123.0), "float32")},
        labels={"label": CardLabels(score, ("nothing", "square"), colours)},
    )
    segmenter = Segmenter(card, Net(read(INPUT + NETS[name]), Phase.TEST, seed=0).eval())
    image = np.random.default_rng(0).integers(0, 256, (17, 21, 3), np.uint8)
    result = segmenter(Image.fromarray(image))
    assert result.labels.shape == (17, 21)
    assert set(np.unique(result.labels)) <= {0, 1}


@pytest.mark.parametrize(("scale", "size"), [(2, (16, 20)), (0, None)])
def test_images_are_resized_for_a_net_that_takes_multiples_of_a_size(tmp_path, scale, size):
    text = (
        INPUT.replace("17", "16").replace("21", "20")
        + convolution("conv1", "data", 4)
        + """
    layer { name: "pool" type: "Pooling" bottom: "conv1" top: "pool" top: "mask"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "up" type: "Upsample" bottom: "pool" bottom: "mask" top: "up" }
    layer { name: "both" type: "Eltwise" bottom: "conv1" bottom: "up" top: "both" }"""
        + convolution("score", "both" if scale else "conv1", 2)
    )
    net_param = read(text)
    card, notes = any_net.describe_net(
        Net(net_param).eval(), net_param, any_net.NetOptions(labels_blob="score"), tmp_path / "net.prototxt"
    )
    assert card.inputs["data"].size == (size or ())
    assert any("are resized to 16 x 20" in note for note in notes) == (size is not None)
