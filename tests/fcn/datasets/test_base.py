"""The interface of the data sets, checked on each of them, and the order of training."""

import hashlib
from itertools import islice

import numpy as np
import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from reproduction.fcn.datasets.voc import VOC
from tests.helpers import dataset_trees

IDS = ["2007_000033", "2008_000123", "2011_003103"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    dataset_trees.voc(root / "pascal/VOC2011", {"val": IDS, "train": ["2007_000032"]})
    dataset_trees.voc(root / "pascal/VOCdevkit/VOC2012", {"val": IDS, "trainval": ["2007_000032", *IDS]}, seed=1)
    dataset_trees.voc(root / "pascal/VOC2010", {}, main={"val": IDS, "train": ["2009_000001"]})
    dataset_trees.context(root / "pascal-context", [*IDS, "2009_000001"])
    dataset_trees.sbd(root / "sbdd/dataset", {"train": ["2008_000002", "2008_000123"], "val": ["2008_000007"]})
    dataset_trees.nyud(root / "nyud", {"train": ["5003"], "val": ["5010", "5011"], "test": ["5001", "5002"]})
    dataset_trees.siftflow(root / "sift-flow", {"trainval": ["coast_n1", "coast_n2"], "test": ["forest_f3"]})
    return root


OPENED = [
    ("voc", "val", 3),
    ("voc2011", "train", 1),
    ("voc2012", "trainval", 4),
    ("sbd", "train", 2),
    ("nyud", "trainval", 3),
    ("nyud", "test", 2),
    ("siftflow", "test", 1),
    ("pascalcontext", "val", 3),
]


@pytest.mark.parametrize(("name", "split", "count"), OPENED)
def test_every_sample_keeps_the_contract(root, name, split, count):
    dataset = datasets.open_split(name, split, root)
    assert len(dataset) == len(dataset.ids) == count
    assert dataset.missing() == []
    for i in range(count):
        datasets.check_sample(dataset, i)
    assert [sample.keys() for sample in dataset[:2]] == [dataset.tops.keys()] * min(count, 2)
    assert dataset[-1].keys() == dataset[count - 1].keys()


def test_iteration_ends_after_the_last_sample(root):
    assert len(list(datasets.open_split("voc", "val", root))) == 3


class Broken(VOC):
    """A data set that breaks the contract in one way."""

    def __init__(self, root, harm):
        super().__init__("val", root)
        self.harm = harm

    def __getitem__(self, index):
        return self.harm(super().__getitem__(index))


HARMS = {
    "'data' is not what a net takes; got float64, shape (3, ": lambda s: {**s, "data": s["data"].astype(np.float64)},
    "'label' is not what a net takes; got uint8, shape (3, ": lambda s: {**s, "label": s["label"].repeat(3, 0)},
    "'label' has labels out of range; got [": lambda s: {**s, "label": s["label"] % 4 + 100},
    "'data' is not finite.": lambda s: {**s, "data": s["data"] * np.float32(np.nan)},
    "height and width differ; got [": lambda s: {**s, "label": s["label"][:, 1:]},
    "the sample has other tops; got ['data'], want ['data', 'label'].": lambda s: {"data": s["data"]},
}


@pytest.mark.parametrize("text", HARMS)
def test_the_contract_names_what_breaks_it(root, text):
    with pytest.raises(DataError) as error:
        datasets.check_sample(Broken(root, HARMS[text]), 0)
    assert str(error.value).startswith(f"voc val, {IDS[0]}: {text}")


def test_draw_order_is_python_2s_randint():
    # Recorded under CPython 2.7.18: random.seed(1337); random.randint(0, 8497) ...
    assert list(islice(datasets.draw_order(8498), 5)) == [5249, 4531, 3108, 4978, 1408]


def test_training_splits_are_drawn_with_replacement_and_others_go_round(root):
    sbd, val = datasets.open_split("sbd", "train", root), datasets.open_split("voc", "val", root)
    assert list(islice(sbd.order(), 8)) == list(islice(datasets.draw_order(2, 1337), 8))
    assert list(islice(val.order(), 7)) == [0, 1, 2, 0, 1, 2, 0]
    sbd.randomize = False
    assert list(islice(sbd.order(), 3)) == [0, 1, 0]


CLASSES = {"voc": 21, "nyud": 40, "siftflow-sem": 33, "siftflow-geo": 3, "pascalcontext": 60, "pascalcontext-459": 459}


@pytest.mark.parametrize(("name", "count"), CLASSES.items())
def test_class_lists_are_whole(name, count):
    names = datasets.load_class_names(name)
    assert len(names) == len(set(names)) == count
    assert all(name == name.strip() and name for name in names)


# SHA-1 of the published lists, and what in them is not a class name.
PUBLISHED = {
    "voc": (
        "1d524483517d39688d6cf97a0329c605347a8cae",
        "{}\n",
        """
and 255 is the ignore label that marks pixels excluded from learning and
evaluation by the PASCAL VOC ground truth.
""",
        0,
    ),
    "nyud": (
        "0b6ad58f8d90fbf75e67ea00164b571b40165963",
        "{}\n",
        "\nand 0 is void (and converted to 255 by the NYUDSegDataLayer)\n",
        0,
    ),
    "pascalcontext": ("0a08fedb9f39f93e735f033c7b63795294441423", "{0}: {1}\n", "", 0),
    "pascalcontext-459": ("04eb20e1f8ea4d55123299a1a72c373000642baa", "{0}: {1}\n", "", 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_class_names_are_the_published_ones(name):
    sha1, line, rest, first = PUBLISHED[name]
    names = datasets.load_class_names(name)
    numbered = [line.format(i, name) if "{0}" in line else line.format(name) for i, name in enumerate(names, first)]
    assert hashlib.sha1(("".join(numbered) + rest).encode()).hexdigest() == sha1


def test_the_59_classes_are_those_of_pascal_contexts_own_list(root):
    # The data set's site: https://www.cs.stanford.edu/~roozbeh/pascal-context/59_labels.txt
    own = (root / "pascal-context/59_labels.txt").read_bytes()
    assert hashlib.md5(own).hexdigest() == "993901f2d930cc038c406845f08fa082"
    names = [line.split(": ")[1] for line in own.decode().split("\n") if line]
    renamed = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
    assert names == [renamed.get(name, name) for name in datasets.load_class_names("pascalcontext")[1:]]


def test_missing_files_are_listed_before_any_is_opened(root, tmp_path):
    dataset_trees.siftflow(tmp_path / "sift-flow", {"test": ["a", "b"]})
    dataset = datasets.open_split("siftflow", "test", tmp_path)
    dataset.file("geo", "b").unlink()
    assert dataset.missing() == [dataset.file("geo", "b")]
    assert dataset.missing(1) == []


def test_sizes_of_image_and_label_must_agree(tmp_path):
    dataset_trees.voc(tmp_path / "VOC2012", {"val": ["a"]})
    dataset = datasets.open_split("voc", "val", tmp_path)
    label, image = dataset.file("label", "a"), dataset.file("data", "a")
    dataset_trees.palette_png(label, np.zeros((7, 5), np.uint8))
    height, width = dataset_trees.picture("a", 0, (24, 32)).shape[:2]
    with pytest.raises(DataError) as error:
        dataset[0]
    size = dataset.read("data", image).shape[1:]
    assert size >= (height, width)
    assert str(error.value) == f"{label}: height and width differ; got (7, 5), want {size} as in {image}."


def test_overlap_with_the_training_set_is_known(root, tmp_path):
    assert datasets.open_split("voc", "val", root).overlap() == ["2008_000123"]
    assert datasets.open_split("sbd", "val", root).overlap() == []
    assert datasets.open_split("nyud", "test", root).overlap() == []
    assert datasets.open_split("nyud", "val", root).overlap() == ["5010", "5011"]
    assert datasets.open_split("siftflow", "trainval", root).overlap() == ["coast_n1", "coast_n2"]
    assert datasets.open_split("pascalcontext", "val", root).overlap() == []
    dataset_trees.voc(tmp_path / "VOC2012", {"val": ["a"], "seg11valid": ["a"]})
    assert datasets.open_split("voc", "val", tmp_path).overlap() is None
    assert datasets.open_split("voc", "seg11valid", tmp_path).overlap() == []


def test_unknown_names_say_what_is_near(root):
    with pytest.raises(DataError) as error:
        datasets.open_split("siftflo", "test", root)
    assert str(error.value) == (
        "no data set is called 'siftflo'; want one of voc, voc2011, voc2012, sbd, nyud, siftflow, pascalcontext, "
        "mini, mini-sbd, folder. Did you mean 'siftflow'?"
    )
    with pytest.raises(DataError) as error:
        datasets.open_split("nyud", "test", root, ["colour", "label"])
    assert str(error.value) == "nyud has no 'colour'; want one of color, depth, hha, label. Did you mean 'color'?"
