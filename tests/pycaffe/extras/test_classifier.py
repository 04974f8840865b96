"""Classifier and Detector on a small net, compared with the same arithmetic in NumPy."""

import sys
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reproduction.pycaffe as caffe
from reproduction.caffe.errors import NetError, ReproductionError

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.05 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.prototxt").write_text(NET)
    caffe.set_random_seed(1)
    caffe.Net(folder / "net.prototxt", caffe.TEST).save(str(folder / "net.caffemodel"))
    return folder / "net.prototxt", folder / "net.caffemodel"


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.random((12, 14, 3)).astype(np.float32) for _ in range(3)]


def probabilities(files, crops):
    net = caffe.Net(files[0], files[1], caffe.TEST)
    weight, bias = (blob.data for blob in net.params["ip"])
    scores = np.array([crop.ravel() for crop in crops]) @ weight.T + bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


MEAN = np.array([0.1, 0.2, 0.3])


def prepared(crop):
    """Swap channels, scale and subtract, as the settings below say."""
    return (crop.transpose(2, 0, 1)[::-1] * 2 - MEAN.reshape(3, 1, 1)) * 0.5


SETTINGS: dict[str, Any] = {"mean": MEAN, "raw_scale": 2, "channel_swap": (2, 1, 0), "input_scale": 0.5}


def test_the_centre_is_classified(files, pictures):
    net, weights = files
    got = caffe.Classifier(net, weights, **SETTINGS, image_dims=(12, 14)).predict(pictures, oversample=False)
    want = probabilities(files, [prepared(picture[2:10, 3:11]) for picture in pictures])
    assert np.allclose(got, want, atol=1e-6)


def test_ten_crops_are_averaged(files, pictures):
    net, weights = files
    got = caffe.Classifier(net, weights, **SETTINGS, image_dims=(12, 14)).predict(pictures)
    crops = caffe.io.oversample(pictures, (8, 8))
    want = probabilities(files, [prepared(crop) for crop in crops]).reshape(3, 10, 3).mean(axis=1)
    assert np.allclose(got, want, atol=1e-6)


def test_pictures_get_the_size_of_the_input_unless_another_is_given(files, pictures):
    classifier = caffe.Classifier(*files)
    got = classifier.predict(pictures[:1], oversample=False)
    small = caffe.io.resize_image(pictures[0], (8, 8)).transpose(2, 0, 1)
    assert np.allclose(got, probabilities(files, [small]), atol=1e-6)
    assert got.shape == (1, 3)


def test_windows_are_warped_and_classified(files, pictures, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray((pictures[0] * 255).astype(np.uint8)).save(path)
    windows: list[Any] = [np.array([0, 0, 8, 8]), (2, 3, 12, 13)]
    found = caffe.Detector(*files, **SETTINGS).detect_windows([(path, windows)])
    image = caffe.io.load_image(path)
    crops = [image[:8, :8], caffe.io.resize_image(image[2:12, 3:13], (8, 8))]
    want = probabilities(files, [prepared(crop) for crop in crops])
    assert np.allclose([each["prediction"] for each in found], want, atol=1e-6)
    assert [(each["filename"], tuple(each["window"])) for each in found] == [(path, tuple(w)) for w in windows]


def test_context_shows_the_surroundings_and_beyond_the_picture_the_mean(files, pictures):
    net, weights = files
    detector = caffe.Detector(net, weights, context_pad=2, **SETTINGS)
    crop = detector.crop(pictures[0], (0, 0, 3, 3))
    assert crop.shape == (8, 8, 3)
    assert np.allclose(crop[0], MEAN[::-1] / 2)
    assert not np.allclose(crop[4:, 4:], MEAN[::-1] / 2)


def test_windows_outside_and_inputs_that_are_not_square_are_refused(files, pictures, tmp_path):
    with pytest.raises(ReproductionError) as error:
        caffe.Detector(files[0], files[1], context_pad=2).crop(pictures[0], (90, 90, 95, 95))
    assert str(error.value) == "the window is outside the image; got (90, 90, 95, 95), want within [12 14]."
    net = tmp_path / "wide.prototxt"
    net.write_text(NET.replace("dim: 8 dim: 8", "dim: 4 dim: 16"))
    with pytest.raises(NetError) as wide:
        caffe.Detector(net, files[1], context_pad=2)
    assert str(wide.value) == "context_pad needs a square input; got 4 x 16."


def test_windows_of_selective_search_are_classified(files, pictures, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray((pictures[0] * 255).astype(np.uint8)).save(path)
    search = types.SimpleNamespace(get_windows=lambda paths, cmd: [[(0, 0, 8, 8)] for _ in paths])
    monkeypatch.setitem(sys.modules, "selective_search_ijcv_with_python", search)
    detector = caffe.Detector(*files)
    (found,) = detector.detect_selective_search([path])
    (wanted,) = detector.detect_windows([(str(path), [(0, 0, 8, 8)])])
    assert np.array_equal(found.pop("prediction"), wanted.pop("prediction"))
    assert found == wanted


def test_selective_search_says_what_it_needs(files):
    with pytest.raises(ReproductionError) as error:
        caffe.Detector(*files).detect_selective_search(["a.png"])
    assert str(error.value) == (
        "the package selective_search_ijcv_with_python is not installed. "
        "Install it from github.com/sergeyk; it needs MATLAB."
    )
