"""Mini-VOC: a small data set of drawn images, in the file formats of VOC and SBD.

``generate`` writes a VOC tree with palette PNGs and void borders, an SBD tree with MAT files, and images of single
objects to train a classifier on. Code that reads VOC and SBD reads these unchanged: the class names come from the
``classes.txt`` of each tree.

    mini/pascal/VOC2011/     JPEGImages/, SegmentationClass/, ImageSets/Segmentation/{train,val,trainval}.txt
    mini/sbdd/dataset/       img/, cls/, train.txt, val.txt
    mini/objects/            images/, train.txt, val.txt: lines ``path label``, as ImageData layers read them
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, StrPath, cannot_write
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Progress, UInt8
from reproduction.fcn.datasets import voc
from reproduction.fcn.datasets.base import VOID, Dataset, Tops, load_class_names
from reproduction.fcn.datasets.mini.objects import DRAWERS, Random
from reproduction.fcn.datasets.mini.scenes import Scene, draw_scene
from reproduction.fcn.datasets.spec import DataLayer, DatasetSpec, PublishedNet
from reproduction.fcn.datasets.voc import SBD, VOC
from reproduction.fcn.images import palette

#: Class names; the index is the label.
CLASSES = ("background", *DRAWERS)

_CLASSES = {"label": load_class_names("mini")}

FOLDER = "mini"  # relative to the data root
DRAWING_SEED = 2015
TRAIN, VAL = 400, 80  # number of scenes, with several objects each
OBJECTS = {"train": 840, "val": 84}  # number of images with one object, or with background only
OBJECT_SIZE = 112  # height and width of these, in pixels
HEIGHTS, WIDTHS = (176, 208), (208, 240)  # ranges of the scenes' sizes, in pixels
RADII, OBJECT_RADII = (24.0, 64.0), (24.0, 52.0)  # ranges of the objects' radii, in pixels
IN_BOTH = 20  # training scenes that are also in VOC's train split, with void borders

_TITLE = "Mini-VOC"
_VERSION = f"{_TITLE}, drawing 2"
_ABOUT = "about.txt"  # version and seed, and the hash of all files
_VOC, _SBD, _OBJECTS = "pascal/VOC2011", "sbdd/dataset", "objects"


def generate(root: StrPath, *, seed: int = DRAWING_SEED, progress: Progress | None = None) -> Path:
    """Draw the data set's images into ``root/mini``, in about twenty seconds; an existing drawing is checked and kept.

    The folder appears when it is complete. A drawing of another version or seed is replaced. If another process is
    drawing there, this one waits for it.

    Args:
        root: The data root.
        seed: Seed of the random numbers.
        progress: Called with the number of images drawn and their total.

    Returns:
        The path ``root/mini``, which is itself a data root with the layouts of the real data sets.

    Raises:
        DataError: If the folder contains something else, or files of the drawing are lost or changed.
        ReproductionError: If the folder cannot be written.
    """
    place, about = Path(root) / FOLDER, f"{_VERSION}, seed {seed}"
    if _drawn(place) == about:
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with (
            locks.lock_path(place, "another process is drawing here", wait=True),
            files.staging_folder(place, "drawing") as work,
        ):
            if (found := _drawn(place)) == about:  # by another process
                return place
            new = work / "new"
            _draw(new, seed, progress or (lambda done, total: None))
            (new / _ABOUT).write_text(f"{about}\n{_content(new)}\n")
            if found:
                place.rename(work / "old")
            new.rename(place)
    except OSError as error:
        raise cannot_write(error, place) from None
    return place


def _drawn(place: Path) -> str | None:
    """Return the version and seed of the drawing in a folder, or None if the folder does not exist.

    Raises:
        DataError: If the folder contains something else, or files of the drawing are lost or changed.
    """
    if not place.exists():
        return None
    about = place / _ABOUT
    lines = files.read_regular(about, 1 << 20).decode(errors="replace").splitlines() if about.is_file() else []
    if len(lines) != 2 or not lines[0].startswith(_TITLE):
        raise DataError("the folder contains something else", path=place, want=_TITLE, remedy="Delete it.")
    if lines[1] != _content(place):
        raise DataError(
            "files of this drawing are lost or changed", path=place, remedy="Delete the folder to have it drawn again."
        )
    return lines[0]


def _content(place: Path) -> str:
    """Return the SHA-256 of a drawing's files, over their paths and bytes."""
    total = hashlib.sha256()
    for path in sorted(path for path in place.rglob("*") if path.is_file() and path.name != _ABOUT):
        data = path.read_bytes()
        total.update(f"{path.relative_to(place).as_posix()} {len(data)}\n".encode() + data)
    return total.hexdigest()


def _draw(place: Path, seed: int, progress: Progress) -> None:
    for folder in (
        *(f"{_VOC}/{name}" for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")),
        *(f"{_SBD}/{name}" for name in ("img", "cls")),
        f"{_OBJECTS}/images",
    ):
        (place / folder).mkdir(parents=True)
    total, done = TRAIN + VAL + sum(OBJECTS.values()), 0
    ids = [f"{seed}_{number:06d}" for number in range(1, TRAIN + VAL + 1)]
    splits = {"train": ids[:TRAIN], "val": ids[TRAIN:]}
    # Each image has a separate generator, so it does not depend on the images before it.
    for stream, (split, names) in enumerate(splits.items()):
        for i, image_id in enumerate(names):
            _write_scene(place, image_id, _scene(Random([seed, stream, i])), in_voc=split == "val" or i < IN_BOTH)
            progress(done := done + 1, total)
    both = {"train": ids[:IN_BOTH], "val": ids[TRAIN:], "trainval": [*ids[:IN_BOTH], *ids[TRAIN:]]}
    for folder, lists in ((f"{_VOC}/ImageSets/Segmentation", both), (_SBD, splits)):
        for split, names in lists.items():
            _write_lines(place / folder / f"{split}.txt", names)
    for stream, (split, count) in enumerate(OBJECTS.items(), 2):
        lines = []
        for i in range(count):
            label = i % len(CLASSES)
            lines.append(f"images/{split}_{i:04d}.jpg {label}")
            drawn = _object(Random([seed, stream, i]), label)
            _write_jpeg(place / _OBJECTS / lines[-1].split()[0], drawn.rgb)
            progress(done := done + 1, total)
        _write_lines(place / _OBJECTS / f"{split}.txt", lines)
    for tree in (_VOC, _SBD, _OBJECTS):
        _write_lines(place / tree / "classes.txt", CLASSES)


def draw_scenes(count: int, seed: int = DRAWING_SEED) -> list[Scene]:
    """Draw the first scenes of the split ``val`` in memory, as they are before JPEG compresses them.

    Args:
        count: The number of scenes.
        seed: Seed of the random numbers, as that of ``generate``.
    """
    return [_scene(Random([seed, 1, i])) for i in range(count)]


def _scene(rng: Random) -> Scene:
    height, width = (rng.randint(low, high + 1) for low, high in (HEIGHTS, WIDTHS))
    kinds = rng.randint(1, len(CLASSES), rng.randint(4, 9))
    return draw_scene(rng, height, width, kinds.tolist(), RADII, 0.7)


def _object(rng: Random, label: int) -> Scene:
    return draw_scene(rng, OBJECT_SIZE, OBJECT_SIZE, [label] if label else [], OBJECT_RADII, 2.0)


def _write_scene(place: Path, image_id: str, drawn: Scene, *, in_voc: bool) -> None:
    """Write a scene into SBD and, if ``in_voc``, into VOC too, since most real SBD images are in both."""
    _write_jpeg(place / _SBD / "img" / f"{image_id}.jpg", drawn.rgb)
    _write_mat(place / _SBD / "cls" / f"{image_id}.mat", drawn.labels)
    if in_voc:
        _write_jpeg(place / _VOC / "JPEGImages" / f"{image_id}.jpg", drawn.rgb)
        labels = np.where(drawn.void, np.uint8(VOID), drawn.labels)
        palette.write_png(labels, place / _VOC / "SegmentationClass" / f"{image_id}.png")


def _write_jpeg(path: Path, rgb: UInt8) -> None:
    # Without chroma subsampling: its upsampling is the one step in which JPEG decoders differ.
    Image.fromarray(rgb).save(path, quality=95, subsampling=0)


def _write_mat(path: Path, labels: UInt8) -> None:
    """Write labels as SBD does: the label map, the classes in it, and the boundaries of each class."""
    import scipy.io
    import scipy.sparse

    boundaries = np.empty((len(CLASSES) - 1, 1), object)
    for k in range(len(CLASSES) - 1):
        # A boundary pixel of the class has a 4-neighbour outside it; the image border does not count.
        mine = np.pad(labels == k + 1, 1, mode="edge")
        edge = mine[1:-1, 1:-1] & ~(mine[:-2, 1:-1] & mine[2:, 1:-1] & mine[1:-1, :-2] & mine[1:-1, 2:])
        boundaries[k, 0] = scipy.sparse.csc_matrix(edge)
    present = np.array([k for k in np.unique(labels) if k], np.uint8)[:, None]
    content = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": present}
    scipy.io.savemat(path, {"GTcls": content}, do_compression=True)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


class Mini(VOC):
    """The scenes of Mini-VOC to score on, in VOC's format, see ``VOC``.

    Args:
        split: ``val``; or ``train``, which has only a few of the training scenes, or ``trainval``, which is both.
        root: The data root; the data set is in its folder ``mini``.
        tops: Mapping from top to kind; None for every kind, under its name.
        params: Further arguments of ``VOC``.
    """

    name = "mini"
    kind_classes = _CLASSES

    def __init__(self, split: str, root: StrPath, tops: Tops | None = None, **params: Any):
        super().__init__(split, Path(root) / FOLDER, tops, **params)


class MiniSBD(SBD):
    """The scenes of Mini-VOC to train on, in SBD's format, see ``SBD``.

    Args:
        split: ``train``; ``val`` has the images of ``Mini``'s val, with labels without void.
        root: The data root; the data set is in its folder ``mini``.
        tops: Mapping from top to kind; None for every kind, under its name.
        params: Further arguments of ``SBD``.
    """

    name = "mini-sbd"
    kind_classes = _CLASSES

    def __init__(self, split: str, root: StrPath, tops: Tops | None = None, **params: Any):
        super().__init__(split, Path(root) / FOLDER, tops, **params)


def digest(dataset: Dataset) -> str:
    """Return a SHA-256 over the ids and preprocessed samples of a split, to compare drawings of different machines."""
    total = hashlib.sha256()
    for image_id, sample in zip(dataset.ids, dataset, strict=True):
        total.update(f"{image_id} {[(top, array.shape, array.dtype.str) for top, array in sample.items()]}".encode())
        for array in sample.values():
            total.update(array.tobytes())
    return total.hexdigest()


def adam_fields(max_iter: int) -> dict[str, Any]:
    """Return the fields of Mini-VOC's solvers, Adam with a learning rate that drops twice, by name.

    The drops reduce the influence of the last batches. The published solver (SGD on a loss summed over the pixels)
    needs a hundred thousand iterations: on mini-fcn32s it reached 11 % mean IU after 500 iterations, and 16 % after
    2,500 with the best learning rate tried, where Adam reached 32 % after 500.

    Args:
        max_iter: The number of iterations.
    """
    return {
        "type": "Adam",
        "lr_policy": "multistep",
        "gamma": 0.2,
        "momentum": 0.9,
        "momentum2": 0.999,
        "max_iter": max_iter,
        "stepvalue": [max_iter * 3 // 4, max_iter * 11 // 12],
        "snapshot": max_iter // 2,
    }


SPEC = DatasetSpec(
    name="mini",
    title=_TITLE,
    classes=_CLASSES,
    means=voc.SPEC.means,
    datasets=(Mini, MiniSBD),
    layouts={},
    module="voc_layers",
    folders={"sbdd_dir": f"{FOLDER}/sbdd/dataset", "voc_dir": f"{FOLDER}/pascal/VOC2011"},
    train=DataLayer("train", "train", SBD, voc.SPEC.train.keys),
    test=DataLayer("val", "val", VOC, voc.SPEC.test.keys),
    test_iter=VAL,
    max_iter=4000,
    snapshot=1000,
    least_rise_points=2,
    knows="drawn things only, no photographs",
    draw=lambda root, progress: generate(root, progress=progress),
)


def _net(name: str, stride: int, parent: str, base_lr: float, max_iter: int) -> PublishedNet:
    """Return a narrow copy of a net of VOC."""
    return PublishedNet(
        name,
        SPEC,
        stride,
        base_lr,
        f"mini/{name}.caffemodel",
        {parent: ""},
        blocks=((8, 2), (16, 2), (32, 3), (48, 3), (48, 3)),
        width=96,
        dropout=0.1,
        data="../../data",
        solver=adam_fields(max_iter),
    )


NETS = (  # in the order of training
    _net("mini-fcn32s", 32, "mini-vgg", 5e-4, 2400),
    _net("mini-fcn16s", 16, "mini-fcn32s", 3e-4, 1000),
    _net("mini-fcn8s", 8, "mini-fcn16s", 2e-4, 1000),
)
