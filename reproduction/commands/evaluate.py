"""Score a net on a data set: pixel accuracy, mean accuracy, mean IU, frequency weighted IU, and each class's IU.

    fcn evaluate --net voc-fcn8s                             the published weights and split, from weights/, data/
    fcn evaluate --net voc-fcn8s --weights my.safetensors --data ~/pascal --out predictions
    fcn evaluate --net siftflow-fcn16s --split test --device cuda --json > scores.json
    fcn evaluate --net nyud-fcn32s-color --limit 5           only the first 5 images
    fcn evaluate --net runs/voc-fcn8s --data photos          a net that fcn train trained on your images
    fcn evaluate --net runs/voc-fcn8s --data painted --palette colours.txt      labels painted in other colours
    fcn evaluate --prototxt my/deploy.prototxt --weights my.caffemodel --dataset voc --split val
    torchrun --nproc-per-node 2 -m reproduction evaluate --net voc-fcn8s --device cuda     processes share the images

A net from --prototxt must name its inputs as the data set names its images, and must compute ``score`` for the labels
``label`` and ``score_X`` for the labels ``X``; or one of the options that describe a net is given, such as --mean, and
then its one input and its output may have any names and sizes.

The tool looks for the data where fcn fetch stores them and where the published archives unpack to:
DATA/pascal/VOC2011, DATA/VOCdevkit/VOC2012 and so on; DATA may also be such a folder itself. With --out or --state, the
same command resumes a run that was stopped. On two cores an image takes one or two seconds.

The results are written to reports/NET/: index.html, a page with images, and scores.json and scores.md with its numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from reproduction.caffe import devices, locks
from reproduction.caffe.training.parallel import Ranks, join_processes
from reproduction.commands.bars import Bars
from reproduction.commands.net_options import has_net_options, load_described_net
from reproduction.commands.options import compiled, precision
from reproduction.commands.parsers import make_parser
from reproduction.commands.start import versions
from reproduction.commands.terminal import note, say, say_json
from reproduction.fcn import datasets
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.reproduce import net_to_score
from reproduction.fcn.reproduce.net_to_score import NetToScore
from reproduction.fcn.scoring.evaluate import Scorer, evaluate
from reproduction.fcn.segment import any_net, segmenter
from reproduction.fcn.segment.card import describe_choice, format_card
from reproduction.fcn.segment.card_scorer import CardScorer
from reproduction.report import evaluation
from reproduction.report.gallery import Gallery


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the net and print the scores; return the exit code."""
    parser = make_parser("evaluate")
    args = parser.parse_args(arguments)
    if args.prototxt and not (args.weights and args.dataset and args.split):
        parser.error("--prototxt needs --weights, --dataset and --split")
    if args.net and args.dataset:
        parser.error("--dataset belongs to --prototxt; a net that has a name has its data set")
    scored = find(args)
    if args.palette:
        reading = color_labels.parse_reading(args.palette, scored.dataset.classes)
        datasets.set_label_reading(scored.dataset, reading)
    name = Path(args.net).name if args.net else args.prototxt.resolve().parent.name
    folder = args.report or Path("reports", name)
    out = args.out or folder / "predictions"
    with contextlib.ExitStack() as held:
        ranks = held.enter_context(join_processes(args.device))
        for place in dict.fromkeys((folder, out)) if ranks.is_first else ():
            held.enter_context(locks.lock_folder(place, "another process is evaluating here"))
        return score(scored, args, folder, out, ranks)


def find(args: argparse.Namespace) -> NetToScore:
    """Return the net that the options name, with its weights and its data set.

    Raises:
        ReproductionError: If a file is missing or invalid.
    """
    if args.prototxt:
        return net_to_score.find_prototxt(
            args.prototxt, args.weights, args.dataset, args.split, args.data, legacy_crop=args.legacy_crop,
            any_names=has_net_options(args),
        )  # fmt: skip
    if net_to_score.is_trained_folder(args.net):
        if args.weights is None and (chosen := describe_choice(segmenter.find_card(args.net), args.net)):
            note(chosen)
        return net_to_score.find_trained(Path(args.net), args.data, args.split, args.weights)
    return net_to_score.find_published(args.net, args.data, args.split, args.weights)


def score(scored: NetToScore, args: argparse.Namespace, folder: Path, out: Path, ranks: Ranks) -> int:
    """Evaluate, print and write the results; the caller has locked both folders."""
    dataset = scored.dataset
    state = args.state or (args.out / "state.jsonl" if args.out else None)
    if dataset.overlap() is None and ranks.is_first:
        note(
            f"note: nothing in {args.data} says which images the published nets were trained on;"
            f" {dataset.split} may contain some of them."
        )
    scorer, identity = _load_scorer(scored, args, ranks)
    with Bars(quiet=args.quiet or not ranks.is_first) as bars:
        move = bars("images", "image")
        try:
            found = evaluate(
                scorer, dataset, device=ranks.device, out_dir=out, state=state,
                colours=Gallery(dataset, out, scored.colours).colours,
                weights_sha256=identity, limit=args.limit, force=args.force,
                progress=lambda done, total, _: move(done, total), ranks=ranks,
            )  # fmt: skip
        except KeyboardInterrupt:
            bars.close()
            if state:
                note("the same command resumes from here.")
            raise
    if not ranks.is_first:
        return 0
    about = devices.describe_device(ranks.device), precision(args), versions()
    evaluation.write_evaluation(scored, found, out, folder, *about)
    if args.json:
        say_json(evaluation.scores_as_json(scored, found))
    else:
        say(*evaluation.format_scores(scored, found), "", folder / "index.html")
    return 0


def _load_scorer(scored: NetToScore, args: argparse.Namespace, ranks: Ranks) -> tuple[Scorer, str]:
    """Load and compile the net; return it with a hash of its weights and, if options describe it, of its card."""
    if not (args.prototxt and has_net_options(args)):
        net = any_net.load_net_with_weights(scored.name, scored.net_param, scored.weights, device=str(ranks.device))
        return compiled(net, precision(args)), scored.weights_sha256
    about, net, _ = load_described_net(
        args, str(ranks.device), prototxt_path=args.prototxt, quiet=args.quiet or not ranks.is_first
    )
    described = hashlib.sha256(f"{scored.weights_sha256} {format_card(about)}".encode()).hexdigest()
    return CardScorer(about, compiled(net, precision(args)), scored.dataset), described
