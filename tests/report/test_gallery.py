"""The images of a run: their scores, their selection, and what the page shows."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from reproduction.fcn.images import palette
from reproduction.fcn.scoring.results import Evaluation, ImageResult
from reproduction.report import gallery
from reproduction.report.gallery import Gallery, Media
from reproduction.report.record import ImageScore, LabelScores
from tests.helpers import dataset_trees, report_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return report_runs.run(tmp_path_factory.mktemp("run"))


def decode(media, name):
    kind, _, content = media.urls[name].partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def test_each_image_has_the_scores_of_its_own_pixels(run):
    report, galleries = run
    for net in report.nets:
        shown = galleries[net.net]
        assert [image.id for image in net.measured[0].images] == report_runs.IDS
        for image in net.measured[0].images:
            truth, predicted = shown.truth("label", image.id), shown.prediction("label", image.id)
            counted = truth != 255
            assert image.pixel_acc == np.mean(truth[counted] == predicted[counted])
            unions = {
                k: np.sum((truth == k) & (predicted == k)) / np.sum(((truth == k) | (predicted == k)) & counted)
                for k in np.unique(truth[counted])
            }
            assert image.mean_iu == pytest.approx(np.mean(list(unions.values())))


def test_void_pixels_are_counted_apart(run):
    report, galleries = run
    net = report.nets[0]
    void = sum(np.sum(galleries[net.net].truth("label", image_id) == 255) for image_id in report_runs.IDS)
    assert net.measured[0].void_pixels == void > 0


def test_an_image_without_a_pixel_that_counts_has_no_score():
    void, one = np.full((2, 3), 255), np.ones((2, 3), int)
    images = [
        ImageResult.from_labels(name, {"label": truth}, {"label": one}, {"label": 2}, 0.5)
        for name, truth in (("a", one), ("b", void))
    ]
    scores = Evaluation.from_images(images, {"label": 2}).scores["label"]
    found = LabelScores.from_scores("label", scores, ["x", "y"], images=images)
    assert ([image.id for image in found.images], found.void_pixels) == (["a"], 6)


def test_a_label_map_that_is_missing_is_named(run):
    report, galleries = run
    lost = Gallery(galleries["voc-fcn8s"].dataset, galleries["voc-fcn8s"].predictions / "gone")
    image = report.nets[1].measured[0].images[0]
    with pytest.raises(DataError) as error:
        gallery.render_image(lost, "voc-fcn8s", "label", image, Media())
    assert str(lost.predictions / f"{image.id}.png") in str(error.value)


def images(count, seed=0):
    values = np.random.default_rng(seed).permutation(count) / count
    return [ImageScore(f"{number:03d}", 0.5, float(value)) for number, value in enumerate(values)]


def test_the_best_the_worst_and_a_sample_are_chosen():
    chosen = gallery.choose_images(images(100))
    assert [image.mean_iu for image in chosen["best"]] == [0.99, 0.98, 0.97]
    assert [image.mean_iu for image in chosen["worst"]] == [0.0, 0.01, 0.02]
    assert len(chosen["sample"]) == 3
    shown = [image.id for kind in chosen.values() for image in kind]
    assert len(set(shown)) == 9


def test_nets_share_their_sample_as_far_as_it_is_no_best_or_worst():
    one, two = (gallery.choose_images(images(500, seed))["sample"] for seed in (2, 3))
    assert [image.id for image in one] == [image.id for image in two]


@pytest.mark.parametrize("count", range(9))
def test_of_few_images_none_is_shown_twice(count):
    shown = [image.id for kind in gallery.choose_images(images(count)).values() for image in kind]
    assert len(shown) == len(set(shown)) == min(count, 3 if count < 6 else 6)


def test_the_map_of_errors_has_what_is_right_wrong_and_void(run):
    report, galleries = run
    shown, media = galleries["voc-fcn32s"], Media()
    image = report.nets[0].measured[0].images[-1]
    made_of = gallery.render_image(shown, "voc-fcn32s", "label", image, media)
    truth, predicted = shown.truth("label", image.id), shown.prediction("label", image.id)
    picture = decode(media, made_of.errors)
    assert picture.size == truth.shape[::-1] == (made_of.width, made_of.height)
    colours = np.array(picture.convert("RGBA"))
    right, void = (truth == predicted) & (truth != 255), truth == 255
    wrong = ~right & ~void
    assert wrong.any()
    assert void.any()
    assert (colours[right][:, 3] == 0).all()
    assert (colours[wrong] == (*gallery.ERROR_COLOURS[gallery.WRONG], 255)).all()
    assert (colours[void] == (*gallery.ERROR_COLOURS[gallery.IGNORED], 255)).all()
    assert made_of.has_void


def test_truth_and_prediction_are_in_the_colours_of_voc_and_background_is_clear(run):
    report, galleries = run
    shown, media = galleries["voc-fcn8s"], Media()
    image = report.nets[1].measured[0].images[0]
    made_of = gallery.render_image(shown, "voc-fcn8s", "label", image, media)
    truth = shown.truth("label", image.id)
    picture = decode(media, made_of.truth)
    np.testing.assert_array_equal(np.array(picture), truth)
    alpha = np.array(picture.convert("RGBA"))[..., 3]
    np.testing.assert_array_equal(alpha, np.where(truth == 0, 0, 255))
    assert picture.getpalette()[3:6] == [128, 0, 0]


def test_the_classes_of_a_picture_say_what_was_missed_and_what_is_not_there(tmp_path):
    _, galleries = report_runs.run(tmp_path, report_runs.IDS[:1])
    shown = galleries["voc-fcn8s"]
    truth = shown.truth("label", report_runs.IDS[0])
    predicted = np.where(truth == 255, 0, truth)
    missed = int(np.unique(truth[(truth != 255) & (truth != 0)])[0])
    other = next(k for k in range(1, 21) if k not in truth)
    predicted[predicted == missed] = other
    palette.write_png(predicted, shown.predictions / f"{report_runs.IDS[0]}.png")
    found = gallery.render_image(shown, "n", "label", ImageScore(report_runs.IDS[0], 0, 0), Media()).classes
    by_name = {each.name: each for each in found}
    names = shown.dataset.classes
    assert (by_name[names[missed]].in_truth, by_name[names[missed]].predicted) == (True, False)
    assert (by_name[names[other]].in_truth, by_name[names[other]].predicted) == (False, True)
    assert by_name["background"].iu == 1


def test_a_large_picture_is_made_smaller(tmp_path):
    dataset_trees.voc(tmp_path / "VOCdevkit/VOC2012", {"val": ["a"]}, size=(300, 1200))
    dataset = datasets.open_split("voc", "val", tmp_path)
    palette.write_png(np.zeros(dataset[0]["label"].shape[1:], np.uint8), tmp_path / "a.png")
    media = Media()
    shown = gallery.render_image(Gallery(dataset, tmp_path), "n", "label", ImageScore("a", 0, 0), media)
    assert shown.width == gallery.LONGEST
    assert {decode(media, name).size for name in media.urls} == {(shown.width, shown.height)}


def test_what_two_nets_share_is_kept_once(run):
    report, galleries = run
    media = Media()
    image = report.nets[0].measured[0].images[3]
    one, two = (gallery.render_image(galleries[net], net, "label", image, media) for net in report_runs.NETS)
    assert (one.photo, one.truth) == (two.photo, two.truth)
    assert one.prediction != two.prediction
    assert len(media.urls) == 6
