"""The frame around an image and its labels, for nets whose scores cover less or more than the image."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import DataError
from reproduction.caffe.layers.onnx_graph import OnnxGraph
from reproduction.caffe.net.export_net import onnx_runner
from reproduction.caffe.schema import PythonParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets import voc
from reproduction.fcn.images.framing import Framing
from reproduction.fcn.segment import onnx_framing
from tests.helpers import custom_folders

FRAMING = Framing(mirror=5, margin=2, multiple=8)


@pytest.mark.parametrize(("height", "width"), [(1, 2), (3, 4), (6, 40)])
def test_an_image_is_continued_by_mirroring_it_as_often_as_needed(height, width):
    image = np.random.default_rng(0).standard_normal((3, height, width)).astype(np.float32)
    framed = FRAMING.frame_image(image)
    assert np.array_equal(framed, np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect"))
    assert np.array_equal(FRAMING.frame_tensor(torch.from_numpy(image)[None])[0].numpy(), framed)
    assert Framing(margin=2).frame_image(image) is image


def test_labels_are_continued_by_void_to_a_multiple():
    framed = FRAMING.frame_labels(np.ones((1, 6, 8), np.uint8), 255)
    assert framed.shape == (1, 8 + 14, 8 + 14)
    assert framed[:, 7:13, 7:15].all()
    assert int((framed != 255).sum()) == 6 * 8


def test_scores_are_cropped_to_the_image():
    scores = np.arange(2 * 12 * 12).reshape(1, 2, 12, 12)
    assert np.array_equal(FRAMING.crop_scores(scores, (6, 7)), scores[:, :, 2:8, 2:9])
    assert Framing().crop_scores(scores, (6, 7)) is scores


def test_the_operators_of_onnx_frame_and_crop_as_torch_does():
    graph = OnnxGraph()
    image = graph.input("image", np.float32, ["N", 1, "H", "W"])
    framed = onnx_framing.add_frame(graph, "image", image, FRAMING)
    graph.output("framed", framed, np.float32, ["N", 1, "h", "w"])
    graph.output("cropped", onnx_framing.add_crop(graph, "c", framed, image, FRAMING), np.float32, ["N", 1, "H", "W"])
    run = onnx_runner(graph.model("frame", {}).SerializeToString())
    for size in ((1, 9), (4, 7)):
        x = np.random.default_rng(1).standard_normal((1, 1, *size)).astype(np.float32)
        framed_x, cropped_x = run({"image": x})
        assert np.array_equal(framed_x, FRAMING.frame_image(x))
        assert np.array_equal(cropped_x, FRAMING.crop_scores(framed_x, size))


def layer(**params):
    said = {"split": "train", "classes": list(custom_folders.NAMES), **params}
    return PythonParameter(module="folder_layers", layer="FolderSegDataLayer", param_str=repr(said))


def test_a_data_layer_states_the_frame_the_brightness_and_the_scale(tmp_path):
    custom_folders.write(tmp_path)
    plain = datasets.from_layer(layer(), ["data", "label"], tmp_path)
    grey = datasets.from_layer(layer(mean=(128,), scale=0.5, mirror=3), ["data", "label"], tmp_path)
    height, width = plain[0]["label"].shape[1:]
    assert datasets.check_sample(grey, 0)["data"].shape == (1, height, width)
    assert grey.frame(grey[0])["data"].shape == grey.frame(grey[0])["label"].shape == (1, height + 6, width + 6)
    rgb = plain[0]["data"][::-1] + np.array(voc.MEAN_BGR)[::-1, None, None]
    brightness = np.rint(rgb[0] * 0.299 + rgb[1] * 0.587 + rgb[2] * 0.114)
    assert np.abs(grey[0]["data"][0] * 2 + 128 - brightness).max() <= 1


@pytest.mark.parametrize("params", [{"mirror": -1}, {"margin": "9"}, {"multiple": 0}, {"mirror": 1 << 20}])
def test_a_frame_that_is_not_a_number_of_pixels_is_an_error(tmp_path, params):
    custom_folders.write(tmp_path)
    with pytest.raises(DataError, match=r"the frame is not a number of pixels; got .*, want 1 to 1024"):
        datasets.from_layer(layer(**params), ["data", "label"], tmp_path)


@pytest.mark.parametrize("params", [{"scale": 0}, {"mean": (1, 2)}, {"mean": ("x",)}])
def test_an_invalid_mean_or_scale_is_an_error(tmp_path, params):
    custom_folders.write(tmp_path)
    with pytest.raises(DataError, match=r"'(scale|mean)' is not"):
        datasets.from_layer(layer(**params), ["data", "label"], tmp_path)
