"""Check whether a weights file is that of a published net, without a data set.

    fcn verify voc-fcn8s                           the net's file in weights/
    fcn verify voc-fcn8s ~/Downloads/fcn8s.caffemodel
    fcn verify siftflow-fcn16s converted.safetensors --json > siftflow-fcn16s.json
    fcn verify mini-fcn8s                          a net that comes with this project

Each line is one check: the published hash and the size; all parameters by name and shape; no NaN; no learned parameter
that is constant; fixed upsampling exactly bilinear; score layers in which all classes spread alike; all classes
reachable, in drawn images or by gradient ascent; labels equal to those of OpenCV 4, where it is installed. A net of
Mini-VOC takes seconds; one of VGG16's size about a minute on two cores, longer if many classes need gradient ascent.

Exit codes: 0 all checks passed, 1 one failed, 3 none failed but one could not be made, 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from reproduction.caffe import devices
from reproduction.commands.bars import Bars
from reproduction.commands.parsers import make_parser
from reproduction.commands.start import NOT_CHECKED, versions
from reproduction.commands.terminal import note, say, say_json
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import registry
from reproduction.fcn.segment import segmenter
from reproduction.fcn.segment.verification import CheckResult
from reproduction.fcn.segment.verify import verify_file
from reproduction.report import record

CODES = {CheckResult.PASS: 0, CheckResult.FAIL: 1, CheckResult.NOT_CHECKED: NOT_CHECKED}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make all checks and print their results; return the exit code."""
    args = make_parser("verify").parse_args(arguments)
    published = registry.find_net(args.net)
    path = segmenter.locate_weights(args.net, args.file)
    manifest = local_files.load_manifest(args.manifest)
    with Bars(quiet=args.quiet) as bars:
        found = verify_file(
            args.net, path, manifest, load_recorded_hashes(published.dataset.name),
            hashing=bars("hash"), progress=(lambda what: None) if args.quiet else lambda what: note(f"{what} ..."),
        )  # fmt: skip
    if args.json:
        machine = devices.describe_device(devices.select_device("cpu"))
        measured = datetime.now(UTC).isoformat(timespec="seconds")
        say_json(found.as_json(device=machine, versions=versions(), measured=measured))
    else:
        say(*found.format_lines())
    return CODES[found.result]


def load_recorded_hashes(dataset: str) -> dict[str, str]:
    """Return the SHA-256 of each net's weights that come with this project, by name."""
    path = local_files.find_weights_path(dataset) / "scores.json"
    return {net.net: net.weights_sha256 for net in record.load_report(path).nets} if path.is_file() else {}
