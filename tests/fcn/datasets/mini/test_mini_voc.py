"""Mini-VOC: the same images on every machine, in the layouts of the real data sets."""

import hashlib
import multiprocessing

import numpy as np
import pytest
import scipy.io
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.caffe.schema import Phase
from reproduction.fcn import datasets
from reproduction.fcn.datasets import layouts, voc
from reproduction.fcn.datasets.mini import mini_voc, scenes
from reproduction.fcn.datasets.mini.objects import DRAWERS, DrawnObject
from reproduction.fcn.images import palette
from reproduction.fcn.nets import mini_nets, net_files
from reproduction.fcn.train.image_list import ImageList
from tests.helpers.small_mini_voc import shrink

SEEDED = np.random.RandomState


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        mini_voc.generate(root)
    return root


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


# The trees


@pytest.mark.parametrize(
    ("name", "split", "count"), [("mini", "val", 3), ("mini", "train", 2), ("mini-sbd", "train", 4)]
)
def test_every_sample_keeps_the_contract(root, name, split, count):
    dataset = datasets.open_split(name, split, root)
    assert (len(dataset), dataset.missing()) == (count, [])
    assert (
        dataset.classes == mini_voc.CLASSES == ("background", "beetle", "fish", "flower", "jellyfish", "kite", "wheel")
    )
    assert dataset.label_classes == {"label": mini_voc.CLASSES}
    for i in range(count):
        sample = datasets.check_sample(dataset, i)
        _, height, width = sample["data"].shape
        assert mini_voc.HEIGHTS[0] <= height <= mini_voc.HEIGHTS[1]
        assert mini_voc.WIDTHS[0] <= width <= mini_voc.WIDTHS[1]


def test_what_is_learned_from_is_not_scored(root):
    train, val = datasets.open_split("mini-sbd", "train", root), datasets.open_split("mini", "val", root)
    assert not set(train.ids) & set(val.ids)
    assert val.overlap() == []
    assert val.training_ids() == set(train.ids)
    assert datasets.open_split("mini", "train", root).overlap() == train.ids[:2]


def test_the_folder_is_a_data_root_in_the_layouts_of_the_real_data_sets(root):
    for name, split in (("voc", "val"), ("voc2011", "seg11valid")):
        dataset = datasets.open_split(name, split, root / "mini")
        assert dataset.ids == datasets.open_split("mini", "val", root).ids
        assert dataset.classes == mini_voc.CLASSES
    assert datasets.open_split("sbd", "val", root / "mini").ids == dataset.ids


def test_the_data_layers_of_the_mini_nets_read_it(root):
    for row in mini_nets.NETS.values():
        for split, want in zip(row.data_layers, (("mini-sbd", "train"), ("mini", "val")), strict=True):
            layer = net_files.build_net(row, split).layer[0]
            dataset = datasets.from_layer(layer.python_param, layer.top, root)
            assert dataset.classes == mini_voc.CLASSES
            assert mini_voc.digest(dataset) == mini_voc.digest(datasets.open_split(*want, root))


def test_void_runs_along_the_edges_and_nowhere_else(root):
    for image_id in datasets.open_split("mini", "train", root).ids:
        voc = np.array(Image.open(root / f"mini/pascal/VOC2011/SegmentationClass/{image_id}.png"))
        sbd = scipy.io.loadmat(root / f"mini/sbdd/dataset/cls/{image_id}.mat")["GTcls"][0, 0]["Segmentation"]
        void = voc == 255
        assert np.array_equal(voc[~void], sbd[~void])
        edge = np.zeros(sbd.shape, bool)
        for axis in (0, 1):
            other = np.diff(np.pad(sbd.astype(int), 1, mode="edge"), axis=axis) != 0
            both = other.take(range(1, other.shape[axis]), axis) | other.take(range(other.shape[axis] - 1), axis)
            edge |= both[:, 1:-1] if axis == 0 else both[1:-1]
        # Where a thing covers half a pixel the label changes beside it; things of one class meet without a change.
        assert (void & edge).sum() > 0.8 * void.sum()
        assert 0.02 < void.mean() < 0.2


def test_labels_are_palette_pictures_in_vocs_colours(root):
    path = next((root / "mini/pascal/VOC2011/SegmentationClass").iterdir())
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette() == palette.voc_colours().ravel().tolist()


def test_label_files_say_what_sbds_say(root):
    path = next((root / "mini/sbdd/dataset/cls").iterdir())
    content = scipy.io.loadmat(path)["GTcls"][0, 0]
    labels = content["Segmentation"]
    assert labels.dtype == np.uint8
    assert content["CategoriesPresent"].ravel().tolist() == [k for k in np.unique(labels) if k]
    boundaries = content["Boundaries"]
    assert boundaries.shape == (6, 1)
    for k in range(6):
        edge = boundaries[k, 0].toarray().astype(bool)
        assert edge.any() == (labels == k + 1).any()
        assert (labels[edge] == k + 1).all()


# Single things


def test_the_classifiers_layers_read_the_single_things(root):
    for split, phase in (("train", Phase.TRAIN), ("val", Phase.TEST)):
        layer = mini_nets.build_classifier(split).layer[0]
        layer.image_data_param.batch_size = 5
        images = ImageList(layer, root, phase)
        assert images.shapes == {"data": (5, 3, mini_nets.CROP, mini_nets.CROP), "label": (5,)}
        assert [label for _, label in images.entries][:8] == [0, 1, 2, 3, 4, 5, 6, 0][: len(images.entries)]
        assert len(images) == 2


def test_a_thing_is_whole_and_alone():
    for label in range(1, 7):
        drawn = mini_voc._object(SEEDED(label), label)
        assert drawn.rgb.shape == (mini_voc.OBJECT_SIZE, mini_voc.OBJECT_SIZE, 3)
        assert set(np.unique(drawn.labels)) == {0, label}
        assert not drawn.labels[0].any()
        assert 0.02 < (drawn.labels > 0).mean() < 0.6


# The same everywhere


RECORDED = {
    "scene": "ed33574c7c0fc9082b93fcb2cb838a337db52d90a94988b6faf620c6f5669cc3",
    "object": "2b854fbc00fcaabada4cda5e5ecfb27bf37eae394b8b3a8a27fd6ab29153f1bd",
}
RECORDED_VAL = "6a31595ded0f4279e93271418109773564b14c37489d1b9cd8bdb12a3441efe1"  # of the first three pictures


@pytest.mark.parametrize("name", RECORDED)
def test_the_pixels_are_those_that_were_recorded(name):
    drawn = {
        "scene": mini_voc._scene(SEEDED([mini_voc.DRAWING_SEED, 1, 0])),
        "object": mini_voc._object(SEEDED([mini_voc.DRAWING_SEED, 2, 1]), 1),
    }
    assert pixels(drawn[name]) == RECORDED[name]


def pixels(drawn: scenes.Scene) -> str:
    return hashlib.sha256(drawn.rgb.tobytes() + drawn.labels.tobytes() + drawn.void.tobytes()).hexdigest()


def test_files_hold_the_pixels_that_were_drawn(root):
    """Within JPEG's error, and with no more of it than quality 95 makes."""
    dataset = datasets.open_split("mini", "val", root)
    drawn = mini_voc._scene(SEEDED([mini_voc.DRAWING_SEED, 1, 0]))
    rgb = dataset[0]["data"][::-1].transpose(1, 2, 0) + np.array(voc.MEAN_BGR)[::-1]
    error = np.abs(rgb - drawn.rgb)
    assert error.mean() < 2.5
    assert np.array_equal(dataset[0]["label"][0], np.where(drawn.void, 255, drawn.labels))


def test_files_are_read_as_the_pixels_that_were_recorded(root):
    """What nets are scored on goes through JPEG: if another codec gave other pixels, the scores would be others too."""
    assert mini_voc.digest(datasets.open_split("mini", "val", root)) == RECORDED_VAL


def test_two_drawings_are_the_same_and_another_seed_is_another(root, small, tmp_path):
    again = mini_voc.generate(tmp_path / "again")
    other = mini_voc.generate(tmp_path / "other", seed=7)
    first = mini_voc.digest(datasets.open_split("mini", "val", root))
    assert mini_voc.digest(datasets.open_split("mini", "val", again.parent)) == first
    assert mini_voc.digest(datasets.open_split("mini", "val", other.parent)) != first
    for name in ("SegmentationClass", "JPEGImages"):
        for path in (again / "pascal/VOC2011" / name).iterdir():
            assert path.read_bytes() == (root / "mini/pascal/VOC2011" / name / path.name).read_bytes()


def test_what_is_there_is_left_as_it_is(root, small):
    before = {path: path.stat().st_mtime_ns for path in (root / "mini").rglob("*")}
    assert mini_voc.generate(root) == root / "mini"
    assert {path: path.stat().st_mtime_ns for path in (root / "mini").rglob("*")} == before


def test_another_folder_of_this_name_is_not_touched(tmp_path):
    mine = tmp_path / "mini" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError) as error:
        mini_voc.generate(tmp_path)
    assert str(error.value) == (f"{tmp_path}/mini: the folder contains something else; want Mini-VOC. Delete it.")
    assert mine.read_text() == "mine"


def test_the_drawing_of_another_version_is_replaced(small, tmp_path, monkeypatch):
    place = mini_voc.generate(tmp_path, seed=7)
    before = mini_voc.digest(datasets.open_split("mini", "val", tmp_path))
    mini_voc.generate(tmp_path)
    assert mini_voc.digest(datasets.open_split("mini", "val", tmp_path)) != before
    monkeypatch.setattr(mini_voc, "_VERSION", "Mini-VOC, drawing 0")
    mini_voc.generate(tmp_path)
    assert (place / "about.txt").read_text().startswith(f"Mini-VOC, drawing 0, seed {mini_voc.DRAWING_SEED}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]


@pytest.mark.parametrize("harm", ["lost", "changed", "added"])
def test_a_drawing_whose_files_are_not_as_drawn_is_not_used(small, tmp_path, harm):
    place = mini_voc.generate(tmp_path)
    picture = next((place / "pascal/VOC2011/JPEGImages").iterdir())
    if harm == "lost":
        picture.unlink()
    elif harm == "changed":
        picture.write_bytes(picture.read_bytes()[:-1] + b"\0")
    else:
        (picture.parent / "another.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        mini_voc.generate(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/mini: files of this drawing are lost or changed. Delete the folder to have it drawn again."
    )


def test_a_drawing_that_is_interrupted_leaves_nothing(small, tmp_path):
    def stop(done: int, total: int | None) -> None:
        assert total == 22
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mini_voc.generate(tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


def drawn(folder, queue):
    queue.put(mini_voc.generate(folder).name)


def test_a_second_process_waits_for_the_drawing_of_the_first(small, tmp_path):
    left = tmp_path / ".mini.drawing"  # of a process that was killed
    (left / "new").mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=drawn, args=(tmp_path, queue)) for _ in range(2)]
    for process in both:
        process.start()
    assert [queue.get() for _ in both] == ["mini", "mini"]
    for process in both:
        process.join()
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]
    assert mini_voc.generate(tmp_path) == tmp_path / "mini"


# The drawings


@pytest.mark.parametrize("name", DRAWERS)
def test_a_thing_fits_its_patch_and_has_fine_parts(name):
    for seed in range(5):
        drawn = DrawnObject(40, 0.3 + seed, seed % 2 == 1, (1, 0))
        DRAWERS[name](drawn, SEEDED(seed))
        alpha = drawn.alpha
        assert alpha.shape == drawn.distance.shape == drawn.rgb.shape[1:]
        assert np.isfinite(drawn.rgb).all()
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert border.max() == 0
        inside = alpha > 0.5
        deep = drawn.distance < -3
        # Some of every object is within three pixels of its edge: a net of stride 32 cannot draw that.
        assert deep.sum() < 0.9 * inside.sum()
        assert 0.08 < inside.mean() < 0.8


@pytest.mark.parametrize("ground", scenes.GROUNDS, ids=lambda ground: ground.__name__)
def test_a_ground_fills_any_picture_with_colours(ground):
    for height, width in ((1, 1), (33, 200), (176, 208)):
        colours = ground(SEEDED(1), height, width)
        assert colours.shape == (3, height, width)
        assert -0.5 < colours.min() <= colours.max() < 2


# Names of classes


def test_a_tree_names_its_classes(tmp_path):
    listed = tmp_path / "classes.txt"
    listed.write_text("\ufeffbackground \r\nold boot\n\n\n", encoding="utf-8", newline="")
    assert layouts.read_class_names(listed) == ("background", "old boot")


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (b"", "no name"),
        (b" \n\n", "no name"),
        (b"background\nfish\nfish \n", "'fish' again on line 3"),
        (b"background\n \nfish\n", "a blank on line 2"),
        (b"".join(b"%d\n" % i for i in range(256)), "256 names"),
    ],
)
def test_what_is_no_list_of_classes_is_an_error(tmp_path, text, got):
    listed = tmp_path / "classes.txt"
    listed.write_bytes(text)
    with pytest.raises(DataError) as error:
        layouts.read_class_names(listed)
    want = "want one name a line, at most 255, none twice."
    assert str(error.value) == f"{listed}: not a list of classes; got {got}, {want}"
    with pytest.raises(DataError) as error:
        layouts.read_class_names("cat,dog")
    reason = "the names of the classes cannot be read (no such file or directory)"
    assert str(error.value) == f"cat,dog: {reason}; want a file, one name a line, at most 255, none twice."


def test_a_list_of_classes_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a text file; got byte 0xff at 0, want one name a line"):
        layouts.read_class_names(tmp_path / "classes.txt")


def test_labels_are_held_against_the_classes_of_their_tree(root, small, tmp_path):
    place = mini_voc.generate(tmp_path)
    (place / "pascal/VOC2011/classes.txt").write_text("background\nbeetle\n")
    dataset = datasets.open_split("mini", "val", tmp_path)
    assert dataset.classes == ("background", "beetle")
    with pytest.raises(DataError, match=r"labels out of range; got .* want 0 to 1 or 255 for void\.$"):
        list(dataset)
