"""The data layers of the published prototxts, opened without executing their Python code."""

import pytest

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import PythonParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets.voc import SBD
from reproduction.fcn.nets import published_nets
from tests.helpers import dataset_trees
from tests.helpers.paths import ROOT

PUBLISHED = sorted(
    path
    for path in (ROOT / "prototxt").glob("*/*.prototxt")
    if path.stem in {"train", "trainval", "val", "test"} and path.parent.name in published_nets.NETS
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    dataset_trees.voc(root / "pascal/VOC2011", {"seg11valid": ["a"]})
    dataset_trees.sbd(root / "sbdd/dataset", {"train": ["a", "b", "c"]})
    dataset_trees.voc(root / "pascal/VOC2010", {}, main={"train": ["a"], "val": ["b"]})
    dataset_trees.context(root / "pascal-context", ["a", "b"])
    dataset_trees.nyud(root / "nyud", {"train": ["1"], "val": ["2"], "test": ["3"]})
    dataset_trees.siftflow(root / "sift-flow", {"trainval": ["a"], "test": ["b"]})
    return root


def test_the_published_prototxts_were_found():
    assert len(PUBLISHED) == 30


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_published_data_layer_opens(root, path):
    net, _ = prototxt.load_net(path)
    layer = net.layer[0]
    assert layer.type == "Python"
    dataset = datasets.from_layer(layer.python_param, list(layer.top), root)
    family = path.parent.name.split("-")[0]
    assert dataset.name in {family, "sbd"}
    assert ("train" in dataset.split) == ("train" in path.stem)
    assert dataset.seed == 1337
    assert list(datasets.check_sample(dataset, 0)) == list(layer.top)
    assert [dataset.label_classes.keys()] == [{top for top in layer.top if top in {"label", "sem", "geo"}}]


MEAN = "(104.00699, 116.66877, 122.67892)"
VOC = f"{{'voc_dir': '../data/pascal/VOC2011', 'seed': 1337, 'split': 'seg11valid', 'mean': {MEAN}}}"
NYUD = "{'nyud_dir': '../data/nyud', 'split': 'test', 'tops': ['hha', 'label']}"


def layer(name, text):
    return PythonParameter(module="layers", layer=name, param_str=text)


def test_another_split_can_be_asked_for(root):
    dataset = datasets.from_layer(layer("NYUDSegDataLayer", NYUD), ["data", "label"], root, "val")
    assert (dataset.ids, dataset.tops, dataset.seed) == (["2"], {"data": "hha", "label": "label"}, None)


def test_a_folder_given_in_full_is_taken(root, tmp_path):
    dataset_trees.voc(tmp_path / "mine", {"val": ["x"]})
    text = VOC.replace("../data/pascal/VOC2011", str(tmp_path / "mine")).replace("seg11valid", "val")
    dataset = datasets.from_layer(layer("VOCSegDataLayer", text), ["data", "label"], root)
    assert dataset.ids == ["x"]


def test_the_mean_and_the_order_are_the_layers(root):
    text = "{'sbdd_dir': 'x', 'split': 'train', 'mean': [1, 2, 3.5], 'seed': 3, 'randomize': False}"
    dataset = datasets.from_layer(layer("SBDDSegDataLayer", text), ["data", "label"], root)
    assert isinstance(dataset, SBD)
    assert (dataset.mean_bgr.tolist(), dataset.seed, dataset.randomize) == ([1, 2, 3.5], 3, False)


KNOWN = (
    "want one of VOCSegDataLayer, SBDDSegDataLayer, NYUDSegDataLayer, SIFTFlowSegDataLayer, PASCALContextSegDataLayer, "
    "FolderSegDataLayer."
)
LITERAL = "want {'split': 'val', ...}."
WRONG = [
    (
        "VOCSegDatalayer",
        VOC,
        2,
        f"no data set belongs to the Python layer 'VOCSegDatalayer'; {KNOWN} Did you mean 'VOCSegDataLayer'?",
    ),
    (
        "VOCSegDataLayer",
        "__import__('os').abort()",
        2,
        f"VOCSegDataLayer: param_str is not a dictionary of literals; got \"__import__('os').abort()\", {LITERAL}",
    ),
    (
        "VOCSegDataLayer",
        "[" * 5000,
        2,
        f"VOCSegDataLayer: param_str is not a dictionary of literals; got {'[' * 80!r}, {LITERAL}",
    ),
    (
        "VOCSegDataLayer",
        VOC.replace("'seed'", "'sead'"),
        2,
        "VOCSegDataLayer: param_str has an unknown 'sead'. Did you mean 'seed'?",
    ),
    (
        "VOCSegDataLayer",
        VOC.replace(MEAN, "(1, 'x', 3)"),
        2,
        "VOCSegDataLayer: 'mean' is not three numbers; got (1, 'x', 3).",
    ),
    (
        "VOCSegDataLayer",
        VOC.replace("'../data/pascal/VOC2011'", "7"),
        2,
        "VOCSegDataLayer: param_str has a value that is not a string; got 7.",
    ),
    ("VOCSegDataLayer", VOC.replace("1337", "'x'"), 2, "VOCSegDataLayer: the seed is not a whole number; got 'x'."),
    (
        "VOCSegDataLayer",
        VOC.replace("'seed': 1337", "'randomize': 'no'"),
        2,
        "VOCSegDataLayer: 'randomize' is not True or False; got 'no'.",
    ),
    ("VOCSegDataLayer", "{'voc_dir': 'x'}", 2, "VOCSegDataLayer: param_str names no split."),
    ("VOCSegDataLayer", VOC, 3, "VOCSegDataLayer: wrong tops; got ['t0', 't1', 't2'], want 2, for data, label."),
    (
        "NYUDSegDataLayer",
        NYUD.replace("hha", "hah"),
        2,
        "NYUDSegDataLayer: nyud has no 'hah'; want one of color, depth, hha, label. Did you mean 'hha'?",
    ),
    (
        "NYUDSegDataLayer",
        NYUD.replace("['hha', 'label']", "3"),
        2,
        "NYUDSegDataLayer: param_str has a value that is not a string; got 3.",
    ),
]


@pytest.mark.parametrize(("name", "text", "tops", "error_text"), WRONG)
def test_a_wrong_layer_is_one_line(root, name, text, tops, error_text):
    with pytest.raises(DataError) as error:
        datasets.from_layer(layer(name, text), [f"t{i}" for i in range(tops)], root)
    assert str(error.value) == error_text
