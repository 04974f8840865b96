"""Check whether a weights file is that of a published net, without a data set.

``verify_file`` makes all checks: the file's hash and size, the parameters' names, shapes and values, the classes that
the net can find, and the labels that OpenCV computes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import hashes, weights
from reproduction.caffe.formats.weights import Weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.typing import Progress
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.manifest import SLACK_BYTES, Entry, Manifest
from reproduction.fcn.nets import registry
from reproduction.fcn.segment import card, verify_labels, verify_parameters
from reproduction.fcn.segment.verification import CheckResult, Verification, WeightsCheck, not_checked, passed_if

IMAGES = 8  # scenes of Mini-VOC

_WITHOUT_PARAMETERS = "the net lacks parameters"
_WITHOUT_NUMBERS = "there are values that are not finite"


def verify_file(
    net_name: str,
    path: StrPath,
    manifest: Manifest,
    recorded: Mapping[str, str],
    *,
    hashing: Progress | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> Verification:
    """Check whether a file contains the weights of a net, and return the result of each check.

    Args:
        net_name: the name of a published net or a net of Mini-VOC.
        path: the file, in any supported format.
        manifest: the manifest of the published files.
        recorded: the SHA-256 of further weights files by net name, for nets that are not in the manifest (Mini-VOC's).
        hashing: called with the number of bytes that were hashed and their total.
        progress: called with the name of each slow check before it starts.

    Raises:
        ReproductionError: If there is no such net, or the file cannot be read as weights.
    """
    record = registry.find_net(net_name)
    found = weights.read(path)
    net_param = registry.load_net(net_name)
    net = Net(net_param)
    entries = manifest.with_alternatives(manifest.entries[net_name]) if net_name in manifest.entries else []
    known = hashes.compute_hashes(path, sorted({"sha256"}.union(*(entry.hashes for entry in entries))), hashing)
    identity, origin = check_hash(found, entries, known, recorded.get(net_name))
    parameters, is_complete = verify_parameters.copy_parameters(net, found)
    checks = [identity, check_size(found, net, entries), parameters]
    checks += _check_values(net, record) if is_complete else _skip(_WITHOUT_PARAMETERS, verify_parameters.WANT_VALUES)
    why = "" if is_complete else _WITHOUT_PARAMETERS
    if any(check.name == "finite" and check.result is CheckResult.FAIL for check in checks):
        why = _WITHOUT_NUMBERS
    checks += _skip(why, verify_labels.WANT_LABELS) if why else _check_labels(net, net_param, record, found, progress)
    return Verification(net_name, str(path), found.format, known["sha256"], origin, tuple(checks))


def check_hash(
    found: Weights, entries: list[Entry], known: Mapping[str, str], recorded: str | None = None
) -> tuple[WeightsCheck, str]:
    """Check that a file has the hash of the published weights file or of a known copy of it.

    Args:
        found: the weights that were read from the file.
        entries: the manifest's entries of the published file and of copies of its weights.
        known: the hashes of the file, by kind such as ``sha256``.
        recorded: the SHA-256 that is recorded with this project; None if there is none.

    Returns:
        The result of the check, and how the file was made as text (empty if it is not known).
    """
    name, got = "hash", ", ".join(f"{kind} {value}" for kind, value in known.items())
    wanted = [f"{kind} {value} of {entry.name}" for entry in entries for kind, value in entry.hashes.items()]
    wanted += [f"sha256 {recorded}, recorded with the scores of this net"] if recorded else []
    want = " or ".join(wanted) or "a published hash; none is known"
    for entry in entries:
        if entry.hashes and all(known[kind] == value for kind, value in entry.hashes.items()):
            kinds = ", ".join(f"{kind} {value}" for kind, value in entry.hashes.items())
            return passed_if(True, name, kinds, want), entry.origin or f"the published file, {entry.file_name}"
    if recorded == known["sha256"]:
        return passed_if(True, name, got, want), "this project's weights"
    has_hash = bool(recorded or (entries and entries[0].hashes))
    if has_hash and found.format.startswith("caffemodel"):
        return passed_if(False, name, got, want), ""
    origin = ""
    if claim := _read_claim(found):
        file, sha256 = claim
        got += f"; made from {file} (sha256 {sha256}), as the file says"
        origin = f"converted from {file}"
    note = local_files.read_recorded_hash(local_files.record_path(found.path))
    if note is not None and note != known["sha256"]:
        return passed_if(False, name, got, f"sha256 {note}, recorded at the first download"), origin
    return not_checked(name, got + ("; as at the first download" if note else ""), want), origin


def _read_claim(found: Weights) -> tuple[str, str] | None:
    """Return the name and the SHA-256 of the file that a file says its weights come from, or None."""
    try:
        source = card.parse_card(found.metadata[card.METADATA_KEY], found.path).source
        return source["file"], source["sha256"]
    except (KeyError, DataError):
        return None


def check_size(found: Weights, net: Net, entries: list[Entry]) -> WeightsCheck:
    """Check the size of a caffemodel in bytes, or the number of values in a file of another format.

    Args:
        found: the weights that were read from the file.
        net: the net, which determines how many values there are.
        entries: the manifest's entries of the published file and of copies; the first may state the size.
    """
    values = verify_parameters.count_values(net)
    if not found.format.startswith("caffemodel"):
        got = sum(array.size for array in found.arrays().values())
        fixed = sum(net.params[name][0].numel() for name in verify_parameters.find_absent_scales(net, found))
        return passed_if(got == values - fixed, "size", f"{got:,} values", f"{values - fixed:,}")
    size, payload = Path(found.path).stat().st_size, 4 * values
    exact = entries[0].size_bytes if entries else None
    if exact is not None:
        return passed_if(size == exact, "size", f"{size:,} bytes", f"{exact:,}")
    want = f"{payload:,} for the parameters, and up to {SLACK_BYTES:,} for their names and shapes"
    return passed_if(payload <= size <= payload + SLACK_BYTES, "size", f"{size:,} bytes", want)


def _check_values(net: Net, record: NetRecord) -> list[WeightsCheck]:
    return [
        verify_parameters.check_finite(net),
        verify_parameters.check_learned(net),
        verify_parameters.check_fixed(net),
        verify_parameters.check_spread(net, record),
    ]


def _skip(why: str, wanted: Mapping[str, str]) -> list[WeightsCheck]:
    """Return the results of checks that are not made, from what passes each by its name."""
    return [not_checked(name, why, want) for name, want in wanted.items()]


def _check_labels(
    net: Net, net_param: NetParameter, record: NetRecord, found: Weights, progress: Callable[[str], object]
) -> list[WeightsCheck]:
    about = card.published_card(record)
    images = [scene.rgb for scene in mini_voc.draw_scenes(IMAGES)]
    progress("classes in drawn images")
    checks = list(verify_labels.check_classes(net, about, images, progress))
    progress("labels of OpenCV")
    return [*checks, verify_labels.check_opencv(net, net_param, about, found, images[0])]
