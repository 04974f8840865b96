"""Detectors as a whole: a small SSD, in all ways to run a net, and published ones; OpenCV 4 judges the boxes."""

import hashlib
import json

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

import reproduction
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.pycaffe.net.net import Net as PycaffeNet
from tests.helpers.parity import relative
from tests.helpers.paths import GOLDEN, ROOT
from tests.helpers.small_ssd import write_small_ssd


@pytest.fixture(scope="module")
def small_ssd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ssd")
    write_small_ssd(folder, "ssd")
    return folder


def image(height, width, seed=0, scale=100):
    return (np.random.default_rng(seed).normal(size=(1, 3, height, width)) * scale).astype(np.float32)


def ordered(rows):
    """Return rows of detections without padding, sorted: OpenCV's are sorted by score and padded with zeros."""
    rows = rows.reshape(-1, 7)
    rows = rows[rows[:, 2] > 0]
    return rows[np.lexsort(rows.T[[3, 2, 1]])]


@pytest.mark.parametrize("size", [(48, 64), (80, 56)])
def test_opencv_finds_the_same_boxes_in_a_small_ssd(small_ssd, size):
    paths = [str(small_ssd / f"ssd.{ending}") for ending in ("prototxt", "caffemodel")]
    net, x = reproduction.load_net(*paths), image(*size)
    with torch.no_grad():
        found = net({"data": x})["found"].numpy()
    assert found.shape[2] > 10
    judge = cv2.dnn.readNetFromCaffe(*paths)
    judge.setInput(x)
    theirs = ordered(judge.forward("found"))
    np.testing.assert_allclose(ordered(found), theirs, atol=2e-5)
    compiled = reproduction.compile(net)
    np.testing.assert_allclose(ordered(compiled({"data": x})["found"].numpy()), theirs, atol=2e-5)
    program = PycaffeNet(paths[0], paths[1], int(Phase.TEST))
    program.blobs["data"].reshape(*x.shape)
    program.blobs["data"].data[...] = x
    np.testing.assert_allclose(ordered(program.forward()["found"]), theirs, atol=2e-5)


def test_an_exported_ssd_takes_images_of_any_size(small_ssd):
    net = reproduction.load_net(small_ssd / "ssd.prototxt", small_ssd / "ssd.caffemodel")
    graph = onnx_export.OnnxGraph()
    inputs = {"data": graph.input("data", np.float32, ["N", 3, "H", "W"])}
    values = onnx_export.add_layers(net, graph, inputs, ["found"])
    assert not graph.fixed_sizes
    graph.output("boxes", values["found"], np.float32, [1, 1, "D", 7])
    session = onnxruntime.InferenceSession(graph.model("ssd", {}).SerializeToString())
    for x in (image(48, 64), np.concatenate([image(80, 56, 1), image(80, 56, 2)])):
        with torch.no_grad():
            want = net({"data": x})["found"].numpy()
        (got,) = session.run(None, {"data": x})
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_a_program_sees_the_size_of_the_last_forward_pass(small_ssd):
    net = PycaffeNet(small_ssd / "ssd.prototxt", small_ssd / "ssd.caffemodel", int(Phase.TEST))
    blob = net.blobs["found"]
    assert blob.data.shape == (1, 1, 1, 7)
    sizes = []
    for scale in (100, 0):
        net.blobs["data"].data[...] = image(48, 64, scale=scale)
        sizes.append(net.forward()["found"].shape)
        assert blob.data.shape == sizes[-1]
    assert sizes[0] != sizes[1]
    net.reshape()
    assert blob.data.shape == (1, 1, 1, 7)


def test_a_net_for_training_is_fed_instead_of_its_database():
    text = """
        layer { name: "data" type: "AnnotatedData" top: "data" top: "label"
          transform_param { mean_value: 104 resize_param { height: 30 width: 40 interp_mode: LINEAR interp_mode: AREA }
            distort_param { hue_prob: 0.5 } expand_param { max_expand_ratio: 4 } emit_constraint { emit_type: CENTER } }
          data_param { source: "lmdb" batch_size: 8 backend: LMDB }
          annotated_data_param { batch_sampler { sampler { min_scale: 0.3 } max_trials: 50 } label_map_file: "map" } }
        layer { name: "silence" type: "Silence" bottom: "data" bottom: "label" }"""
    message = prototxt.loads(text, NetParameter)
    with pytest.raises(ReproductionError) as error:
        Net(message, Phase.TRAIN)
    assert "databases of annotated images are not read here, so the tops must be fed" in str(error.value)
    assert str(error.value).endswith("Pass inputs={'data': (8, 3, 30, 40), 'label': (1, 1, M, 8)}.")
    net = Net(message, Phase.TRAIN, inputs={"data": (8, 3, 30, 40), "label": (1, 1, 5, 8)})
    assert net.inputs == ["data", "label"]
    net({"data": torch.zeros(8, 3, 30, 40), "label": torch.zeros(1, 1, 9, 8)})


def test_a_net_for_videos_is_fed_instead_of_a_camera():
    text = """
        layer { name: "data" type: "VideoData" top: "data" data_param { batch_size: 1 }
          transform_param { resize_param { height: 30 width: 40 } } video_data_param { video_type: WEBCAM } }
        layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" }"""
    message = prototxt.loads(text, NetParameter)
    with pytest.raises(ReproductionError, match="videos and cameras are not read here, so the tops must be fed"):
        Net(message, Phase.TEST)
    assert Net(message, Phase.TEST, inputs={"data": (1, 3, 30, 40)}).inputs == ["data"]


# ---- published detectors


def published(folder, name, address):
    path = ROOT / "weights" / folder / name
    if not path.exists():
        pytest.skip(f"download {name} from {address} to weights/{folder}")
    return path


def test_the_qr_code_detector_of_wechat_finds_what_opencv_finds():
    address = "https://github.com/WeChatCV/opencv_3rdparty/tree/wechat_qrcode"
    net_path, model = (published("wechat_qrcode", f"detect.{ending}", address) for ending in ("prototxt", "caffemodel"))
    with np.load(GOLDEN / "forks/nets/wechat_detect.npz") as file:
        golden = dict(file)
    meta = json.loads(bytes(golden["meta"]))
    assert hashlib.md5(model.read_bytes()).hexdigest() == meta["model_md5"]
    x = golden["input/data"].astype(np.float32) / 255
    net = reproduction.load_net(net_path, model)
    recorded = [key[5:-4] for key in golden if key.startswith("blob/") and key.endswith("/val")]
    names = [name for name in recorded if "_split_" not in name]
    with torch.no_grad():
        blobs = net({"data": x}, names)
    for name in names:
        got = blobs[name].numpy()
        assert list(got.shape) == golden[f"blob/{name}/shape"].tolist(), name
        sample = got.reshape(-1)[golden[f"blob/{name}/idx"]]
        assert np.abs(sample - golden[f"blob/{name}/val"]).max() <= 1e-5 * golden[f"blob/{name}/stat"][2], name
    found = blobs["detection_output"].numpy()
    assert found.shape == (1, 1, 2, 7)  # the image has two QR codes
    judge = cv2.dnn.readNetFromCaffe(str(net_path), str(model))
    judge.setInput(x)
    np.testing.assert_allclose(ordered(found), ordered(judge.forward("detection_output")), atol=1e-5)
    compiled = reproduction.compile(net)({"data": x})["detection_output"]
    assert relative(compiled.numpy(), found) < 1e-5


@pytest.mark.parametrize("name", ["RFB-320", "slim-320"])
def test_the_ultra_light_face_detectors_compute_what_opencv_computes(name):
    address = "https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB/tree/master/caffe/model"
    net_path, model = (published("ultra_face", f"{name}.{ending}", address) for ending in ("prototxt", "caffemodel"))
    net, x = reproduction.load_net(net_path, model), image(240, 320, scale=1)
    with torch.no_grad():
        found = net({"input": x})
    compiled = reproduction.compile(net)({"input": x})
    judge = cv2.dnn.readNetFromCaffe(str(net_path), str(model))
    judge.setInput(x)
    for blob, size in (("boxes", 4), ("scores", 2)):
        want = judge.forward(blob).reshape(1, -1, size)
        assert found[blob].shape == (1, 4420, size)
        assert relative(found[blob].numpy(), want) < 5e-6
        assert relative(compiled[blob].numpy(), want) < 5e-6
