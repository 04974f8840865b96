"""One transfer: download a URL, or copy a file from a folder, to a partial file; with retries and limits."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Progress
from reproduction.fcn.fetch import google_drive, local_files, web
from reproduction.fcn.fetch.manifest import Entry
from reproduction.fcn.fetch.partial_file import PartialFile

HEADERS = {"User-Agent": "fcn-reproduction", "Accept-Encoding": "identity"}
IS_HTML = "it answered with a web page, not the file"
NUMBER = re.compile("[0-9]{1,18}")
_CHUNK_BYTES = 1 << 18
_RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_MIN_BYTES = 1024  # bytes that must arrive within each timeout


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try a source before the next one is tried.

    Args:
        tries: Number of consecutive failed attempts after which the source is abandoned.
        delay_s: Seconds to wait before the second attempt; doubled before each further one.
        timeout_s: Seconds to wait for a connection, and for the next bytes.
        worth_bytes: An attempt that receives at least this many bytes restarts the count of failed attempts, since a
            large file may need many.
        sleep: The function that waits for a number of seconds; tests replace it.
    """

    tries: int = 5
    delay_s: float = 1.0
    timeout_s: float = 30.0
    worth_bytes: int = 1 << 20
    sleep: Callable[[float], None] = time.sleep


class SourceError(Exception):
    """Raised when a source does not have the file; another source may."""


class TransferError(Exception):
    """Raised when a source stops before the end of a file; another attempt may succeed.

    Args:
        problem: What happened.
        is_silent: True if nothing arrived before the timeout.
    """

    def __init__(self, problem: str, *, is_silent: bool = False):
        super().__init__(problem)
        self.is_silent = is_silent


def copy_file(source: Path, part: PartialFile, progress: Progress) -> None:
    """Copy a file from a folder into a partial file.

    Args:
        source: The file to copy.
        part: The partial file, whose bytes are replaced.
        progress: Called with the number of bytes done and their total.
    """
    try:
        file = files.open_regular(source)
    except FileNotFoundError:
        raise SourceError("no such file") from None
    except DataError as error:
        raise SourceError(error.problem) from None
    with file:
        total = os.fstat(file.fileno()).st_size
        check_size(part.entry, total)
        part.clear()
        part.need(total)
        while block := file.read(_CHUNK_BYTES):
            part.write(block, total)
            progress(part.size(), total)


def download(url: str, part: PartialFile, progress: Progress, patience: RetryPolicy, is_last: bool) -> None:
    """Download a file from a URL into a partial file, in as many attempts as ``patience`` allows.

    An interrupted download is resumed where it stopped, if the server supports that. A server that sends nothing at all
    is asked again only if it is the last source.

    Args:
        url: The URL.
        part: The partial file.
        progress: Called with the number of bytes done and their total.
        patience: How often and how long to try.
        is_last: True if there is no other source to try after this one.
    """
    failures = 0
    while True:
        before = part.size()
        try:
            return _download_once(url, part, progress, patience.timeout_s)
        except TransferError as error:
            if error.is_silent and part.size() == before and not is_last:
                raise SourceError(f"nothing arrived within {patience.timeout_s:g} s") from None
            failures = 1 if part.size() - before >= patience.worth_bytes else failures + 1
            if failures >= patience.tries:
                raise SourceError(f"{error}, {failures} times") from None
            patience.sleep(patience.delay_s * 2 ** (failures - 1))


def _download_once(url: str, part: PartialFile, progress: Progress, timeout_s: float) -> None:
    entry, have = part.entry, part.size()
    if have and have == entry.size_bytes:
        return
    headers = dict(HEADERS)
    origin = part.origin(url)
    # Only a file with a published hash may be resumed from another source: a wrong mix is then detected at the end.
    if have and (origin or entry.hashes):
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": origin.validator} if origin else {})
    with open_url(Request(url, headers=headers), part, timeout_s) as response:
        total = _check_headers(response, url, part)
        part.need(total)
        for block in _read_blocks(response, part, total, timeout_s):
            if part.size() == 0 and local_files.looks_like_html(block):
                raise SourceError(IS_HTML)
            if part.size() + len(block) > (total or entry.max_bytes):
                part.clear()
                raise SourceError(f"it sends more than {total or entry.max_bytes:,} bytes")
            part.write(block, total)
            progress(part.size(), total)


def open_url(request: Request, part: PartialFile | None, timeout_s: float) -> web.Response:
    """Send a request and return the response; raise ``TransferError`` (try again) or ``SourceError`` (try elsewhere).

    If Google Drive asks for a confirmation with a page, the file is requested as the page's form does, once.

    Args:
        request: The request.
        part: The partial file that the request is to complete; None if it is not for a download.
        timeout_s: Seconds to wait for the response.
    """
    response = _open_url(request, part, timeout_s)
    is_page = response.status == 200 and response.headers.get_content_type() == "text/html"
    if not (is_page and request.get_method() == "GET" and google_drive.is_drive_url(request.full_url)):
        return response
    with response:
        confirmed = google_drive.find_confirmed_url(_read_page(response, timeout_s), response.url)
    if confirmed is None:
        raise SourceError(IS_HTML)
    if not google_drive.is_drive_url(confirmed):
        raise SourceError(f"its page asks for a confirmation at {confirmed[:200]!r}, which is not Google Drive")
    return _open_url(Request(confirmed, headers={**request.headers}), part, timeout_s)


def _read_page(response: web.Response, timeout_s: float) -> bytes:
    page, deadline = b"", time.monotonic() + timeout_s
    while (left := google_drive.MAX_PAGE_BYTES - len(page)) > 0 and time.monotonic() < deadline:
        block = _read_block(response, left, "in a page")
        if not block:
            break
        page += block
    return page


def _read_block(response: web.Response, size: int, place: str) -> bytes:
    """Return the next bytes of a body, at most ``size``; ``place`` says in the error where the connection broke."""
    try:
        return response.block(size)
    except (OSError, http.client.HTTPException) as error:
        reason = _format_reason(error) if isinstance(error, OSError) else type(error).__name__
        silent = isinstance(error, TimeoutError)
        raise TransferError(f"the connection broke {place} ({reason})", is_silent=silent) from None


def _open_url(request: Request, part: PartialFile | None, timeout_s: float) -> web.Response:
    try:
        response: web.Response = web.build_opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {(error.msg or '').partition(chr(10))[0]}".rstrip()
        if error.code == 416 and part is not None and part.size():  # the partial file is longer than the file
            part.clear()
            raise TransferError(answer) from None
        raise TransferError(answer) if error.code in _RETRIED_STATUSES else SourceError(answer) from None
    except web.RefusedRedirectError as error:
        raise SourceError(str(error)) from None
    except urllib.error.URLError as error:  # no such host, connection refused, invalid certificate
        cause = error.reason
        text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        raise SourceError(f"the server cannot be reached ({text.lower()})") from None
    except OSError as error:
        silent = isinstance(error, TimeoutError)
        raise TransferError(f"the connection broke ({_format_reason(error)})", is_silent=silent) from None
    except (http.client.HTTPException, ValueError) as error:
        raise SourceError(f"the server does not speak HTTP ({type(error).__name__})") from None
    return response


def _format_reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def _check_headers(response: web.Response, url: str, part: PartialFile) -> int | None:
    """Check the headers of a response, prepare the partial file for its body, and return the file's size, if known."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    # Some servers send a .gz file unchanged but declare its own compression as Content-Encoding.
    if encoding not in ("", "identity") and not part.entry.file_name.endswith((".gz", ".tgz")):
        raise SourceError(f"it sends the file in an encoding that was not asked for ({encoding[:40]!r})")
    if response.headers.get_content_type() == "text/html":
        raise SourceError(IS_HTML)
    if response.status == 206:
        span, _, size = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(part.size()) or not NUMBER.fullmatch(size):
            part.clear()
            raise TransferError(f"it sends another part than was asked for ({span[:40]!r})")
        if _has_changed(response, url, part, int(size)):
            part.clear()
            raise TransferError("the file changed at the server while it was fetched")
        check_size(part.entry, int(size))
        return int(size)
    length = response.headers.get("Content-Length", "")
    promised = int(length) if NUMBER.fullmatch(length) else None
    if promised is not None:
        check_size(part.entry, promised)
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


def check_size(entry: Entry, size: int) -> None:
    """Raise a ``SourceError`` if a file of ``size`` bytes cannot be the one that the manifest's entry describes."""
    if not entry.min_bytes <= size <= entry.max_bytes:
        raise SourceError(f"its size is wrong; got {size:,} bytes, want {local_files.format_size(entry)}")


def _read_blocks(response: web.Response, part: PartialFile, total: int | None, timeout_s: float) -> Iterator[bytes]:
    """Yield the body in blocks: as many bytes as promised or, if no size is known, up to the end."""
    had, since = part.size(), time.monotonic()
    while total is None or part.size() < total:
        if (now := time.monotonic()) - since > timeout_s:
            if part.size() - had < _MIN_BYTES:
                raise TransferError(f"it sends less than {_MIN_BYTES:,} bytes in {timeout_s:g} s")
            had, since = part.size(), now
        block = _read_block(response, _CHUNK_BYTES, f"at {part.size():,} bytes")
        if not block:
            if total is not None:
                raise TransferError(f"the connection ended at {part.size():,} of {total:,} bytes")
            return
        yield block
