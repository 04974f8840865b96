"""Palette images as labels: indices are read only if the palette shows which index is which class."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from reproduction.fcn.datasets import label_files
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.check import check_folder
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import palette
from reproduction.fcn.train import preflight
from reproduction.fcn.train.losses import Loss
from tests.helpers import custom_folders, dataset_trees

VOC = palette.voc_colours()
GREYS = np.repeat(np.arange(256)[:, None], 3, axis=1)
RED_FIRST = np.array([[128, 0, 0], [0, 0, 0], [0, 128, 0]])
NUMBERS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def write(path, numbers, colours, **options):
    """Write a palette picture."""
    image = Image.fromarray(numbers)
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "tif"])
@pytest.mark.parametrize(
    "colours",
    [
        pytest.param(VOC, id="VOC's"),
        pytest.param(VOC[:3], id="VOC's, cut to what occurs"),
        pytest.param(GREYS, id="grey levels"),
        pytest.param(GREYS[:3], id="grey levels, cut to what occurs"),
        pytest.param([[0] * 3, [127] * 3, [255] * 3], id="a ramp of greys"),
        pytest.param([*VOC[:3], [9, 9, 9]], id="VOC's where it is used"),
    ],
)
def test_indices_are_read_where_the_palette_shows_what_they_are(tmp_path, ending, colours):
    path = write(tmp_path / f"a.{ending}", NUMBERS, colours)
    assert np.array_equal(LabelReader()(path), NUMBERS)


@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "tif"])
def test_indices_of_any_other_palette_are_refused_and_colours_or_indices_are_offered(tmp_path, ending):
    path = write(tmp_path / f"a.{ending}", NUMBERS, RED_FIRST)
    with pytest.raises(DataError) as error:
        LabelReader()(path)
    assert str(error.value) == (
        f"{path}: the palette does not show which index is which class; got 0 as (128, 0, 0), 1 as (0, 0, 0),"
        " want VOC's colours or a grey ramp. Read the labels by their colours with --palette FILE, for"
        " which fcn check-data --write-palette writes a template, or with --palette voc; or by their indices with"
        " --palette indices."
    )
    assert np.array_equal(LabelReader("indices")(path), NUMBERS)
    by_colour = {"background": (0, 0, 0), "cat": (128, 0, 0), "dog": (0, 128, 0)}
    assert LabelReader(by_colour)(path).tolist() == [[1, 0, 2], [2, 0, 1]]


def test_transparency_does_not_change_what_a_palette_says(tmp_path):
    path = write(tmp_path / "a.png", NUMBERS, VOC[:3], transparency=0)
    assert np.array_equal(LabelReader()(path), NUMBERS)
    with pytest.raises(DataError, match=label_files.UNKNOWN):
        LabelReader()(write(tmp_path / "b.png", NUMBERS, RED_FIRST, transparency=bytes([0, 255, 255])))


@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "tif"])
def test_a_palette_of_one_colour_says_nothing_of_other_indices(tmp_path, ending):
    black = [[0, 0, 0]] * 4
    assert not LabelReader()(write(tmp_path / f"a.{ending}", NUMBERS * 0, black)).any()
    with pytest.raises(DataError, match=label_files.UNKNOWN):
        LabelReader()(
            write(tmp_path / f"b.{ending}", NUMBERS, black, **({"optimize": False} if ending == "gif" else {}))
        )


def test_void_needs_no_colour(tmp_path):
    numbers = np.array([[0, 1, 255]], np.uint8)
    assert np.array_equal(LabelReader()(write(tmp_path / "a.png", numbers, VOC)), numbers)
    assert np.array_equal(LabelReader()(write(tmp_path / "b.png", numbers, VOC[:21])), numbers)


def test_pictures_without_a_palette_are_numbers(tmp_path):
    for name, array in (
        ("bits.png", NUMBERS > 0),
        ("grey.png", NUMBERS),
        ("deep.png", NUMBERS.astype(np.uint16)),
        ("grey.gif", NUMBERS),
        ("grey.bmp", NUMBERS),
    ):
        Image.fromarray(array).save(tmp_path / name)
        assert np.array_equal(LabelReader()(tmp_path / name), array), name


def test_two_known_palettes_that_mean_different_classes_are_refused(tmp_path):
    reader = LabelReader()
    reader(write(tmp_path / "a.png", NUMBERS % 2, [[0] * 3, [255] * 3]))
    reader(write(tmp_path / "b.png", NUMBERS * 0, VOC))
    with pytest.raises(DataError) as error:
        reader(write(tmp_path / "c.png", NUMBERS, VOC))
    assert str(error.value).startswith(
        f"{tmp_path}/c.png: the palettes of the labels differ; got 1 as (128, 0, 0), want (255, 255, 255) as in"
        f" {tmp_path}/a.png. Read the labels by their colours"
    )


def requantized(root, kinds=8):
    """Write VOC-coloured labels, whose palettes are ordered otherwise in each file; returns the true numbers."""
    draw = np.random.default_rng(7)
    truth = []
    custom_folders.write(root, n=12)
    for i in range(12):
        numbers = draw.choice(3, custom_folders.SIZE, p=[0.84, 0.1, 0.06]).astype(np.uint8)
        order = np.random.default_rng(i % kinds).permutation(3)
        write(root / f"labels/p{i}.png", order[numbers].astype(np.uint8), VOC[:3][np.argsort(order)])
        truth.append(numbers)
    return truth


def test_a_check_notices_palettes_that_differ_and_shows_the_colours(tmp_path):
    truth = np.stack(requantized(tmp_path))
    report = check_folder(tmp_path, custom_folders.NAMES)
    assert not report.ok
    first = report.problems[0]
    assert first.what == label_files.UNKNOWN
    assert first.remedy == "They are the colours in which VOC draws its classes: use --palette voc."
    assert report.colours == {tuple(VOC[i].tolist()): int((truth == i).sum()) for i in range(3)}
    by_colour = check_folder(tmp_path, custom_folders.NAMES, color_labels.voc_palette(custom_folders.NAMES))
    assert by_colour.ok
    assert [value.pixels for value in by_colour.values] == [int((truth == i).sum()) for i in range(3)]


def test_a_data_set_notices_palettes_that_differ(tmp_path):
    truth = requantized(tmp_path)
    with pytest.raises(DataError, match=label_files.UNKNOWN):
        list(Folder("train", tmp_path))
    samples = Folder(
        "train", tmp_path, classes=custom_folders.NAMES, palette=color_labels.voc_palette(custom_folders.NAMES)
    )
    for image_id, sample in zip(samples.ids, samples, strict=True):
        assert np.array_equal(sample["label"][0], truth[int(image_id[1:])])


def test_a_palette_of_all_files_is_offered_in_its_own_order(tmp_path):
    custom_folders.write(tmp_path)
    city = [[128, 64, 128], [244, 35, 232], [70, 70, 70]]
    for i in range(6):
        write(tmp_path / f"labels/p{i}.png", custom_folders.label(i), city)
    report = check_folder(tmp_path, custom_folders.NAMES)
    assert not report.ok
    assert list(report.colours) == [tuple(colour) for colour in city]
    assert check_folder(tmp_path, custom_folders.NAMES, "indices").ok


@pytest.mark.parametrize("name", ["voc2011", "sbd"])
def test_a_published_tree_whose_labels_were_requantized_is_noticed(tmp_path, name):
    root, folder = {
        "voc2011": ("pascal/VOC2011", "SegmentationClass"),
        "sbd": ("sbdd/dataset", "cls"),
    }[name]
    getattr(dataset_trees, name.rstrip("0123456789"))(tmp_path / root, {"train": ["2008_000001", "2008_000002"]})
    dataset = datasets.open_split(name, "train", tmp_path, ["label"])
    truth = [sample["label"][0] for sample in dataset]
    for image_id, numbers in zip(dataset.ids, truth, strict=True):
        for original in (tmp_path / root / folder).glob(f"{image_id}.*"):
            original.unlink()
        used = np.unique(numbers)
        indices = (len(used) - 1 - np.searchsorted(used, numbers)).astype(np.uint8)  # the last class first
        write(tmp_path / root / folder / f"{image_id}.png", indices, VOC[used[::-1]])
    with pytest.raises(DataError, match=label_files.UNKNOWN):
        dataset[0]
    datasets.set_label_reading(dataset, color_labels.parse_reading("voc", dataset.classes))
    for sample, numbers in zip(dataset, truth, strict=True):
        assert np.array_equal(sample["label"][0], numbers)


def test_labels_that_are_not_pictures_have_no_palette(tmp_path):
    dataset_trees.nyud(tmp_path / "nyud", {"train": ["5001"]})
    dataset = datasets.open_split("nyud", "train", tmp_path, ["label"])
    with pytest.raises(DataError, match=r"^the labels of nyud are not images\. Leave --palette out\.$"):
        datasets.set_label_reading(dataset, "indices")


def test_a_training_notices_them_before_it_starts(tmp_path):
    requantized(tmp_path)
    loss = Loss(layer="loss", label="label", classes=3, dense=True, summed=True, ignored=255, weight=1.0)
    (problem,) = preflight.check_dataset(Folder("train", tmp_path), [loss], every=True)
    assert problem.problem == label_files.UNKNOWN
