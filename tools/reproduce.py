#!/usr/bin/env python3
"""Score the published nets of a data set, and say how they compare with what was published.

    tools/reproduce.py voc                                 every net; fetches weights and data where they are missing
    tools/reproduce.py voc --nets voc-fcn8s --limit 20     a quick look
    tools/reproduce.py nyud --device cuda --data /data --mirror http://mirror.example/fcn

The table is printed, and written to reports/SET/scores.md and scores.json; label maps go to reports/SET/predictions.
A run that was stopped goes on where it was. Exit code 1 when a net is more than 0.1 points off the score that others
measured with its published weights, or that the published README states; not when only a part was scored.

On two cores a VOC net takes about an hour: 736 images of 3 to 6 seconds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from common import ROOT, Bars, run
from tqdm import tqdm

from reproduction.caffe import devices
from reproduction.caffe.errors import ReproductionError
from reproduction.fcn import nets, reproduce, zoo
from reproduction.fcn.nets import Published
from reproduction.fcn.reproduce import Plan, Watch
from reproduction.report import markdown, record
from reproduction.report.record import Measured, NetResult, Report, Split

PACKAGES = ("torch", "numpy", "pillow", "scipy")


def main() -> int:
    """Score, print and write; 1 when a net is off or could not be scored."""
    args = _parser().parse_args()
    rows = reproduce.chosen(args.set, args.nets)
    device = devices.use(args.device)
    folder = args.report / args.set
    plan = Plan(
        args.set,
        zoo.manifest(args.manifest),
        zoo.Roots(args.weights, args.data),
        folder / "predictions",
        args.mirror,
        args.device,
        args.limit,
    )
    with Screen() as screen:
        results, split = score_all(plan, rows, screen)
    report = Report(
        set=args.set,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        split=split,
        limit=None if split is None or args.limit is None or args.limit >= split.count else args.limit,
        device=describe(device),
        precision="float32",
        versions=versions(),
        nets=results,
    )
    return finish(report, folder, screen.errors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = sorted({row.dataset for row in nets.NETS.values()})
    parser.add_argument("set", choices=sets, help="the data set")
    parser.add_argument("--nets", nargs="+", default=[], metavar="NET", help="default: all of the data set")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--limit", type=_count, metavar="N", help="score the first N images only; compares nothing")
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="DIR", help="default: data/")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", metavar="DIR", help="default: weights/")
    parser.add_argument("--report", type=Path, default=ROOT / "reports", metavar="DIR", help="default: reports/")
    parser.add_argument("--mirror", metavar="URL|DIR", help="where to look first (also REPRODUCTION_MIRROR)")
    parser.add_argument("--manifest", type=Path, help="another weights/manifest.json (also REPRODUCTION_MANIFEST)")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


def score_all(plan: Plan, rows: Sequence[Published], screen: Screen) -> tuple[list[NetResult], Split | None]:
    """Score one net after the other; what goes wrong with one does not stop the rest.

    Raises:
        ReproductionError: the data cannot be had.
    """
    results, split = [], None
    for row in rows:
        if row.caffemodel is None:
            results.append(NetResult(row.name, note="no caffemodel was published"))
            continue
        watch = Watch(screen, screen.images(row.name), screen.note)
        dataset = reproduce.data(plan, row, watch)
        split = Split(dataset.split, len(dataset), reproduce.split_sha1(dataset.ids))
        try:
            result = reproduce.score(plan, row, dataset, watch)
        except ReproductionError as error:
            screen.error(str(error))
            results.append(NetResult(row.name, note=error.problem))
            continue
        measured = [
            Measured.of(row.name, top, scores, dataset.label_classes[top]) for top, scores in result.scores.items()
        ]
        file, sha256, seconds = result.weights.name, result.weights_sha256, result.seconds_per_image
        results.append(NetResult(row.name, "", file, sha256, seconds, measured))
    return results, split


class Screen(Bars):
    """What a run shows: bars on standard error, sentences on standard output, errors that it survives."""

    def __init__(self) -> None:
        super().__init__()
        self.errors = 0

    def note(self, text: str) -> None:
        """Print a sentence."""
        self.close()
        print(text, flush=True)

    def error(self, text: str) -> None:
        """Print an error, and count it."""
        self.close()
        self.errors += 1
        print(f"error: {text}", file=sys.stderr)

    def images(self, net: str) -> Callable[[int, int, float], None]:
        """Begin a bar of the images that a net has scored; returns what moves it."""
        self.close()
        often = 0.5 if sys.stderr.isatty() else 30.0

        def move(done: int, total: int, _: float) -> None:
            if self.bar is None:
                self.bar = tqdm(
                    desc=net, total=total, initial=done, unit="image", leave=False, mininterval=often, delay=1.0
                )
            self.bar.update(done - self.bar.n)

        return move


def finish(report: Report, folder: Path, errors: int) -> int:
    """Write and print a report; returns the exit code.

    Raises:
        ReproductionError: nothing was measured, or the report cannot be written.
    """
    if errors:
        print(f"error: {errors} of {len(report.nets)} nets could not be scored.", file=sys.stderr)
    if not any(net.measured for net in report.nets):
        if errors:
            return 1
        said = "; ".join(f"{net.net}: {net.note}" for net in report.nets)
        raise ReproductionError(f"nothing was measured; {said}")
    folder.mkdir(parents=True, exist_ok=True)
    record.dump(report, folder / "scores.json")
    markdown.dump(report, folder / "scores.md")
    print(f"\n{markdown.table(report)}\n")
    print("\n".join(markdown.verdicts(report)))
    print(f"\n{folder / 'scores.md'}, {folder / 'scores.json'}")
    off = report.off()
    if off:
        names = ", ".join(dict.fromkeys(net for net, *_ in off))
        print(f"error: off by more than {record.TOLERANCE_POINTS} points: {names}.", file=sys.stderr)
    return 1 if off or errors else 0


def describe(device: torch.device) -> str:
    """Say what the nets run on."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {platform.machine()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """List what the result depends on, with versions."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


if __name__ == "__main__":
    run(main)
