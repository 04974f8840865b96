"""Writers of small copies of the published data sets, in their real formats, from a seed.

JPEG and 16-bit PNG images, palette PNG labels with void borders, MAT 5 files. Every writer returns the labels that the
nets' label tops must hold: id -> (H, W) uint8 with 255 for void (``siftflow``: id -> (semantic, geometric)), so that
tests can compute scores without the code under test.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reproduction.caffe.typing import UInt8
from tests.helpers.paths import ROOT

Labels = dict[str, UInt8]
Size = tuple[int, int]

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
RENAMED = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
CLASSES = ROOT / "reproduction" / "fcn" / "datasets" / "classes"


def voc(
    path: Path,
    splits: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    size: Size = (24, 32),
    main: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """Write a VOC year; ``path`` is for example ``.../VOCdevkit/VOC2012``.

    Args:
        path: The year's folder, created if it does not exist.
        splits: Lists of ImageSets/Segmentation; every id in them gets an image and a label.
        seed: Seed of images and labels.
        size: Minimum height and width; each image is a few pixels larger, depending on its id.
        main: Lists of ImageSets/Main (VOC 2010, for PASCAL-Context); every id gets an image.
    """
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "ImageSets/Main"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for name, ids in splits.items():
        write_list(path / "ImageSets" / "Segmentation" / f"{name}.txt", ids)
    for name, ids in (main or {}).items():
        write_list(path / "ImageSets" / "Main" / f"{name}.txt", ids)
    labels = {}
    for image_id in _ids(splits):
        labels[image_id] = _border(regions(image_id, seed, _size(size, image_id), range(21)))
        jpeg(path / "JPEGImages" / f"{image_id}.jpg", picture(image_id, seed, _size(size, image_id)))
        palette_png(path / "SegmentationClass" / f"{image_id}.png", labels[image_id])
    for image_id in _ids(main or {}):
        if image_id not in labels:
            jpeg(path / "JPEGImages" / f"{image_id}.jpg", picture(image_id, seed, _size(size, image_id)))
    return labels


def sbd(
    path: Path, splits: Mapping[str, Sequence[str]], *, seed: int = 0, size: Size = (24, 32), png: bool = False
) -> Labels:
    """Write SBD to its ``dataset`` folder; with ``png``, the labels are those that convert_sbdd.py writes."""
    for folder in ("img", "cls"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for name, ids in splits.items():
        write_list(path / f"{name}.txt", ids)
    labels = {}
    for image_id in _ids(splits):
        labels[image_id] = regions(image_id, seed, _size(size, image_id), range(21))
        jpeg(path / "img" / f"{image_id}.jpg", picture(image_id, seed, _size(size, image_id)))
        if png:
            palette_png(path / "cls" / f"{image_id}.png", labels[image_id])
        else:
            _sbd_mat(path / "cls" / f"{image_id}.mat", labels[image_id])
    return labels


def nyud(path: Path, splits: Mapping[str, Sequence[str]], *, seed: int = 0, size: Size = (24, 32)) -> Labels:
    """Write NYUDv2 in Berkeley's format: color, depth in millimetres, HHA and labels of 40 classes."""
    for folder in ("data/images", "data/depth", "data/hha", "segmentation"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for name, ids in splits.items():
        write_list(path / f"{name}.txt", ids)
    labels = {}
    for image_id in _ids(splits):
        raw = _border(regions(image_id, seed, _size(size, image_id), range(41)), 0)
        depth = 600 + 31 * picture(image_id + "depth", seed, _size(size, image_id))[..., 0].astype(np.uint16)
        Image.fromarray(picture(image_id, seed, _size(size, image_id))).save(
            path / "data" / "images" / f"img_{image_id}.png"
        )
        Image.fromarray(depth).save(path / "data" / "depth" / f"img_{image_id}.png")
        Image.fromarray(picture(image_id + "hha", seed, _size(size, image_id))).save(
            path / "data" / "hha" / f"img_{image_id}.png"
        )
        mat(path / "segmentation" / f"img_{image_id}.mat", {"segmentation": raw.astype(np.uint16)})
        labels[image_id] = np.where(raw == 0, 255, raw - 1).astype(np.uint8)
    return labels


def siftflow(
    path: Path, splits: Mapping[str, Sequence[str]], *, seed: int = 0, size: Size = (24, 24)
) -> dict[str, tuple[UInt8, UInt8]]:
    """Write SIFT Flow; the classes absent from the published test split are absent here too."""
    present = [k for k in range(34) if k not in (9, 11, 16)]
    for folder in ("Images", "SemanticLabels", "GeoLabels"):
        (path / folder / SCENES).mkdir(parents=True, exist_ok=True)
    for name, ids in splits.items():
        write_list(path / f"{name}.txt", ids)
    labels = {}
    for image_id in _ids(splits):
        sem = regions(image_id, seed, _size(size, image_id), present)
        geo = regions(image_id + "geo", seed, _size(size, image_id), range(4)).astype(np.int16)
        geo[geo == 0] = -1
        jpeg(path / "Images" / SCENES / f"{image_id}.jpg", picture(image_id, seed, _size(size, image_id)))
        names = np.array(["awning", "balcony"], dtype=object)
        mat(path / "SemanticLabels" / SCENES / f"{image_id}.mat", {"S": sem, "names": names})
        mat(path / "GeoLabels" / SCENES / f"{image_id}.mat", {"S": geo, "names": names})
        labels[image_id] = (
            np.where(sem == 0, 255, sem.astype(int) - 1).astype(np.uint8),
            np.where(geo < 1, 255, geo - 1).astype(np.uint8),
        )
    return labels


def context(path: Path, ids: Iterable[str], *, seed: int = 0, size: Size = (24, 32), names: bool = True) -> Labels:
    """Write PASCAL-Context's annotations; its images are those of VOC 2010, see ``main`` of ``voc``.

    The sizes match those of ``voc(..., main={...: ids})`` with the same ``size``.
    """
    (path / "trainval").mkdir(parents=True, exist_ok=True)
    full = (CLASSES / "pascalcontext-459.txt").read_text().splitlines()
    task = [RENAMED.get(name, name) for name in (CLASSES / "pascalcontext.txt").read_text().splitlines()[1:]]
    if names:
        (path / "labels.txt").write_text("".join(f"{i}: {name}\n" for i, name in enumerate(full, 1)))
        (path / "59_labels.txt").write_text("".join(f"{i}: {name}\n" for i, name in enumerate(task, 1)) + "\n")
    numbers = [full.index(name) + 1 for name in task]
    labels = {}
    for image_id in ids:
        # Half of the values are the 59 classes; the others are from all 459, and most of them become background.
        raw = np.array([*numbers, *range(1, 460, 8), 0])[
            regions(image_id, seed, _size(size, image_id), range(59 + 58 + 1))
        ]
        mat(path / "trainval" / f"{image_id}.mat", {"LabelMap": raw.astype(np.uint16)})
        labels[image_id] = np.zeros(raw.shape, np.uint8)
        for k, number in enumerate(numbers, 1):
            labels[image_id][raw == number] = k
    return labels


def pack(folder: Path, archive: Path) -> Path:
    """Pack the content of ``folder`` as .tar, .tar.gz, .tgz or .zip, by the archive's suffix."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for path in files:
                out.write(path, path.relative_to(folder).as_posix())
        return archive
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as out:
        for path in files:
            out.add(path, path.relative_to(folder).as_posix())
    return archive


def write_list(path: Path, ids: Iterable[str]) -> None:
    """Write a split with one id per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image_id}\n" for image_id in ids))


def picture(image_id: str, seed: int, size: Size) -> UInt8:
    """Return a smooth image with a little noise, (H, W, 3) uint8."""
    rng = _rng(image_id, seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return np.clip(smooth.astype(int) + rng.integers(-9, 10, (*size, 3)), 0, 255).astype(np.uint8)


def regions(image_id: str, seed: int, size: Size, values: Sequence[int]) -> UInt8:
    """Return a label map, (H, W) uint8: rectangles of some of the values on a background of the first value."""
    rng = _rng(image_id + "label", seed)
    labels = np.full(size, values[0], np.uint8)
    for value in rng.choice(np.array(values), 6):
        top, left = (int(rng.integers(0, n - 4)) for n in size)
        height, width = (int(rng.integers(4, n // 2 + 2)) for n in size)
        labels[top : top + height, left : left + width] = value
    return labels


def jpeg(path: Path, rgb: UInt8) -> None:
    """Write a JPEG as cameras do, with chroma at half the resolution."""
    Image.fromarray(rgb).save(path, quality=90, subsampling=2)


def palette_png(path: Path, labels: UInt8) -> None:
    """Write an indexed PNG with VOC's colours."""
    colours = np.zeros((256, 3), np.uint8)
    for label in range(256):
        for bit in range(8):
            colours[label, bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    image = Image.fromarray(labels)
    image.putpalette(colours.tobytes())
    image.save(path)


def mat(path: Path, variables: Mapping[str, object]) -> None:
    """Write a compressed MAT 5 file, as MATLAB's ``save`` does."""
    import scipy.io

    scipy.io.savemat(path, dict(variables), do_compression=True)


def _sbd_mat(path: Path, labels: UInt8) -> None:
    import scipy.sparse

    present = np.array([k for k in np.unique(labels) if k])
    boundaries = np.empty((20, 1), object)
    for k in range(20):
        edge = np.zeros(labels.shape, bool)
        edge[:, 1:] = (labels[:, 1:] == k + 1) != (labels[:, :-1] == k + 1)
        boundaries[k, 0] = scipy.sparse.csc_matrix(edge)
    mat(path, {"GTcls": {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": present}})


def _border(labels: UInt8, void: int = 255) -> UInt8:
    """Set pixels to void at the borders of regions, as VOC does, and at the border of the image."""
    edge = np.ones(labels.shape, bool)
    edge[1:-1, 1:-1] = (labels[1:-1, 1:-1] != labels[1:-1, 2:]) | (labels[1:-1, 1:-1] != labels[2:, 1:-1])
    return np.where(edge, np.uint8(void), labels)


def _ids(splits: Mapping[str, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(image_id for ids in splits.values() for image_id in ids))


def _size(size: Size, image_id: str) -> Size:
    odd = zlib.crc32(image_id.encode())
    return size[0] + 2 * (odd % 3), size[1] + 3 * (odd // 3 % 2)


def _rng(image_id: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(image_id.encode())])
