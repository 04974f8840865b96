"""Where images and labels may be, by the names that people and programs use; and formats that are not read."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets.custom import cityscapes, class_files, color_labels, find_files, folder
from reproduction.fcn.datasets.custom.check import check_folder
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.train import custom_nets
from tests.helpers import annotated_folders, custom_folders


def write(root, pairs):
    """Write an image and its label for each pair of names; return the folder."""
    for i, (image, label) in enumerate(pairs):
        annotated_folders.image(root / image, i)
        (root / label).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(custom_folders.label(i)).save(root / label)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in custom_folders.NAMES))
    return root


LAYOUTS = {
    "masks": ("images/{n}.jpg", "masks/{n}.png", "labels in masks/"),
    "mask files": ("imgs/{n}.jpg", "masks/{n}_mask.gif", "labels in masks/ with the suffix _mask"),
    "one folder": ("{n}.jpg", "{n}_mask.png", "labels next to the images with the suffix _mask"),
    "one folder of PNG": ("{n}.png", "{n}_label.png", "labels next to the images with the suffix _label"),
    "CamVid": ("images/{n}.png", "labels/{n}_L.png", "labels in labels/ with the suffix _L"),
    "LabelMe's export": ("JPEGImages/{n}.jpg", "SegmentationClassPNG/{n}.png", "labels in SegmentationClassPNG/"),
    "splits below": ("images/{s}/{n}.jpg", "labels/{s}/{n}.png", "labels in labels/train/, labels/val/"),
    "ADE20K": ("images/{l}/{n}.jpg", "labels/{l}/{n}.png", "labels in labels/training/, labels/validation/"),
    "OpenMMLab": ("img_dir/{s}/{n}.jpg", "ann_dir/{s}/{n}.png", "labels in ann_dir/train/, ann_dir/val/"),
    "splits above": ("{s}/images/{n}.jpg", "{s}/masks/{n}.png", "labels in train/masks/, val/masks/"),
    "Roboflow": ("{s}/{n}.jpg", "{s}/{n}_mask.png", "labels in train/, val/ with the suffix _mask"),
    "SegNet": ("{s}/{n}.png", "{s}annot/{n}.png", "labels in trainannot/, valannot/"),
    "Carvana": ("{s}/{n}.jpg", "{s}_masks/{n}_mask.gif", "labels in train_masks/, val_masks/ with the suffix _mask"),
}  # fmt: skip


@pytest.mark.parametrize(("image", "label", "said"), LAYOUTS.values(), ids=LAYOUTS)
def test_folders_and_names_are_recognized(tmp_path, image, label, said):
    names = [
        {"n": n, "s": "val" if n in "bd" else "train", "l": "validation" if n in "bd" else "training"} for n in "abcde"
    ]
    write(tmp_path, [(image.format(**name), label.format(**name)) for name in names])
    files = find_files.list_files(tmp_path)
    assert files.description == said
    has_splits = "{s}" in image or "{l}" in image
    assert sorted(files.ids("val")) == (["b", "d"] if has_splits else ["e"])
    data = Folder("train", tmp_path)
    for i, image_id in enumerate(data.ids):
        assert np.array_equal(data[i]["label"][0], custom_folders.label("abcde".index(image_id)))
    assert check_folder(tmp_path, custom_folders.NAMES).ok
    assert custom_nets.is_custom_folder(tmp_path)


def test_the_folders_of_imagenet_are_not_labelled_images(tmp_path):
    annotated_folders.image(tmp_path / "train/n01440764/a.jpg")
    assert not custom_nets.is_custom_folder(tmp_path)


def test_one_name_in_both_splits_is_preceded_by_the_split(tmp_path):
    write(tmp_path, [(f"images/{s}/{n}.jpg", f"labels/{s}/{n}.png") for s in ("train", "val") for n in "ab"])
    assert Folder("train", tmp_path).ids == ["train_a", "train_b"]
    assert Folder("val", tmp_path).ids == ["val_a", "val_b"]
    assert np.array_equal(Folder("val", tmp_path)[1]["label"][0], custom_folders.label(3))


def test_a_suffix_that_is_part_of_the_name_is_kept(tmp_path):
    write(tmp_path, [("images/a.jpg", "labels/a.png"), ("images/a_L.jpg", "labels/a_L.png")])
    files = find_files.list_files(tmp_path)
    assert files.description == ""
    assert files.pairs == ["a", "a_L"]
    assert not files.twice


@pytest.mark.parametrize("ending", ["labelIds", "labelTrainIds"])
def test_cityscapes_is_read_with_its_classes_and_colours(tmp_path, ending):
    ids = np.arange(600, dtype=np.uint8).reshape(20, 30) % 34
    for split, names in (("train", "abc"), ("val", "d"), ("test", "e")):
        for name in names:
            annotated_folders.image(tmp_path / f"leftImg8bit/{split}/ulm/{name}_leftImg8bit.png")
            path = tmp_path / f"gtFine/{split}/ulm/{name}_gtFine_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids if ending == "labelIds" else cityscapes.NUMBERS[ids]).save(path)
            Image.fromarray(ids).save(path.with_name(f"{name}_gtFine_instanceIds.png"))
    data = Folder("train", tmp_path)
    assert (data.ids, Folder("val", tmp_path).ids) == (["a", "b", "c"], ["d"])
    assert data.classes[:2] == ("road", "sidewalk")
    assert data.classes[-1] == "bicycle"
    label = data[0]["label"][0]
    assert (label[ids == 7] == 0).all()
    assert (label[ids == 33] == 18).all()
    assert (label[(ids < 7) | (ids == 30)] == 255).all()
    assert data.colours["car"] == (0, 0, 142)
    assert check_folder(tmp_path).ok
    known = custom_nets.inspect_folder(tmp_path)
    assert known.description.startswith(f"Cityscapes, labels in gtFine/ as {ending}")
    assert known.colours["sky"] == (70, 130, 180)
    assert custom_nets.is_custom_folder(tmp_path)


def test_names_of_the_users_mean_that_cityscapes_ids_are_class_numbers(tmp_path):
    annotated_folders.image(tmp_path / "leftImg8bit/train/a_leftImg8bit.png")
    path = tmp_path / "gtFine/train/a_gtFine_labelIds.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(custom_folders.label(0)).save(path)
    (tmp_path / "classes.txt").write_text("floor\nwall\ndoor\n")
    data = Folder("train", tmp_path)
    assert np.array_equal(data[0]["label"][0], custom_folders.label(0))
    assert data.colours is None


UNREAD = {
    "labels/0.txt": ("1 0.5 0.5 0.2 0.2\n", "YOLO's text of boxes"),
    "train/labels/0.txt": ("1 0.5 0.5 0.2 0.2 0.1 0.3\n", "YOLO's text of outlines"),
    "Annotations/0.xml": ("<annotation><object><bndbox/></object></annotation>", "PASCAL VOC's XML of boxes"),
    "annotations.xml": ('<?xml version="1.0"?>\n<annotations><version>1.1</version>', "CVAT's XML"),
    "ds/ann/0.jpg.json": ('{"objects": [{"classTitle": "cat", "geometryType": "bitmap"}]}', "Supervisely's JSON"),
    "export.json": ('[{"id": 1, "annotations": [{"result": []}], "data": {"image": "x"}}]', "Label Studio's JSON"),
    "via.json": ('{"_via_settings": {}}', "the JSON of VGG's annotator"),
    "export.ndjson": ('{"data_row": {"id": "x"}}', "Labelbox's JSON"),
    "train/x.tfrecord": ("x", "TFRecord"),
    "masks/0.npy": ("x", "NumPy's arrays"),
    "labels/0.mat": ("x", "MATLAB's arrays"),
}


@pytest.mark.parametrize(("name", "text", "error"), [(name, *each) for name, each in UNREAD.items()], ids=UNREAD)
def test_formats_that_are_not_read_are_named_with_what_to_do(tmp_path, name, text, error):
    annotated_folders.image(tmp_path / "images/0.jpg")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as raised:
        find_files.list_files(tmp_path)
    said = f"{tmp_path / name}: annotations in this format are not read; got {error}. "
    assert str(raised.value) == said + raised.value.remedy
    assert len(raised.value.remedy) > 20


def test_lists_are_not_taken_for_annotations(tmp_path):
    custom_folders.write(tmp_path, n=0)
    (tmp_path / "labels/classes.txt").write_text("1 2 3 4 5\n")
    (tmp_path / "labels/notes.txt").write_text("1 cat, 2 dogs, 3 birds, 4 cows, 5 mice\n")
    assert find_files.list_files(tmp_path).pairs == []


def test_classes_of_other_programs_are_found(tmp_path):
    custom_folders.write(tmp_path, names=None)
    assert folder.find_classes(tmp_path) == (None, None)
    table = tmp_path / "train/_classes.csv"
    table.parent.mkdir()
    table.write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    assert folder.find_classes(tmp_path) == (custom_folders.NAMES, None)
    for wrong in ("0, background\n2, cat\n", "Pixel Value, Class\n", 'a,"b'):
        table.write_text(f"heading,x\n{wrong}")
        with pytest.raises(DataError, match="not a table of classes"):
            class_files.read_class_list(table)
    table.unlink()
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n"
    )
    names, palette = folder.find_classes(tmp_path)
    assert names == custom_folders.NAMES
    assert palette == {name: color_labels.voc_palette(names)[name] for name in names}
