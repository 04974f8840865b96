"""The values of samples, computed again from the files with the arithmetic of the published layers."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from tests.helpers import dataset_trees


def published_image(path, mean, flip=True):
    values = np.array(Image.open(path), dtype=np.float32)
    values = values[:, :, ::-1] if flip else values
    values -= mean
    return values.transpose(2, 0, 1)


def same(array, want):
    assert array.dtype == want.dtype
    np.testing.assert_array_equal(array, want)


def test_voc_is_bgr_minus_the_mean_in_double_precision(tmp_path):
    labels = dataset_trees.voc(tmp_path / "pascal/VOC2011", {"val": ["a", "b"]})
    mean = np.array((104.00699, 116.66877, 122.67892))
    for image_id, sample in zip("ab", datasets.open_split("voc", "val", tmp_path), strict=True):
        same(sample["data"], published_image(tmp_path / f"pascal/VOC2011/JPEGImages/{image_id}.jpg", mean))
        same(sample["label"], labels[image_id][None])
        assert 255 in sample["label"]


def test_the_precision_of_the_mean_shows_in_the_last_bit():
    values = np.arange(256, dtype=np.float32)
    double = (values - np.array([122.67892])).astype(np.float32)
    assert (double != values - np.float32(122.67892)).any()


@pytest.mark.parametrize("png", [False, True])
def test_sbd_reads_mat_files_and_what_was_converted_from_them(tmp_path, png):
    labels = dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": ["a", "b"]}, png=png)
    mean = np.array((104.00699, 116.66877, 122.67892))
    for image_id, sample in zip("ab", datasets.open_split("sbd", "train", tmp_path), strict=True):
        same(sample["data"], published_image(tmp_path / f"sbdd/dataset/img/{image_id}.jpg", mean))
        same(sample["label"], labels[image_id][None])


def test_nyud_keeps_hhas_channels_and_takes_the_logarithm_of_depth(tmp_path):
    labels = dataset_trees.nyud(tmp_path / "nyud", {"test": ["5001"]})
    sample = datasets.open_split("nyud", "test", tmp_path)[0]
    data = tmp_path / "nyud/data"
    bgr, hha = (np.array(m, np.float32) for m in ((116.190, 97.203, 92.318), (132.431, 94.076, 118.477)))
    same(sample["color"], published_image(data / "images/img_5001.png", bgr))
    same(sample["hha"], published_image(data / "hha/img_5001.png", hha, flip=False))
    depth = np.log(np.array(Image.open(data / "depth/img_5001.png"), dtype=np.float32))
    depth -= np.array((7.844,), np.float32)
    same(sample["depth"], depth[None])
    same(sample["label"], labels["5001"][None])
    assert 255 in sample["label"]
    assert sample["label"][sample["label"] < 255].max() < 40


def test_nyud_without_depth_somewhere_is_an_error(tmp_path):
    dataset_trees.nyud(tmp_path / "nyud", {"test": ["5001"]})
    path = tmp_path / "nyud/data/depth/img_5001.png"
    depth = np.array(Image.open(path))
    depth[3, 4:6] = 0
    Image.fromarray(depth).save(path)
    with pytest.raises(DataError) as error:
        datasets.open_split("nyud", "test", tmp_path)[0]
    assert str(error.value) == f"{path}: 2 pixels have no depth; want depths with their holes filled."


def test_nyuds_tops_are_called_as_the_net_calls_them(tmp_path):
    dataset_trees.nyud(tmp_path / "nyud", {"test": ["5001"]})
    dataset = datasets.open_split("nyud", "test", tmp_path, {"data": "hha", "label": "label"})
    assert list(dataset[0]) == ["data", "label"]
    assert list(datasets.open_split("nyud", "test", tmp_path, ["color", "label"])[0]) == ["color", "label"]
    assert dataset.label_classes == {"label": dataset.classes}
    assert dataset.classes[0] == "wall"


def test_siftflow_has_two_labellings_with_void_where_the_files_have_0_and_minus_1(tmp_path):
    labels = dataset_trees.siftflow(tmp_path / "sift-flow", {"test": ["coast_1"]})
    dataset = datasets.open_split("siftflow", "test", tmp_path)
    image = tmp_path / f"sift-flow/Images/{dataset_trees.SCENES}/coast_1.jpg"
    same(dataset[0]["data"], published_image(image, np.array((114.578, 115.294, 108.353), np.float32)))
    same(dataset[0]["sem"], labels["coast_1"][0][None])
    same(dataset[0]["geo"], labels["coast_1"][1][None])
    assert all(255 in dataset[0][top] for top in ("sem", "geo"))
    assert {top: len(names) for top, names in dataset.label_classes.items()} == {"sem": 33, "geo": 3}


@pytest.mark.parametrize("names", ["the data set's", "the published nets'", "none"])
def test_pascal_context_takes_59_of_459_labels(tmp_path, names):
    dataset_trees.voc(tmp_path / "pascal/VOC2010", {}, main={"val": ["a", "b"]})
    labels = dataset_trees.context(tmp_path / "pascal-context", ["a", "b"], names=names != "none")
    if names == "the published nets'":
        lines = [f"{i}: {name}\n" for i, name in enumerate(datasets.load_class_names("pascalcontext")[1:], 1)]
        (tmp_path / "pascal-context/59_labels.txt").write_text("".join(lines))
    mean = np.array((104.007, 116.669, 122.679), np.float32)
    for image_id, sample in zip("ab", datasets.open_split("pascalcontext", "val", tmp_path), strict=True):
        same(sample["data"], published_image(tmp_path / f"pascal/VOC2010/JPEGImages/{image_id}.jpg", mean))
        same(sample["label"], labels[image_id][None])


def test_pascal_contexts_three_renamed_classes_are_found(tmp_path):
    full = datasets.load_class_names("pascalcontext-459")
    task = datasets.load_class_names("pascalcontext")
    dataset_trees.voc(tmp_path / "VOC2010", {}, main={"val": ["a"]})
    dataset_trees.context(tmp_path / "pascal-context", ["a"])
    raw = np.array(
        [[full.index(name) + 1 for name in ("table", "bedclothes", "cloth", "accordion", "wood")]], np.uint16
    )
    dataset_trees.mat(tmp_path / "pascal-context/trainval/a.mat", {"LabelMap": raw})
    dataset = datasets.open_split("pascalcontext", "val", tmp_path)
    label = dataset.read("label", dataset.file("label", "a"))
    assert [task[i] for i in label[0, 0]] == ["diningtable", "bedcloth", "clothes", "background", "wood"]


def test_pascal_context_refuses_other_classes_than_the_nets(tmp_path):
    dataset_trees.voc(tmp_path / "VOC2010", {}, main={"val": ["a"]})
    dataset_trees.context(tmp_path / "pascal-context", ["a"])
    lists = tmp_path / "pascal-context"
    published = (lists / "59_labels.txt").read_text()
    (lists / "59_labels.txt").write_text("1: sky\n" + published)
    with pytest.raises(DataError) as error:
        datasets.open_split("pascalcontext", "val", tmp_path)
    assert str(error.value) == (
        f"{lists / '59_labels.txt'}: these are not the 59 classes of the published nets, in their order."
    )
    (lists / "59_labels.txt").write_text(published)
    (lists / "labels.txt").write_text((lists / "labels.txt").read_text().replace(" cloth\n", " clothing\n"))
    with pytest.raises(DataError) as error:
        datasets.open_split("pascalcontext", "val", tmp_path)
    assert str(error.value) == f"{lists / 'labels.txt'}: the list has no label 'cloth'. Fetch it again."
    (lists / "labels.txt").write_text("<html>\n")
    with pytest.raises(DataError) as error:
        datasets.open_split("pascalcontext", "val", tmp_path)
    assert str(error.value) == f"{lists / 'labels.txt'}: not a list of labels; want lines of NUMBER: NAME."


OUT_OF_RANGE = [
    ("voc", "label", 21, "labels out of range; got 21 in 2 pixels, want 0 to 20 or 255 for void."),
    ("sbd", "label", 30, "labels out of range; got 30 in 2 pixels, want 0 to 20 or 255 for void."),
    ("nyud", "label", 41, "labels out of range; got 41 in 2 pixels, want 0 to 40."),
    ("siftflow", "sem", 34, "labels out of range; got 34 in 2 pixels, want 0 to 33."),
    ("siftflow", "geo", -2, "labels out of range; got -2 in 2 pixels, want -1 to 3."),
    ("pascalcontext", "label", 460, "labels out of range; got 460 in 2 pixels, want 0 to 459."),
]
VARIABLES = {"nyud": "segmentation", "siftflow": "S", "pascalcontext": "LabelMap"}


@pytest.mark.parametrize(("name", "kind", "value", "text"), OUT_OF_RANGE)
def test_labels_out_of_range_are_named(tmp_path, name, kind, value, text):
    split = {"voc": "val", "sbd": "train", "nyud": "test", "siftflow": "test", "pascalcontext": "val"}[name]
    dataset_trees.voc(tmp_path / "VOC2012", {"val": ["a"]})
    dataset_trees.voc(tmp_path / "VOC2010", {}, main={"val": ["a"]})
    dataset_trees.context(tmp_path / "pascal-context", ["a"])
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": ["a"]}, png=True)
    dataset_trees.nyud(tmp_path / "nyud", {"test": ["a"]})
    dataset_trees.siftflow(tmp_path / "sift-flow", {"test": ["a"]})
    dataset = datasets.open_split(name, split, tmp_path)
    path = dataset.file(kind, "a")
    wrong = np.array([[value, 1], [value, 0]])
    if path.suffix == ".png":
        dataset_trees.palette_png(path, wrong.astype(np.uint8))
    else:
        dataset_trees.mat(path, {VARIABLES[name]: wrong.astype(np.int16)})
    with pytest.raises(DataError) as error:
        dataset[0]
    assert str(error.value) == f"{path}: {text}"
