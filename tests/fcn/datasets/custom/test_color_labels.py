"""Labels painted in colours, and the palettes that map colours to classes."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.images import palette
from tests.helpers import custom_folders

COLOURS = {"background": (0, 0, 0), "cat": (128, 0, 0), "dog": (0, 128, 0), "void": (9, 9, 9)}


def test_a_palette_is_read_as_it_was_written(tmp_path):
    (tmp_path / "p.txt").write_text(color_labels.dumps(COLOURS) + "\n  \n")
    assert color_labels.load(tmp_path / "p.txt") == COLOURS
    assert color_labels.palette_classes(COLOURS) == custom_folders.NAMES


def test_names_may_hold_blanks(tmp_path):
    (tmp_path / "p.txt").write_text("1 2 3 traffic light \n4 5 6\tcar\n")
    assert color_labels.load(tmp_path / "p.txt") == {"traffic light": (1, 2, 3), "car": (4, 5, 6)}


def test_colours_become_class_numbers_and_void_255():
    numbers = custom_folders.label(3)
    numbers[0, 5] = 255
    rgb = custom_folders.paint(3)
    rgb[0, 5] = (9, 9, 9)
    assert np.array_equal(color_labels.colours_to_labels(rgb, COLOURS), numbers)


def test_vocs_colours_are_those_that_label_maps_are_painted_in():
    numbers = np.arange(22, dtype=np.uint8).reshape(2, 11)
    numbers[1, 10] = 255
    names = [f"class {i}" for i in range(21)]
    assert np.array_equal(
        color_labels.colours_to_labels(palette.paint(numbers), color_labels.load("voc", names)), numbers
    )


def test_a_palette_is_begun_with_what_is_known_of_its_colours():
    black, red, blue, cream = (0, 0, 0), (128, 0, 0), (0, 0, 128), (224, 224, 192)
    assert color_labels.make_template([blue, cream, black]) == {"class0": black, "class1": blue, "void": cream}
    assert color_labels.make_template([blue, cream, black], custom_folders.NAMES) == {
        "class0": black,
        "class1": blue,
        "void": cream,
    }
    assert color_labels.make_template([red, black], custom_folders.NAMES) == color_labels.voc_palette(
        custom_folders.NAMES
    )
    assert color_labels.make_template([(9, 9, 9), black]) == {"class0": (9, 9, 9), "class1": black}
    white = (255, 255, 255)
    assert color_labels.make_template([white, black]) == {"background": black, "thing": white}
    assert color_labels.make_template([white, black], ["wall", "crack"]) == {"wall": black, "crack": white}


def test_colours_are_counted():
    assert color_labels.count_colours(Image.fromarray(np.array([[[1, 2, 3], [250, 0, 7], [250, 0, 7]]], np.uint8))) == {
        (250, 0, 7): 2,
        (1, 2, 3): 1,
    }


def refused(text, tmp_path, names=None):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(DataError) as error:
        color_labels.load(tmp_path / "p.txt", names)
    return str(error.value).replace(str(tmp_path), "DIR")


def test_what_is_no_palette_is_refused(tmp_path):
    form = "want R G B name, such as 128 0 0 aeroplane."
    assert (
        refused("0 0 0 a\n0 0 256 b\n", tmp_path)
        == f"DIR/p.txt: line 2 is not a colour with a name; got '0 0 256 b', {form}"
    )
    assert refused("0 0 0\n", tmp_path) == f"DIR/p.txt: line 1 is not a colour with a name; got '0 0 0', {form}"
    assert refused("0 0 0 a\n0 0 0 b\n", tmp_path) == "DIR/p.txt: 'a' and 'b' have the same colour; got 0 0 0."
    assert refused("0 0 0 a\n0 0 1 a\n", tmp_path) == "DIR/p.txt: class 'a' occurs twice."
    assert refused("0 0 0 void\n", tmp_path) == "DIR/p.txt: a palette has 1 to 254 classes; got 0."
    assert refused("0 0 0 a\n", tmp_path, ["b"]) == "DIR/p.txt: the palette has other classes; got a, want b."


def test_a_palette_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(
        DataError,
        match=r"the palette cannot be read \(no such file or directory\); want a file, lines of R G B name\.$",
    ):
        color_labels.load(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file; got byte 0xff at 0, want lines of R G B name"):
        color_labels.load(tmp_path / "b.txt")
    with pytest.raises(DataError, match="VOC's colours need the names of the classes"):
        color_labels.load("voc")


def test_a_colour_of_no_class_is_named():
    with pytest.raises(DataError) as error:
        color_labels.colours_to_labels(custom_folders.paint(1), {"background": (0, 0, 0), "cat": (128, 0, 0)})
    pixels = int((custom_folders.label(1) == 2).sum())
    assert str(error.value) == (
        f"colours of no class; got (0, 128, 0) in {pixels} pixels, want the colours of the palette."
        " Add them to it, or save the labels without smoothing."
    )
