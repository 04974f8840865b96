"""Score the nets of a data set and compare them with published or recorded scores.

    fcn reproduce mini                                the nets that come with this project, on images it draws
    fcn reproduce voc                                 every net; downloads weights and data that are missing
    fcn reproduce voc --nets voc-fcn8s --limit 20     one net on 20 images
    fcn reproduce nyud --device cuda --data /data --mirror http://mirror.example/fcn
    fcn reproduce voc --json > voc.json               the scores for another program
    fcn reproduce mini --trained runs/mini            the weights that fcn train wrote there, not weights/
    fcn reproduce nyud --nets nyud-fcn32s-color-d --model my.caffemodel        your own weights of one net

The table is printed and written to reports/SET/scores.md and scores.json; reports/SET/index.html is a page with images.
Label maps are written to reports/SET/predictions.
The same command resumes a run that was stopped. The tolerance of a score, in points (percent):

    0.01   of the score that weights/SET/scores.json recorded
    0.1    of the score that others measured with the published weights, or that the authors' README states
    1      of the paper's table, if no other score is known; and of every score of your own weights (--trained, --model)

Exit codes: 0 every net was checked and matches; 1 a net is off, or could not be scored; 2 wrong usage; 3 no net is off,
but one was not checked: no score of it is known (siftflow-fcn32s), its weights were not published (nyud-fcn32s-color-d,
see --model), or only a part of the images was scored (--limit). 130 the run was stopped.

--by NAME adds the scores to the ledger: a file in weights/results, from which README.md's table of numbers is made.
Please commit it and open a pull request.

--record writes the scores to weights/SET/scores.json, and later runs are compared with them; with --trained it also
copies the weights and the logs of their training.

Mini-VOC takes half a minute on two cores; a net of VOC about an hour: 736 images of 3 to 6 seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

from reproduction.caffe import devices, locks
from reproduction.commands.bars import TerminalScreen
from reproduction.commands.options import compiled, precision
from reproduction.commands.parsers import make_parser
from reproduction.commands.start import NOT_CHECKED, versions
from reproduction.commands.terminal import fail, note, say
from reproduction.fcn.fetch import local_files
from reproduction.fcn.reproduce import pipeline, sources
from reproduction.fcn.reproduce.pipeline import ScoringPlan
from reproduction.report import ledger, markdown, record, scoring_run
from reproduction.report.record import ScoreReport


def main(arguments: Sequence[str] | None = None) -> int:
    """Score the nets, print and write the results; return the exit code, see above."""
    parser = make_parser("reproduce")
    args = parser.parse_args(arguments)
    if args.model and len(set(args.nets)) != 1:
        parser.error("--model is for one net: name it with --nets")
    if args.model and (args.trained or args.record):
        parser.error("--model cannot be combined with --trained or --record")
    if args.by and (args.limit or args.trained or args.model):
        parser.error("--by is for all images and the published weights: leave --limit, --trained and --model out")
    if args.by is not None and not (args.by.strip() and args.by.isprintable()):  # before hours of scoring
        parser.error("--by needs a name")
    if args.record and (args.nets or args.limit):
        parser.error("--record is for all nets and all images: leave --nets and --limit out")
    with locks.lock_folder(args.report / args.set, "another process is reproducing here"):
        return reproduce(args)


def reproduce(args: argparse.Namespace) -> int:
    """Score the nets, print and write the results; the caller has locked the report folder."""
    start = time.monotonic()
    nets = pipeline.select_nets(args.set, args.nets)
    device = devices.select_device(args.device)
    folder = args.report / args.set
    records = args.weights / args.set if args.record else local_files.find_weights_path(args.set, args.weights)
    record_path = records / "scores.json"
    prepare = partial(compiled, precision=precision(args))
    roots = local_files.FileRoots(args.weights, args.data)
    manifest = local_files.load_manifest(args.manifest)
    source = sources.find_source(args.set, manifest, args.mirror, runs=args.trained, weights_file=args.model)
    plan = ScoringPlan(source, roots, folder / "predictions", args.device, args.limit, prepare)
    recorded = record.load_report(record_path) if record_path.is_file() and not args.record else None
    references = partial(record.find_references, earlier=recorded, trained=bool(args.trained or args.model))
    with TerminalScreen(sys.stderr if args.json else sys.stdout) as screen:
        scored = scoring_run.score_nets(plan, nets, screen, references)
    scoring_run.check_recorded(recorded, scored.split, record_path)
    environment = devices.describe_device(device), precision(args), versions()
    report = scored.make_report(args.set, args.limit, *environment)
    has_scores = any(net.measured for net in report.nets)
    if has_scores:
        paths = scoring_run.write_files(report, folder, scored.galleries)
        if not args.json:
            say("", *markdown.format_scores(report).split("\n"), "", *markdown.format_verdicts(report))
            say("", ", ".join(map(str, paths)))
    if args.json:
        say(*record.format_report(report).rstrip("\n").split("\n"))
    code = judge(report, scored.errors, recording=args.record)
    if args.record and not code:
        scoring_run.record_run(report, nets, args.trained, record_path)
        screen.note(f"recorded in {record_path.parent}")
    if args.by and has_scores:
        screen.note(f"added to the ledger: {ledger.write_entry(report, args.by, args.weights / ledger.FOLDER)}")
    screen.note(f"{time.monotonic() - start:.1f} s")
    return code


def judge(report: ScoreReport, errors: int, *, recording: bool = False) -> int:
    """Print what is wrong and what was not checked; return the exit code. If ``recording``, nothing needs a check."""
    failures = scoring_run.list_failures(report, errors)
    for text in failures:
        fail(text)
    unchecked = [] if recording or failures else report.unchecked()
    for name, why in unchecked:
        note(f"not checked: {name}; {why}.")
    return 1 if failures else NOT_CHECKED if unchecked else 0
