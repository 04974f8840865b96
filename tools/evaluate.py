#!/usr/bin/env python3
"""Score a net on a data set: pixel accuracy, mean accuracy, mean IU, frequency weighted IU, and each class's IU.

    tools/evaluate.py --net voc-fcn8s                             the published weights and split, from weights/, data/
    tools/evaluate.py --net voc-fcn8s --weights my.safetensors --data ~/pascal --out predictions
    tools/evaluate.py --net siftflow-fcn16s --split test --device cuda --json > scores.json
    tools/evaluate.py --net nyud-fcn32s-color --limit 5           only the first 5 images
    tools/evaluate.py --net runs/voc-fcn8s --data photos          a net that tools/train.py trained on your images
    tools/evaluate.py --net runs/voc-fcn8s --data painted --palette colours.txt      labels painted in other colours
    tools/evaluate.py --prototxt my/deploy.prototxt --weights my.caffemodel --dataset voc --split val
    torchrun --nproc-per-node 2 tools/evaluate.py --net voc-fcn8s --device cuda      the processes share the images

A net from --prototxt must name its inputs as the data set names its images, and must compute ``score`` for the labels
``label`` and ``score_X`` for the labels ``X``.

The tool looks for the data where tools/fetch.py stores them and where the published archives unpack to:
DATA/pascal/VOC2011, DATA/VOCdevkit/VOC2012 and so on; DATA may also be such a folder itself. With --out or --state, the
same command resumes a run that was stopped. On two cores an image takes one or two seconds.

The results are written to reports/NET/: index.html, a page with images, and scores.json and scores.md with its numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from common import (
    ROOT,
    WEIGHTS,
    Bars,
    add_device,
    add_legacy_crop,
    add_max_pixels,
    add_precision,
    bar,
    compiled,
    describe,
    note,
    positive,
    precision,
    run,
    say,
    say_json,
    versions,
)

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, printable
from reproduction.caffe.formats import hashes, prototxt
from reproduction.caffe.net import graph
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.caffe.training.parallel import Ranks, join_processes
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.folder import find_classes
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import registry
from reproduction.fcn.scoring.evaluate import evaluate
from reproduction.fcn.scoring.score import Scores, compute_scores
from reproduction.fcn.segment import card, segmenter
from reproduction.report import gallery, markdown, page, record
from reproduction.report.gallery import Gallery
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport
from reproduction.report.reference import METRICS, TITLES


def main() -> int:
    """Evaluate the net and print the scores; return the exit code."""
    parser = _parser()
    args = parser.parse_args()
    if args.prototxt and not (args.weights and args.dataset and args.split):
        parser.error("--prototxt needs --weights, --dataset and --split")
    if args.net and args.dataset:
        parser.error("--dataset belongs to --prototxt; a net that has a name has its data set")
    job = own(args) if args.prototxt else trained(args) if is_folder(args.net) else named(args)
    dataset = job.dataset
    if args.palette:
        datasets.set_label_reading(dataset, color_labels.parse_reading(args.palette, dataset.classes))
    folder = args.report or ROOT / "reports" / (
        Path(args.net).name if args.net else args.prototxt.resolve().parent.name
    )
    out = args.out or folder / "predictions"
    with contextlib.ExitStack() as held:
        ranks = held.enter_context(join_processes(args.device))
        for place in dict.fromkeys((folder, out)) if ranks.is_first else ():
            held.enter_context(locks.lock_folder(place, "another process is evaluating here"))
        return score(job, args, folder, out, ranks)


def score(job: Job, args: argparse.Namespace, folder: Path, out: Path, ranks: Ranks) -> int:
    """Evaluate, print and write the results; the caller has locked both folders."""
    dataset = job.dataset
    state = args.state or (args.out / "state.json" if args.out else None)
    with Screen(args.quiet or not ranks.is_first) as screen:
        if dataset.overlap() is None and ranks.is_first:
            note(
                f"note: nothing in {args.data} says which images the published nets were trained on;"
                f" {dataset.split} may hold some of them."
            )
        net = compiled(
            segmenter.load_net_with_weights(job.name, job.net, job.weights, device=str(ranks.device)), precision(args)
        )
        try:
            found = evaluate(
                net,
                dataset,
                device=ranks.device,
                out_dir=out,
                state=state,
                limit=args.limit,
                force=args.force,
                progress=screen.show,
                ranks=ranks,
            )
        except KeyboardInterrupt:
            screen.close()
            if state:
                note("the same command goes on from here.")
            raise
    if not ranks.is_first:
        return 0
    count = len(dataset) if args.limit is None else min(args.limit, len(dataset))
    shown = Gallery(dataset, out)
    told = report(job, args, found, shown, folder, describe(ranks.device), screen.seconds_per_image())
    record.write_report(told, folder / "scores.json")
    markdown.write_markdown(told, folder / "scores.md")
    page.write_page(told, folder / "index.html", {job.name: shown})
    if args.json:
        say_json(as_json(job, count, found))
    else:
        say(*as_text(job, count, found), "", folder / "index.html")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--net", help=f"one of {', '.join(registry.NETS)}; or the folder that a training of --data left")
    what.add_argument("--prototxt", type=Path, metavar="FILE", help="a net of your own, without a data layer")
    add_legacy_crop(parser)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the net's, in weights/")
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="DIR", help="the data root; default: data/")
    parser.add_argument("--dataset", help=f"with --prototxt: one of {', '.join(datasets.DATASETS)}")
    parser.add_argument("--split", help="default: what the net is scored on (VOC: seg11valid; your own pictures: val)")
    parser.add_argument(
        "--palette",
        type=Path,
        metavar="FILE|voc|indices",
        help="how palette and painted labels are read; default: as in training, or as DATA/palette.txt says",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the label maps; default: predictions in --report")
    parser.add_argument("--report", type=Path, metavar="DIR", help="default: reports/NET")
    parser.add_argument("--state", type=Path, metavar="FILE", help="how far the run is; default: state.json in --out")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="score the first N images only")
    add_max_pixels(parser)
    parser.add_argument("--force", action="store_true", help="score images too that the published nets learnt from")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON, with the confusion")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


@dataclass(frozen=True)
class Job:
    """A net, its weights and the data set that it is scored on."""

    name: str
    net: NetParameter
    weights: Path
    dataset: Dataset


def named(args: argparse.Namespace) -> Job:
    """Return the job of a net of the catalogue; its data set is the one that its test prototxt reads.

    Raises:
        ReproductionError: If there is no such net, or if its data or weights are missing.
    """
    segmenter.find_card(args.net)  # its error is more precise if the name is a folder
    row = registry.find_net(args.net)
    try:
        dataset = registry.open_test_split(row, args.data, args.split)
    except DataError:
        name = row.dataset.name
        if row.dataset.draw is None or (args.data / name).is_dir():
            raise
        remedy = f"`tools/reproduce.py {name}` draws them."
        raise DataError("its images are not drawn yet", path=args.data / name, remedy=remedy) from None
    weights = args.weights or local_files.find_weights(row, WEIGHTS)
    return Job(row.name, registry.load_net(row.name), weights, dataset)


def is_folder(net: str) -> bool:
    """Return whether ``net`` is a folder that a training on custom data wrote; a net's name takes precedence."""
    return net not in registry.NETS and (Path(net) / card.CARD_FILE).is_file()


def trained(args: argparse.Namespace) -> Job:
    """Return the job of a net that was trained on custom data, with the images of ``--data``.

    Raises:
        ReproductionError: If a file is missing or invalid, or if the images have other classes than the net.
    """
    folder, about = Path(args.net), segmenter.find_card(args.net)
    learnt = next(iter(about.labels.values())).classes
    theirs, reading = find_classes(args.data)
    if theirs not in (None, learnt):
        got, want = (", ".join(names) for names in (theirs, learnt))
        raise DataError("the pictures have other classes than the net", path=args.data, got=got, want=want)
    layer = prototxt.load_net(folder / "train.prototxt")[0].layer[0]  # param_str has classes, palette, mean, side
    dataset = datasets.from_layer(layer.python_param, list(layer.top), args.data, args.split or "val")
    if reading is not None:
        datasets.set_label_reading(dataset, reading)
    net = prototxt.load_net(folder / "deploy.prototxt")[0]
    return Job(about.net, net, segmenter.locate_weights(folder, args.weights), dataset)


def own(args: argparse.Namespace) -> Job:
    """Return the job of ``--prototxt``, with a data set whose images are named as the net's inputs.

    Raises:
        ReproductionError: If a file is missing or invalid, or if the data set has no such images.
    """
    net = prototxt.load_net(args.prototxt, legacy_crop=args.legacy_crop)[0]
    inputs = [node.tops for node in graph.build_graph(net, Phase.TEST).nodes if node.type == "Input"]
    kind = datasets.DATASETS.get(args.dataset)
    tops = [*chain(*inputs), *(kind.kind_classes if kind else ())]
    return Job(str(args.prototxt), net, args.weights, datasets.open_split(args.dataset, args.split, args.data, tops))


def title(args: argparse.Namespace, dataset: Dataset) -> str:
    """Return the name of the scored set: that of the published set, or of the folder of custom images."""
    named = registry.find_net(args.net).dataset.name if args.net in registry.NETS else args.dataset or dataset.name
    return dataset.tree.resolve().name if named == "folder" else named


def report(
    job: Job,
    args: argparse.Namespace,
    found: Mapping[str, Scores],
    shown: Gallery,
    folder: Path,
    device: str,
    seconds: float | None,
) -> ScoreReport:
    """Return the report of a run.

    It shows the published scores for comparison but without a tolerance, because these weights need not match them.
    """
    dataset = job.dataset
    own_split = args.net in registry.NETS and args.split is None
    measured = []
    for top, result in found.items():
        rows = record.find_references(job.name, top) if own_split else []
        rows = [replace(row, tolerance_points=None) for row in rows]
        scored = LabelScores.from_scores(top, result, dataset.label_classes[top], rows)
        measured.append(gallery.measure(shown, scored, args.limit))
    sha256 = hashes.compute_hashes(job.weights, ["sha256"])["sha256"]
    maps = os.path.relpath(shown.predictions, folder)
    return ScoreReport(
        set=title(args, dataset),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        split=ScoredSplit(dataset.split, len(dataset), hashes.hash_lines(dataset.ids)),
        limit=None if args.limit is None or args.limit >= len(dataset) else args.limit,
        device=device,
        precision=precision(args),
        versions=versions(),
        nets=[NetResult(job.name, "", job.weights.name, sha256, seconds, measured, maps)],
    )


class Screen(Bars):
    """A progress bar with the remaining time, on standard error; nothing if ``quiet``."""

    def __init__(self, quiet: bool):
        super().__init__()
        self._quiet = quiet
        self._first, self._count, self._seconds = 0, 0, 0.0

    def show(self, count: int, total: int, seconds: float) -> None:
        """Move the bar to ``count``; the first call sets where a resumed run starts."""
        if self.bar is None:
            self.bar = bar("images", total, "image", count, quiet=self._quiet)
            self._first = count
        self._count, self._seconds = count, seconds
        self.bar.update(count - self.bar.n)

    def seconds_per_image(self) -> float | None:
        """Return the mean over the images of this run; None if an earlier run had scored them all."""
        count = self._count - self._first
        return self._seconds / count if count else None


def as_text(job: Job, count: int, found: Mapping[str, Scores]) -> list[str]:
    """Return the scores in percent, as the lines of a table."""
    lines, dataset = [], job.dataset
    for top, result in found.items():
        what = "" if len(found) == 1 else f", {top}"
        lines += [f"{job.name} on {dataset.name} {dataset.split}, {count} images{what}", ""]
        lines += ["  ".join(f"{TITLES[metric]:>10}" for metric in METRICS)]
        lines += ["  ".join(f"{100 * getattr(result, metric):10.2f}" for metric in METRICS), ""]
        published = compute_scores(result.confusion, absent="published").mean_iu
        if published != result.mean_iu:
            lines += [f"mean IU as the published score.py takes it, absent classes as 0: {100 * published:.2f}", ""]
        names = [printable(name) for name in dataset.label_classes[top]]
        width = max(map(len, names))
        pairs = zip(names, result.class_iu, strict=True)
        lines += [f"{name:{width}}  " + ("     -" if iu != iu else f"{100 * iu:6.2f}") for name, iu in pairs]
        lines += [""]
    return lines[:-1]


def as_json(job: Job, count: int, found: Mapping[str, Scores]) -> dict[str, object]:
    """Return the scores as fractions, with the net, the weights and the split that they belong to."""
    by_label, dataset = {}, job.dataset
    for top, result in found.items():
        names = zip(dataset.label_classes[top], result.class_iu, strict=True)
        by_label[top] = {
            **{metric: getattr(result, metric) for metric in METRICS},
            "mean_iu_published_rule": compute_scores(result.confusion, absent="published").mean_iu,
            "class_iu": {name: None if iu != iu else iu for name, iu in names},
            "confusion": result.confusion.tolist(),
        }
    return {
        "net": job.name,
        "weights": str(job.weights),
        "dataset": dataset.name,
        "tree": str(dataset.tree),
        "split": dataset.split,
        "images": count,
        "scores": by_label,
    }


if __name__ == "__main__":
    run(main)
