import resource

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.fcn.images import palette

# As printed in the VOC development kit's documentation and seen in every VOC label file.
KNOWN = {
    0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128), 6: (0, 128, 128),
    7: (128, 128, 128), 8: (64, 0, 0), 9: (192, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192),
}  # fmt: skip


def test_the_colours_are_those_of_voc():
    colours = palette.voc_colours()
    assert {label: tuple(map(int, colours[label])) for label in KNOWN} == KNOWN


def test_all_256_colours_differ_and_a_shorter_palette_is_a_prefix():
    assert len(np.unique(palette.voc_colours(), axis=0)) == 256
    np.testing.assert_array_equal(palette.voc_colours(21), palette.voc_colours()[:21])
    assert palette.voc_colours(0).shape == (0, 3)


def test_a_palette_png_holds_the_labels_and_shows_the_colours(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    palette.write_png(labels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), labels)
        np.testing.assert_array_equal(np.array(image.convert("RGB")), palette.voc_colours()[labels])


@pytest.mark.parametrize(("label", "got"), [(256, "0 to 256"), (-1, "-1 to 0")])
def test_a_label_without_a_colour_is_refused_and_no_file_appears(tmp_path, label, got):
    path = tmp_path / "a.png"
    with pytest.raises(DataError) as info:
        palette.write_png(np.array([[0, label]]), path)
    assert str(info.value) == f"{path}: a label has no colour; got {got}, want 0 to 255."
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "a.png"
    palette.write_png(np.zeros((2, 2), np.uint8), path)
    before = path.read_bytes()
    noise = np.random.RandomState(0).randint(0, 21, (300, 300))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ReproductionError) as info:
            palette.write_png(noise, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(info.value) == f"{path}: cannot be written: file too large."
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_overlay_mixes_colours_and_keeps_the_background_clear():
    rgb = np.full((1, 3, 3), 100, np.uint8)
    labels = np.array([[0, 1, 2]])
    assert palette.overlay(rgb, labels).tolist() == [[[100, 100, 100], [114, 50, 50], [50, 114, 50]]]
    assert palette.overlay(rgb, labels, background=None)[0, 0].tolist() == [50, 50, 50]
    assert palette.overlay(rgb, labels, alpha=1)[0, 1].tolist() == [128, 0, 0]
    np.testing.assert_array_equal(palette.overlay(rgb, labels, alpha=0), rgb)


def test_an_overlay_of_another_size_is_refused():
    with pytest.raises(DataError) as info:
        palette.overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8))
    assert str(info.value) == "image and labels differ in size; got (5, 4), want (4, 5)."


def test_shares_count_what_occurs_greatest_first():
    labels = np.array([[2, 2, 2, 0], [0, 2, 2, 1]], np.uint8)
    rows = palette.count_shares(labels, ("background", "cat", "dog", "bird"))
    assert [(row.label, row.name, row.pixels, row.share) for row in rows] == [
        (2, "dog", 5, 0.625),
        (0, "background", 2, 0.25),
        (1, "cat", 1, 0.125),
    ]
    assert palette.format_legend(rows) == [
        " 62.50 %    2  dog",
        " 25.00 %    0  background",
        " 12.50 %    1  cat",
    ]


def test_a_label_without_a_name_is_refused():
    with pytest.raises(DataError) as info:
        palette.count_shares(np.array([[3]]), ("background", "cat"))
    assert str(info.value) == "a label has no class name; got 3, want 0 to 1."


def test_the_legend_shows_one_box_of_colour_for_each_class():
    rows = palette.count_shares(np.array([[0, 1, 20, 20]]), tuple(f"class {i}" for i in range(21)))
    image = palette.draw_legend(rows)
    assert image.dtype == np.uint8
    column = image[:, 13]  # through the middle of the boxes
    for row in rows:
        assert (column == palette.voc_colours()[row.label]).all(axis=-1).sum() >= 10
    assert palette.draw_legend([]).shape[2] == 3
    noted = palette.draw_legend(rows, note="knows one thing")
    assert noted.shape[0] == image.shape[0] + 20
    assert (noted[image.shape[0] :] < 128).any()
