"""Labels drawn from LabelMe's JSON, as LabelMe's export draws them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets.custom import find_files
from reproduction.fcn.datasets.custom.check import check_folder
from reproduction.fcn.datasets.custom.folder import Folder
from tests.helpers import annotated_folders as drawn


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        drawn.image(tmp_path / f"{i}.jpg", i)
        drawn.labelme(tmp_path / f"{i}.json")
    return tmp_path


def label(root, *shapes, **more):
    drawn.labelme(root / "0.json", shapes, **more)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return Folder("train", root)[0]["label"][0]


def refused(root, *shapes, **more):
    with pytest.raises(DataError) as error:
        label(root, *shapes, **more)
    return str(error.value).replace(f"{root}/", "")


def test_shapes_cover_earlier_ones(photos):
    data = Folder("train", photos)
    assert data.classes == ("background", "cat", "dog")
    assert np.array_equal(data[0]["label"][0], drawn.truth())
    assert find_files.list_files(photos).description == (
        "LabelMe JSON, labels next to the images; later shapes cover earlier ones"
    )
    below = label(photos, drawn.shape("dog", drawn.SMALL), drawn.shape("cat", drawn.LARGE))
    assert sorted(np.unique(below)) == [0, 1]


def test_every_type_of_shape_is_drawn(photos):
    def one(kind, points, **more):
        return label(photos, drawn.shape("cat", points, kind, **more))

    rectangle = drawn.rectangle(drawn.LARGE, np.zeros(drawn.SIZE, np.uint8), 1)
    assert np.array_equal(one("rectangle", [2.7, 2.2, 20.9, 15.5]), rectangle), "coordinates are rounded down"
    assert np.array_equal(one("rectangle", [20.9, 15.5, 2.7, 2.2]), rectangle), "from any corner"
    assert np.array_equal(one("oriented_rectangle", drawn.LARGE), rectangle)
    y, x = np.ogrid[: drawn.SIZE[0], : drawn.SIZE[1]]
    circle = (x - 10) ** 2 + (y - 10) ** 2
    found = one("circle", [10, 10, 10, 16])
    assert found[circle <= 5.5**2].all()
    assert not found[circle > 6.9**2].any()
    assert one("point", [10, 10]).sum() == pytest.approx(np.pi * 5.5**2, rel=0.1)
    assert one("points", [10, 10, 25, 10]).sum() > 1.5 * one("point", [10, 10]).sum()
    assert one("line", [0, 10, 29, 10]).sum() == 30 * 10
    assert one("linestrip", [0, 10, 15, 10, 29, 10]).sum() == pytest.approx(30 * 10, rel=0.02)
    far = one("line", [-900000, 10, 900000, 10])
    assert far.sum() == 30 * 10


def test_masks_are_drawn_where_they_are(photos):
    mask = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(mask * 255).save(file, "png")
    text = base64.b64encode(file.getvalue()).decode()
    want = np.zeros(drawn.SIZE, np.uint8)
    want[3:7, 2:8] = mask
    assert np.array_equal(label(photos, drawn.shape("cat", [2, 3, 7, 6], "mask", mask=text)), want)
    assert refused(photos, drawn.shape("cat", [2, 3, 7, 6], "mask", mask="AAAA")) == (
        "0.json: shape 1 has no valid mask (not an image in a known format); want a PNG as base64."
    )


def test_labels_of_labelmes_list_mean_background_and_void(photos, tmp_path):
    drawn.labelme(photos / "0.json", [drawn.shape("__ignore__", drawn.LARGE), drawn.shape("_background_", drawn.SMALL)])
    data = Folder("train", photos)
    assert data.classes == ("background", "cat", "dog")
    assert np.array_equal(data[0]["label"][0], np.choose(drawn.truth(), [0, 255, 0]))
    (photos / "classes.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    assert Folder("train", photos).classes == ("_background_", "dog", "cat")


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        (
            [drawn.shape("cat", [1, 2, 3, 4])],
            "shape 1 has no valid outline; got [[1, 2], [3, 4]], want 3 or more points [x, y].",
        ),
        (
            [drawn.shape("cat", drawn.LARGE, "spline")],
            (
                'shape 1 has an unknown type; got "spline", want polygon, rectangle, circle, line, linestrip, point,'
                " points or mask."
            ),
        ),
        (
            [drawn.shape("cat", ["1", 2, 3, 4], "circle")],
            'shape 1 has no valid outline; got ["1", 2], want 2 or more points [x, y].',
        ),
        ([3], "not LabelMe's JSON: shapes[0] is 3; want an object."),
    ],
)
def test_shapes_that_are_none_are_refused(photos, shapes, error):
    assert refused(photos, *shapes) == f"0.json: {error}"


def test_sizes_are_checked_before_memory_is_taken(photos):
    assert "the image is too large to open; got 200000 x 200000" in refused(
        photos, drawn.shape("cat", drawn.LARGE), imageHeight=200_000, imageWidth=200_000
    )
    assert label(photos, drawn.shape("cat", drawn.LARGE), imageHeight=None).shape == drawn.SIZE


def test_an_outline_of_too_many_points_is_refused(photos, monkeypatch):
    monkeypatch.setattr("reproduction.fcn.datasets.custom.outlines._MAX_WORK", 200)
    assert refused(photos, drawn.shape("cat", drawn.LARGE * 3)) == (
        "0.json: the outline of 'cat' has too many points to fill; got 12, want at most 10."
    )


def test_shapes_that_take_minutes_to_draw_are_refused(photos):
    assert refused(photos, drawn.shape("cat", [0, 0, 1000, 0], "circle")) == (
        "0.json: shape 1 is a circle far larger than its image; got 1000.0, want a radius up to 120."
    )
    assert refused(photos, drawn.shape("cat", [1, 2] * 10001, "linestrip")) == (
        "0.json: shape 1 has too many points; got 10,001, want at most 10,000."
    )


def test_files_may_have_a_folder_of_their_images_or_not(tmp_path):
    for i in range(3):
        drawn.image(tmp_path / f"images/{i}.jpg", i)
        drawn.labelme(tmp_path / f"annotations/{i}.json")
    assert np.array_equal(Folder("val", tmp_path)[0]["label"][0], drawn.truth())
    report = check_folder(tmp_path)
    assert report.ok
    assert report.description == "LabelMe JSON, labels in annotations/; later shapes cover earlier ones"
    (tmp_path / "annotations/1.json").write_text("{")
    (problem,) = [problem for problem in check_folder(tmp_path, ("background", "cat", "dog")).problems if problem.fatal]
    assert problem.what.startswith("not LabelMe's JSON: ")
