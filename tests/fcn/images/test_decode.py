import io
import random
import re
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn.images import decode

GRADIENT = np.linspace(0, 255, 24 * 32).reshape(24, 32).astype(np.uint8)
RGB = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], axis=-1)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def test_an_rgb_image_is_read_as_it_is(tmp_path):
    got = decode.read_rgb(saved(Image.fromarray(RGB), tmp_path / "a.png"))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, RGB)


def test_grey_becomes_three_equal_channels(tmp_path):
    got = decode.read_rgb(saved(Image.fromarray(GRADIENT), tmp_path / "a.png"))
    np.testing.assert_array_equal(got, np.repeat(GRADIENT[..., None], 3, axis=-1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    alpha = np.zeros((24, 32), np.uint8)
    alpha[:, 16:] = 255
    image = Image.fromarray(RGB).convert("L").convert(mode) if mode == "LA" else Image.fromarray(RGB).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    got = decode.read_rgb(saved(image, tmp_path / "a.png"))
    assert (got[:, :16] == 255).all()
    np.testing.assert_array_equal(got[:, 16:], np.array(image.convert("RGB"))[:, 16:])


def test_half_transparent_black_is_mid_grey(tmp_path):
    got = decode.read_rgb(saved(Image.new("RGBA", (4, 3), (0, 0, 0, 128)), tmp_path / "a.png"))
    assert (abs(got.astype(int) - 127) <= 1).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 255, 255])], ids=["one colour", "a table"])
def test_a_palette_is_looked_up_and_its_transparent_colour_is_white(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8))
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    plain = decode.read_rgb(saved(image, tmp_path / "a.png"))
    assert plain.tolist() == [[[10, 20, 30], [200, 0, 0]], [[0, 200, 0], [0, 0, 200]]]
    clear = decode.read_rgb(saved(image, tmp_path / "b.png", transparency=transparency))
    assert clear.tolist() == [[[255, 255, 255], [200, 0, 0]], [[0, 200, 0], [0, 0, 200]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name):
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    got = decode.read_rgb(saved(Image.fromarray(deep), tmp_path / name))
    assert got[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_a_32_bit_image_of_16_bit_values_is_scaled_too(tmp_path):
    deep = np.array([[0, 65535]], np.int32)
    assert decode.read_rgb(saved(Image.fromarray(deep), tmp_path / "a.tif"))[0, 1].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("pixels", "got"),
    [(np.array([[0, 70000]], np.int32), "32-bit integers"), (np.array([[0.5, 1.0]], np.float32), "floats")],
)
def test_pixels_without_a_known_range_are_refused(tmp_path, pixels, got):
    path = saved(Image.fromarray(pixels), tmp_path / "a.tif")
    with pytest.raises(DataError) as info:
        decode.read_rgb(path)
    assert str(info.value) == (
        f"{path}: the pixels have no known range; got {got}, want 8 or 16 bits. Save it as 8-bit PNG."
    )


def test_a_cmyk_jpeg_has_the_colours_of_its_rgb(tmp_path):
    flat = Image.new("RGB", (32, 32), (200, 60, 30))
    got = decode.read_rgb(saved(flat.convert("CMYK"), tmp_path / "a.jpg", quality=95))
    assert (abs(got.astype(int) - (200, 60, 30)) <= 3).all()


def test_one_bit_is_black_and_white(tmp_path):
    got = decode.read_rgb(saved(Image.fromarray(np.eye(4, dtype=bool)), tmp_path / "a.png"))
    np.testing.assert_array_equal(got[..., 1], np.eye(4) * 255)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, name):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert decode.read_rgb(path)[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    # What the camera stores is the inverse of what the viewer must do.
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = decode.read_rgb(saved(stored, tmp_path / "a.png", exif=exif))
    np.testing.assert_array_equal(got[..., 0], np.array(upright))


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0garbage"])
def test_broken_exif_does_no_harm(tmp_path, exif):
    got = decode.read_rgb(saved(Image.fromarray(RGB), tmp_path / "a.jpg", exif=exif))
    assert got.shape == RGB.shape


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError) as info:
        decode.read_rgb(tmp_path / "no.png")
    assert str(info.value) == f"{tmp_path}/no.png: the image cannot be read (no such file or directory)."


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(DataError) as info:
        decode.read_rgb(tmp_path)
    assert str(info.value) == f"{tmp_path}: this is not a file; got a folder. Name a file on a disk."


@pytest.mark.parametrize(
    ("content", "got"),
    [(b"", "an empty file"), (b"<!DOCTYPE html><html>", "a file that begins with b'<!DOCTYPE html><'")],
)
def test_a_file_that_is_no_image_says_how_it_begins(tmp_path, content, got):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as info:
        decode.read_rgb(path)
    assert (
        str(info.value)
        == f"{path}: not an image in a known format; got {got}, want one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP."
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_image_is_an_error_not_a_grey_bottom(tmp_path, name):
    noise = np.random.RandomState(0).randint(0, 256, (40, 50, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: the image cannot be decoded \(.*\)\.$"):
        decode.read_rgb(path)


def png_header(width, height):
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))


@pytest.mark.parametrize(("side", "got"), [(10_001, "got 10001 x 10001, "), (60_000, "")], ids=["ours", "Pillow's"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side, got):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(side, side) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(DataError) as info:
        decode.read_rgb(path)
    assert str(info.value) == (
        f"{path}: the image is too large to open; {got}want at most 100,000,000 pixels. Shrink it, or allow more by"
        " --max-pixels."
    )


def test_threads_leave_the_warning_filters_as_they_were(tmp_path):
    path = saved(Image.fromarray(RGB), tmp_path / "a.png")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode.read_rgb(path) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp"])
def test_nothing_but_a_data_error_escapes_a_damaged_image(tmp_path, name):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, format={"jpg": "jpeg", "tif": "tiff"}.get(name[2:], name[2:]))
    draw = random.Random(name)
    path, outcomes = tmp_path / name, []
    for _ in range(150):
        data = bytearray(buffer.getvalue())
        for _ in range(draw.randrange(1, 5)):
            data[draw.randrange(min(len(data), 200))] = draw.randrange(256)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on metadata
            try:
                shape = decode.read_rgb(path).shape
            except DataError as error:
                outcomes.append(str(error).count("\n"))
            else:
                outcomes.append(abs(shape[2] - 3))
    assert set(outcomes) == {0}


def test_a_picture_is_shrunk_to_its_longer_side_and_never_grows():
    rgb = np.zeros((30, 60, 3), np.uint8)
    rgb[:, 30:] = 200
    small = decode.shrink(rgb, 20)
    assert small.shape == (10, 20, 3)
    assert (small[5, 2].tolist(), small[5, 17].tolist()) == ([0, 0, 0], [200, 200, 200])
    for side in (0, 60, 100):
        assert decode.shrink(rgb, side) is rgb
    assert decode.fit_size((1, 1000), 10) == (1, 10)


def test_labels_are_shrunk_without_making_classes_of_the_mean():
    labels = np.random.default_rng(1).choice([0, 20, 255], (40, 50)).astype(np.uint8)
    assert set(np.unique(decode.shrink(labels, 13, smooth=False))) == {0, 20, 255}
