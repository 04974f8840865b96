#!/usr/bin/env python3
"""Segment images with a net: label map, overlay, and a legend with the share of each class.

    tools/infer.py photo.jpg                                  with voc-fcn8s, into segmented/
    tools/infer.py drawn.jpg --net mini-fcn8s                 with a net that comes with this project
    tools/infer.py photo.jpg --net runs/voc-fcn8s             with a net that tools/train.py --data trained
    tools/infer.py --net siftflow-fcn8s holiday/ 'more/*.tif' -o out
    tools/infer.py --net nyud-fcn32s-color-hha rooms/ --hha hha/

For photo.jpg the tool writes photo.png (a palette image whose pixels are the class indices, as in PASCAL VOC),
photo_overlay.png (the classes over the photo) and photo_legend.png; with --scores, also photo_scores.npz. Images may
have any size, and be grey, 16-bit, CMYK or transparent; the rotation that a camera recorded is applied.
"""

from __future__ import annotations

import argparse
import glob
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import (
    WEIGHTS,
    Bars,
    add_device,
    add_max_pixels,
    add_precision,
    compiled,
    fail,
    note,
    precision,
    run,
    say,
    say_json,
)

import numpy as np
from PIL import Image

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import files, image_files
from reproduction.caffe.typing import Array
from reproduction.fcn.images import decode, palette
from reproduction.fcn.segment.card import Card
from reproduction.fcn.segment.segmenter import Segmentation, Segmenter, find_card

COMPANIONS = {"depth": "depth pictures (16-bit millimetres)", "hha": "HHA pictures (disparity, height, angle)"}


def main() -> int:
    """Segment every image; return 1 if one of them failed, else 0."""
    args = _parser().parse_args()
    about = find_card(args.net)
    jobs = list(dict.fromkeys(collect(args.images, args.output)))
    check(jobs, about, args)
    if about.knows:
        note(f"note: {about.net} knows {about.knows}; what it finds elsewhere means nothing.")
    segmenter = Segmenter.load(args.net, args.weights, folder=WEIGHTS, device=args.device)
    segmenter.scorer = compiled(segmenter.net, precision(args))
    done: list[dict[str, Any]] = []
    failed = 0
    with Bars() as bars:
        move = bars("pictures", "picture")
        for n, job in enumerate(jobs, 1):
            try:
                done.append(segment(segmenter, job, args))
            except ReproductionError as error:
                failed += 1
                bars.close()
                fail(error if error.place else error.at(str(job.picture)))
                continue
            if args.json:
                move(n, len(jobs))
            else:
                show(done[-1])
    if args.json:
        say_json(done)
    if failed and len(jobs) > 1:
        fail(f"{failed} of {len(jobs)} pictures could not be segmented.")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, folders of pictures, or patterns")
    parser.add_argument("--net", default="voc-fcn8s", help="a net, or the folder that a training left")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the net's, in weights/")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("segmented"), metavar="DIR", help="default: segmented/"
    )
    parser.add_argument("--depth", type=Path, metavar="DIR", help="depth pictures with the same names; for color-d")
    parser.add_argument("--hha", type=Path, metavar="DIR", help="HHA pictures with the same names; for hha, color-hha")
    parser.add_argument("--scores", action="store_true", help="write the scores of all classes too")
    add_max_pixels(parser)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_device(parser)
    add_precision(parser)
    return parser


@dataclass(frozen=True)
class Job:
    """An image and where its results go: ``output / place``, with an ending appended."""

    picture: Path
    output: Path
    place: Path

    def to(self, ending: str) -> Path:
        """Return the path of the result with this ending."""
        return self.output / self.place.with_name(self.place.name + ending)


def collect(names: Sequence[str], output: Path) -> Iterator[Job]:
    """Yield a job for each image.

    The results of images in a folder keep their path relative to the folder; all others go directly into ``output``.

    Raises:
        DataError: If no file matches a name, or if a folder holds no image.
    """
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in image_files.ENDINGS and p.is_file()]
            found = [p for p in inside if not p.resolve().is_relative_to(output.resolve())]
            if not found:
                raise DataError("there is no picture in this folder", path=path)
            yield from (Job(p, output, p.relative_to(path).with_suffix("")) for p in found)
        elif path.exists() or not glob.has_magic(name):
            yield Job(path, output, Path(path.stem))
        else:
            named = glob.glob(name, recursive=True)  # noqa: PTH207 (pathlib takes no absolute pattern)
            matched = [Path(p) for p in sorted(named) if Path(p).is_file()]
            if not matched:
                raise DataError("no file has a name like this", path=name)
            yield from (Job(p, output, Path(p.stem)) for p in matched)


def check(jobs: Sequence[Job], about: Card, args: argparse.Namespace) -> None:
    """Check, before anything is written, that no result overwrites a file and that the net's inputs are there.

    Raises:
        ReproductionError: If two results would have the same path, if a result would replace an image, or if the
            folders of ``--depth`` and ``--hha`` are not those that the net needs.
    """
    sources = {job.picture.resolve(): job.picture for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        for path in results(job, about, args.scores):
            if path.resolve() in sources:
                remedy = "Choose another folder with -o."
                raise DataError(
                    f"the result would replace the picture {sources[path.resolve()]}", path=path, remedy=remedy
                )
            other = taken.setdefault(str(path.resolve()).casefold(), job.picture)
            if other != job.picture:
                remedy = "Rename one, or segment them into two folders."
                raise DataError(f"{other} and {job.picture} would both be written here", path=path, remedy=remedy)
    for kind, what in COMPANIONS.items():
        takes, given = kind in about.kinds, getattr(args, kind) is not None
        if takes and not given:
            raise ReproductionError(f"{about.net} takes {what}", remedy=f"Name their folder with --{kind} DIR.")
        if given and not takes:
            raise ReproductionError(f"{about.net} does not take {what}", remedy=f"Leave --{kind} out.")


def results(job: Job, about: Card, scores: bool) -> list[Path]:
    """Return the paths of all results of an image."""
    parts = ("", "_overlay", "_legend")
    paths = [job.to(f"{suffix(about, top)}{part}.png") for top in about.labels for part in parts]
    return [*paths, job.to("_scores.npz")] if scores else paths


def suffix(about: Card, top: str) -> str:
    """Return the suffix of a label's results: empty for the net's first label, ``_TOP`` for any other."""
    return "" if top == next(iter(about.labels)) else f"_{top}"


def segment(segmenter: Segmenter, job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """Segment one image and write its results; return what is printed about it."""
    start = time.monotonic()
    rgb = decode.read_rgb(job.picture)
    more = {kind: companion(getattr(args, kind), job) for kind in segmenter.input_kinds if kind != "color"}
    found = segmenter.segment(rgb, scores=args.scores, **more)
    job.to("").parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"image": str(job.picture), "size": list(rgb.shape[:2]), "labels": {}}
    for label, segmentation in found.items():
        end = suffix(segmenter.card, label)
        report["labels"][label] = write(segmentation, rgb, job, end, segmenter.card)
    if args.scores:
        arrays: dict[str, Any] = {said.score: found[top].scores for top, said in segmenter.card.labels.items()}
        with files.open_atomic(job.to("_scores.npz")) as file:
            np.savez(file, **arrays)
        report["scores"] = str(job.to("_scores.npz"))
    knows = {"knows": segmenter.card.knows} if segmenter.card.knows else {}
    return report | knows | {"seconds": round(time.monotonic() - start, 2)}


def companion(folder: Path, job: Job) -> Path:
    """Return the depth or HHA image that belongs to an image.

    Raises:
        DataError: If there is none, or more than one.
    """
    place = folder / job.place
    near = sorted(place.parent.glob(f"{glob.escape(place.name)}.*"))
    found = [path for path in near if path.suffix.lower() in image_files.ENDINGS and path.stem == place.name]
    if len(found) != 1:
        problem = "several pictures belong" if found else "no picture here belongs"
        raise DataError(f"{problem} to {job.picture}", path=folder, want=f"{job.place}.png")
    return found[0]


def write(segmentation: Segmentation, rgb: Array, job: Job, end: str, about: Card) -> dict[str, Any]:
    """Write the label map, the overlay and the legend of one labelling; return their paths and the shares."""
    labels, shares = segmentation.labels, segmentation.shares
    paths = {
        "png": job.to(f"{end}.png"),
        "overlay": job.to(f"{end}_overlay.png"),
        "legend": job.to(f"{end}_legend.png"),
    }
    colours = segmentation.colours
    overlay = palette.overlay(rgb, labels, background=segmentation.background, colours=colours)
    palette.write_png(labels, paths["png"], colours)
    palette.write_image(Image.fromarray(overlay), paths["overlay"])
    note = f"{about.net} knows {about.knows}" if about.knows else ""
    palette.write_image(Image.fromarray(palette.draw_legend(shares, colours, note)), paths["legend"])
    return {**{what: str(path) for what, path in paths.items()}, "shares": [asdict(share) for share in shares]}


def show(report: dict[str, Any]) -> None:
    """Print the result of an image."""
    height, width = report["size"]
    say(f"{report['image']}: {width} x {height}, {report['seconds']:.1f} s")
    for found in report["labels"].values():
        say(*palette.format_legend(palette.Share(**share) for share in found["shares"]))
        say(f"  {found['png']}, {found['overlay']}, {found['legend']}")


if __name__ == "__main__":
    run(main)
