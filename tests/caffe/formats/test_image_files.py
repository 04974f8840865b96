"""Image files: which formats are opened, their largest size, and the cost of decoding them."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import image_files
from reproduction.caffe.layers.image_data import read_image
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import caffe_input, decode
from reproduction.pycaffe.extras import io as pycaffe_io
from reproduction.pycaffe.run import scipy_misc
from tests.helpers.paths import ROOT

READERS = {
    "pictures": decode.read_rgb,
    "data sets' pictures": caffe_input.read_rgb,
    "depths": caffe_input.read_depth,
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


@pytest.mark.parametrize("format", image_files.FORMATS)
def test_every_listed_format_is_opened_whatever_its_ending(tmp_path, format):
    path = tmp_path / "photo.dat"
    Image.fromarray(RGB).save(path, format, **({"lossless": True} if format == "WEBP" else {}))
    with image_files.open_image(path) as image:
        assert (image.format, image.size) == (format, (32, 24))
    assert decode.read_rgb(path).shape == RGB.shape


def test_endings_are_those_of_the_formats():
    known = {ending for ending, format in Image.registered_extensions().items() if format in image_files.FORMATS}
    assert known >= image_files.ENDINGS
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".webp"} <= image_files.ENDINGS


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_pipes_and_devices_are_refused_without_waiting(tmp_path, reader):
    os.mkfifo(tmp_path / "photo.jpg")
    assert refused(reader, tmp_path / "photo.jpg") == (
        f"{tmp_path}/photo.jpg: this is not a file; got a pipe. Name a file on a disk."
    )
    assert refused(reader, Path("/dev/zero")) == "/dev/zero: this is not a file; got a device. Name a file on a disk."


def test_a_name_that_no_file_can_have_is_refused():
    assert refused(decode.read_rgb, "a\0.png") == r"'a\x00.png': this cannot be the name of a file."
    assert refused(decode.read_rgb, "\ud800.png") == r"'\ud800.png': this cannot be the name of a file."


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_the_limit_of_pixels_holds_for_every_reader_and_can_be_raised(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(image_files, "_max_pixels", 24 * 32 - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    name = "I;16" if reader is caffe_input.read_depth else "L" if isinstance(reader, LabelReader) else "RGB"
    Image.new(name, (32, 24)).save(tmp_path / "a.png")
    want = "want at most 767 pixels. Shrink it, or allow more by --max-pixels."
    assert refused(reader, tmp_path / "a.png").endswith(f"the image is too large to open; {want}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert refused(reader, tmp_path / "a.png").endswith(f"the image is too large to open; got 32 x 24, {want}")
    image_files.set_max_pixels(24 * 32)
    assert reader(tmp_path / "a.png").shape[:2] == (24, 32)
    assert Image.MAX_IMAGE_PIXELS == 24 * 32


def test_rows_that_pillow_would_decode_in_quadratic_time_are_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 300000 2 255\n" + bytes(1000))
    assert refused(decode.read_rgb, tmp_path / "a.ppm") == (
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
    colour_readers = [decode.read_rgb, READERS["ImageData"], pycaffe_io.load_image, scipy_misc.imread]
    one = [reader(tmp_path / f"a.{ending}") for reader in colour_readers]
    monkeypatch.setattr(image_files, "_PIXELS_AT_A_TIME", 100)
    monkeypatch.setattr(pycaffe_io, "_PIXELS_AT_A_TIME", 100)
    for reader, want in zip(colour_readers, one, strict=True):
        got = reader(tmp_path / f"a.{ending}")
        assert np.array_equal(got, want)
        assert got.flags.writeable


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encoded(format, size=(8, 8), mode="L", **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format, **options)
    return buffer.getvalue()


def texts():
    data = encoded("PNG")
    text = chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress("\U0001f600".encode() + bytes(1 << 16)))
    return data[:33] + 17 * text + data[33:]


def scans():
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded("JPEG", (4000, 4000), progressive=True)
    return data[:-2] + 150 * data[data.rindex(b"\xff\xda") : -2] + data[-2:]


def tiff(order, tags, big=False):
    """A TIFF of 8 x 8 pixels that holds no pixels."""
    entries = sorted({256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), **tags}.items())
    packed = b""
    for tag, (kind, count, value) in entries:
        inline = struct.pack(order + ("H" if kind == 3 else "I"), value)
        packed += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + inline.ljust(
            8 if big else 4, b"\0"
        )
    mark = b"II" if order == "<" else b"MM"
    if big:
        return mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(entries)) + packed + bytes(8)
    return mark + struct.pack(order + "HIH", 42, 8, len(entries)) + packed + bytes(4)


# A frame of 1 x 1 without a palette: width 2 of codes, clear, 0, end.
GIF = b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
TILE = {322: (4, 1, 30_000), 323: (4, 1, 30_000), 324: (4, 1, 8), 325: (4, 1, 8)}
STRIPS = {273: (4, 5000, 8), 278: (4, 1, 1), 279: (4, 5000, 8)}
COSTLY = {
    "texts of a PNG": (texts, "the PNG has too many compressed texts; want at most 16."),
    "scans of a JPEG": (scans, "the JPEG has too many scans; got 156, want at most 20."),
    "a tile of a TIFF": (
        lambda: tiff("<", TILE),
        "the TIFF has tiles that are larger than the image; got 30000 x 30000.",
    ),
    "the same, of a BigTIFF": (
        lambda: tiff(">", TILE, big=True),
        "the TIFF has tiles that are larger than the image; got 30000 x 30000.",
    ),
    "strips of a TIFF": (
        lambda: tiff(">", STRIPS),
        "the TIFF has too many strips or tiles for its size; got 5000, want at most 4097.",
    ),
    "comments of a GIF": (
        lambda: GIF[:13] + b"!\xfe" + 5000 * (b"\xff" + bytes(255)) + b"\0" + GIF[13:],
        "the GIF has too much data before its first frame; want at most 1,048,576 bytes.",
    ),
    "a header of a PPM": (
        lambda: b"P6 #" + bytes(70_000) + b"\n8 8 255\n" + bytes(192),
        "the header is too long; want at most 65,536 bytes.",
    ),
    "a PPM of text": (
        lambda: b"P3 1000 1000 255\n" + 1_000_000 * b"1 1 1 ",
        "this encoding takes too long to decode; got 6,000,017 bytes, want at most 2,000,000. Save it as PNG.",
    ),
}


@pytest.mark.parametrize(("data", "said"), COSTLY.values(), ids=COSTLY)
def test_what_costs_far_more_than_its_pixels_is_refused(tmp_path, data, said):
    path = tmp_path / "a.jpg"
    path.write_bytes(data())
    assert refused(decode.read_rgb, path) == f"{path}: {said}"


def test_ordinary_metadata_scans_and_tiles_are_not_refused(tmp_path):
    png = encoded("PNG")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1000)))
    for data in (
        png[:33] + 16 * text + png[33:],
        encoded("JPEG", mode="RGB", progressive=True),
        encoded("TIFF", (600, 500), compression="tiff_lzw"),
        encoded("TIFF", (600, 500), big_tiff=True),
        GIF[:13] + b"!\xfe" + 100 * (b"\xff" + bytes(255)) + b"\0" + GIF[13:],
        b"P2 # a comment\n2 1 # another\n255 1 2",
    ):
        (tmp_path / "a").write_bytes(data)
        assert decode.read_rgb(tmp_path / "a").ndim == 3


def test_a_palette_that_is_too_long_is_one_line_of_error(tmp_path):
    data = bytearray(encoded("BMP", mode="P"))
    data[46:50] = struct.pack("<I", 300)  # colours
    data[54:54] = bytes(4 * 300 - 4)
    (tmp_path / "a.bmp").write_bytes(data)
    for reader in READERS.values():
        assert "\n" not in refused(reader, tmp_path / "a.bmp")


MEASURE = """
import gc, sys
from pathlib import Path
from tests.caffe.formats.test_image_files import READERS

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
        except (ValueError, OSError):
            pass
        print(status("VmHWM") - before, name, path.name, sep="\\t")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures peaks as Linux shows them")
def test_no_reader_takes_more_than_16_bytes_a_pixel(tmp_path):
    size = (1600, 1600)
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
