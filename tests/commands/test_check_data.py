"""fcn check-data: its output, and when it exits with 1."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from reproduction.commands import start
from tests.helpers import custom_folders


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("reproduction.commands.check_data")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["check_data.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


def test_a_good_folder_is_described_and_exits_0(tool):
    custom_folders.write("photos")
    code, out, err = tool("photos")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:5] == [
        "photos: 6 images in images/, 6 labels in labels/",
        "6 images with a label; 5 in train, 1 in val",
        "modes of images: RGB (6)",
        "modes of labels: L (6)",
        "sizes: all 30 x 20 (width x height)",
    ]
    assert lines[6].split() == ["label", "class", "pixels", "share", "in", "images"]
    assert [line.split()[:2] for line in lines[7:10]] == [["0", "background"], ["1", "cat"], ["2", "dog"]]
    assert lines[-1] == "A net can be trained on this."


def test_a_bad_folder_names_files_and_exits_1(tool):
    custom_folders.write("photos", labels=lambda i: custom_folders.label(i) * 100, n=7)
    code, out, _ = tool("photos")
    assert code == 1
    assert (
        "error: labels are out of range; want 0 to 2, or 255 for void (7). Name every class, or mend the labels." in out
    )
    assert "  and 2 more; --all names them" in out
    assert out.count(".png") == 5
    assert tool("photos", "--all")[1].count(".png") == 7
    assert out.endswith("Training would fail: see the errors.\n")


def test_colours_are_written_to_be_named_and_read_again(tool):
    custom_folders.write("photos", labels=custom_folders.paint, names=None)
    code, out, err = tool("photos", "--write-palette", "found.txt")
    assert code == 1
    assert err == "found.txt: written; a line is R G B name, in the order of the classes.\n"
    assert "3 colours in the labels (R G B, share):" in out
    assert Path("found.txt").read_text() == "0 0 0 class0\n128 0 0 class1\n0 128 0 class2\n"
    assert tool("photos", "--palette", "found.txt")[0] == 0
    custom_folders.write("numbers")
    assert tool("numbers", "--write-palette", "x.txt") == (
        1, "", "error: numbers: there is no palette to write; the labels are class numbers, not colours.\n",
    )  # fmt: skip
    custom_folders.write("jpegs", ending="jpg")
    assert tool("jpegs", "--write-palette", "x.txt") == (
        1, "", "error: jpegs: there is no palette to write; no label could be read.\n",
    )  # fmt: skip
    assert not Path("x.txt").exists()


def test_the_palette_of_a_mask_is_written_whole(tool):
    custom_folders.write("photos", labels=custom_folders.mask, names=("wall", "crack"))
    assert tool("photos", "--write-palette", "photos/palette.txt")[0] == 1
    assert Path("photos/palette.txt").read_text() == "0 0 0 wall\n255 255 255 crack\n"
    assert tool("photos")[0] == 0


def test_an_empty_folder_says_so(tool):
    custom_folders.write("photos", n=0)
    code, out, _ = tool("photos")
    assert code == 1
    assert out.splitlines()[:2] == ["photos: 0 images in images/, 0 labels in labels/", "0 images with a label"]
    assert "error: there is no image in images/. Images are files that end in .png, .jpg and the like.\n" in out


def test_everything_is_json_for_machines(tool):
    custom_folders.write("photos", labels=custom_folders.mask)
    code, out, _ = tool("photos", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["ok"] is False
    assert report["problems"][0]["what"].startswith("the labels are masks of 0 and 255")
    assert [value["label"] for value in report["values"]] == [0, 255]
    assert report["sizes"] == [{"height": 20, "width": 30, "images": 6}]


def test_no_folder_is_one_line(tool):
    assert tool("none") == (1, "", "error: none: there is no such folder.\n")
    assert tool()[0] == 2


def test_palettes_that_mean_nothing_are_offered_as_colours_or_indices(tool):
    custom_folders.write("photos")
    for i in range(6):
        image = Image.fromarray(custom_folders.label(i))
        image.putpalette([128, 64, 128, 244, 35, 232, 70, 70, 70])
        image.save(f"photos/labels/p{i}.png")
    code, out, _ = tool("photos", "--write-palette", "found.txt")
    assert code == 1
    assert "error: the palette does not show which index is which class (6). Read the labels by their" in out
    assert "3 colours in the labels (R G B, share):" in out
    assert Path("found.txt").read_text() == "128 64 128 class0\n244 35 232 class1\n70 70 70 class2\n"
    Path("found.txt").write_text("128 64 128 background\n244 35 232 cat\n70 70 70 dog\n")
    by_colour, by_index = tool("photos", "--palette", "found.txt"), tool("photos", "--palette", "indices")
    assert by_colour[0] == by_index[0] == 0
    assert by_colour[1] == by_index[1]
