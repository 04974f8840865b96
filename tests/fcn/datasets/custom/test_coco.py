"""Labels drawn from COCO's JSON, and the images that it names."""

import json

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from reproduction.fcn.datasets.custom import coco, find_files
from reproduction.fcn.datasets.custom.check import check_folder
from reproduction.fcn.datasets.custom.folder import Folder
from tests.helpers import annotated_folders as drawn


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        drawn.image(tmp_path / f"images/{i}.jpg", i)
    return tmp_path


def write(root, instances=None, name="annotations/instances.json", **more):
    return drawn.coco(root / name, [f"{i}.jpg" for i in range(5)], instances, **more)


def label(root, *instances, i=0):
    """The label map of the first image, of which there are only these instances."""
    write(root, [*instances])
    return Folder("train", root)[i]["label"][0]


def refused(root, *instances):
    with pytest.raises(DataError) as error:
        label(root, *instances)
    return str(error.value).replace(f"{root}/", "")


def test_the_smaller_instance_covers_the_larger_whatever_their_order(photos):
    write(photos)
    data = Folder("train", photos)
    assert data.classes == ("background", "cat", "dog")
    assert data.ids == ["0", "1", "2", "3"]
    assert np.array_equal(datasets.check_sample(data, 1)["label"][0], drawn.truth())
    both = [drawn.instance(1, category_id=7, segmentation=(drawn.SMALL,)), drawn.instance(2)]
    assert np.array_equal(label(photos, *both), drawn.truth())
    assert np.array_equal(label(photos, *reversed(both)), drawn.truth())
    assert label(photos, drawn.instance(1), drawn.instance(2, category_id=7)).max() == 2, "of equal ones, the later"


def test_masks_are_read_compressed_or_not(photos):
    mask = np.random.default_rng(0).integers(0, 2, drawn.SIZE)
    mask[:, 3:9] = 0
    for given in (mask, 1 - mask, mask * 0 + 1):
        for compressed in (False, True):
            found = label(photos, drawn.instance(1, segmentation=drawn.rle(given, compressed=compressed)))
            assert np.array_equal(found, given), compressed


def test_crowds_are_void_under_everything(photos):
    crowd = drawn.instance(1, segmentation=drawn.rle(np.ones(drawn.SIZE)), iscrowd=1)
    want = drawn.rectangle(drawn.SMALL, np.full(drawn.SIZE, 255, np.uint8), 2)
    assert np.array_equal(label(photos, drawn.instance(2, category_id=7, segmentation=(drawn.SMALL,)), crowd), want)


def test_images_without_instances_are_background(photos):
    assert not label(photos, drawn.instance(1, image_id=2)).any()
    notes = [problem.what for problem in check_folder(photos).problems]
    assert "4 images have no instance, and are read as background" in notes


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"segmentation": []}, "has no outline; got a box, want polygons or a mask. Draw its outline, or remove it."),
        ({"segmentation": ([1, 2, 3],)}, "has no valid outline; got [1, 2, 3], want [x, y, x, y, ...]."),
        (
            {"segmentation": ([1, 2, 3, 4],)},
            "has no valid outline; got [[1, 2], [3, 4]], want 3 or more points [x, y].",
        ),
        (
            {"segmentation": ([1, 2, 3, 4, 1e9, 1],)},
            "has no valid outline; got [1000000000.0, 1], want 3 or more points [x, y].",
        ),
        (
            {"segmentation": {"size": [9, 9], "counts": [81]}},
            "has a mask of another size; got [9, 9], want [20, 30], as its image.",
        ),
        (
            {"segmentation": {"size": [20, 30], "counts": [999999]}},
            "has run lengths of another size; got 999999, want 600.",
        ),
        ({"segmentation": {"size": [20, 30], "counts": [700, -100]}}, "has no valid run lengths; got [700, -100]."),
        ({"segmentation": {"size": [20, 30], "counts": "oooo"}}, 'has no valid run lengths; got "oooo".'),
        ({"category_id": 99}, "has a category that is not listed; got 99."),
    ],
)
def test_outlines_that_are_none_are_refused(photos, more, error):
    first = drawn.instance(1, image_id=2)  # a good one, so that the file is not of boxes alone
    said = refused(photos, first, drawn.instance(8, **more))
    assert said == f"annotations/instances.json: instance 8 {error}"


def test_a_size_that_no_image_has_takes_no_memory(photos):
    entry = {"id": 1, "file_name": "0.jpg", "height": 200_000, "width": 200_000}
    write(photos, [drawn.instance(1)], images=[entry, entry | {"id": 2, "file_name": "1.jpg"}])
    with pytest.raises(DataError, match="the image is too large to open; got 200000 x 200000"):
        Folder("train", photos)[0]
    write(photos, [drawn.instance(1)], images=[{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)])
    assert Folder("train", photos)[0]["label"].shape == (1, *drawn.SIZE), (
        "the image says its size if the entry does not"
    )


@pytest.mark.parametrize(
    "name", ["0.jpg", "images/0.jpg", "images\\0.jpg", "/home/ann/photos/0.jpg", "../../../0.jpg", "C:\\photos\\0.jpg"]
)
def test_names_of_images_lead_to_files_of_the_folder_alone(photos, name):
    outside = drawn.image(photos.parent / "0.jpg", 9)
    drawn.coco(photos / "result.json", [name, "1.jpg"])
    files = find_files.list_files(photos)
    assert files.images["0"] == photos / "images/0.jpg"
    outside.unlink()
    (photos / "images/0.jpg").unlink()
    assert "0" not in find_files.list_files(photos).images
    assert check_folder(photos).problems[0].what != ""


def test_names_of_files_say_the_splits(photos):
    drawn.coco(photos / "annotations/instances_train2017.json", ["0.jpg", "2.jpg"])
    drawn.coco(photos / "annotations/instances_val2017.json", ["1.jpg"])
    (photos / "annotations/captions_train2017.json").write_text(json.dumps({"images": [], "annotations": []}))
    assert Folder("train", photos).ids == ["0", "2"]
    assert Folder("val", photos).ids == ["1"]
    assert find_files.list_files(photos).description == (
        "COCO JSON in annotations/instances_train2017.json, annotations/instances_val2017.json; of overlapping"
        " instances the smaller one is drawn last; crowds are void"
    )
    (photos / "annotations/instances_train_2.json").write_bytes(
        (photos / "annotations/instances_val2017.json").read_bytes()
    )
    with pytest.raises(DataError, match="several files have the annotations; got annotations/instances_train2017"):
        Folder("val", photos)


def test_the_folders_of_roboflow_have_images_of_one_name_in_both_splits(tmp_path):
    categories = [{"id": 0, "name": "animals", "supercategory": "none"}] + [
        category | {"supercategory": "animals"} for category in drawn.CATEGORIES
    ]
    for split, seed in (("train", 1), ("valid", 2), ("test", 3)):
        drawn.image(tmp_path / split / "a.jpg", seed)
        drawn.coco(tmp_path / split / "_annotations.coco.json", ["a.jpg"], categories=categories)
    train, val = (Folder(split, tmp_path) for split in ("train", "val"))
    assert (train.ids, val.ids) == (["train_a"], ["valid_a"])
    assert train.file("data", "train_a") == tmp_path / "train/a.jpg"
    assert val.file("data", "valid_a") == tmp_path / "valid/a.jpg"
    assert train.classes == ("background", "cat", "dog"), "the category of groups is none"
    assert np.array_equal(val[0]["label"][0], drawn.truth())


def test_the_classes_may_be_chosen(photos):
    write(photos)
    (photos / "classes.txt").write_text("background\ndog\n")
    assert sorted(np.unique(Folder("train", photos)[0]["label"])) == [0, 1]
    (photos / "classes.txt").write_text("dog\ncat\n")
    found = Folder("train", photos)[0]["label"][0]
    assert np.array_equal(found, np.choose(drawn.truth(), [255, 1, 0])), "without a background, the rest is void"
    (photos / "classes.txt").write_text("background\ndog\nbird\n")
    problems = {
        problem.what: (problem.fatal, problem.files)
        for problem in check_folder(photos, ("background", "dog", "bird")).problems
    }
    assert problems == {
        "names in the annotations are not among the classes, and are read as background": (False, ["cat"]),
        "classes occur in no label": (False, ["bird"]),
    }


def test_more_classes_than_a_label_map_can_have_are_refused(photos):
    write(photos, categories=[{"id": i, "name": f"thing {i}"} for i in range(300)])
    with pytest.raises(DataError) as error:
        Folder("train", photos)
    assert str(error.value) == (
        f"{photos}: there are too many classes; got 301, want at most 254. List those to train on in classes.txt; the"
        " others are read as background."
    )
    (photos / "classes.txt").write_text("background\nthing 3\n")
    assert sorted(np.unique(Folder("train", photos)[0]["label"])) == [0, 1]


def test_the_check_reads_every_instance(photos):
    write(photos)
    report = check_folder(photos)
    assert report.ok
    assert (report.pairs, report.splits) == (5, {"train": 4, "val": 1})
    assert [(value.name, value.pixels) for value in report.values] == [
        (name, 5 * int((drawn.truth() == label).sum())) for label, name in enumerate(("background", "cat", "dog"))
    ]
    write(photos, [drawn.instance(1, image_id=3), drawn.instance(2, segmentation=[])])
    (problem,) = [problem for problem in check_folder(photos).problems if problem.fatal]
    assert problem.what == "instance 2 has no outline"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": []}]},
            "the annotations are boxes; want polygons or masks. Draw the outlines of the things, or export them too.",
        ),
        (
            {"annotations": [{"image_id": 1, "file_name": "0.png", "segments_info": []}]},
            (
                "the annotations are panoptic segments; want instances. Convert it by panopticapi's"
                " converters/panoptic2detection_coco_format.py."
            ),
        ),
        ({"categories": []}, "the annotations have no categories; want COCO's instances, not captions."),
        ({"images": [{"id": 1}]}, "not COCO's JSON: images[0].file_name is missing."),
        ({"annotations": 3}, "not COCO's JSON: annotations is 3; want a list."),
    ],
)
def test_other_files_of_coco_are_refused(photos, more, error):
    write(photos, **more)
    with pytest.raises(DataError) as raised:
        find_files.list_files(photos)
    assert str(raised.value) == f"{photos}/annotations/instances.json: {error}"


def test_a_file_that_changes_is_read_again(photos):
    path = write(photos)
    assert coco.load(path) is coco.load(path)
    first = coco.load(path)
    write(photos, [drawn.instance(1)])
    assert coco.load(path) is not first


def test_no_image_is_decoded_twice(photos, monkeypatch):
    write(photos)
    data = Folder("train", photos, side=16)
    opened, read = [], Folder._read_image

    def spy(self, path):
        opened.append(path)
        return read(self, path)

    monkeypatch.setattr(Folder, "_read_image", spy)
    first, again = data[0], data[0]
    assert len(opened) == 1
    assert all(np.array_equal(first[top], again[top]) for top in first)
    assert first["label"].shape == (1, 11, 16)
    monkeypatch.setattr("reproduction.fcn.datasets.custom.folder.CACHED_BYTES", 600)
    small = Folder("train", photos, side=16)
    for i in (0, 1, 0):
        small[i]
    assert len(opened) == 4, "what does not fit is decoded again"


def test_a_label_of_another_size_than_its_image_is_refused(photos):
    write(photos)
    Image.new("RGB", (20, 30)).save(photos / "images/0.jpg")
    with pytest.raises(DataError, match="height and width differ"):
        Folder("train", photos)[0]
    assert [p.files[0].endswith("(20 x 30, not 30 x 20)") for p in check_folder(photos).problems if p.fatal] == [True]
