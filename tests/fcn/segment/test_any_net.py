"""Any prototxt and its weights become a card and a net; what is not said is found in the net, and said."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import blobs, caffemodel, prototxt
from reproduction.caffe.net import export_net
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.images import caffe_input
from reproduction.fcn.segment import card, export, preprocess
from reproduction.fcn.segment.any_net import NetOptions, find_labels_blob, load_any_net, load_mean
from reproduction.fcn.segment.classifier import Classifier
from reproduction.fcn.segment.export import ExportFormat
from reproduction.fcn.segment.segmenter import Segmenter
from tests.helpers.any_nets import ARGMAX, FC, write_net

pytestmark = pytest.mark.filterwarnings("ignore:.*do not read 'transform_param'")


@pytest.fixture
def photo():
    return np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)


def test_a_classifier_is_resized_to_its_input_and_equals_opencv(tmp_path, photo):
    files = write_net(tmp_path, FC)
    options = NetOptions(mean=(104, 117, 123), scale=(0.5,), classes=[f"thing {i}" for i in range(7)])
    classifier = Classifier.from_prototxt(*files, options)
    found = classifier(photo)
    judge = cv2.dnn.readNetFromCaffe(*map(str, files))
    judge.setInput(cv2.dnn.blobFromImage(photo[:, :, ::-1], 0.5, (16, 12), (104, 117, 123)))
    want = judge.forward()[0]
    np.testing.assert_allclose(found.scores, want, rtol=0.02)  # its resizing differs by one level in places
    first = found.top(2)[0]
    assert (first.label, first.name) == (int(want.argmax()), f"thing {want.argmax()}")
    assert found.scores.sum() == pytest.approx(1)


def test_a_segmentation_net_takes_images_of_any_size(tmp_path, photo):
    files = write_net(tmp_path)
    made, net, notes = load_any_net(*files, NetOptions(mean=(1, 2, 3)))
    assert made.inputs["data"].size == ()
    assert made.task == "segment"
    assert notes == [
        "channels are in the order B, G, R, as Caffe reads images.",
        "'conv' holds scores of 4 classes for each pixel.",
        "classes have numbers; name them with --classes.",
    ]
    result = Segmenter.from_prototxt(*files, NetOptions(mean=(1, 2, 3)))(photo, scores=True)
    blob = (photo[:, :, ::-1] - np.float32([1, 2, 3])).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.inference_mode():
        want = net({"data": blob})["conv"][0]
    np.testing.assert_allclose(result.scores, want, rtol=1e-4, atol=1e-4)
    assert np.array_equal(result.labels, result.scores.argmax(0))
    assert result.classes == ("class 0", "class 1", "class 2", "class 3")


def test_a_net_that_computes_labels_gives_them_at_the_size_of_the_image(tmp_path, photo):
    files = write_net(tmp_path, ARGMAX)
    segmenter = Segmenter.from_prototxt(*files, NetOptions(mean=(0,), size=(10, 15)))
    result = segmenter(photo, scores=True)
    assert segmenter.card.labels["label"].holds == "labels"
    assert result.scores is None
    small = preprocess.to_blob(segmenter.card.inputs["data"], photo)[None]
    with torch.inference_mode():
        want = segmenter.net({"data": small})["best"][0, 0].numpy()
    assert len(np.unique(want)) > 1
    assert np.array_equal(result.labels, want.repeat(2, 0).repeat(2, 1))


def test_preprocessing_is_found_in_the_prototxt(tmp_path):
    transform = "transform_param { mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.25 }"
    made, _, notes = load_any_net(*write_net(tmp_path, FC, transform=transform))
    taken = made.inputs["data"]
    assert (taken.mean, taken.scale, taken.size) == ((10, 20, 30), (0.25,), (12, 16))
    assert notes[1:3] == [
        "the mean is 10, 20, 30, from transform_param in the prototxt.",
        "values are multiplied by 0.25, from transform_param in the prototxt.",
    ]
    assert "images are resized to 12 x 16, the size of 'data'." in notes
    caffemodel.dump(blobs.from_array(np.full((1, 3, 2, 2), 7.0, np.float32)), tmp_path / "mean.binaryproto")
    transform = 'transform_param { mean_file: "data/mean.binaryproto" }'
    averaged, _, notes = load_any_net(*write_net(tmp_path, FC, transform=transform))
    assert list(averaged.inputs["data"].mean) == [7, 7, 7]
    assert "mean.binaryproto, which transform_param in the prototxt names." in notes[1]
    plain, _, notes = load_any_net(*write_net(tmp_path, FC))
    assert list(plain.inputs["data"].mean) == [0, 0, 0]
    assert "no mean is subtracted; give the one of the training with --mean." in notes


def test_21_classes_are_those_of_voc(tmp_path):
    made, _, notes = load_any_net(*write_net(tmp_path, outputs=21))
    assert made.labels["label"].classes[15] == "person"
    assert notes[-1] == "21 classes are taken for those of PASCAL VOC; name others with --classes."


def test_a_mean_image_is_averaged(tmp_path):
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    caffemodel.dump(blobs.from_array(image), tmp_path / "mean.binaryproto")
    assert load_mean(tmp_path / "mean.binaryproto") == [1.5, 5.5, 9.5]
    with pytest.raises(ReproductionError, match=r"the mean image cannot be read \(no such file"):
        load_mean(tmp_path / "none")


def test_grey_nets_read_brightness(tmp_path, photo):
    files = write_net(tmp_path, FC, channels=1)
    made, _, _ = load_any_net(*files)
    assert made.inputs["data"].order == "grey"
    assert np.array_equal(caffe_input.to_grey(photo), np.asarray(Image.fromarray(photo).convert("L")))
    assert preprocess.to_blob(made.inputs["data"], photo).shape == (1, 12, 16)


@pytest.mark.parametrize(
    ("layers", "channels", "form"),
    [
        (FC, 3, ExportFormat("picture", "scores")),
        (FC, 1, ExportFormat("picture", "labels")),
        ("", 1, ExportFormat("picture", "scores")),
        (ARGMAX, 3, ExportFormat("picture", "labels")),
    ],
    ids=["classifier", "grey classifier", "grey segmentation", "labels"],
)
def test_a_card_of_options_is_exported_with_its_preprocessing(tmp_path, layers, channels, form):
    options = NetOptions(mean=(9.5,), scale=(0.5,))
    made, net, _ = load_any_net(*write_net(tmp_path, layers, channels=channels), options)
    model = export.export_onnx(net, made, form).SerializeToString()
    checked = export.check_export(net, made, form, export_net.onnx_runner(model))
    assert [each.size for each in checked] == ([(12, 16)] if made.task == "classify" else list(export.SIZES))
    assert all(each.worst < 1e-3 and not each.is_empty for each in checked)
    program = export.export_program(net, made, form)
    assert export.check_export(net, made, form, export_net.program_runner(program))
    said = form.describe(made)["inputs"]["data"]
    assert said.startswith("(N, 12, 16, 3) uint8" if made.task == "classify" else "(N, H, W, 3) uint8")


def test_a_blob_format_names_mean_and_scale(tmp_path):
    made, _, _ = load_any_net(*write_net(tmp_path, FC), NetOptions(mean=(1, 2, 3), scale=(0.5,)))
    form = ExportFormat("blob", "scores")
    assert form.describe(made) == {
        "inputs": {"data": "(N, 3, 12, 16) float32, B G R, minus 1, 2, 3, times 0.5"},
        "outputs": {"scores": "(N, 7) float32, the score of each class"},
    }
    made, _, _ = load_any_net(*write_net(tmp_path, ARGMAX))
    with pytest.raises(ReproductionError, match=r"thin computes labels, but no scores\. Choose --output labels"):
        form.check(made)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (NetOptions(order="GBR"), "there is no such channel order; got GBR, want BGR or RGB."),
        (NetOptions(mean=(1, 2)), "mean and scale must fit the channels; got 2 and 0, want 1 or 3 numbers each."),
        (NetOptions(classes=["a"]), "the class names do not fit the net; got 1 names, want 7."),
        (
            NetOptions(labels_blob="data"),
            "no output is the scores or labels of classes; got data (10, 3, 12, 16), want",
        ),
        (NetOptions(labels_blob="pro"), "the net has no blob 'pro'. Did you mean 'prob'?"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, options, error):
    files = write_net(tmp_path, FC)
    with pytest.raises(ReproductionError) as raised:
        load_any_net(*files, options)
    assert str(raised.value).startswith(error)


def test_nets_that_are_no_classifiers_or_segmentation_nets_are_refused(tmp_path):
    text = """layer { name: "data" type: "Input" top: "data" top: "rois"
            input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } shape { dim: 2 dim: 5 } } }
        layer { name: "fc" type: "InnerProduct" bottom: "%s" top: "fc" inner_product_param { num_output: 3 } }
        layer { name: "more" type: "InnerProduct" bottom: "data" top: "more" inner_product_param { num_output: 3 } }"""
    net = Net(prototxt.loads(text % "rois", NetParameter))
    with pytest.raises(NetError, match=r"several outputs may be the scores; got fc \(2, 3\), more \(1, 3\)"):
        find_labels_blob(net)
    (tmp_path / "n.prototxt").write_text(text % "rois")
    caffemodel.dump(net.to_proto(), tmp_path / "n.caffemodel")
    with pytest.raises(NetError, match=r"takes? one image, with 1 or 3 channels; got rois \(2, 5\)"):
        load_any_net(tmp_path / "n.prototxt", tmp_path / "n.caffemodel", NetOptions(labels_blob="fc"))
    files = write_net(tmp_path)
    with pytest.raises(NetError, match=r"thin labels pixels; want .* Use Segmenter"):
        Classifier.from_prototxt(*files)
    with pytest.raises(NetError, match=r"thin classifies whole images; want .* Use Classifier"):
        Segmenter.from_prototxt(*write_net(tmp_path, FC))


def test_a_net_that_reads_its_own_data_is_fed(tmp_path):
    text = """name: "trained"
        layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "x" batch_size: 2 }
                transform_param { mean_value: 5 } }
        layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 3 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }"""
    (tmp_path / "n.prototxt").write_text(text)
    shapes = {"data": (1, 3, 8, 8), "label": (1,)}
    net = Net(prototxt.loads(text, NetParameter), inputs=shapes)
    caffemodel.dump(net.to_proto(), tmp_path / "n.caffemodel")
    with pytest.raises(ReproductionError, match="Use the deploy net, or give the shapes of what the layer reads: --in"):
        load_any_net(tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    options = NetOptions(labels_blob="fc", input_shapes=shapes)
    made, _, _ = load_any_net(tmp_path / "n.prototxt", tmp_path / "n.caffemodel", options)
    assert made.inputs["data"] == card.CardInput("color", "BGR", (5, 5, 5), "float32", (), (8, 8))
