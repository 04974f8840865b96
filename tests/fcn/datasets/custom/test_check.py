"""Problems in custom images and labels, and why a training would fail."""

import numpy as np
import pytest
from PIL import Image

from reproduction.fcn.datasets import label_files
from reproduction.fcn.datasets.custom import check, color_labels, folder, folder_files
from reproduction.fcn.datasets.custom.check import check_folder
from reproduction.fcn.datasets.custom.folder_report import Problem
from tests.helpers import custom_folders


def found(root, **known):
    """The problems, as what, fatal and files, with the folder called DIR."""
    report = check_folder(root, known.get("classes"), known.get("palette"))
    return [
        (
            problem.what.replace(str(root), "DIR"),
            problem.fatal,
            [file.replace(f"{root}/", "") for file in problem.files],
        )
        for problem in report.problems
    ]


def test_a_good_folder_is_described(tmp_path):
    custom_folders.write(
        tmp_path,
        labels=lambda i: np.where(custom_folders.label(i, 4) == 3, 255, custom_folders.label(i, 4)).astype(np.uint8),
    )
    told = []
    report = check_folder(tmp_path, custom_folders.NAMES, progress=lambda *done: told.append(done))
    assert report.ok
    assert (report.images, report.labels, report.pairs) == (6, 6, 6)
    assert report.splits == {"train": 5, "val": 1}
    assert report.modes == {"images": {"RGB": 6}, "labels": {"L": 6}}
    assert report.sizes == {custom_folders.SIZE: 6}
    every = np.stack([custom_folders.label(i, 4) for i in range(6)])
    assert [(v.label, v.name, v.pixels, v.images) for v in report.values] == [
        *((label, name, int((every == label).sum()), 6) for label, name in enumerate(custom_folders.NAMES)),
        (255, "void", int((every == 3).sum()), 6),
    ]
    assert report.void == (every == 3).mean()
    assert sum(v.share for v in report.values) == pytest.approx(1)
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert found(tmp_path, classes=custom_folders.NAMES) == []


def test_masks_of_0_and_255_get_words_of_their_own(tmp_path):
    custom_folders.write(tmp_path, labels=custom_folders.mask)
    problem = check_folder(tmp_path, ("background", "thing")).problems[0]
    assert problem == Problem(
        "the labels are masks of 0 and 255; 255 is void, so class 0 is the only class",
        "Write 1 for 255; or pass a --palette with the lines `0 0 0 background` and `255 255 255 thing`, which"
        " --write-palette writes.",
    )
    assert [(each.what, each.files) for each in check_folder(tmp_path, ("background", "thing")).problems[1:]] == [
        ("classes occur in no label", ["thing"]),
    ]
    palette = {"background": (0, 0, 0), "thing": (255, 255, 255)}
    assert check_folder(tmp_path, tuple(palette), palette).ok


def test_painted_labels_show_their_colours(tmp_path):
    custom_folders.write(tmp_path, labels=custom_folders.paint)
    report = check_folder(tmp_path, custom_folders.NAMES)
    assert not report.ok
    assert report.problems[0].what == "the labels are colours, not class numbers"
    assert len(report.problems[0].files) == 6
    assert set(report.colours) == {(0, 0, 0), (128, 0, 0), (0, 128, 0)}
    assert sum(report.colours.values()) == 6 * custom_folders.SIZE[0] * custom_folders.SIZE[1]
    with_palette = check_folder(tmp_path, custom_folders.NAMES, color_labels.voc_palette(custom_folders.NAMES))
    assert with_palette.ok
    assert not with_palette.colours


@pytest.mark.parametrize(
    ("labels", "names", "remedy"),
    [
        (
            custom_folders.paint,
            custom_folders.NAMES,
            "They are the colours in which VOC draws its classes: use --palette voc.",
        ),
        (
            custom_folders.paint,
            None,
            "Map colours to classes with --palette; fcn check-data --write-palette writes a template.",
        ),
        (
            lambda i: np.dstack([custom_folders.mask(i)] * 3),
            None,
            (
                "They are black-and-white masks: pass a --palette with the lines `0 0 0 background` and"
                " `255 255 255 thing`, which --write-palette writes."
            ),
        ),
        (
            lambda i: np.random.default_rng(i).integers(0, 256, (*custom_folders.SIZE, 3), np.uint8),
            custom_folders.NAMES,
            "3,600 colours are too many: the labels were smoothed; export them again, without smoothing.",
        ),
    ],
    ids=["VOC's", "unnamed", "black and white", "smoothed"],
)
def test_painted_labels_are_offered_the_palette_that_they_seem_to_have(tmp_path, labels, names, remedy):
    custom_folders.write(tmp_path, labels=labels, names=None)
    (problem,) = check_folder(tmp_path, names).problems
    assert (problem.what, problem.remedy, len(problem.files)) == (label_files.PAINTED, remedy, 6)


def test_a_folder_without_pictures_is_no_matter_of_names(tmp_path):
    custom_folders.write(tmp_path, n=0)
    assert found(tmp_path, classes=custom_folders.NAMES) == [
        ("there is no image in images/", True, []),
        ("there is no image in labels/", True, []),
    ]


def test_a_jpeg_is_no_label(tmp_path):
    custom_folders.write(tmp_path, ending="jpg")
    [(what, fatal, files)] = found(
        tmp_path, classes=custom_folders.NAMES
    )  # and nothing of classes, of which nothing is known
    assert what == "a JPEG cannot hold labels; its compression changes them at every border"
    assert fatal
    assert files == [f"labels/p{i}.jpg" for i in range(6)]


def test_labels_out_of_range_are_named_with_their_files(tmp_path):
    custom_folders.write(tmp_path, labels=lambda i: custom_folders.label(i) * (100 if i == 2 else 1))
    pixels = int((custom_folders.label(2) > 0).sum())
    assert found(tmp_path, classes=custom_folders.NAMES) == [
        (
            "labels are out of range; want 0 to 2, or 255 for void",
            True,
            [f"labels/p2.png (100, 200 in {pixels} pixels)"],
        )
    ]


def test_labels_that_count_from_1_get_words_of_their_own(tmp_path):
    custom_folders.write(tmp_path, labels=lambda i: custom_folders.label(i) + 1)
    assert (
        found(tmp_path, classes=custom_folders.NAMES)[0][0]
        == "the labels count from 1 to 3; class numbers count from 0"
    )


def test_files_without_partner_are_named(tmp_path):
    custom_folders.write(tmp_path)
    (tmp_path / "images/p1.jpg").unlink()
    (tmp_path / "labels/p2.png").unlink()
    assert found(tmp_path, classes=custom_folders.NAMES) == [
        ("images have no label, and are left out", False, ["images/p2.jpg"]),
        ("labels have no image, and are left out", False, ["labels/p1.png"]),
    ]


def test_names_that_do_not_meet_are_shown(tmp_path):
    custom_folders.write(tmp_path, n=2)
    for path in sorted((tmp_path / "labels").iterdir()):
        path.rename(path.with_stem(path.stem + "_x"))
    assert found(tmp_path, classes=custom_folders.NAMES)[0] == (
        "no image has a label with its name",
        True,
        ["images/p0.jpg and " + str(tmp_path / "labels/p0_x.png").replace(f"{tmp_path}/", "")],
    )


def test_lists_are_held_against_the_files(tmp_path):
    custom_folders.write(tmp_path)
    (tmp_path / "train.txt").write_text("p0\np1\np9\n")
    (tmp_path / "val.txt").write_text("p1\np2\n")
    (tmp_path / "labels/p2.png").unlink()
    assert [each for each in found(tmp_path, classes=custom_folders.NAMES) if each[1]] == [
        ("lists name images that do not exist or have no label: DIR/train.txt", True, ["p9 (no image)"]),
        ("lists name images that do not exist or have no label: DIR/val.txt", True, ["p2 (no label)"]),
        ("images are in both the training and the validation split", True, ["p1"]),
    ]


def test_sizes_that_differ_are_shown_and_exif_is_suspected(tmp_path):
    custom_folders.write(tmp_path)
    Image.fromarray(custom_folders.label(0)[:-1]).save(tmp_path / "labels/p0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "images/p1.jpg", exif=exif)
    report = check_folder(tmp_path, custom_folders.NAMES)
    assert [(p.files, p.remedy) for p in report.problems] == [
        (
            [f"{tmp_path}/labels/p0.png (19 x 30, not 20 x 30)"],
            "A label must have its image's size; resize it without smoothing (nearest).",
        ),
        (
            [f"{tmp_path}/labels/p1.png (20 x 30, not 30 x 20)"],
            "The images are rotated by their EXIF tag: save them rotated, or rotate the labels.",
        ),
    ]


def test_broken_files_are_named_each(tmp_path):
    custom_folders.write(tmp_path)
    (tmp_path / "images/p1.jpg").write_bytes(b"abc")
    (tmp_path / "labels/p2.png").write_bytes((tmp_path / "labels/p2.png").read_bytes()[:60])
    assert [(what, files) for what, _, files in found(tmp_path, classes=custom_folders.NAMES)] == [
        ("not an image in a known format", ["images/p1.jpg (a file that begins with b'abc')"]),
        ("the image cannot be decoded (image file is truncated)", ["labels/p2.png"]),
    ]


def test_classes_that_are_rare_or_never_seen_are_named(tmp_path):
    def rare(i):
        labels = np.zeros((200, 20), np.uint8)
        labels[0, 0] = i == 4  # the one to be validated on
        return labels

    custom_folders.write(tmp_path, labels=rare)
    for i in range(6):
        Image.new("RGB", (20, 200)).save(tmp_path / f"images/p{i}.jpg")
    assert found(tmp_path, classes=custom_folders.NAMES) == [
        ("classes occur in no training image", False, ["cat"]),
        ("classes occur in no label", False, ["dog"]),
        ("one class covers nearly all pixels", False, ["background (100.0 %)"]),
    ]


def test_large_pictures_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "MOST_PIXELS", 599)
    custom_folders.write(tmp_path)
    assert found(tmp_path, classes=custom_folders.NAMES) == [("6 images have more than 0 million pixels", False, [])]


def test_without_names_gaps_are_noticed(tmp_path):
    custom_folders.write(tmp_path, labels=lambda i: custom_folders.label(i) * 50)
    assert found(tmp_path) == [
        ("the names of the classes are not defined", True, []),
        ("the labels are not numbered 0, 1, 2 and so on", False, ["0, 50, 100"]),
    ]


def test_labels_of_one_class_cannot_be_learnt(tmp_path):
    custom_folders.write(tmp_path, labels=lambda i: np.zeros(custom_folders.SIZE, np.uint8))
    assert found(tmp_path, classes=custom_folders.NAMES)[0][:2] == (
        "the labels contain only class 0 (background)",
        True,
    )


def test_what_is_called_good_is_what_the_data_set_reads(tmp_path):
    custom_folders.write(tmp_path)
    assert check_folder(tmp_path, custom_folders.NAMES).ok
    for split in folder_files.SPLITS:
        assert all(sample["label"].max() < 3 for sample in folder.Folder(split, tmp_path))
    assert check.MOST_OF_ONE < 1
