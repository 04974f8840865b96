import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

import pytest

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.json_file import at_least, between, matching, one_of


class Kind(StrEnum):
    A, B = "a", "b"


@dataclass(frozen=True)
class Inner:
    extra_names: ClassVar = ("old",)

    size: Annotated[int, at_least(1)]
    share: Annotated[float, between(0, 1)] = 0.5


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, matching("[a-z]+", "small letters")]
    inner: Sequence[Inner] = ()
    by_name: Mapping[str, Inner | None] | None = None
    kind: Kind = Kind.A
    word: Annotated[str, one_of(["x", "y"])] = "x"
    value: int | str | None = None
    colour: tuple[int, int, int] = (0, 0, 0)
    on: bool = False

    def check(self):
        return "more than one" if len(self.inner) == 1 else None


def read(text):
    return json_file.loads(text.encode(), Outer, "x.json", "not one", remedy="Mend it.")


def test_what_fits_becomes_the_dataclass():
    text = """{"name": "n", "inner": [{"size": 1}, {"size": 2, "share": 1, "old": 3}], "by_name": {"k": null},
               "kind": "b", "value": "v", "colour": [1, 2, 3], "on": true}"""
    made = read(text)
    assert made == Outer("n", [Inner(1), Inner(2, 1.0)], {"k": None}, Kind.B, "x", "v", (1, 2, 3), True)
    assert type(made.inner[1].share) is float
    assert read('\ufeff{"name": "n"}') == Outer("n")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "it is []; want an object"),
        ("{}", "name is missing"),
        ('{"name": 3}', "name is 3; want a string"),
        ('{"name": "N"}', 'name is "N"; want small letters'),
        ('{"name": "n", "iner": []}', "iner is not a known name; want name, inner, by_name, kind, word, "),
        ('{"name": "n", "inner": {}}', "inner is {}; want a list"),
        ('{"name": "n", "inner": [{"size": 1}]}', "it is inconsistent; want more than one"),
        ('{"name": "n", "inner": [{"size": 1}, {"size": 0}]}', "inner[1].size is 0; want 1 or more"),
        ('{"name": "n", "inner": [{"size": true}]}', "inner[0].size is true; want an integer"),
        ('{"name": "n", "inner": [{"size": 1.0}]}', "inner[0].size is 1.0; want an integer"),
        ('{"name": "n", "inner": [{"size": 9223372036854775808}]}', "inner[0].size is 9223372036854775808; want an in"),
        ('{"name": "n", "inner": [{"size": 1, "share": 2}]}', "inner[0].share is 2; want a number from 0 to 1"),
        ('{"name": "n", "inner": [{"size": 1, "share": null}]}', "inner[0].share is null; want a number"),
        ('{"name": "n", "by_name": {"a b": {}}}', 'by_name["a b"].size is missing'),
        ('{"name": "n", "by_name": {"' + "k" * 99 + '": 1}}', 'by_name["kkkkkkkkkkkkkkkkkkk'),
        ('{"name": "n", "kind": "c"}', 'kind is "c"; want a or b'),
        ('{"name": "n", "kind": []}', "kind is []; want a or b"),
        ('{"name": "n", "word": "z"}', 'word is "z"; want x or y'),
        ('{"name": "n", "value": 1.5}', "value is 1.5; want a string"),
        ('{"name": "n", "colour": [1, 2]}', "colour is [1, 2]; want 3 values"),
        ('{"name": "n", "on": 1}', "on is 1; want true or false"),
        ('{"name": "n", "name": "m"}', 'the name "name" occurs twice; want JSON'),
        ('{"name": "n", "value": Infinity}', "Infinity is not a number; want JSON"),
        ('{"name": "n", "value": 1e999}', "a number is too large; want JSON"),
        ('{"name": "n", "value": "\\ud800"}', 'the string "\\ud800" is not text; want JSON'),
        ('{"name": "n", "value": ' + "[" * 100_000, "it is nested too deeply; want JSON"),
        ('{"name": "n", "value": ' + "[" * 900 + "]" * 900 + "}", "value is ["),
        (
            '{"name": "n", "value": ' + "9" * 5000 + "}",
            "Exceeds the limit (4300 digits) for integer string ",
        ),
        ('{"name": "n", "value": ' + "9" * 4000 + "}", "value is 999"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(text, what):
    with pytest.raises(DataError) as error:
        read(text)
    said = str(error.value)
    assert said.startswith(f"x.json: not one: {what}")
    assert said.endswith(" Mend it.")
    assert "\n" not in said
    assert len(said) < 300


def test_bytes_that_are_not_text_are_refused():
    with pytest.raises(DataError, match=r"x.json: not one: byte 2 is not UTF-8; want JSON\."):
        json_file.loads(b'{"\xff"}', Outer, "x.json", "not one")


def test_bytes_of_file_names_are_written_and_read_again():
    name = os.fsdecode(b"\xff.png")
    for value in ({"name": name}, {"name": "ö"}):
        text = json_file.dumps(value)
        assert json_file.parse(text.encode()) == value
    assert text == '{"name": "ö"}'


def test_a_file_must_be_one_and_have_the_version(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"format": 2, "size": 3}')
    assert json_file.load(path, Inner, "not one", version=2) == Inner(3)
    with pytest.raises(DataError, match=r"not one: format is 2; want 1\."):
        json_file.load(path, Inner, "not one", version=1)
    path.write_text('{"format": true, "size": 3}')
    with pytest.raises(DataError, match=r"not one: format is true; want 1\."):
        json_file.load(path, Inner, "not one", version=1)
    with pytest.raises(DataError, match=r"the file is too large; want at most 9 bytes\."):
        json_file.load(path, Inner, "not one", limit=9)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="this is not a file; got a pipe"):
        json_file.load(path, Inner, "not one")
