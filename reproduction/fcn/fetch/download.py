"""Fetch published files: resumed where they stopped, tried again, held against their hashes, put in place whole.

A file grows as ``FILE.part`` and takes its name only when it is right. Sources are tried in this order: the mirror that
the user names, the URL of the manifest, the manifest's mirrors. Under a mirror, be it a URL or a folder, a file is
looked for as it lies in this project (``weights/...``, ``data/...``), then by its name alone.
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
from reproduction.fcn.fetch import archives, local_files, web
from reproduction.fcn.fetch.archives import Progress
from reproduction.fcn.fetch.local_files import Roots
from reproduction.fcn.fetch.manifest import Entry, Kind
from reproduction.fcn.fetch.partial_file import Part

ENVIRONMENT = "REPRODUCTION_MIRROR"
CHUNK = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_NUMBER = re.compile("[0-9]{1,18}")
_LEAST = 1024  # bytes that have to come in each time-out
_PAGE = "it answered with a web page, not the file"


@dataclass(frozen=True)
class Patience:
    """How long to try a source.

    Args:
        tries: attempts in a row that bring less than ``worth_bytes``.
        delay_s: pause before the second attempt, doubled before each further one.
        timeout_s: of connecting, and of waiting for the next bytes.
        worth_bytes: an attempt that brings as much does not count: a long file may take many.
        sleep: how to pause.
    """

    tries: int = 5
    delay_s: float = 1.0
    timeout_s: float = 30.0
    worth_bytes: int = 1 << 20
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Provided:
    """A published file that can be used.

    Args:
        entry: which.
        path: the file, or the folder that its archive became.
        how: ``present``, ``fetched`` or ``unpacked``.
        checked: what the file was held against; empty where only its unpacked folder was looked at.
    """

    entry: Entry
    path: Path
    how: str
    checked: str


class _GivenUp(Exception):
    """This source has not got the file; another may."""


class _Dropped(Exception):
    """The source stopped half-way; it is worth another try."""


def provide(
    entry: Entry,
    roots: Roots,
    *,
    mirror: str | None = None,
    progress: Callable[[str], Progress] | None = None,
    keep_archive: bool = True,
    patience: Patience | None = None,
) -> Provided:
    """Make a published file usable: fetch it when it is not there, unpack it when it is an archive.

    Args:
        entry: which.
        roots: the weights and the data folder.
        mirror: a URL or a folder to try first; by default that of REPRODUCTION_MIRROR.
        progress: called with what is about to be done; returns what is then called with the bytes done.
        keep_archive: leave an archive where it is when it has been unpacked.
        patience: how long to try.

    Raises:
        WeightsError or DataError: no source has it, or what they have is not right.
    """
    patience = patience or Patience()
    if entry.archive is None:
        there = roots.file(entry).is_file()
        path, checked = _fetch(entry, roots.of(entry), mirror, progress, patience)
        return Provided(entry, path, "present" if there else "fetched", checked)
    folder = roots.place(entry)
    if local_files.present(entry, roots):
        return Provided(entry, folder, "present", "")
    _make(folder.parent)
    with locks.beside(folder, "another process is fetching or unpacking it"):
        if local_files.present(entry, roots):  # since another process ended
            return Provided(entry, folder, "present", "")
        path, checked = _fetch(entry, roots.of(entry), mirror, progress, patience)
        bar = progress(f"unpacking {path.name}") if progress else None
        archives.extract(path, folder, holding=entry.archive.holds, progress=bar)
        if not keep_archive:
            path.unlink()
    return Provided(entry, folder, "unpacked", checked)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, folder) from None


def fetch(
    entry: Entry,
    root: Path,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Fetch one file, or check the one that is there.

    Args:
        entry: which.
        root: the folder that its path starts from.
        mirror: a URL or a folder to try first; by default that of REPRODUCTION_MIRROR.
        progress: called with the bytes done and, where it is known, their total.
        patience: how long to try.

    Raises:
        WeightsError or DataError: as ``provide``.
    """
    bar = (lambda _: progress) if progress else None
    return _fetch(entry, root, mirror, bar, patience or Patience())[0]


def _fetch(
    entry: Entry, root: Path, mirror: str | None, bar: Callable[[str], Progress] | None, patience: Patience
) -> tuple[Path, str]:
    target = root / entry.path
    if target.exists():
        checked = local_files.check(entry, target, progress=bar(f"checking {target.name}") if bar else None)
        return target, _recorded(entry, target, checked)
    if not entry.hashes:
        local_files.read_record(
            local_files.record_path(target)
        )  # a record that holds no hash is known before the bytes come
    _make(target.parent)
    progress = bar(target.name) if bar else None
    problems = []
    with Part(target, entry) as part:
        if target.exists():  # since another process ended
            return target, _recorded(entry, target, local_files.check(entry, target))
        for source in sources(entry, mirror):
            try:
                return target, _from(source, part, progress, patience)
            except _GivenUp as error:
                problems.append(f"{source}: {error}")
    raise entry.error(
        f"it cannot be fetched; {'; '.join(problems)}",
        target,
        remedy="Put it there by hand (`tools/fetch.py --offline-list` names all files), or name a mirror with "
        f"--mirror or {ENVIRONMENT}.",
    )


def _from(source: str | Path, part: Part, progress: Progress | None, patience: Patience) -> str:
    """Take the whole file from one source, check it and put it in place."""
    for resumed in (part.size() > 0, False):
        if isinstance(source, Path):
            _copy(source, part, progress)
        else:
            _download(source, part, progress, patience)
        try:
            checked = local_files.check(part.entry, part.path, recorded=local_files.record_path(part.target))
        except ReproductionError as error:
            part.clear()
            # What was resumed may be two versions of the file put together: once more, from its start.
            if not resumed:
                raise _GivenUp(_what(error)) from None
        else:
            part.finish()
            return _recorded(part.entry, part.target, checked)
    raise AssertionError("the second round returns or raises")


def _recorded(entry: Entry, file: Path, checked: str) -> str:
    value = local_files.record(entry, file)
    return f"no hash is published; sha256 {value} recorded from now on" if value else checked


def _what(error: ReproductionError) -> str:
    """Return an error's problem, without place and remedy."""
    return str(ReproductionError(error.problem, got=error.got, want=error.want)).rstrip(".")


def sources(entry: Entry, mirror: str | None = None) -> list[str | Path]:
    """Return where a file is looked for, in order: URLs, and files below a mirror that is a folder.

    Raises:
        DataError: the mirror is neither a folder nor an http URL.
    """
    mirror = mirror or os.environ.get(ENVIRONMENT) or None
    root = "weights" if entry.kind is Kind.CAFFEMODEL else "data"
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


def _copy(source: Path, part: Part, progress: Progress | None) -> None:
    """Take a file from a folder."""
    try:
        file = files.open_regular(source)
    except FileNotFoundError:
        raise _GivenUp("no such file") from None
    except DataError as error:
        raise _GivenUp(error.problem) from None
    with file:
        total = os.fstat(file.fileno()).st_size
        _fits(part.entry, total)
        part.clear()
        part.need(total)
        while block := file.read(CHUNK):
            part.write(block, total)
            if progress:
                progress(part.size(), total)


def _download(url: str, part: Part, progress: Progress | None, patience: Patience) -> None:
    """Take a file from a URL, in as many attempts as it needs."""
    failures = 0
    while True:
        before = part.size()
        try:
            return _attempt(url, part, progress, patience.timeout_s)
        except _Dropped as error:
            failures = 1 if part.size() - before >= patience.worth_bytes else failures + 1
            if failures >= patience.tries:
                raise _GivenUp(f"{error}, {failures} times") from None
            patience.sleep(patience.delay_s * 2 ** (failures - 1))


def _attempt(url: str, part: Part, progress: Progress | None, timeout_s: float) -> None:
    entry, have = part.entry, part.size()
    if have and have == entry.size_bytes:
        return
    headers = {"User-Agent": "fcn-reproduction", "Accept-Encoding": "identity"}
    origin = part.origin(url)
    # With a hash to hold it against, a file may be put together from several sources; without one it may not.
    if have and (origin or entry.hashes):
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": origin.validator} if origin else {})
    with _open(Request(url, headers=headers), part, timeout_s) as response:
        total = _begin(response, url, part)
        part.need(total)
        for block in _blocks(response, part, total, timeout_s):
            if part.size() == 0 and local_files.looks_like_html(block):
                raise _GivenUp(_PAGE)
            if part.size() + len(block) > (total or entry.max_bytes):
                part.clear()
                raise _GivenUp(f"it sends more than {total or entry.max_bytes:,} bytes")
            part.write(block, total)
            if progress:
                progress(part.size(), total)


def _open(request: Request, part: Part, timeout_s: float) -> web.Response:
    """Send a request; what goes wrong becomes a reason to try again, or to give the source up."""
    try:
        response: web.Response = web.opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {(error.msg or '').partition(chr(10))[0]}".rstrip()
        if error.code == 416 and part.size():  # what is here is longer than the file
            part.clear()
            raise _Dropped(answer) from None
        raise _Dropped(answer) if error.code in _PASSING else _GivenUp(answer) from None
    except web.RefusedRedirectError as error:
        raise _GivenUp(str(error)) from None
    except urllib.error.URLError as error:  # no such host, refused, no certificate: before the server could answer
        cause = error.reason
        text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        raise _GivenUp(f"the server cannot be reached ({text.lower()})") from None
    except OSError as error:
        raise _Dropped(f"the connection broke ({_reason(error)})") from None
    except (http.client.HTTPException, ValueError) as error:
        raise _GivenUp(f"the server does not speak HTTP ({type(error).__name__})") from None
    return response


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def _begin(response: web.Response, url: str, part: Part) -> int | None:
    """Read what the server promises, make ready for its first byte, and return the file's size where it is known."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    # Some servers call a file that is compressed itself, and is sent as it is, by the name of its compression.
    if encoding not in ("", "identity") and not part.entry.file_name.endswith((".gz", ".tgz")):
        raise _GivenUp(f"it sends the file in an encoding that was not asked for ({encoding[:40]!r})")
    if response.headers.get_content_type() == "text/html":
        raise _GivenUp(_PAGE)
    if response.status == 206:
        span, _, size = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(part.size()) or not _NUMBER.fullmatch(size):
            part.clear()
            raise _Dropped(f"it sends another part than was asked for ({span[:40]!r})")
        if _has_changed(response, url, part, int(size)):
            part.clear()
            raise _Dropped("the file changed at the server while it was fetched")
        _fits(part.entry, int(size))
        return int(size)
    length = response.headers.get("Content-Length", "")
    promised = int(length) if _NUMBER.fullmatch(length) else None
    if promised is not None:
        _fits(part.entry, promised)
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    part.begin(url, validator, promised)
    return promised or part.entry.size_bytes


def _has_changed(response: web.Response, url: str, part: Part, size: int) -> bool:
    """Return whether the rest of a file is known to be of another version than what is here.

    Some servers honour Range but not If-Range. The published hash is checked at the end; where there is none, the rest
    has to name the same version.
    """
    origin = part.origin(url)
    if origin is None:
        return False
    if origin.size not in (None, size):
        return True
    is_tag = origin.validator.startswith('"')
    theirs = response.headers.get("ETag" if is_tag else "Last-Modified")
    return theirs != origin.validator if theirs else is_tag and not part.entry.hashes


def _fits(entry: Entry, size: int) -> None:
    if not entry.min_bytes <= size <= entry.max_bytes:
        raise _GivenUp(f"its size is another; got {size:,} bytes, want {local_files.size_text(entry)}")


def _blocks(response: web.Response, part: Part, total: int | None, timeout_s: float) -> Iterator[bytes]:
    """Yield bytes as they come, until there are as many as promised, or until the end where nothing was promised."""
    had, since = part.size(), time.monotonic()
    while total is None or part.size() < total:
        if (now := time.monotonic()) - since > timeout_s:
            if part.size() - had < _LEAST:
                raise _Dropped(f"it sends less than {_LEAST:,} bytes in {timeout_s:g} s")
            had, since = part.size(), now
        try:
            block = response.block(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error) if isinstance(error, OSError) else type(error).__name__
            raise _Dropped(f"the connection broke at {part.size():,} bytes ({reason})") from None
        if not block:
            if total is not None:
                raise _Dropped(f"the connection ended at {part.size():,} of {total:,} bytes")
            return
        yield block
