"""The removed functions of scipy.misc, compared with values of scipy 1.1.0 and Pillow 6.2."""

import numpy as np
import pytest
from PIL import Image

from reproduction.pycaffe.run import scipy_misc as misc

SQUARES = np.arange(12.0).reshape(3, 4) ** 2
COLOURS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
BYTES = [[0, 2, 8, 19], [34, 53, 76, 103], [135, 171, 211, 255]]


def test_values_are_stretched_to_bytes():
    assert misc.bytescale(SQUARES).tolist() == BYTES
    narrow = misc.bytescale(SQUARES, cmin=0, cmax=60, high=200, low=20)
    assert narrow.tolist() == [[20, 23, 32, 47], [68, 95, 128, 167], [200, 200, 200, 200]]
    assert misc.bytescale(COLOURS) is COLOURS
    assert misc.bytescale(np.full((1, 2), 7.0)).tolist() == [[0, 0]]
    for options in ({"high": 256}, {"low": -1}, {"low": 9, "high": 8}, {"cmin": 2, "cmax": 1}):
        with pytest.raises(ValueError, match=r"low <= high|cmax"):
            misc.bytescale(SQUARES, **options)


def test_a_size_is_a_shape_a_percentage_or_a_factor():
    assert misc.imresize(SQUARES, (2, 3)).tolist() == [[16, 28, 46], [106, 144, 187]]
    assert misc.imresize(SQUARES, 50, "nearest").tolist() == [[53, 103]]
    assert misc.imresize(COLOURS, 1.5, "bicubic")[..., 1].tolist() == [
        [0, 14, 37, 57, 80, 94],
        [68, 82, 105, 125, 148, 162],
        [136, 150, 173, 193, 216, 230],
    ]
    unscaled = misc.imresize(SQUARES, (2, 2), mode="F")
    assert np.allclose(unscaled, [[9.1428566, 18.5714283], [56.285717, 81.4285736]])


def test_pictures_are_rotated_and_filtered():
    assert misc.imrotate(COLOURS, 90, "nearest")[..., 0].tolist() == [[0, 60, 180, 0], [0, 30, 150, 0]]
    assert misc.imfilter(SQUARES, "smooth").tolist() == [[0, 2, 8, 19], [34, 69, 92, 103], [135, 171, 211, 255]]
    with pytest.raises(ValueError, match="unknown filter 'x'"):
        misc.imfilter(SQUARES, "x")


def test_what_is_saved_is_read(tmp_path):
    path = tmp_path / "x.png"
    misc.imsave(path, SQUARES)
    assert misc.imread(path).tolist() == BYTES
    misc.imsave(path, COLOURS)
    assert np.array_equal(misc.imread(path), COLOURS)
    grey = misc.imread(path, flatten=True)
    assert grey.dtype == np.float32
    assert np.allclose(grey[0], [8.15, 38.15, 68.15, 98.15])
    assert misc.imread(path, mode="L").shape == (2, 4)
    path.write_text("no image")
    with pytest.raises(OSError, match=r"x\.png"):
        misc.imread(path)


def test_arrays_become_pictures_of_their_mode():
    assert np.array_equal(np.array(misc.toimage(COLOURS.transpose(2, 0, 1))), COLOURS)
    assert np.array(misc.toimage(SQUARES, mode="I")).tolist() == [
        [0, 2, 8, 18],
        [33, 52, 75, 103],
        [134, 170, 210, 255],
    ]
    assert np.array(misc.toimage(np.array([[1, 9]]), high=5, mode="1")).tolist() == [[False, True]]
    grey = misc.toimage(np.array([[0, 255]], np.uint8), mode="P")
    assert misc.fromimage(grey).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    palette = misc.toimage(np.array([[0, 255]], np.uint8), pal=[[9, 8, 7]] * 256)
    assert misc.fromimage(palette).tolist() == [[[9, 8, 7], [9, 8, 7]]]
    assert misc.fromimage(Image.fromarray(np.array([[True, False]]))).tolist() == [[255, 0]]
    for wrong, options in ((SQUARES + 1j, {}), (np.ones((2, 2, 5)), {}), (SQUARES, {"mode": "RGB"}),
                           (COLOURS, {"mode": "RGBA"}), (COLOURS, {"channel_axis": 0})):  # fmt: skip
        with pytest.raises(ValueError, match=r"image|mode|channels"):
            misc.toimage(wrong, **options)
    with pytest.raises(TypeError, match="not a PIL image"):
        misc.fromimage(SQUARES)


def test_functions_that_moved_to_scipy_special_are_found():
    assert misc.comb(5, 2) == 10
    with pytest.raises(AttributeError, match=r"^module 'scipy.misc' has no attribute 'lena'$"):
        misc.lena  # noqa: B018
