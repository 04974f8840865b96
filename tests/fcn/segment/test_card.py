"""The card of a net: its inputs and the names of its classes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import hashes
from reproduction.fcn.datasets import load_class_names, nyud, voc
from reproduction.fcn.fetch import local_files
from reproduction.fcn.images import palette
from reproduction.fcn.nets import mini_nets, published_nets
from reproduction.fcn.segment import card
from tests.helpers.cards import make_card

NAMES = ("background", "cat")


@pytest.mark.parametrize("name", published_nets.NETS)
def test_the_cards_of_the_published_nets_say_what_they_take_and_tell(name):
    row = published_nets.NETS[name]
    about = card.published_card(row)
    assert about.kinds == tuple(row.inputs.values())
    assert [(top, len(said.classes), said.score) for top, said in about.labels.items()] == [
        (head.label, len(head.classes), head.score) for head in row.heads
    ]
    assert card.parse_card(card.format_card(about)) == about


def test_the_cards_of_nets_that_know_drawn_things_only_say_so():
    about = card.published_card(mini_nets.NETS["mini-fcn8s"])
    assert about.knows == "drawn things only, no photographs"
    assert card.parse_card(card.format_card(about)) == about
    assert "knows" not in json.loads(card.format_card(card.published_card(published_nets.NETS["voc-fcn8s"]))), (
        "earlier versions would refuse it"
    )


def test_means_keep_their_precision():
    about = card.published_card(published_nets.NETS["nyud-fcn32s-color-hha"])
    assert about.inputs["color"].mean_array.dtype == np.float32
    assert np.array_equal(about.inputs["color"].mean_array, nyud.MEAN_BGR)
    assert np.array_equal(about.inputs["hha"].mean_array, nyud.MEAN_HHA)
    assert (about.inputs["color"].order, about.inputs["hha"].order) == ("BGR", "RGB")
    first = card.published_card(published_nets.NETS["voc-fcn8s"]).inputs["data"]
    assert first.mean_array.tolist() == list(voc.MEAN_BGR)
    assert first.precision == "float64"


def test_a_card_of_ones_own_goes_to_a_file_and_back(tmp_path):
    about = make_card("mine", NAMES, [(1, 2, 3), (4, 5, 6)], weights="mine.caffemodel", source={"sha256": "0"})
    card.write_card(about, tmp_path / card.CARD_FILE)
    assert card.load_card(tmp_path / card.CARD_FILE) == about
    assert make_card("mine", NAMES).labels["label"].colours == tuple(map(tuple, palette.voc_colours(2).tolist()))
    assert card.published_card(published_nets.NETS["voc-fcn8s"]).labels["label"].classes == load_class_names("voc")


def test_fields_that_earlier_versions_reject_are_only_written_where_they_matter():
    about = make_card("mine", NAMES)
    text = card.format_card(about)
    assert not [name for name in ("scale", "size", "holds", "task", "knows") if f'"{name}"' in text]
    taken = replace(about.inputs["data"], order="grey", mean=(5.0,), scale=(0.5,), size=(28, 28))
    labels = card.CardLabels("prob", tuple(f"digit {i}" for i in range(300)), (), holds="labels")
    new = replace(about, inputs={"data": taken}, labels={"label": labels}, task="classify")
    assert card.parse_card(card.format_card(new)) == new
    assert taken.channels == 1
    assert taken.scale_array.tolist() == [0.5]
    assert about.inputs["data"].scale_array.tolist() == [1, 1, 1]


def test_a_file_is_named_by_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert hashes.hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_the_published_file_has_the_published_licence(tmp_path):
    about = card.published_card(published_nets.NETS["voc-fcn-alexnet"])
    entry = local_files.load_manifest()["voc-fcn-alexnet"]
    for name, size, licence in (
        (entry.file_name, entry.size_bytes or 3, entry.licence),
        ("mine.caffemodel", entry.size_bytes or 3, ""),
    ):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        found = card.add_source(about, tmp_path / name)
        assert found.licence == licence
        assert found.source == {"file": name, "sha256": hashes.hash_file(tmp_path / name)}


def change(path, value):
    document = json.loads(card.format_card(make_card("mine", NAMES)))
    part = document
    *folders, last = path.split("/")
    for folder in folders:
        part = part[folder]
    part[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1); want JSON."),
        ("[]", "it is []; want an object."),
        ("{}", "it has no format; want 1."),
        (change("more", 1), "more is not a known name; want net, inputs, labels, "),
        (change("format", 2), "format is 2; want 1."),
        (change("net", 3), "net is 3; want a string."),
        (change("inputs", {}), "inputs is {}; want at least one."),
        (change("weights", "../a"), 'weights is "../a"; want the name of a file next to the card.'),
        (change("inputs/data/kind", "x"), 'inputs.data.kind is "x"; want color or '),
        (change("inputs/data/kind", [0]), "inputs.data.kind is [0]; want a string."),
        (change("inputs/data/order", "GBR"), "inputs.data is inconsistent; want the order BGR or RGB or grey"),
        (change("inputs/data/mean", [1, 2]), "inputs.data is inconsistent; want 3 numbers as mean."),
        (change("inputs/data/mean", [1, 2, "x"]), 'inputs.data.mean[2] is "x"; want a number.'),
        (change("labels/label/classes", []), "labels.label.classes is []; want at least one name."),
        (change("labels/label/colours", [[0, 0, 0]]), "labels.label is inconsistent; want R, G, B for "),
        (change("labels/label/colours", [[0, 0, 0], [0, 0, 256]]), "labels.label.colours[1][2] is 256; want a num"),
        (change("inputs/data/scale", [1, 2]), "inputs.data is inconsistent; want 1 or 3 numbers as scale."),
        (change("inputs/data/size", [1]), "inputs.data.size is [1]; want height and width, or nothing."),
        (change("labels/label/holds", "x"), 'labels.label.holds is "x"; want scores or labels.'),
        (change("labels/label/colours", []), "it is inconsistent; want 1 to 255 classes with colours in labels.label."),
        (change("task", "x"), 'task is "x"; want segment or classify.'),
        (change("source", {"a": 1}), "source.a is 1; want a string."),
    ],
)  # fmt: skip
def test_what_is_no_card_is_one_line(text, error):
    with pytest.raises(DataError) as raised:
        card.parse_card(text, "c.json")
    assert str(raised.value).startswith(f"c.json: not a model card: {error}")


def test_a_card_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"the card cannot be read \(no such file or directory\)\.$"):
        card.load_card(tmp_path / "none")
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a model card: byte 0 is not UTF-8; want JSON"):
        card.load_card(tmp_path / "b")
