"""Segment images with a net, or classify them: label map, overlay, and a legend with the share of each class.

    fcn infer photo.jpg                                  with voc-fcn8s, into segmented/
    fcn infer drawn.jpg --net mini-fcn8s                 with a net that comes with this project
    fcn infer photo.jpg --net runs/voc-fcn8s             with a net that fcn train --data trained
    fcn infer --net siftflow-fcn8s holiday/ 'more/*.tif' -o out
    fcn infer --net nyud-fcn32s-color-hha rooms/ --hha hha/
    fcn infer archive/ -q --labels-only                  label maps of many images
    fcn infer photo.jpg --net deploy.prototxt --weights old.caffemodel --mean 104,117,123     any Caffe net
    torchrun --nproc-per-node 2 -m reproduction infer archive/        two processes share them; see below

For photo.jpg the tool writes photo.png (a palette image whose pixels are the class indices, as in PASCAL VOC),
photo_overlay.png (the classes over the photo), photo_legend.png, and photo_overview.png with both; with --scores, also
photo_scores.npz. Images may have any size, and be grey, 16-bit, CMYK or transparent; the rotation that a camera
recorded is applied.

A net of any prototxt needs scores or labels for each pixel; of a classifier, the classes with the highest scores are
printed. What the options do not say is found in the prototxt, and printed.

Images whose results are there are not segmented again, if net, image and options are the same; so the same command
resumes a run that was stopped. Processes that torchrun starts, on one machine or several with the same folders, share
the images and write the same files as one process, if they use as many threads (OMP_NUM_THREADS; torchrun sets it to 1)
of the same kind of processor; otherwise scores can differ by rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.training.parallel import Ranks, join_processes
from reproduction.commands.bars import Bars, say_above
from reproduction.commands.net_options import is_prototxt, load_described_net, require_weights
from reproduction.commands.options import compiled, precision
from reproduction.commands.parsers import make_parser
from reproduction.commands.terminal import fail, note, say, say_json
from reproduction.fcn.images import palette
from reproduction.fcn.segment.card import describe_choice
from reproduction.fcn.segment.classifier import Classifier
from reproduction.fcn.segment.result_files import ImageJob, SegmentOptions, fingerprint
from reproduction.fcn.segment.segment_files import COMPANIONS, check_jobs, find_images, segment_files
from reproduction.fcn.segment.segmenter import Segmenter, find_card

PATIENCE = timedelta(days=7)  # for which a process whose share is done waits for the others


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment every image; return 1 if one of them failed, else 0."""
    parser = make_parser("infer")
    args = parser.parse_args(arguments)
    require_weights(parser, args)
    companions = {kind: folder for kind in COMPANIONS if (folder := getattr(args, kind)) is not None}
    options = SegmentOptions(companions, args.scores, args.labels_only, args.overwrite, args.batch)
    jobs = list(dict.fromkeys(find_images(args.images, args.output)))
    if not is_prototxt(args.net):
        check_jobs(jobs, find_card(args.net), options)
    with join_processes(args.device, PATIENCE) as ranks:
        if is_prototxt(args.net):
            card, net, _ = load_described_net(args, str(ranks.device), quiet=not ranks.is_first)
            if card.task == "classify":
                return classify(Classifier(card, net), jobs, ranks, args)
            check_jobs(jobs, card, options)
            segmenter = Segmenter(card, net)
        else:
            segmenter = _load_known_net(args, ranks)
        weights = fingerprint(segmenter.card, segmenter.net)
        # Files of many images must not depend on which of them are there already. It delays the first image.
        segmenter.scorer = compiled(segmenter.net, precision(args), steady=len(jobs) > 1, engine=args.engine)
        return segment(segmenter, jobs, options, weights, ranks, args)


def _load_known_net(args: argparse.Namespace, ranks: Ranks) -> Segmenter:
    """Load a net of the catalogue or of a training, and print what its card says about its use."""
    card = find_card(args.net)
    if card.knows and ranks.is_first:
        note(f"note: {card.net} recognizes {card.knows}; its results on other images mean nothing.")
    if args.weights is None and ranks.is_first and (chosen := describe_choice(card, args.net)):
        note(chosen)
    return Segmenter.load(args.net, args.weights, device=str(ranks.device))


def classify(classifier: Classifier, jobs: Sequence[ImageJob], ranks: Ranks, args: argparse.Namespace) -> int:
    """Classify this process's share of the images, and print the classes with the highest scores; return the exit code.

    No files are written.
    """
    mine: list[tuple[int, dict[str, Any]]] = []
    failed = 0
    for number in ranks.share(len(jobs)):
        image = jobs[number].image
        try:
            top = classifier(image).top(args.top)
        except ReproductionError as error:
            failed += 1
            fail(error if error.place else error.at(str(image)))
            continue
        mine.append((number, {"image": str(image), "classes": [each._asdict() for each in top]}))
        if not args.json:
            say(f"{image}:", *(f"  {each.score:<8.4g} {each.label:>4}  {each.name}" for each in top))
    return finish(mine, failed, len(jobs), ranks, as_json=args.json, done="classified")


def segment(
    segmenter: Segmenter,
    jobs: Sequence[ImageJob],
    options: SegmentOptions,
    weights: str,
    ranks: Ranks,
    args: argparse.Namespace,
) -> int:
    """Segment this process's share of the images, and print the results; return the exit code."""
    mine: list[tuple[int, dict[str, Any]]] = []
    total, failed = len(ranks.share(len(jobs))), 0
    with Bars(quiet=args.quiet or len(jobs) == 1 or not ranks.is_first) as bars:
        move = bars("images", "image")
        results = segment_files(segmenter, jobs, options, weights, (ranks.rank, ranks.size))
        for done, found in enumerate(results, 1):
            if found.error is not None:
                failed += 1
                bars.close()
                fail(found.error if found.error.place else found.error.at(str(jobs[found.number].image)))
            if found.result is not None:
                mine.append((found.number, found.result))
                if not args.json and not args.quiet:
                    say_above("\n".join(format_result(found.result)))
            move(done, max(total, done))
    return finish(mine, failed, len(jobs), ranks, as_json=args.json, done="segmented")


def finish(
    mine: Sequence[tuple[int, dict[str, Any]]], failed: int, total: int, ranks: Ranks, *, as_json: bool, done: str
) -> int:
    """Gather the results of all processes, print what concerns all images, and return the exit code.

    Args:
        mine: The number of each image of this process, and its result.
        failed: How many images of this process failed.
        total: How many images there are.
        ranks: The processes.
        as_json: Whether to print all results as JSON.
        done: What was to be done with the images, such as ``segmented``.
    """
    every = [result for _, result in sorted(ranks.gather_objects(mine), key=lambda pair: pair[0])]
    failed = sum(ranks.gather_objects([failed]))
    if not ranks.is_first:
        return 0  # torchrun ends all processes as soon as one fails
    if as_json:
        say_json(every)
    if skipped := sum("skipped" in result for result in every):
        of = f"{skipped} of {total} images were" if total > 1 else "the image was"
        note(f"note: {of} segmented before; --overwrite segments again.")
    if failed and total > 1:
        fail(f"{failed} of {total} images could not be {done}.")
    return 1 if failed else 0


def format_result(result: dict[str, Any]) -> list[str]:
    """Format the result of an image as lines of text."""
    height, width = result["size"]
    how = "segmented before" if "skipped" in result else f"{result['seconds']:.1f} s"
    lines = [f"{result['image']}: {width} x {height}, {how}"]
    for found in result["labels"].values():
        lines += palette.format_legend(palette.Share(**share) for share in found["shares"])
        lines.append("  " + ", ".join(str(path) for kind, path in found.items() if kind != "shares"))
    return lines
