"""Images of the data sets: read in the published mode, or refused."""

import random

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import caffe_input
from tests.helpers import dataset_trees

MODES = [
    ("read_rgb", "L", "L", "RGB", " The published images are: extract them again."),
    ("read_rgb", "RGBA", "RGBA", "RGB", " The published images are: extract them again."),
    ("read_depth", "RGB", "RGB", "16-bit grey", " The published depths are: extract them again."),
]


@pytest.mark.parametrize(("read", "mode", "got", "want", "remedy"), MODES)
def test_another_mode_is_refused(tmp_path, read, mode, got, want, remedy):
    path = tmp_path / "x.png"
    Image.new(mode, (4, 3)).save(path)
    with pytest.raises(DataError) as error:
        getattr(caffe_input, read)(path)
    assert str(error.value) == f"{path}: the image has another mode; got {got}, want {want}.{remedy}"


def test_depth_keeps_its_sixteen_bits(tmp_path):
    depth = np.array([[1, 65535], [600, 256]], np.uint16)
    Image.fromarray(depth).save(tmp_path / "d.png")
    np.testing.assert_array_equal(caffe_input.read_depth(tmp_path / "d.png"), depth)


def test_missing_and_truncated_pictures_are_one_line(tmp_path):
    with pytest.raises(DataError) as error:
        caffe_input.read_rgb(tmp_path / "x.jpg")
    assert str(error.value) == f"{tmp_path / 'x.jpg'}: the image cannot be read (no such file or directory)."
    path = tmp_path / "y.jpg"
    dataset_trees.jpeg(path, dataset_trees.picture("y", 0, (64, 64)))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError) as error:
        caffe_input.read_rgb(path)
    assert str(error.value).startswith(f"{path}: the image cannot be decoded (image file is truncated (")


@pytest.mark.parametrize("count", [pytest.param(600), pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutants_are_read_or_refused(tmp_path, count):
    draw = random.Random(count)
    dataset_trees.jpeg(tmp_path / "a.jpg", dataset_trees.picture("a", 0, (20, 24)))
    dataset_trees.palette_png(tmp_path / "b.png", dataset_trees.regions("b", 0, (20, 24), range(21)))
    seeds = [(path.read_bytes(), path.suffix) for path in sorted(tmp_path.iterdir())]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(count):
        data, ending = draw.choice(seeds)
        data = bytearray(data)
        for _ in range(draw.choice((1, 2, 5))):
            at = draw.randrange(len(data))
            data[at] = draw.randrange(256)
            if draw.random() < 0.1:
                del data[at:]
                break
        path = tmp_path / f"mutant{ending}"
        path.write_bytes(data)
        try:
            assert (caffe_input.read_rgb(path) if ending == ".jpg" else LabelReader("indices")(path)).ndim in (2, 3)
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > count // 50


def test_fractions_are_no_class_numbers():
    with pytest.raises(DataError) as error:
        caffe_input.check_labels(np.array([[0.5, 1.0, np.nan, np.inf]]), 5)
    assert str(error.value) == "labels out of range; got 0.5, inf, nan in 3 pixels, want 0 to 5."
    assert caffe_input.check_labels(np.array([[0.0, 5.0]]), 5).tolist() == [[0, 5]]
