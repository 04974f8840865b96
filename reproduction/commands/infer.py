"""Segment images with a net: label map, overlay, and a legend with the share of each class.

    fcn infer photo.jpg                                  with voc-fcn8s, into segmented/
    fcn infer drawn.jpg --net mini-fcn8s                 with a net that comes with this project
    fcn infer photo.jpg --net runs/voc-fcn8s             with a net that fcn train --data trained
    fcn infer --net siftflow-fcn8s holiday/ 'more/*.tif' -o out
    fcn infer --net nyud-fcn32s-color-hha rooms/ --hha hha/

For photo.jpg the tool writes photo.png (a palette image whose pixels are the class indices, as in PASCAL VOC),
photo_overlay.png (the classes over the photo) and photo_legend.png; with --scores, also photo_scores.npz. Images may
have any size, and be grey, 16-bit, CMYK or transparent; the rotation that a camera recorded is applied.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduction.caffe.errors import ReproductionError
from reproduction.commands.bars import Bars
from reproduction.commands.options import add_device, add_max_pixels, add_precision, compiled, make_parser, precision
from reproduction.commands.terminal import fail, note, say, say_json
from reproduction.fcn.fetch.local_files import WEIGHTS
from reproduction.fcn.images import palette
from reproduction.fcn.segment.segment_files import COMPANIONS, SegmentOptions, check_jobs, find_images, segment_file
from reproduction.fcn.segment.segmenter import Segmenter, find_card


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment every image; return 1 if one of them failed, else 0."""
    args = _parser().parse_args(arguments)
    card = find_card(args.net)
    companions = {kind: folder for kind in COMPANIONS if (folder := getattr(args, kind)) is not None}
    options = SegmentOptions(companions, args.scores)
    jobs = list(dict.fromkeys(find_images(args.images, args.output)))
    check_jobs(jobs, card, options)
    if card.knows:
        note(f"note: {card.net} recognizes {card.knows}; its results on other images mean nothing.")
    segmenter = Segmenter.load(args.net, args.weights, weights_folder=WEIGHTS, device=args.device)
    segmenter.scorer = compiled(segmenter.net, precision(args))
    done: list[dict[str, Any]] = []
    failed = 0
    with Bars() as bars:
        move = bars("images", "image")
        for n, job in enumerate(jobs, 1):
            try:
                done.append(segment_file(segmenter, job, options))
            except ReproductionError as error:
                failed += 1
                bars.close()
                fail(error if error.place else error.at(str(job.image)))
                continue
            if args.json:
                move(n, len(jobs))
            else:
                print_result(done[-1])
    if args.json:
        say_json(done)
    if failed and len(jobs) > 1:
        fail(f"{failed} of {len(jobs)} images could not be segmented.")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("infer", __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders of images, or patterns")
    parser.add_argument("--net", default="voc-fcn8s", help="the name of a net, or the folder that a training wrote")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the net's, in weights/")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("segmented"), metavar="DIR", help="default: segmented/"
    )
    parser.add_argument("--depth", type=Path, metavar="DIR", help="depth images with the same names; for color-d")
    parser.add_argument("--hha", type=Path, metavar="DIR", help="HHA images with the same names; for hha, color-hha")
    parser.add_argument("--scores", action="store_true", help="write the scores of all classes too")
    add_max_pixels(parser)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_device(parser)
    add_precision(parser)
    return parser


def print_result(result: dict[str, Any]) -> None:
    """Print the result of an image."""
    height, width = result["size"]
    say(f"{result['image']}: {width} x {height}, {result['seconds']:.1f} s")
    for found in result["labels"].values():
        say(*palette.format_legend(palette.Share(**share) for share in found["shares"]))
        say(f"  {found['png']}, {found['overlay']}, {found['legend']}")
