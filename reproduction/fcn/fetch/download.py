"""Fetch published files: resume and retry downloads, check their hashes, and move complete files into place.

A file is downloaded to ``FILE.part`` and renamed when it has been checked. Sources are tried in this order: the user's
mirror, the URL in the manifest, the manifest's mirrors. In the user's mirror, a URL or a folder, a file is looked up by
its path in this project (``weights/...``, ``data/...``), then by its name alone.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, ReproductionError, cannot_write
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Progress
from reproduction.fcn.fetch import archives, local_files, web
from reproduction.fcn.fetch.local_files import FileCheck, FileRoots
from reproduction.fcn.fetch.manifest import Entry, EntryKind
from reproduction.fcn.fetch.partial_file import PartialFile

MIRROR_VARIABLE = "REPRODUCTION_MIRROR"
_CHUNK_BYTES = 1 << 18
_RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_NUMBER = re.compile("[0-9]{1,18}")
_MIN_BYTES = 1024  # bytes that must arrive within each timeout
_IS_HTML = "it answered with a web page, not the file"


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try a source.

    Args:
        tries: Number of consecutive failures after which the source is abandoned.
        delay_s: Seconds before the second attempt; doubled before each further one.
        timeout_s: Seconds to wait for a connection, and for the next bytes.
        worth_bytes: An attempt that receives at least this many bytes restarts the count of failures, since a long file
            may need many attempts.
        sleep: Function that pauses for a number of seconds.
    """

    tries: int = 5
    delay_s: float = 1.0
    timeout_s: float = 30.0
    worth_bytes: int = 1 << 20
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class FetchedEntry:
    """A published file that is ready for use.

    Args:
        entry: Its entry in the manifest.
        path: The file, or the folder into which its archive was unpacked.
        how: ``present``, ``fetched`` or ``unpacked``.
        checked: What the file was checked against; empty if only its unpacked folder was checked.
        sha256: The SHA-256 of a caffemodel; empty for other files.
    """

    entry: Entry
    path: Path
    how: str
    checked: str
    sha256: str = ""


class _SourceError(Exception):
    """Raised when a source does not have the file; another source may."""


class _TransferError(Exception):
    """Raised when a source stops before the end; another attempt may succeed."""


def fetch_entry(
    entry: Entry,
    roots: FileRoots,
    *,
    mirror: str | None = None,
    progress: Callable[[str], Progress] | None = None,
    keep_archive: bool = True,
    patience: RetryPolicy | None = None,
) -> FetchedEntry:
    """Fetch a published file if it is not present, and unpack it if it is an archive.

    Args:
        entry: The file's entry in the manifest.
        roots: The weights folder and the data folder.
        mirror: URL or folder to try first; None for the environment variable REPRODUCTION_MIRROR, if it is set.
        progress: Called with a description of each step; returns the function that is called with the bytes done and
            their total.
        keep_archive: If False, delete an archive after unpacking it.
        patience: How long to try each source; None for the defaults.

    Raises:
        WeightsError or DataError: If no source has the file, or what a source has fails the check.
    """
    patience = patience or RetryPolicy()
    if entry.archive is None:
        there = roots.file_path(entry).is_file()
        path, checked = _fetch_checked(entry, roots.folder_of(entry), mirror, progress, patience)
        return FetchedEntry(entry, path, "present" if there else "fetched", checked.text, checked.sha256)
    folder = roots.used_path(entry)
    if local_files.is_present(entry, roots):
        return FetchedEntry(entry, folder, "present", "")
    _make_folder(folder.parent)
    with locks.lock_path(folder, "another process is fetching or unpacking it"):
        if local_files.is_present(entry, roots):  # unpacked by another process in the meantime
            return FetchedEntry(entry, folder, "present", "")
        path, checked = _fetch_checked(entry, roots.folder_of(entry), mirror, progress, patience)
        bar = progress(f"unpacking {path.name}") if progress else None
        archives.extract(path, folder, holding=entry.archive.holds, progress=bar)
        if not keep_archive:
            path.unlink()
    return FetchedEntry(entry, folder, "unpacked", checked.text)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, folder) from None


def fetch_file(
    entry: Entry,
    root: Path,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
    patience: RetryPolicy | None = None,
) -> Path:
    """Fetch one file, or check it if it exists.

    Args:
        entry: The file's entry in the manifest.
        root: The folder to which its path is relative.
        mirror: URL or folder to try first; None for the environment variable REPRODUCTION_MIRROR, if it is set.
        progress: Called with the bytes done and, if known, their total.
        patience: How long to try each source; None for the defaults.

    Returns:
        The path of the file.

    Raises:
        WeightsError or DataError: In the same cases as ``fetch_entry``.
    """
    bar = (lambda _: progress) if progress else None
    return _fetch_checked(entry, root, mirror, bar, patience or RetryPolicy())[0]


def _fetch_checked(
    entry: Entry, root: Path, mirror: str | None, bar: Callable[[str], Progress] | None, patience: RetryPolicy
) -> tuple[Path, FileCheck]:
    target = root / entry.path
    if target.exists():
        checked = local_files.check_file(entry, target, progress=bar(f"checking {target.name}") if bar else None)
        return target, _record_hash(entry, target, checked)
    if not entry.hashes:
        local_files.read_recorded_hash(
            local_files.record_path(target)
        )  # raise for an invalid record before the download, not after it
    _make_folder(target.parent)
    progress = bar(target.name) if bar else None
    problems = []
    with PartialFile(target, entry) as part:
        if target.exists():  # fetched by another process in the meantime
            return target, _record_hash(entry, target, local_files.check_file(entry, target))
        for source in list_sources(entry, mirror):
            try:
                return target, _fetch_from(source, part, progress, patience)
            except _SourceError as error:
                problems.append(f"{source}: {error}")
    raise entry.error(
        f"it cannot be fetched; {'; '.join(problems)}",
        target,
        remedy="Put it there by hand (`tools/fetch.py --offline-list` names all files), or name a mirror with "
        f"--mirror or {MIRROR_VARIABLE}.",
    )


def _fetch_from(source: str | Path, part: PartialFile, progress: Progress | None, patience: RetryPolicy) -> FileCheck:
    """Fetch the whole file from one source, check it and move it into place; return what it was checked against."""
    for resumed in (part.size() > 0, False):
        if isinstance(source, Path):
            _copy_file(source, part, progress)
        else:
            _download(source, part, progress, patience)
        try:
            checked = local_files.check_file(part.entry, part.path, recorded=local_files.record_path(part.target))
        except ReproductionError as error:
            part.clear()
            # A resumed download may mix two versions of the file: try once more from the start.
            if not resumed:
                raise _SourceError(_short_message(error)) from None
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


def list_sources(entry: Entry, mirror: str | None = None) -> list[str | Path]:
    """Return the sources of a file in the order in which they are tried: URLs, and paths in a mirror that is a folder.

    Args:
        entry: The file's entry in the manifest.
        mirror: URL or folder to try first; None for the environment variable REPRODUCTION_MIRROR, if it is set.

    Raises:
        DataError: If the mirror is neither a folder nor an http or https URL.
    """
    mirror = mirror or os.environ.get(MIRROR_VARIABLE) or None
    root = "weights" if entry.kind is EntryKind.CAFFEMODEL else "data"
    below = (f"{root}/{entry.path}", entry.file_name)
    found: list[str | Path] = []
    if mirror and "://" in mirror:
        if not re.match(r"https?://[\w\[]", mirror):
            raise DataError("the mirror is no http address", got=repr(mirror), want="http://, https:// or a folder")
        found += [f"{mirror.rstrip('/')}/{quote(name)}" for name in below]
    elif mirror:
        if not Path(mirror).is_dir():
            raise DataError(
                "the mirror is not a folder", path=mirror, want="a folder, or an http:// or https:// address"
            )
        found += [next((path for name in below if (path := Path(mirror) / name).is_file()), Path(mirror) / below[0])]
    return [*found, entry.url, *entry.mirrors]


def _copy_file(source: Path, part: PartialFile, progress: Progress | None) -> None:
    """Copy a file from a folder."""
    try:
        file = files.open_regular(source)
    except FileNotFoundError:
        raise _SourceError("no such file") from None
    except DataError as error:
        raise _SourceError(error.problem) from None
    with file:
        total = os.fstat(file.fileno()).st_size
        _check_size(part.entry, total)
        part.clear()
        part.need(total)
        while block := file.read(_CHUNK_BYTES):
            part.write(block, total)
            if progress:
                progress(part.size(), total)


def _download(url: str, part: PartialFile, progress: Progress | None, patience: RetryPolicy) -> None:
    """Download a file from a URL, with as many attempts as ``patience`` allows."""
    failures = 0
    while True:
        before = part.size()
        try:
            return _download_once(url, part, progress, patience.timeout_s)
        except _TransferError as error:
            failures = 1 if part.size() - before >= patience.worth_bytes else failures + 1
            if failures >= patience.tries:
                raise _SourceError(f"{error}, {failures} times") from None
            patience.sleep(patience.delay_s * 2 ** (failures - 1))


def _download_once(url: str, part: PartialFile, progress: Progress | None, timeout_s: float) -> None:
    entry, have = part.entry, part.size()
    if have and have == entry.size_bytes:
        return
    headers = {"User-Agent": "fcn-reproduction", "Accept-Encoding": "identity"}
    origin = part.origin(url)
    # Only a file with a published hash may be resumed from another source: a wrong mix is then detected at the end.
    if have and (origin or entry.hashes):
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": origin.validator} if origin else {})
    with _open_url(Request(url, headers=headers), part, timeout_s) as response:
        total = _check_headers(response, url, part)
        part.need(total)
        for block in _read_blocks(response, part, total, timeout_s):
            if part.size() == 0 and local_files.looks_like_html(block):
                raise _SourceError(_IS_HTML)
            if part.size() + len(block) > (total or entry.max_bytes):
                part.clear()
                raise _SourceError(f"it sends more than {total or entry.max_bytes:,} bytes")
            part.write(block, total)
            if progress:
                progress(part.size(), total)


def _open_url(request: Request, part: PartialFile, timeout_s: float) -> web.Response:
    """Send a request; convert errors to ``_TransferError`` (try again) or ``_SourceError`` (try the next source)."""
    try:
        response: web.Response = web.build_opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {(error.msg or '').partition(chr(10))[0]}".rstrip()
        if error.code == 416 and part.size():  # the partial file is longer than the file
            part.clear()
            raise _TransferError(answer) from None
        raise _TransferError(answer) if error.code in _RETRIED_STATUSES else _SourceError(answer) from None
    except web.RefusedRedirectError as error:
        raise _SourceError(str(error)) from None
    except urllib.error.URLError as error:  # no such host, connection refused, invalid certificate
        cause = error.reason
        text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        raise _SourceError(f"the server cannot be reached ({text.lower()})") from None
    except OSError as error:
        raise _TransferError(f"the connection broke ({_format_reason(error)})") from None
    except (http.client.HTTPException, ValueError) as error:
        raise _SourceError(f"the server does not speak HTTP ({type(error).__name__})") from None
    return response


def _format_reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def _check_headers(response: web.Response, url: str, part: PartialFile) -> int | None:
    """Check the headers of a response, prepare the partial file for its body, and return the file's size, if known."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    # Some servers send a .gz file unchanged but declare its own compression as Content-Encoding.
    if encoding not in ("", "identity") and not part.entry.file_name.endswith((".gz", ".tgz")):
        raise _SourceError(f"it sends the file in an encoding that was not asked for ({encoding[:40]!r})")
    if response.headers.get_content_type() == "text/html":
        raise _SourceError(_IS_HTML)
    if response.status == 206:
        span, _, size = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(part.size()) or not _NUMBER.fullmatch(size):
            part.clear()
            raise _TransferError(f"it sends another part than was asked for ({span[:40]!r})")
        if _has_changed(response, url, part, int(size)):
            part.clear()
            raise _TransferError("the file changed at the server while it was fetched")
        _check_size(part.entry, int(size))
        return int(size)
    length = response.headers.get("Content-Length", "")
    promised = int(length) if _NUMBER.fullmatch(length) else None
    if promised is not None:
        _check_size(part.entry, promised)
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    part.begin(url, validator, promised)
    return promised or part.entry.size_bytes


def _has_changed(response: web.Response, url: str, part: PartialFile, size: int) -> bool:
    """Return True if the rest of a file is known to be of another version than the partial file.

    Some servers support Range but not If-Range. A published hash is checked at the end; without one, the response must
    repeat the ETag of the partial file.
    """
    origin = part.origin(url)
    if origin is None:
        return False
    if origin.size not in (None, size):
        return True
    is_tag = origin.validator.startswith('"')
    theirs = response.headers.get("ETag" if is_tag else "Last-Modified")
    return theirs != origin.validator if theirs else is_tag and not part.entry.hashes


def _check_size(entry: Entry, size: int) -> None:
    if not entry.min_bytes <= size <= entry.max_bytes:
        raise _SourceError(f"its size is another; got {size:,} bytes, want {local_files.format_size(entry)}")


def _read_blocks(response: web.Response, part: PartialFile, total: int | None, timeout_s: float) -> Iterator[bytes]:
    """Yield the body in blocks: as many bytes as promised or, if no size is known, up to the end."""
    had, since = part.size(), time.monotonic()
    while total is None or part.size() < total:
        if (now := time.monotonic()) - since > timeout_s:
            if part.size() - had < _MIN_BYTES:
                raise _TransferError(f"it sends less than {_MIN_BYTES:,} bytes in {timeout_s:g} s")
            had, since = part.size(), now
        try:
            block = response.block(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            reason = _format_reason(error) if isinstance(error, OSError) else type(error).__name__
            raise _TransferError(f"the connection broke at {part.size():,} bytes ({reason})") from None
        if not block:
            if total is not None:
                raise _TransferError(f"the connection ended at {part.size():,} of {total:,} bytes")
            return
        yield block
