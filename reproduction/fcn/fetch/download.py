"""Fetching of published files: try their sources in turn, check their hashes, and move complete files into place.

A file is downloaded to ``FILE.part`` and renamed when it has been checked. Sources are tried in this order: the user's
mirror, the URL in the manifest, the manifest's mirrors. In the user's mirror, a file is looked up by its path in
this project (``weights/...``, ``data/...``), then by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.caffe import locks
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Progress
from reproduction.fcn.fetch import archives, local_files
from reproduction.fcn.fetch.file_sources import MIRROR_VARIABLE, list_sources
from reproduction.fcn.fetch.local_files import WITHOUT_DOWNLOAD, FileCheck, FileRoots
from reproduction.fcn.fetch.manifest import Entry
from reproduction.fcn.fetch.partial_file import PartialFile
from reproduction.fcn.fetch.transfer import RetryPolicy, SourceError, copy_file, download


@dataclass(frozen=True)
class FetchedEntry:
    """A published file that is ready for use: present, fetched or unpacked.

    Args:
        entry: Its entry in the manifest.
        path: The file, or the folder into which its archive was unpacked.
        how: ``present`` if nothing had to be done, ``fetched`` or, for an archive, ``unpacked``.
        checked: What the file was compared with, such as ``sha1 as published``; empty if an unpacked folder was
            present.
        sha256: The SHA-256 of a weights file; empty for other files.
    """

    entry: Entry
    path: Path
    how: str
    checked: str
    sha256: str = ""


def fetch_entry(
    entry: Entry,
    roots: FileRoots,
    *,
    alternatives: Sequence[Entry] = (),
    mirror: str | None = None,
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None,
    note: Callable[[str], object] = lambda _: None,
    keep_archive: bool = True,
    patience: RetryPolicy | None = None,
) -> FetchedEntry:
    """Fetch a published file if it is not present, and unpack it if it is an archive.

    Args:
        entry: The file's entry in the manifest.
        roots: The weights folder and the data folder.
        alternatives: Entries of files that serve as well, such as VOC 2012 for VOC 2011. If one is present, it is used;
            otherwise they are fetched if no source has ``entry``.
        mirror: Mirror to try first, see ``list_sources``; None for the environment variable REPRODUCTION_MIRROR, if it
            is set.
        progress: Called with a description of each step; returns a function that is then called with the bytes done and
            their total.
        note: Called with a sentence whenever a source fails and another is tried.
        keep_archive: If False, delete an archive after unpacking it.
        patience: How often and how long to try each source; None for the defaults.

    Raises:
        WeightsError or DataError: If no source has the file, or what a source has fails the check.
    """
    fetcher = _Fetcher(roots, mirror, progress, note, keep_archive, patience or RetryPolicy())
    candidates = (entry, *alternatives)
    problems: list[str] = []
    for candidate in sorted(candidates, key=lambda each: not local_files.is_present(each, roots)):
        try:
            found = fetcher.fetch(candidate)
        except SourceError as error:
            problems.append(str(error))
            continue
        if candidate is not entry:
            note(f"{entry.name}: {candidate.name} is used instead")
        return found
    raise unavailable_error(entry, roots.file_path(entry), problems)


def unavailable_error(entry: Entry, path: Path, problems: Iterable[str]) -> ReproductionError:
    """Return the error to raise for a file that no source has.

    Args:
        entry: The file's entry in the manifest.
        path: Where the file belongs.
        problems: What is wrong with each source, as phrases.
    """
    return entry.error(
        f"it cannot be fetched; {'; '.join(problems)}",
        path,
        remedy="Put it there by hand (`fcn fetch --offline-list` names all files), or name a mirror with "
        f"--mirror or {MIRROR_VARIABLE}. {WITHOUT_DOWNLOAD}",
    )


@dataclass(frozen=True)
class _Fetcher:
    """The options of ``fetch_entry``; its methods raise ``SourceError`` if no source has a file."""

    roots: FileRoots
    mirror: str | None
    progress: Callable[[str], Progress]
    note: Callable[[str], object]
    keep_archive: bool
    patience: RetryPolicy

    def fetch(self, entry: Entry) -> FetchedEntry:
        if entry.archive is None:
            there = self.roots.file_path(entry).is_file()
            path, checked = self.fetch_checked(entry)
            return FetchedEntry(entry, path, "present" if there else "fetched", checked.text, checked.sha256)
        folder = self.roots.used_path(entry)
        if local_files.is_present(entry, self.roots):
            return FetchedEntry(entry, folder, "present", "")
        files.make_folder(folder.parent)
        with locks.lock_path(folder, "another process is fetching or unpacking it"):
            if local_files.is_present(entry, self.roots):  # unpacked by another process in the meantime
                return FetchedEntry(entry, folder, "present", "")
            path, checked = self.fetch_checked(entry)
            bar = self.progress(f"unpacking {path.name}")
            archives.extract(path, folder, holding=entry.archive.holds, progress=bar)
            if not self.keep_archive:
                path.unlink()
        return FetchedEntry(entry, folder, "unpacked", checked.text)

    def fetch_checked(self, entry: Entry) -> tuple[Path, FileCheck]:
        """Return the path of a file, fetched unless it exists, and what it was checked against."""
        target = self.roots.file_path(entry)
        if target.exists():
            bar = self.progress(f"checking {target.name}")
            return target, _record_hash(entry, target, local_files.check_file(entry, target, progress=bar))
        if not entry.hashes:  # raise for an invalid record before the download, not after it
            local_files.read_recorded_hash(local_files.record_path(target))
        files.make_folder(target.parent)
        bar = self.progress(target.name)
        problems = []
        with PartialFile(target, entry) as part:
            if target.exists():  # fetched by another process in the meantime
                return target, _record_hash(entry, target, local_files.check_file(entry, target))
            waiting = list_sources(entry, self.mirror)
            while waiting:
                source = waiting.pop(0)
                try:
                    return target, _fetch_from(source.place, part, bar, self.patience, is_last=not waiting)
                except SourceError as error:
                    problems.append(f"{source.place}: {error}")
                    if waiting:
                        self.note(f"{entry.name}: {source.place}: {error}; trying {waiting[0]}")
        raise SourceError("; ".join(problems))


def _fetch_from(
    source: str | Path, part: PartialFile, progress: Progress, patience: RetryPolicy, *, is_last: bool
) -> FileCheck:
    """Fetch the whole file from one source, check it and move it into place; return what it was checked against."""
    for resumed in (part.size() > 0, False):
        if isinstance(source, Path):
            copy_file(source, part, progress)
        else:
            download(source, part, progress, patience, is_last)
        try:
            checked = local_files.check_file(part.entry, part.path, recorded=local_files.record_path(part.target))
        except ReproductionError as error:
            part.clear()
            # A resumed download may mix two versions of the file: try once more from the start.
            if not resumed:
                raise SourceError(_short_message(error)) from None
        else:
            part.finish()
            return _record_hash(part.entry, part.target, checked)
    raise AssertionError("the second round returns or raises")


def _record_hash(entry: Entry, file: Path, checked: FileCheck) -> FileCheck:
    if local_files.record_hash(entry, file, checked.sha256):
        return FileCheck(f"no hash is published; sha256 {checked.sha256} recorded from now on", checked.sha256)
    return checked


def _short_message(error: ReproductionError) -> str:
    """Return the message of an error without its place and remedy."""
    return str(ReproductionError(error.problem, got=error.got, want=error.want)).rstrip(".")
