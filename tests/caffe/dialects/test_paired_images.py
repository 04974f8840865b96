"""The data layers of SegNet and PSPNet: pairs of images and label maps, resized as by OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.dialects.paired_images import resize_nearest
from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.schema import Message, Phase
from tests.helpers.single_layer import single

Message.import_late_fields()

DENSE = 'type: "DenseImageData" top: "data" top: "label" dense_image_data_param {{ {} }} transform_param {{ {} }}'
SEGMENTED = 'type: "ImageSegData" {} image_data_param {{ {} }} transform_param {{ {} }}'
TOPS = 'top: "data" top: "label" top: "data_dim"'


def folder_of(path, *sizes):
    """Pairs of images and label maps of these (height, width), and their list; returns their pixels."""
    found, generator = [], np.random.default_rng(0)
    for i, (height, width) in enumerate(sizes):
        pair = [
            generator.integers(0, 256, (height, width, 3), np.uint8),
            generator.integers(0, 4, (height, width), np.uint8),
        ]
        Image.fromarray(pair[0]).save(path / f"{i}.png")
        Image.fromarray(pair[1]).save(path / f"{i}_labels.png")
        found.append((pair[0][:, :, ::-1].transpose(2, 0, 1).astype(np.float32), pair[1].astype(np.float32)))
    (path / "list.txt").write_text("".join(f"{i}.png {i}_labels.png\n" for i in range(len(sizes))))
    return found


def where(path, more="", images=1):
    return f'source: "{path}/list.txt" root_folder: "{path}/" batch_size: {images} {more}'


@pytest.mark.parametrize("size", [(5, 9), (22, 31), (11, 3), (40, 13)])
def test_label_maps_are_resized_as_by_opencv(size):
    labels = np.random.default_rng(0).integers(0, 9, (11, 13, 1), np.uint8)
    want = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(resize_nearest(labels, *size)[:, :, 0], want)


def test_dense_image_data_reads_pairs_one_after_the_other(tmp_path):
    pairs = folder_of(tmp_path, (6, 8), (6, 8), (6, 8))
    layer = single(DENSE.format(where(tmp_path, images=2), "mean_value: 10 scale: 0.5"))
    assert layer.shapes([]) == [(2, 3, 6, 8), (2, 1, 6, 8)]
    for expected in ([0, 1], [2, 0]):
        data, labels = layer()
        for i, line in enumerate(expected):
            np.testing.assert_array_equal(data[i], (pairs[line][0] - 10) * 0.5)
            np.testing.assert_array_equal(labels[i, 0], pairs[line][1])


def test_dense_image_data_resizes_labels_to_the_nearest_pixel(tmp_path):
    ((image, labels),) = folder_of(tmp_path, (12, 10))
    data, target = single(DENSE.format(where(tmp_path, "new_height: 7 new_width: 15"), ""))()
    nearest = cv2.resize(labels, (15, 7), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(target[0, 0], nearest)
    linear = cv2.resize(image.transpose(1, 2, 0).astype(np.uint8), (15, 7)).astype(np.float32)
    assert np.abs(data[0].permute(1, 2, 0).numpy() - linear).max() <= 1


def test_dense_image_data_of_enet_makes_label_maps_smaller(tmp_path):
    ((_, labels),) = folder_of(tmp_path, (12, 10))
    layer = single(DENSE.format(where(tmp_path, "new_height: 16 new_width: 20 label_divide_factor: 8"), ""))
    assert layer.shapes([]) == [(1, 3, 16, 20), (1, 1, 2, 2)]
    np.testing.assert_array_equal(layer()[1][0, 0], cv2.resize(labels, (2, 2), interpolation=cv2.INTER_NEAREST))


def test_dense_image_data_mirrors_and_crops_image_and_labels_together(tmp_path):
    image = np.zeros((9, 11, 3), np.uint8)
    image[:] = np.arange(99, dtype=np.uint8).reshape(9, 11, 1)
    Image.fromarray(image).save(tmp_path / "0.png")
    Image.fromarray(image[:, :, 0]).save(tmp_path / "0_labels.png")
    (tmp_path / "list.txt").write_text("0.png 0_labels.png\n")
    layer = single(DENSE.format(where(tmp_path, "crop_height: 4 crop_width: 5 mirror: true"), ""), seed=3)
    found = set()
    for _ in range(20):
        data, labels = layer()
        assert data.shape == (1, 3, 4, 5)
        assert torch.equal(data[:, :1], labels)
        found.add((labels[0, 0, 0, 0].item(), (labels[0, 0, 0, 1] - labels[0, 0, 0, 0]).item()))
    assert len(found) > 8
    assert {step for _, step in found} == {1, -1}


def test_image_seg_data_pads_to_the_crop_and_says_the_size_of_the_image(tmp_path):
    (image, labels), _ = folder_of(tmp_path, (6, 12), (6, 12))
    text = SEGMENTED.format(
        TOPS, where(tmp_path, "label_type: PIXEL ignore_label: 200"), "crop_height: 8 crop_width: 10 mean_value: 100"
    )
    layer = single(text)
    assert layer.shapes([]) == [(1, 3, 8, 10), (1, 1, 8, 10), (1, 1, 1, 2)]
    data, target, size = layer()
    np.testing.assert_array_equal(data[0, :, :6], image[:, :, 1:11] - 100)
    assert not data[0, :, 6:].any()
    np.testing.assert_array_equal(target[0, 0, :6], labels[:, 1:11])
    assert (target[0, 0, 6:] == 200).all()
    assert size.flatten().tolist() == [6, 10]


def test_image_seg_data_crops_at_random_in_training_and_mirrors(tmp_path):
    image = np.arange(80, dtype=np.uint8).reshape(8, 10)
    Image.fromarray(np.stack([image] * 3, 2)).save(tmp_path / "0.png")
    Image.fromarray(image).save(tmp_path / "0_labels.png")
    (tmp_path / "list.txt").write_text("0.png 0_labels.png\n")
    text = SEGMENTED.format(TOPS, where(tmp_path, "label_type: PIXEL"), "crop_size: 4 mirror: true")
    layer, corners = single(text, phase=Phase.TRAIN, seed=1), set()
    for _ in range(20):
        data, labels, _ = layer()
        assert torch.equal(data[:, :1], labels)
        corners.add(labels[0, 0, 0, 0].item())
    assert len(corners) > 8


def test_image_seg_data_scales_by_one_of_the_factors(tmp_path):
    ((_, labels),) = folder_of(tmp_path, (6, 9))
    text = SEGMENTED.format(TOPS, where(tmp_path, "label_type: PIXEL"), "scale_factors: 1.5")
    data, target, size = single(text)()
    assert data.shape == (1, 3, 9, 13)
    np.testing.assert_array_equal(target[0, 0], cv2.resize(labels, (13, 9), interpolation=cv2.INTER_NEAREST))
    assert size.flatten().tolist() == [6, 9]


def test_image_seg_data_labels_all_pixels_by_a_number_or_as_ignored(tmp_path):
    folder_of(tmp_path, (3, 4))
    (tmp_path / "list.txt").write_text("0.png 7\n")
    assert (single(SEGMENTED.format(TOPS, where(tmp_path), ""))()[1] == 7).all()
    (tmp_path / "list.txt").write_text("0.png\n")
    layer = single(SEGMENTED.format('top: "data" top: "label"', where(tmp_path, "label_type: NONE"), ""))
    data, labels = layer()
    assert data.shape == (1, 3, 3, 4)
    assert (labels == 255).all()


@pytest.mark.parametrize(
    ("text", "listed", "error"),
    [
        (
            DENSE.format("{}", "crop_size: 3"),
            "0.png 0_labels.png",
            (
                "mirror and crop_size of transform_param would not "
                "change the labels. Use mirror, crop_height and crop_width of dense_image_data_param."
            ),
        ),
        (
            DENSE.format("{} crop_width: 3", ""),
            "0.png 0_labels.png",
            ("crop_height and crop_width must be set together; got 0 and 3."),
        ),
        (
            DENSE.format("{} label_divide_factor: 2", ""),
            "0.png 0_labels.png",
            "label_divide_factor needs new_height and new_width, and no crop; got 2.",
        ),
        (DENSE.format("{}", ""), "0.png", "{path}/list.txt: the last image has no label map; got '0.png'."),
        (DENSE.format("{}", ""), " ", "{path}/list.txt: the list names no images."),
        (
            DENSE.format("{}", ""),
            "0.png 1_labels.png",
            ("{path}/1_labels.png: the label map does not have the size of the image; got (5, 4), want (3, 4)."),
        ),
        (
            DENSE.format("{} crop_height: 9 crop_width: 2", ""),
            "0.png 0_labels.png",
            ("{path}/0.png: the image is smaller than the crop; got (3, 4), want at least 9 x 2."),
        ),
        (
            SEGMENTED.format(TOPS, "{} label_type: PIXEL", "crop_size: 3 crop_width: 3 crop_height: 3"),
            "0.png 0_labels.png",
            "the size of the crop is given twice, or for one axis; want crop_size, or crop_height and crop_width.",
        ),
        (
            SEGMENTED.format(TOPS, "{} label_type: PIXEL", ""),
            "0.png",
            ("{path}/list.txt:1: this line is not valid; got '0.png', want 'image label'."),
        ),
        (SEGMENTED.format(TOPS, "{}", ""), "0.png cat", "{path}/list.txt: the label is not an integer; got 'cat'."),
    ],
)
def test_lists_and_settings_that_do_not_fit_are_errors(tmp_path, text, listed, error):
    folder_of(tmp_path, (3, 4), (5, 4))
    (tmp_path / "list.txt").write_text(f"{listed}\n")
    with pytest.raises((DataError, NetError)) as raised:
        single(text.replace("{}", where(tmp_path))).shapes([])
    assert str(raised.value).partition(" Pass inputs")[0] == error.replace("{path}", str(tmp_path))
