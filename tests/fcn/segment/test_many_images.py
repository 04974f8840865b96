"""Segmentation of many images at once, and of images that are not files; the results as files and in notebooks."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError, NetError, ReproductionError
from reproduction.fast import compiler
from reproduction.fcn.images import palette
from reproduction.fcn.nets import published_nets
from reproduction.fcn.segment import batches, card
from reproduction.fcn.segment.segmenter import Segmenter
from tests.golden import seeded
from tests.helpers import thin_nets
from tests.helpers.cards import make_card

IMAGES = [seeded.synth_image(height, 41, seed) for seed, height in enumerate((45, 30, 45, 45, 30, 21))]


def segmenter(name):
    return Segmenter(card.published_card(published_nets.NETS[name]), thin_nets.net(name, 32, 1))


@pytest.fixture(scope="module")
def voc():
    return segmenter("voc-fcn8s")


@pytest.fixture(scope="module")
def alone(voc):
    return [voc(image) for image in IMAGES]


def png(image, **more):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **more)
    return file


def same(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


class Stream(io.RawIOBase):
    """A file object that can only be read once, as the answer of a server."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def read(self, size=-1):
        return self.content.read(size)

    def seekable(self):
        return False


def test_the_content_of_a_file_is_an_image(voc, alone):
    content = png(IMAGES[0]).getvalue()
    at_the_end = png(IMAGES[0])
    for picture in (content, bytearray(content), io.BytesIO(content), at_the_end, Stream(content)):
        same([voc(picture)], alone[:1])
    with pytest.raises(DataError) as info:
        voc(b"<html>")
    assert str(info.value).startswith("<file>: not an image in a known format; got a file that begins with b'<html>'")


def test_a_list_gives_a_list_in_its_order_computed_in_batches(voc, alone, monkeypatch):
    shapes, scorer = [], voc.scorer

    def spy(inputs, blobs):
        shapes.append(tuple(inputs["data"].shape))
        return scorer(inputs, blobs=blobs)

    monkeypatch.setattr(voc, "scorer", spy)
    found = voc(IMAGES)
    assert isinstance(found, list)
    same(found, alone)
    assert shapes == [(3, 3, 45, 41), (2, 3, 30, 41), (1, 3, 21, 41)]
    assert voc([]) == []
    assert isinstance(voc(tuple(IMAGES[:1])), list)
    shapes.clear()
    same([each["label"] for each in voc.segment_many(IMAGES, batch=1)], alone)
    assert [shape[0] for shape in shapes] == [1] * 6


@pytest.mark.parametrize("refuse", [True, False])
def test_a_net_that_takes_single_images_gets_them_singly(voc, alone, monkeypatch, refuse):
    scorer = voc.scorer

    def fixed(inputs, blobs):
        if refuse and len(inputs["data"]) > 1:
            raise NetError("cannot reshape")
        return scorer({"data": inputs["data"][:1]}, blobs=blobs)

    monkeypatch.setattr(voc, "scorer", fixed)
    same(voc(IMAGES), alone)


def test_a_folder_is_segmented_as_it_is_read(voc, alone, tmp_path):
    (tmp_path / "deep").mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / ("deep" if number > 3 else ".") / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    names = ["0", "1", "2", "3", "4", "5"]
    found = voc(tmp_path)
    assert iter(found) is found
    results = list(found)
    assert [each.name for each in results] == names
    same(results, alone)
    (tmp_path / "deep" / "5.png").write_bytes(b"broken")
    lazy = (each["label"] for each in voc.segment_many(tmp_path, batch=1))
    same(list(itertools.islice(lazy, 3)), alone[:3])
    with pytest.raises(DataError, match=r"deep/5\.png: not an image in a known format"):
        list(voc(str(tmp_path)))


def test_an_iterator_is_read_only_as_far_as_needed(voc, alone):
    taken = []

    def images():
        while True:
            taken.append(1)
            yield IMAGES[0]

    first = next(voc(images()))
    same([first], alone[:1])
    assert len(taken) == 8


def test_an_image_of_a_list_that_is_not_one_is_named(voc, tmp_path):
    with pytest.raises(DataError) as info:
        voc([IMAGES[0], np.zeros((2, 2, 2), np.float32)])
    assert str(info.value).startswith("image 2: this is not an image; got ndarray of float32, shape (2, 2, 2), want ")
    with pytest.raises(DataError, match=r"^image 1: <file>: not an image in a known format"):
        voc([b"nothing"])
    with pytest.raises(DataError) as info:
        voc([[1, 2]])
    assert str(info.value).startswith("image 1: this is not an image; got list, want ")
    with pytest.raises(DataError) as info:
        list(voc(tmp_path))
    assert str(info.value) == f"{tmp_path}: there is no image in this folder."
    with pytest.raises(DataError) as info:
        list(voc.segment_many(3))
    assert str(info.value) == "these are not images; got int, want a list, or the path of a folder."


def test_depths_and_hha_are_paired_by_number_or_by_name(tmp_path):
    made = segmenter("nyud-fcn32s-color-hha")
    pairs = list(zip(IMAGES[:3], IMAGES[3:], strict=True))
    pairs = [(a, np.resize(b, a.shape)) for a, b in pairs]
    want = [made(image, hha=hha) for image, hha in pairs]
    same(made([image for image, _ in pairs], hha=[hha for _, hha in pairs]), want)
    for folder in ("color", "hha"):
        (tmp_path / folder).mkdir()
        for number, pair in enumerate(pairs):
            Image.fromarray(pair[folder == "hha"]).save(tmp_path / folder / f"{number}.png")
    same(list(made(tmp_path / "color", hha=tmp_path / "hha")), want)
    with pytest.raises(DataError) as info:
        made([image for image, _ in pairs], hha=[hha for _, hha in pairs[:2]])
    assert str(info.value) == "image 3: nyud-fcn32s-color-hha needs an image of kind 'hha'; got none, want color, hha."
    with pytest.raises(DataError) as info:
        list(made(tmp_path / "color", hha=[hha for _, hha in pairs]))
    assert str(info.value) == "some images are a list, others a folder; got color, hha, want one or the other."
    with pytest.raises(DataError) as info:
        made()
    assert str(info.value) == "nyud-fcn32s-color-hha needs an image of kind 'color'; got none, want color, hha."
    (tmp_path / "hha" / "1.png").unlink()
    with pytest.raises(DataError, match="no image here belongs to"):
        list(made(tmp_path / "color", hha=tmp_path / "hha"))


def test_batches_hold_one_size_and_few_pixels():
    def sizes(*items, limit):
        return [["ab"[size == (2, 2)] for size in batch] for batch in batches.group(items, lambda size: size, limit)]

    a, b = (4, 4), (2, 2)
    assert sizes(a, b, a, b, a, limit=batches.BatchLimit(2)) == [["a", "a"], ["b", "b"], ["a"]]
    assert sizes(a, b, b, b, a, b, limit=batches.BatchLimit(4, 16)) == [["a"], ["a"], ["b"] * 4]
    assert sizes(b, *[a] * 9, limit=batches.BatchLimit(2)) == [["a", "a"]] * 3 + [["b"], ["a", "a"], ["a"]]
    wide = (1 << 12, 1 << 12)
    assert sizes(wide, wide, wide, limit=batches.BatchLimit(4, 1 << 40)) == [["a", "a"], ["a"]]
    with pytest.raises(DataError, match="a batch needs at least one image"):
        batches.choose_limit(0)


def test_a_segmenter_is_moved_to_a_device(alone):
    made = segmenter("voc-fcn8s")
    assert made.to("cpu") is made
    same([made(IMAGES[0])], alone[:1])
    made.scorer = made.net
    same([made.to("cpu")(IMAGES[0])], alone[:1])
    with pytest.raises(ReproductionError, match="device 'gpu0' cannot be used"):
        made.to("gpu0")
    made.scorer = compiler.compile(made.net, discard=True)
    made.scorer._discarded = {"conv": made.net.params["score_fr"][0]}
    with pytest.raises(NetError, match="cannot be moved after its weights were freed"):
        made.to("cpu")


def test_results_do_not_depend_on_the_images_before(voc):
    image = IMAGES[1]
    made = segmenter("voc-fcn8s")
    made.scorer = compiler.compile(made.net, steady=True)
    first = made(image, scores=True).scores
    made.scorer = compiler.compile(made.net, steady=True)
    for before in IMAGES:
        made(before)
    for _ in range(3):
        np.testing.assert_array_equal(made(image, scores=True).scores, first)


OWN = [(255, 0, 255), *[(0, number, 128) for number in range(1, 21)]]


@pytest.fixture
def own():
    names = ("<sky>", *map(str, range(1, 21)))
    return Segmenter(make_card("mine", names, OWN), thin_nets.net("voc-fcn8s", 32, 1))


def test_a_result_is_drawn_and_saved_in_the_nets_colours(own, tmp_path):
    Image.fromarray(IMAGES[0]).save(tmp_path / "holiday.png")
    result = own(tmp_path / "holiday.png")
    colours = palette.colour_table(OWN)
    overlay = palette.overlay(IMAGES[0], result.labels, background=None, colours=colours)
    legend = palette.draw_legend(result.shares, colours)
    np.testing.assert_array_equal(result.overlay(), overlay)
    np.testing.assert_array_equal(result.overlay(1.0), palette.paint(result.labels, colours))
    np.testing.assert_array_equal(result.legend(), legend)
    overview = np.array(result.overview())
    np.testing.assert_array_equal(overview[:45, :41], overlay)
    np.testing.assert_array_equal(overview[: len(legend), 41:], legend)
    paths = result.save(tmp_path / "deep" / "out")
    assert [path.name for path in paths] == [f"holiday{end}.png" for end in ("", "_overlay", "_legend", "_overview")]
    with Image.open(paths[0]) as labels:
        np.testing.assert_array_equal(labels, result.labels)
        assert labels.getpalette()[:3] == [255, 0, 255]
    with Image.open(paths[3]) as saved:
        np.testing.assert_array_equal(saved, overview)
    assert own(IMAGES[0]).save(tmp_path)[0].name == "image.png"
    assert own(Image.open(tmp_path / "holiday.png")).name == "holiday"
    with pytest.raises(DataError) as info:
        result.save(tmp_path, "../other")
    assert str(info.value) == "this is not the name of a file; got '../other'. Name the folder separately."
    with pytest.raises(ReproductionError, match=r"holiday\.png: cannot be written: "):
        result.save(tmp_path / "holiday.png")


def test_a_notebook_shows_the_overlay_with_a_legend(own):
    result = own(IMAGES[0])
    assert Image.open(io.BytesIO(result._repr_png_())).size == result.overview().size
    page = result._repr_html_()
    assert page.count("<tr>") == len(result.shares)
    assert '<img src="data:image/jpeg;base64,' in page
    for share in result.shares:
        assert f"{100 * share.share:.2f} %" in page
        assert f"background:rgb({','.join(map(str, OWN[share.label]))})" in page
    assert "<sky>" not in page
    assert repr(result).startswith(f"<Segmentation of 41 x 45 pixels: {100 * result.shares[0].share:.1f} % ")


def test_a_large_image_has_a_legend_that_can_be_read():
    row = palette.Share(0, "sky", 5, 1.0)
    small, large = palette.draw_legend([row]), palette.draw_legend([row], size=52)
    assert large.shape[0] == 4 * small.shape[0]
