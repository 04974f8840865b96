"""Image files: which are opened, how large they may be, and what decoding them costs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe import imagefiles
from reproduction.caffe.errors import DataError
from reproduction.caffe.layers.image import read_image
from reproduction.fcn import images
from reproduction.fcn.datasets import pictures
from reproduction.fcn.datasets.labelfiles import LabelReader
from reproduction.pycaffe import io as pycaffe_io
from reproduction.pycaffe import scipy_misc

ROOT = Path(__file__).resolve().parents[2]
READERS = {
    "pictures": images.read_rgb,
    "data sets' pictures": pictures.rgb,
    "depths": pictures.depth,
    "labels": LabelReader(),
    "painted labels": LabelReader({"a": (0, 0, 0), "b": (255, 255, 255)}),
    "ImageData": lambda path: read_image(str(path)),
    "pycaffe": pycaffe_io.load_image,
    "scipy.misc": scipy_misc.imread,
}
RGB = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8)

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"
XBM = b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0xff};\n"
FITS = b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(2800)


def refused(reader, path):
    """The error, in one form for those that raise ours and pycaffe, which raises OSError."""
    with pytest.raises((DataError, OSError)) as error:
        reader(path)
    return str(error.value)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("data", [EPS, XBM, FITS, b"8BPS\0\1" + bytes(60)], ids=["EPS", "XBM", "FITS", "PSD"])
def test_formats_that_are_not_listed_are_not_opened_and_start_no_program(tmp_path, monkeypatch, reader, data):
    tools, started = tmp_path / "bin", tmp_path / "started"
    tools.mkdir()
    for name in ("gs", "gswin64c", "convert"):
        (tools / name).write_text(f"#!/bin/sh\necho $0 >> {started}\necho 10.0\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert refused(reader, path) == (
        f"{path}: not an image in a known format; got a file that begins with {data[:16]!r},"
        " want one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP."
    )
    assert not started.exists()


@pytest.mark.parametrize("format", imagefiles.FORMATS)
def test_every_listed_format_is_opened_whatever_its_ending(tmp_path, format):
    path = tmp_path / "photo.dat"
    Image.fromarray(RGB).save(path, format, **({"lossless": True} if format == "WEBP" else {}))
    with imagefiles.open_image(path) as image:
        assert (image.format, image.size) == (format, (32, 24))
    assert images.read_rgb(path).shape == RGB.shape


def test_endings_are_those_of_the_formats():
    known = {ending for ending, format in Image.registered_extensions().items() if format in imagefiles.FORMATS}
    assert known >= imagefiles.ENDINGS
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".webp"} <= imagefiles.ENDINGS


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_pipes_and_devices_are_refused_without_waiting(tmp_path, reader):
    os.mkfifo(tmp_path / "photo.jpg")
    assert refused(reader, tmp_path / "photo.jpg") == (
        f"{tmp_path}/photo.jpg: this is not a file; got a pipe. Name a file on a disk."
    )
    assert refused(reader, Path("/dev/zero")) == "/dev/zero: this is not a file; got a device. Name a file on a disk."


def test_a_name_with_a_zero_byte_is_refused():
    assert refused(images.read_rgb, "a\0.png") == "a\0.png: the image cannot be read (embedded null byte)."


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_the_limit_of_pixels_holds_for_every_reader_and_can_be_raised(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(imagefiles, "_max_pixels", 24 * 32 - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    name = "I;16" if reader is pictures.depth else "L" if isinstance(reader, LabelReader) else "RGB"
    Image.new(name, (32, 24)).save(tmp_path / "a.png")
    want = "want at most 767 pixels. Shrink it, or allow more by --max-pixels."
    assert refused(reader, tmp_path / "a.png").endswith(f"the image is too large to open; {want}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert refused(reader, tmp_path / "a.png").endswith(f"the image is too large to open; got 32 x 24, {want}")
    imagefiles.set_max_pixels(24 * 32)
    assert reader(tmp_path / "a.png").shape[:2] == (24, 32)
    assert Image.MAX_IMAGE_PIXELS == 24 * 32


def test_rows_that_pillow_would_decode_in_quadratic_time_are_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 300000 2 255\n" + bytes(1000))
    assert refused(images.read_rgb, tmp_path / "a.ppm") == (
        f"{tmp_path}/a.ppm: the image is too wide or too high to open; got 300000 x 2,"
        " want at most 262,144 pixels a side."
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_images_of_many_parts_are_read_as_those_of_one(tmp_path, monkeypatch, mode):
    ending = "tif" if mode in ("CMYK", "I") else "png"
    grey = Image.fromarray(RGB[..., 0])
    if mode in ("I;16", "I"):
        deep = RGB[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 250
        image = Image.fromarray(deep)
    else:
        image = (grey if mode in ("1", "LA") else Image.fromarray(RGB)).convert(mode)
    image.save(tmp_path / f"a.{ending}")
    colour_readers = [images.read_rgb, READERS["ImageData"], pycaffe_io.load_image, scipy_misc.imread]
    one = [reader(tmp_path / f"a.{ending}") for reader in colour_readers]
    monkeypatch.setattr(imagefiles, "_PART", 100)
    monkeypatch.setattr(pycaffe_io, "_PART", 100)
    for reader, want in zip(colour_readers, one, strict=True):
        got = reader(tmp_path / f"a.{ending}")
        assert np.array_equal(got, want)
        assert got.flags.writeable


MEASURE = """
import gc, sys
from pathlib import Path
from tests.caffe.test_imagefiles import READERS

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

for name in ("pictures", "labels", "painted labels", "ImageData", "pycaffe", "scipy.misc"):
    for path in sorted(Path(sys.argv[1]).iterdir()):
        gc.collect()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        try:
            READERS[name](path)
        except ValueError:
            pass
        print(status("VmHWM") - before, name, path.name, sep="\\t")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures peaks as Linux shows them")
def test_no_reader_takes_more_than_16_bytes_a_pixel(tmp_path):
    size = (2000, 2000)
    for mode, names in {
        "1": ["bit.png", "bit.tif"],
        "P": ["palette.png", "palette.gif", "palette.bmp"],
        "RGB": ["rgb.png", "rgb.jpg", "rgb.webp", "rgb.tif"],
        "RGBA": ["alpha.png", "alpha.webp"],
        "CMYK": ["cmyk.jpg", "cmyk.tif"],
        "I;16": ["deep.png"],
    }.items():
        for name in names:
            options = {"progressive": True} if mode == "CMYK" and name.endswith("jpg") else {}
            options |= {"lossless": True} if name.endswith("webp") else {}
            Image.new(mode, size).save(tmp_path / name, **options)
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split("\t") for line in found.splitlines()]
    assert len(rows) == 84
    spare = 20 << 20  # of parts, caches and libraries that are loaded on the way
    assert [row for row in rows if int(row[0]) > 16 * size[0] * size[1] + spare] == []
