"""The published files on this machine: where they belong, whether they are present, and whether they are correct.

For most weights, no hash was ever published. The SHA-256 of the first download is then recorded next to the file
(``FILE.sha256``, in the format of ``sha256sum``), and later checks compare the file with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reproduction.caffe.errors import DataError, StrPath, WeightsError
from reproduction.caffe.formats import files, hashes
from reproduction.caffe.typing import Progress
from reproduction.fcn import folders
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.fetch import archives
from reproduction.fcn.fetch.manifest import Entry, EntryKind, Manifest, read_manifest

INCLUDED_WEIGHTS = folders.find_included("weights")
MANIFEST = INCLUDED_WEIGHTS / "manifest.json"
WITHOUT_DOWNLOAD = "Without any download: `fcn reproduce mini`, or `fcn infer photo.jpg --net mini-fcn8s`."
MANIFEST_VARIABLE = "REPRODUCTION_MANIFEST"


@dataclass(frozen=True)
class FileRoots:
    """The two folders below which all published files belong.

    Attributes:
        weights: The weights folder.
        data: The data root.
    """

    weights: Path
    data: Path

    def file_path(self, entry: Entry) -> Path:
        """Return the path of the file that an entry describes; for an archive, that of the archive."""
        return (self.weights if entry.is_weights else self.data) / entry.path

    def used_path(self, entry: Entry) -> Path:
        """Return the path that is used: that of the file, or of the folder into which an archive is unpacked."""
        return self.data / entry.archive.folder if entry.archive else self.file_path(entry)


def load_manifest(path: StrPath | None = None) -> Manifest:
    """Load the manifest, the list of published files.

    Args:
        path: Path of the manifest; None for the environment variable REPRODUCTION_MANIFEST or, if it is not set, the
            project's manifest.

    Raises:
        DataError: If the file is missing or an entry is invalid, see ``manifest.read_manifest``.
    """
    return read_manifest(path or os.environ.get(MANIFEST_VARIABLE) or MANIFEST)


def is_present(entry: Entry, roots: FileRoots) -> bool:
    """Return True if a published file can be used: it exists or, for an archive, was unpacked completely."""
    place = roots.used_path(entry)
    return archives.contains(place, entry.archive.holds) if entry.archive else place.is_file()


def find_weights_path(path: str, folder: StrPath | None = None) -> Path:
    """Return a path below the weights folder, or that of what comes with this project if it is missing there.

    Args:
        path: The path of a file below the weights folder, such as ``mini/mini-vgg.caffemodel``, or of a folder, such as
            ``mini`` with the recorded scores of Mini-VOC's nets.
        folder: The weights folder; None for ``folders.find_weights_folder``.

    Returns:
        A path in the weights folder if it is in neither.
    """
    wanted = Path(folder or folders.find_weights_folder()) / path
    included = INCLUDED_WEIGHTS / path
    return included if included.exists() and not wanted.exists() else wanted


def find_weights(record: NetRecord, folder: StrPath | None = None) -> Path:
    """Return the path of a net's weights: the caffemodel or, if it is missing, a copy of the weights in another format.

    Args:
        record: The record of the net.
        folder: The weights folder; None for ``folders.find_weights_folder``. The weights of Mini-VOC, which come with
            this project, are found without it.

    Raises:
        WeightsError: If the weights were not published or are not in the folder. The remedy says how to get them.
    """
    name = record.name
    if record.caffemodel is None:
        raise WeightsError(f"no weights of {name} were published", remedy="Name your own with --weights.")
    path = find_weights_path(record.caffemodel, folder)
    for there in (path, find_weights_path(os.fspath(Path(record.caffemodel).with_suffix(".safetensors")), folder)):
        if there.is_file():
            return there
    for copy in find_copies(name):
        if (there := find_weights_path(copy.path, folder)).is_file():
            return there
    remedy = f"Train it with `fcn train --net {name}`, or name yours with --weights."
    if name in load_manifest().entries:
        remedy = f"Fetch them with `fcn fetch {name}`, or name yours with --weights. {WITHOUT_DOWNLOAD}"
    raise WeightsError(f"the weights of {name} are missing", path=path, remedy=remedy)


def find_copies(name: str) -> list[Entry]:
    """Return the manifest's entries of copies of a net's weights in other formats."""
    manifest = load_manifest()
    if name not in manifest.entries:
        return []
    return [entry for entry in manifest.with_alternatives(manifest.entries[name]) if entry.kind is EntryKind.COPY]


def find_missing(entries: Iterable[Entry], roots: FileRoots) -> list[Entry]:
    """Return the entries of published files that cannot be used yet: the file or the unpacked folder is not present."""
    return [entry for entry in entries if not is_present(entry, roots)]


@dataclass(frozen=True)
class FileCheck:
    """What a file was compared with when it was checked; a file that is wrong raises an error instead.

    Attributes:
        text: What the file was checked against, such as ``sha1 as published``, ``sha256 as recorded`` or ``no hash is
            known``.
        sha256: The file's SHA-256; empty for an archive or a list with another published hash, which need none.
    """

    text: str
    sha256: str


def check_file(
    entry: Entry, file: StrPath, *, recorded: StrPath | None = None, progress: Progress | None = None
) -> FileCheck:
    """Check the size and the hashes of a file, which is read once; return what it was compared with.

    Args:
        entry: The file's entry in the manifest.
        file: Path of the file.
        recorded: Path of the record with the hash of an earlier download; None for ``record_path(file)``.
        progress: Called with the number of bytes read and their total.

    Raises:
        WeightsError or DataError: If the file is a web page, or its size or a hash is wrong.
    """
    path = Path(file)
    with files.open_regular(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        head = opened.read(256)
    remedy = f"Delete it and fetch it again: fcn fetch {entry.name}."
    if looks_like_html(head):
        raise entry.error("it is a web page, not the file", path, remedy=remedy)
    if not entry.min_bytes <= size <= entry.max_bytes:
        raise entry.error("its size is wrong", path, got=f"{size:,} bytes", want=format_size(entry), remedy=remedy)
    wanted, how, where = entry.hashes, "as published", ""
    if not wanted:
        note = Path(recorded) if recorded else record_path(path)
        first = read_recorded_hash(note)
        wanted, how, where = ({"sha256": first} if first else {}), "as recorded", f" (recorded in {note.name})"
    # The SHA-256 of weights is part of each report, and a file without a published hash is recorded by it.
    needed = {"sha256"} if entry.is_weights or not entry.hashes else set()
    found = hashes.compute_hashes(path, needed | {*wanted}, progress)
    for kind, value in wanted.items():
        if found[kind] != value:
            raise entry.error(f"its {kind} is wrong", path, got=found[kind], want=value + where, remedy=remedy)
    text = f"{' and '.join(wanted)} {how}" if wanted else "no hash is known"
    return FileCheck(text, found.get("sha256", ""))


def record_hash(entry: Entry, file: StrPath, sha256: str) -> bool:
    """Record the SHA-256 of a downloaded file next to it, unless a hash of it is published or recorded already.

    Args:
        entry: The file's entry in the manifest.
        file: Path of the file.
        sha256: Its SHA-256.

    Returns:
        True if it was recorded, False if a hash was known before.
    """
    note = record_path(file)
    if entry.hashes or read_recorded_hash(note):
        return False
    with files.open_atomic(note) as written:
        written.write(f"{sha256}  {Path(file).name}\n".encode("utf-8", "surrogateescape"))
    return True


def record_path(file: StrPath) -> Path:
    """Return the path of the record with a file's SHA-256: ``FILE.sha256``."""
    return Path(f"{os.fspath(file)}.sha256")


def read_recorded_hash(path: Path) -> str | None:
    """Return the SHA-256 in a record that ``record_hash`` wrote, or None if there is no record.

    Raises:
        DataError: If the record does not start with a SHA-256.
    """
    try:
        with files.open_regular(path) as file:
            text = file.read(4096)
    except FileNotFoundError:
        return None
    found = re.match(rb"([0-9a-f]{64})\s", text)
    if not found:
        raise DataError(
            "it does not contain a SHA-256",
            path=path,
            want="64 hexadecimal digits and a file name",
            remedy="Delete it.",
        )
    return found[1].decode()


def looks_like_html(head: bytes) -> bool:
    """Return True if a file is a web page (such as an error page instead of the file), to judge by its first bytes."""
    return bool(re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b", head, re.IGNORECASE))


def format_size(entry: Entry) -> str:
    """Format the size of a published file, or the range that it must be in, as far as the manifest states it."""
    if entry.size_bytes is not None:
        return f"{entry.size_bytes:,} bytes"
    if entry.payload_bytes is not None:
        return f"{entry.min_bytes:,} to {entry.max_bytes:,} bytes"
    return "size not published"


def format_offline_list(entries: Iterable[Entry], roots: FileRoots) -> list[str]:
    """Format a list to fetch files by hand, as lines: URLs, sizes, hashes, and the paths where the files belong."""
    lines = []
    for entry in entries:
        known = "".join(f", {kind} {value}" for kind, value in entry.hashes.items())
        lines += [f"{entry.name}: {format_size(entry)}{known}"]
        lines += [f"  from {url}" for url in (entry.url, *(mirror.url for mirror in entry.mirrors))]
        unpacks = f", which `fcn fetch {entry.name}` unpacks" if entry.archive else ""
        lines += [f"  to   {roots.file_path(entry)}{unpacks}", ""]
    return lines[:-1]
