"""The data sets' pictures: read in the mode that is published, or refused."""

import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets import pictures
from tests import trees


def test_labels_are_indices_not_colours(tmp_path):
    labels = np.array([[0, 1, 20], [255, 15, 0]], np.uint8)
    trees.palette_png(tmp_path / "p.png", labels)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(pictures.labels(tmp_path / "p.png"), labels)
    np.testing.assert_array_equal(pictures.labels(tmp_path / "grey.png"), labels)


def test_small_palettes_are_unpacked(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 1, 0, 1]], np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "p.png", bits=1)
    assert pictures.labels(tmp_path / "p.png").tolist() == [[0, 1, 1, 0, 1]]


MODES = [
    (
        "labels",
        "RGB",
        "RGB",
        "a palette picture (P) or 8-bit grey (L)",
        " Its pixels must be class numbers, not their colours.",
    ),
    (
        "labels",
        "I;16",
        "I;16",
        "a palette picture (P) or 8-bit grey (L)",
        " Its pixels must be class numbers, not their colours.",
    ),
    ("rgb", "L", "L", "RGB", " The published images are: extract them again."),
    ("rgb", "RGBA", "RGBA", "RGB", " The published images are: extract them again."),
    ("depth", "RGB", "RGB", "16-bit grey", " The published depths are: extract them again."),
]


@pytest.mark.parametrize(("read", "mode", "got", "want", "remedy"), MODES)
def test_another_mode_is_refused(tmp_path, read, mode, got, want, remedy):
    path = tmp_path / "x.png"
    Image.new(mode, (4, 3)).save(path)
    with pytest.raises(DataError) as error:
        getattr(pictures, read)(path)
    assert str(error.value) == f"{path}: the picture is in another mode; got {got}, want {want}.{remedy}"


def test_depth_keeps_its_sixteen_bits(tmp_path):
    depth = np.array([[1, 65535], [600, 256]], np.uint16)
    Image.fromarray(depth).save(tmp_path / "d.png")
    np.testing.assert_array_equal(pictures.depth(tmp_path / "d.png"), depth)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
    body = chunk(b"PLTE", bytes(768)) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    for side in (12_000, 60_000):  # over Pillow's limit, which warns, and over twice that limit, which raises
        path.write_bytes(png(side, side))
        with pytest.raises(DataError) as error:
            pictures.labels(path)
        assert str(error.value) == (
            f"{path}: the image is too large to open; want at most {Image.MAX_IMAGE_PIXELS} pixels. Shrink it."
        )


def test_missing_and_truncated_pictures_are_one_line(tmp_path):
    with pytest.raises(DataError) as error:
        pictures.rgb(tmp_path / "x.jpg")
    assert str(error.value) == f"{tmp_path / 'x.jpg'}: the image cannot be read (no such file or directory)."
    path = tmp_path / "y.jpg"
    trees.jpeg(path, trees.picture("y", 0, (64, 64)))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError) as error:
        pictures.rgb(path)
    assert str(error.value).startswith(f"{path}: the picture cannot be decoded (image file is truncated (")


@pytest.mark.parametrize("count", [pytest.param(600), pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutants_are_read_or_refused(tmp_path, count):
    draw = random.Random(count)
    trees.jpeg(tmp_path / "a.jpg", trees.picture("a", 0, (20, 24)))
    trees.palette_png(tmp_path / "b.png", trees.regions("b", 0, (20, 24), range(21)))
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
            assert (pictures.rgb(path) if ending == ".jpg" else pictures.labels(path)).ndim in (2, 3)
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > count // 50


def test_fractions_are_no_class_numbers():
    with pytest.raises(DataError) as error:
        pictures.class_numbers(np.array([[0.5, 1.0, np.nan, np.inf]]), 5)
    assert str(error.value) == "labels out of range; got 0.5, inf, nan in 3 pixels, want 0 to 5."
    assert pictures.class_numbers(np.array([[0.0, 5.0]]), 5).tolist() == [[0, 5]]
