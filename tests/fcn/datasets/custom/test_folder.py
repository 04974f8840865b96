"""A folder of custom images and labels as a data set."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.caffe.schema import PythonParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets import voc
from reproduction.fcn.datasets.custom import find_files
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.images import decode
from tests.helpers import custom_folders


@pytest.mark.parametrize("folders", [("images", "labels"), ("JPEGImages", "SegmentationClass")])
def test_a_sample_is_the_picture_minus_the_mean_and_the_labels(tmp_path, folders):
    custom_folders.write(tmp_path, folders=folders)
    data = Folder("train", tmp_path)
    assert data.ids == ["p0", "p1", "p2", "p3", "p5"]
    assert data.classes == data.label_classes["label"] == custom_folders.NAMES
    sample = datasets.check_sample(data, 1)
    rgb = decode.read_rgb(tmp_path / folders[0] / "p1.jpg")
    assert np.allclose(sample["data"].transpose(1, 2, 0)[..., ::-1] + voc.MEAN_BGR[::-1], rgb, atol=1e-4)
    assert np.array_equal(sample["label"][0], custom_folders.label(1))


def test_every_fifth_picture_is_validated_on(tmp_path):
    custom_folders.write(tmp_path, n=12)
    assert Folder("val", tmp_path).ids == ["p2", "p7"]  # of p0, p1, p10, p11, p2 ... as names sort
    assert not set(Folder("val", tmp_path).ids) & set(Folder("train", tmp_path).ids)


def test_lists_say_the_splits(tmp_path):
    custom_folders.write(tmp_path)
    (tmp_path / "val.txt").write_text("p1.jpg\np3\n")
    assert Folder("val", tmp_path).ids == ["p1", "p3"]
    assert Folder("train", tmp_path).ids == ["p0", "p2", "p4", "p5"]
    (tmp_path / "train.txt").write_text("p2\np9\n")
    data = Folder("train", tmp_path)
    assert data.ids == ["p2", "p9"]
    assert data.missing() == [tmp_path / "images/p9.jpg", tmp_path / "labels/p9.png"]


def test_a_tree_like_vocs_has_its_lists_where_voc_has_them(tmp_path):
    custom_folders.write(tmp_path, folders=("JPEGImages", "SegmentationClass"))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("p0\n")
    assert Folder("val", tmp_path).ids == ["p0"]


def test_painted_labels_are_read_by_their_palette(tmp_path):
    custom_folders.write(tmp_path, labels=custom_folders.paint, names=None)
    (tmp_path / "palette.txt").write_text("0 0 0 background\n128 0 0 cat\n0 128 0 dog\n")
    data = Folder("val", tmp_path)
    assert data.classes == custom_folders.NAMES
    assert np.array_equal(data[0]["label"][0], custom_folders.label(4))


def test_any_picture_is_read_as_a_viewer_shows_it(tmp_path):
    custom_folders.write(tmp_path, n=5)
    tall = Image.new("L", (custom_folders.SIZE[0], custom_folders.SIZE[1]), 77)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by the camera
    tall.save(tmp_path / "images/p4.jpg", exif=exif)
    sample = Folder("val", tmp_path)[0]
    assert sample["data"].shape == (3, *custom_folders.SIZE)
    assert np.allclose(sample["data"][:, 3, 3], 77 - np.array(voc.MEAN_BGR), atol=1e-4)


def test_the_layer_of_a_prototxt_opens_it(tmp_path):
    custom_folders.write(tmp_path, names=None)
    says = repr(
        {"split": "train", "seed": 1, "mean": (1.0, 2.0, 3.0), "classes": list(custom_folders.NAMES), "palette": None}
    )
    layer = PythonParameter(module="folder_layers", layer="FolderSegDataLayer", param_str=says)
    data = datasets.from_layer(layer, ["image", "truth"], tmp_path)
    assert isinstance(data, Folder)
    assert data.label_classes == {"truth": custom_folders.NAMES}
    assert data.mean_bgr.tolist() == [1, 2, 3]
    assert list(data[0]) == ["image", "truth"]


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ({"classes": "cat"}, "FolderSegDataLayer: 'classes' is not a list of names; got 'cat'."),
        (
            {"palette": {"cat": 3}},
            "FolderSegDataLayer: 'palette' is not a table of colours; got {'cat': 3}, want {'sky': (0, 0, 255), ...}.",
        ),
    ],
)
def test_a_prototxt_that_says_something_else_is_refused(tmp_path, says, error):
    custom_folders.write(tmp_path)
    layer = PythonParameter(layer="FolderSegDataLayer", param_str=repr({"split": "train"} | says))
    with pytest.raises(DataError) as raised:
        datasets.from_layer(layer, ["data", "label"], tmp_path)
    assert str(raised.value) == error


def refused(root, i=0, split="train"):
    with pytest.raises(DataError) as error:
        Folder(split, root)[i]
    return str(error.value).replace(str(root), "DIR")


def test_what_is_no_folder_to_learn_from_is_refused(tmp_path):
    want = "want images/ and labels/, or JPEGImages/ and SegmentationClass/."
    assert refused(tmp_path / "none") == "DIR: there is no such folder."
    assert refused(tmp_path) == f"DIR: this is not a folder of images and labels; got an empty folder, {want}"
    (tmp_path / "images").mkdir()
    assert refused(tmp_path) == f"DIR: this is not a folder of images and labels; got images/, {want}"
    custom_folders.write(tmp_path, n=1)
    assert refused(tmp_path) == (
        "DIR: there is no image for the split 'train'; got 1 with a label, want 2 or more. fcn check-data says"
        " what is missing."
    )
    assert refused(tmp_path / "classes.txt") == "DIR: this is a file, not a folder."
    assert refused(tmp_path / "images").endswith(f"Did you mean {tmp_path}?")
    (tmp_path / "up").mkdir()
    custom_folders.write(tmp_path / "up/VOC2012", folders=("JPEGImages", "SegmentationClass"))
    assert refused(tmp_path / "up") == (
        f"DIR: this is not a folder of images and labels; got VOC2012/, {want} Did you mean DIR/VOC2012?"
    )
    custom_folders.write(tmp_path, n=2)
    assert refused(tmp_path, split="test") == "DIR: there is no split 'test'; want train or val."
    (tmp_path / "classes.txt").unlink()
    assert refused(tmp_path) == (
        "DIR: the names of the classes are not defined; want classes.txt, one name a line, or --classes."
    )


def test_labels_that_are_none_are_refused(tmp_path):
    custom_folders.write(tmp_path / "jpeg", ending="jpg")
    assert refused(tmp_path / "jpeg") == (
        "DIR/labels/p0.jpg: a JPEG cannot hold labels; its compression changes them at every border."
        " Export them again, as PNG."
    )
    custom_folders.write(tmp_path / "rgb", labels=custom_folders.paint)
    assert refused(tmp_path / "rgb") == (
        "DIR/labels/p0.png: the labels are colours, not class numbers; got mode RGB, want palette (P) or grey (L)."
        " Map colours to classes with --palette; fcn check-data --write-palette writes a template."
    )
    custom_folders.write(tmp_path / "range", labels=lambda i: custom_folders.label(i) * 100)
    assert refused(tmp_path / "range").startswith("DIR/labels/p0.png: labels out of range; got 100, 200 in ")
    custom_folders.write(tmp_path / "cut")
    png = tmp_path / "cut/labels/p0.png"
    png.write_bytes(png.read_bytes()[:60])
    assert refused(tmp_path / "cut") == ("DIR/labels/p0.png: the image cannot be decoded (image file is truncated).")


def test_two_pictures_of_one_name_are_refused(tmp_path):
    custom_folders.write(tmp_path)
    Image.new("RGB", (3, 3)).save(tmp_path / "images/p0.png")
    assert refused(tmp_path) == ("DIR/images/p0.jpg and DIR/images/p0.png have the same name. Rename or remove one.")


def test_files_that_are_no_pictures_do_not_count(tmp_path):
    custom_folders.write(tmp_path)
    for name in (".p9.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"x")
    assert len(find_files.list_files(tmp_path).images) == 6
