"""What travels with weights: what a net takes, and what its classes are called."""

import json

import numpy as np
import pytest

from reproduction.caffe.errors import DataError
from reproduction.fcn import card, mininets, nets, palette, zoo
from reproduction.fcn.datasets import class_names, nyud

NAMES = ("background", "cat")


@pytest.mark.parametrize("name", nets.NETS)
def test_the_cards_of_the_published_nets_say_what_they_take_and_tell(name):
    row = nets.NETS[name]
    about = card.of(row)
    assert about.kinds == tuple(row.inputs.values())
    assert [(top, len(said.classes), said.score) for top, said in about.labels.items()] == [
        (head.label, head.classes, head.score) for head in row.heads
    ]
    assert card.loads(card.dumps(about)) == about


def test_the_cards_of_nets_that_know_drawn_things_only_say_so():
    about = card.of(mininets.NETS["mini-fcn8s"])
    assert about.knows == "drawn things only, no photographs"
    assert card.loads(card.dumps(about)) == about
    assert "knows" not in json.loads(card.dumps(card.of(nets.NETS["voc-fcn8s"]))), "earlier versions would refuse it"


def test_means_keep_their_precision():
    about = card.of(nets.NETS["nyud-fcn32s-color-hha"])
    assert about.inputs["color"].mean_array.dtype == np.float32
    assert np.array_equal(about.inputs["color"].mean_array, nyud.MEAN_BGR)
    assert np.array_equal(about.inputs["hha"].mean_array, nyud.MEAN_HHA)
    assert (about.inputs["color"].order, about.inputs["hha"].order) == ("BGR", "RGB")
    voc = card.of(nets.NETS["voc-fcn8s"]).inputs["data"]
    assert voc.mean_array.tolist() == list(nets.MEAN_BGR)
    assert voc.precision == "float64"


def test_a_card_of_ones_own_goes_to_a_file_and_back(tmp_path):
    about = card.own("mine", NAMES, [(1, 2, 3), (4, 5, 6)], weights="mine.caffemodel", source={"sha256": "0"})
    card.dump(about, tmp_path / card.FILE)
    assert card.load(tmp_path / card.FILE) == about
    assert card.own("mine", NAMES).labels["label"].colours == tuple(map(tuple, palette.voc(2).tolist()))
    assert card.of(nets.NETS["voc-fcn8s"]).labels["label"].classes == class_names("voc")


def test_a_file_is_named_by_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert card.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_the_published_file_has_the_published_licence(tmp_path):
    about = card.of(nets.NETS["voc-fcn-alexnet"])
    entry = zoo.manifest()["voc-fcn-alexnet"]
    for name, size, licence in (
        (entry.file_name, entry.size_bytes or 3, entry.licence),
        ("mine.caffemodel", entry.size_bytes or 3, ""),
    ):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        found = card.sourced(about, tmp_path / name)
        assert found.licence == licence
        assert found.source == {"file": name, "sha256": card.sha256(tmp_path / name)}


def change(path, value):
    document = json.loads(card.dumps(card.own("mine", NAMES)))
    part = document
    *folders, last = path.split("/")
    for folder in folders:
        part = part[folder]
    part[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "c.json: this is no card: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        ("[]", "c.json: the card is no table; got list."),
        ("{}", "c.json: this card is of another format; want 1."),
        (change("more", 1), "c.json: the card has an unknown 'more'; want format, net, inputs, labels, side, "),
        (change("format", 2), "c.json: this card is of another format; got 2, want 1."),
        (change("net", 3), "c.json: 'net' is no text; got 3."),
        (change("inputs", {}), "c.json: a card has inputs and labels."),
        (change("weights", "../a"), "c.json: 'weights' is a file beside the card; got '../a'."),
        (change("inputs/data/kind", "x"), "c.json: inputs.data is of no known kind; got x BGR, want "),
        (change("inputs/data/order", "RGB"), "c.json: inputs.data is of no known kind; got color RGB, want "),
        (change("inputs/data/mean", [1, 2]), "c.json: inputs.data has no mean; got [1, 2], want 3 numbers, and "),
        (change("labels/label/classes", []), "c.json: labels.label.classes is no list of names."),
        (change("labels/label/colours", [[0, 0, 0]]), "c.json: labels.label.colours is no list of R, G, B for each"),
        (change("labels/label/colours", [[0, 0, 0], [0, 0, 256]]), "c.json: labels.label.colours is no list of"),
        (change("source", {"a": 1}), "c.json: 'a' is no text; got 1."),
    ],
)  # fmt: skip
def test_what_is_no_card_is_one_line(text, error):
    with pytest.raises(DataError) as raised:
        card.loads(text, "c.json")
    assert str(raised.value).startswith(error)


def test_a_card_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"the card cannot be read \(no such file or directory\)\.$"):
        card.load(tmp_path / "none")
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="this is no card; want JSON"):
        card.load(tmp_path / "b")
