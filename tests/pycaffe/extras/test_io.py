"""Image, blob and data conversions, compared with values of scikit-image 0.26 and of pycaffe's io.py."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import ReproductionError
from reproduction.pycaffe.extras import io
from reproduction.pycaffe.proto import caffe_pb2

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13


def test_blobs_keep_shape_values_and_gradient():
    array = np.arange(6.0).reshape(1, 2, 3)
    blob = io.array_to_blobproto(array, diff=-array)
    assert np.array_equal(io.blobproto_to_array(blob), array)
    assert np.array_equal(io.blobproto_to_array(blob, return_diff=True), -array)
    assert io.blobproto_to_array(blob).dtype == np.float64
    old = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert io.blobproto_to_array(old).shape == (1, 2, 1, 3)


def test_many_blobs_go_through_bytes():
    arrays = [np.ones((2, 3)), np.zeros(4)]
    back = io.blobprotovector_str_to_arraylist(io.arraylist_to_blobprotovector_str(arrays))
    assert [each.shape for each in back] == [(2, 3), (4,)]


def test_data_are_bytes_or_floats():
    datum = io.array_to_datum(RGB.transpose(2, 0, 1), label=7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (3, 2, 3, 7)
    assert np.array_equal(io.datum_to_array(datum), RGB.transpose(2, 0, 1))
    floats = io.array_to_datum(np.full((1, 2, 2), 0.5))
    assert not floats.HasField("label")
    assert np.array_equal(io.datum_to_array(floats), np.full((1, 2, 2), 0.5))


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("b.png", "RGBA"), ("c.png", "P"), ("d.png", "L")])
def test_pictures_of_every_kind_are_loaded_as_colour_or_grey(tmp_path, name, mode):
    path = tmp_path / name
    Image.fromarray(RGB).convert(mode).save(path)
    want = np.array(Image.open(path).convert("RGB")) / np.float32(255)
    assert np.array_equal(io.load_image(path), want.astype(np.float32))
    assert io.load_image(path).dtype == np.float32
    grey = io.load_image(path, color=False)
    assert grey.shape == (2, 3, 1)
    assert np.allclose(grey[..., 0], want @ [0.2125, 0.7154, 0.0721], atol=1e-6)


def test_16_bits_and_one_bit_span_0_to_1(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert io.load_image(tmp_path / name, color=False).ravel().tolist() == [0, 1]


def test_resizing_is_linear_unsmoothed_and_dark_beyond_the_edges():
    # skimage.transform.resize(x, (3, 4), order=1, mode="constant", anti_aliasing=False), for x of 0 to 1
    picture = np.array([[0.0, 1.0], [0.5, 0.25]])[..., np.newaxis]
    want = np.array([[0, 40, 120, 120], [36, 66, 102, 90], [60, 70, 50, 30]]) / 192
    resized = io.resize_image(picture, (3, 4))
    assert resized.dtype == np.float32
    assert np.allclose(resized[..., 0], want, atol=1e-6)
    assert np.allclose(io.resize_image(picture * 8 - 4, (3, 4))[..., 0], want * 8 - 4, atol=1e-6)


def test_flat_pictures_and_other_numbers_of_channels_are_resized():
    assert np.array_equal(io.resize_image(np.full((2, 2, 3), 7.0), (3, 5)), np.full((3, 5, 3), 7, np.float32))
    assert io.resize_image(np.ones((4, 4, 2)), (2, 6)).shape == (2, 6, 2)


def test_oversampling_takes_corners_centre_and_mirrors():
    image = np.arange(5 * 7, dtype=np.float32).reshape(5, 7, 1)
    crops = io.oversample([image, image + 100], (3, 3))
    assert crops.shape == (20, 3, 3, 1)
    assert crops[:5, 0, 0, 0].tolist() == [0, 4, 14, 18, 9]
    assert np.array_equal(crops[5:10], crops[:5, :, ::-1])
    assert np.array_equal(crops[10:], crops[:10] + 100)


def test_a_transformer_makes_inputs_and_takes_them_back():
    transformer = io.Transformer({"data": (1, 3, 2, 3)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([1.0, 2.0, 3.0]))
    transformer.set_input_scale("data", 0.5)
    picture = (RGB / 255).astype(np.float32)
    before = picture.copy()
    made = transformer.preprocess("data", picture)
    want = (RGB[..., ::-1].transpose(2, 0, 1) - np.array([1, 2, 3]).reshape(3, 1, 1)) / 2
    assert np.allclose(made, want, atol=1e-4)
    assert made.dtype == np.float32
    assert np.array_equal(picture, before)
    assert np.allclose(transformer.deprocess("data", made), picture, atol=1e-6)


def test_means_of_pixels_are_resized_to_the_input():
    transformer = io.Transformer({"data": [1, 1, 2, 2]})
    transformer.set_mean("data", np.array([[1.0, 3.0]]))
    assert transformer.mean["data"].shape == (1, 2, 2)
    exact = np.ones((1, 2, 2))
    transformer.set_mean("data", exact)
    assert np.array_equal(transformer.mean["data"], exact)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda t: t.preprocess("dat", RGB), "'dat' is not an input of the net; want one of ['data']."),
        (
            lambda t: t.set_transpose("data", (0, 1)),
            "the order of axes does not fit 'data'; got (0, 1), want 3 axes.",
        ),
        (
            lambda t: t.set_channel_swap("data", (0, 1)),
            "the order of channels does not fit 'data'; got (0, 1), want 3 channels.",
        ),
        (lambda t: t.set_mean("data", np.ones(2)), "the mean does not fit 'data'; got (2,), want (3,)."),
        (
            lambda t: t.set_mean("data", np.ones((1, 1, 1, 1))),
            "a mean has the wrong number of axes; got (1, 1, 1, 1), want 1 to 3 axes.",
        ),
        (
            lambda t: io.array_to_datum(np.ones((2, 2))),
            "a Datum needs three axes; got (2, 2), want channels, height and width.",
        ),
    ],
)
def test_wrong_use_is_said_in_one_line(wrong, text):
    with pytest.raises(ReproductionError) as error:
        wrong(io.Transformer({"data": (1, 3, 2, 2)}))
    assert str(error.value) == text
