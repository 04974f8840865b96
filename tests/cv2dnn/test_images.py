"""``blobFromImage`` and the resizing in it equal OpenCV's."""

import cv2
import numpy as np
import pytest

from reproduction.caffe.errors import DataError
from reproduction.cv2dnn import blobFromImage, blobFromImages, images, imagesFromBlob


def random_sizes(seed, count):
    """Yield pairs of sizes, every seventh a reduction to a half, for which OpenCV averages pixels."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        height, width, rows, columns = (int(each) for each in rng.integers(1, 90, 4))
        yield (2 * height, 2 * width) if index % 7 == 0 else (rows, columns), (height, width), rng


def test_resizing_bytes_equals_opencvs_to_the_last_bit():
    for (rows, columns), (height, width), rng in random_sizes(1, 300):
        image = rng.integers(0, 256, (rows, columns, 3), np.uint8)
        want = cv2.resize(image, (width, height)).reshape(height, width, 3)
        np.testing.assert_array_equal(images.resize(image, width, height), want)


def test_resizing_floats_equals_opencvs_up_to_rounding():
    for (rows, columns), (height, width), rng in random_sizes(2, 100):
        image = rng.random((rows, columns, 3), np.float32)
        want = cv2.resize(image, (width, height)).reshape(height, width, 3)
        np.testing.assert_allclose(images.resize(image, width, height), want, atol=1e-5)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blobs_equal_opencvs(dtype, channels, crop, swap):
    for (rows, columns), (height, width), rng in random_sizes(3, 20):
        image = (255 * rng.random((rows, columns, channels))).astype(dtype)
        options = {
            "scalefactor": 0.017,
            "size": (width, height),
            "mean": (103.9, 116.8, 123.7),
            "swapRB": swap,
            "crop": crop,
        }
        want = cv2.dnn.blobFromImage(image, **options)
        got = blobFromImage(image, **options)
        assert got.dtype == want.dtype
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, want, atol=1e-5 if dtype == np.uint8 else 1e-3)


def test_defaults_and_grey_images_and_bytes():
    image = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(blobFromImage(image), cv2.dnn.blobFromImage(image))
    np.testing.assert_array_equal(blobFromImage(image[..., 0]), cv2.dnn.blobFromImage(image[..., 0].copy()))
    np.testing.assert_array_equal(blobFromImage(image, mean=9), cv2.dnn.blobFromImage(image, mean=9))
    of_bytes = blobFromImage(image, ddepth=images.CV_8U, swapRB=True)
    np.testing.assert_array_equal(of_bytes, cv2.dnn.blobFromImage(image, ddepth=cv2.CV_8U, swapRB=True))
    assert of_bytes.dtype == np.uint8


def test_several_images_become_one_blob_and_images_again():
    rng = np.random.default_rng(5)
    several = [rng.integers(0, 256, (size, 9, 3), np.uint8) for size in (4, 6)]
    blob = blobFromImages(several, size=(9, 4))
    np.testing.assert_allclose(blob, cv2.dnn.blobFromImages(several, size=(9, 4)), atol=1e-5)
    for got, want in zip(imagesFromBlob(blob), cv2.dnn.imagesFromBlob(blob), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: blobFromImage(np.zeros((2, 3, 5))), r"not an image; got \(2, 3, 5\) of float64, want \(H, W\) or"),
        (lambda: blobFromImage(np.zeros((2, 3)), ddepth=6), r"no such depth; got 6, want 5 \(float32\) or 0 \(uint8\)"),
        (lambda: blobFromImage(np.zeros((2, 3)), ddepth=0), "a blob of bytes is not scaled; want images of uint8"),
        (lambda: blobFromImage(np.zeros((2, 3)), mean=(1,) * 5), "mean has too many values; got 5, want at most 4"),
        (lambda: blobFromImages([]), "there are no images"),
        (lambda: blobFromImages([np.zeros((2, 3)), np.zeros((2, 3, 4))]), r"one number of channels; got \[1, 4\]"),
        (lambda: imagesFromBlob(np.zeros((2, 3))), "not a blob of images"),
    ],
)
def test_errors_name_what_is_wrong(call, text):
    with pytest.raises(DataError, match=text):
        call()
