"""The folders in which trees and splits are searched, and the errors if they are missing."""

import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from reproduction.fcn.datasets import layouts
from tests.helpers import dataset_trees

WRITE = {
    "voc2012": lambda path: dataset_trees.voc(path, {"val": ["a"]}),
    "voc2011": lambda path: dataset_trees.voc(path, {"val": ["a"]}),
    "voc2010": lambda path: dataset_trees.voc(path, {}, main={"val": ["a"]}),
    "sbd": lambda path: dataset_trees.sbd(path, {"val": ["a"]}),
    "nyud": lambda path: dataset_trees.nyud(path, {"val": ["a"]}),
    "siftflow": lambda path: dataset_trees.siftflow(path, {"val": ["a"]}),
    "pascalcontext": lambda path: dataset_trees.context(path, ["a"]),
}
LAYOUTS = {name: layout for spec in datasets.SPECS.values() for name, layout in spec.layouts.items()}
PLACES = [(name, folder) for name, layout in LAYOUTS.items() for folder in layout.folders]


@pytest.mark.parametrize(("name", "folder"), PLACES)
def test_a_tree_is_found_in_each_of_its_folders_and_as_the_root_itself(tmp_path, name, folder):
    WRITE[name](tmp_path / folder)
    if name == "pascalcontext":
        dataset_trees.voc(tmp_path / "VOC2010", {}, main={"val": ["a"]})
    assert layouts.find_folder((LAYOUTS[name],), tmp_path) == tmp_path / folder
    assert layouts.find_folder((LAYOUTS[name],), tmp_path / folder) == tmp_path / folder
    if name != "voc2010":
        assert datasets.open_split(name, "val", tmp_path).ids == ["a"]


def test_voc_prefers_2011_and_does_with_2012(tmp_path):
    dataset_trees.voc(tmp_path / "VOCdevkit/VOC2012", {"val": ["a"]})
    assert datasets.open_split("voc", "val", tmp_path).tree.name == "VOC2012"
    dataset_trees.voc(tmp_path / "TrainVal/VOCdevkit/VOC2011", {"val": ["a"]})
    assert datasets.open_split("voc", "val", tmp_path).tree.name == "VOC2011"
    assert datasets.open_split("voc2012", "val", tmp_path).tree.name == "VOC2012"


def test_a_missing_tree_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError) as error:
        datasets.open_split("siftflow", "test", tmp_path / "nowhere")
    assert str(error.value) == (
        f"{tmp_path / 'nowhere'}: SIFT Flow is not here; looked for sift-flow, sift-flow/SiftFlowDataset,"
        " SiftFlowDataset. Fetch it with fcn fetch, or point to the folder that holds it."
    )


def test_a_tree_that_lacks_folders_says_which(tmp_path):
    dataset_trees.voc(tmp_path / "pascal/VOC2012", {"val": ["a"]})
    for path in (tmp_path / "pascal/VOC2012/SegmentationClass").iterdir():
        path.unlink()
    (tmp_path / "pascal/VOC2012/SegmentationClass").rmdir()
    with pytest.raises(DataError) as error:
        datasets.open_split("voc", "val", tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'pascal/VOC2012'}: PASCAL VOC 2011 or PASCAL VOC 2012 is incomplete here; SegmentationClass/"
        " missing. Fetch it with fcn fetch, or point to the folder that holds it."
    )


def test_an_unknown_split_says_where_its_list_was_looked_for(tmp_path):
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": ["a"], "val": ["b"]})
    with pytest.raises(DataError) as error:
        datasets.open_split("sbd", "trian", tmp_path)
    listed = tmp_path / "sbdd/dataset/trian.txt"
    assert str(error.value) == f"split 'trian' is not here; looked for {listed}. Did you mean 'train'?"
    with pytest.raises(DataError) as error:
        datasets.open_split("sbd", "../val", tmp_path)
    assert str(error.value) == "a split cannot be called '../val'; want a name such as 'val'."


LISTS = [
    (b"", "the split is empty; want one id a line."),
    (b"\n \n", "the split is empty; want one id a line."),
    (b"a\nb\n\na\n", "id 'a' occurs twice, on lines 1 and 4."),
    (b"2007_000033  1\n", "line 1 is not an id; got '2007_000033  1', want one id a line."),
    (b"a\n../../etc/passwd\n", "line 2 is not an id; got '../../etc/passwd', want one id a line."),
    (b"a\n.hidden\n", "line 2 is not an id; got '.hidden', want one id a line."),
    (b"<!DOCTYPE html>\n", "line 1 is not an id; got '<!DOCTYPE html>', want one id a line."),
    (b"x" * 300, "line 1 is not an id; got '" + "x" * 60 + "', want one id a line."),
    (b"\xff\xfe\0a", "this is not a text file; got byte 0xff at 0, want one id a line."),
    (b"a\n" * (1 << 23) + b"b", "the file is too large; want at most 16,777,216 bytes."),
]


@pytest.mark.parametrize(("data", "text"), LISTS)
def test_what_is_no_list_of_ids_is_refused(tmp_path, data, text):
    path = tmp_path / "val.txt"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        layouts.read_ids(path)
    assert str(error.value) == f"{path}: {text}"


def test_a_list_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(DataError) as error:
        layouts.read_ids(tmp_path)
    assert str(error.value) == f"{tmp_path}: this is not a file; got a folder. Name a file on a disk."


def test_blank_lines_windows_line_ends_and_marks_of_utf8_do_not_count(tmp_path):
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\n b \r\nc")
    assert layouts.read_ids(tmp_path / "val.txt") == ["a", "b", "c"]


VAL, TRAIN = ["2007_01", "2007_02", "2007_03", "2008_04"], ["2007_02", "2008_09"]


def test_seg11valid_follows_from_vocs_val_and_sbds_train(tmp_path):
    dataset_trees.voc(tmp_path / "pascal/VOC2011", {"val": VAL})
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": TRAIN})
    dataset = datasets.open_split("voc", "seg11valid", tmp_path)
    assert dataset.ids == ["2007_01", "2007_03", "2008_04"]
    assert dataset.overlap() == []


@pytest.mark.parametrize("place", ["pascal", "splits/pascal", "pascal/VOC2011/ImageSets/Segmentation"])
def test_seg11valid_is_taken_from_the_published_list(tmp_path, place):
    dataset_trees.voc(tmp_path / "pascal/VOC2011", {"val": VAL})
    dataset_trees.write_list(tmp_path / place / "seg11valid.txt", ["2008_04", "2007_01"])
    assert datasets.open_split("voc", "seg11valid", tmp_path).ids == ["2008_04", "2007_01"]


@pytest.mark.parametrize("derived_from", ["VOC2011", "the lists of VOC2011 and the images of VOC2012"])
def test_the_published_seg11valid_and_the_derived_one_must_agree(tmp_path, derived_from):
    year = "VOC2011" if derived_from == "VOC2011" else "VOC2012"
    dataset_trees.voc(tmp_path / "pascal" / year, {"trainval": VAL})
    dataset_trees.write_list(tmp_path / "pascal/VOC2011/ImageSets/Segmentation/val.txt", VAL)
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": TRAIN})
    listed = tmp_path / "pascal/seg11valid.txt"
    dataset_trees.write_list(listed, ["2008_04", "2007_01", "2007_03"])
    dataset = datasets.open_split("voc", "seg11valid", tmp_path)
    assert (dataset.ids, dataset.tree.name) == (["2008_04", "2007_01", "2007_03"], year)
    dataset_trees.write_list(listed, ["2008_04", "2007_02"])
    with pytest.raises(DataError) as error:
        datasets.open_split("voc", "seg11valid", tmp_path)
    assert str(error.value) == (
        f"{listed}: the list is not the split 'seg11valid' that follows from the data; 1 ids are only in the list,"
        " 2 only in the data, the first is '2007_02'. One of the two is not the published one: fetch both again."
    )


@pytest.mark.parametrize("trained", [None, ["2007_000032"]])
def test_the_included_seg11valid_is_used_where_the_data_have_none(tmp_path, trained):
    published = layouts.read_ids(layouts.PUBLISHED_SPLITS / "seg11valid.txt")
    dataset_trees.voc(tmp_path / "pascal/VOC2011", {"trainval": ["a"]})
    listed = tmp_path / "pascal/VOC2011/ImageSets/Segmentation/val.txt"
    dataset_trees.write_list(listed, sorted([*published, "2007_000032"]))
    if trained:
        dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": trained})
    assert datasets.open_split("voc", "seg11valid", tmp_path).ids == published


def test_the_included_seg11valid_and_the_derived_one_must_agree(tmp_path):
    published = layouts.PUBLISHED_SPLITS / "seg11valid.txt"
    dataset_trees.voc(tmp_path / "pascal/VOC2011", {"trainval": ["a"]})
    ids = layouts.read_ids(published)
    dataset_trees.write_list(tmp_path / "pascal/VOC2011/ImageSets/Segmentation/val.txt", ids)
    dataset_trees.sbd(tmp_path / "sbdd/dataset", {"train": [ids[0], "2008_000002"]})
    with pytest.raises(DataError) as error:
        datasets.open_split("voc", "seg11valid", tmp_path)
    assert str(error.value).startswith(
        f"{published}: the list is not the split 'seg11valid' that follows from the data; 1 ids are only in the list, 0"
    )


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("nyud", "train", 381),
        ("nyud", "val", 414),
        ("nyud", "trainval", 795),
        ("nyud", "test", 654),
        ("siftflow", "trainval", 2486),
        ("siftflow", "test", 200),
    ],
)
def test_the_published_splits_are_included(tmp_path, name, split, count):
    tree = tmp_path / LAYOUTS[name].folders[0]
    WRITE[name](tree)
    (tree / "val.txt").unlink()
    dataset = datasets.open_split(name, split, tmp_path)
    assert len(dataset) == count
    assert len(dataset.training_ids()) == {"nyud": 795, "siftflow": 2486}[name]
    assert bool(dataset.overlap()) == (split != "test")


def test_nyuds_trainval_is_train_and_val_one_after_the_other(tmp_path):
    dataset_trees.nyud(tmp_path / "nyud", {"test": ["5001"]})
    dataset_trees.write_list(tmp_path / "splits/nyud/train.txt", ["5003", "5002"])
    dataset_trees.write_list(tmp_path / "splits/nyud/val.txt", ["5010"])
    assert datasets.open_split("nyud", "trainval", tmp_path).ids == ["5003", "5002", "5010"]
    dataset_trees.write_list(tmp_path / "nyud/trainval.txt", ["5003"])
    with pytest.raises(DataError, match="the list is not the split 'trainval' that follows from the data"):
        datasets.open_split("nyud", "trainval", tmp_path)
