"""The sources of a published file: the user's mirror, the publisher, and mirrors; and whether they answer.

A mirror on Hugging Face (``hf:owner/name``) needs no ``huggingface_hub``: the hub serves each file of a repository at a
plain address, and ``transfer`` resumes and checks it as any other. With the library, files would lie in its cache
too, and its errors would not lead to the next source.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request

from reproduction.caffe.errors import DataError
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.manifest import Entry
from reproduction.fcn.fetch.transfer import HEADERS, IS_HTML, NUMBER, SourceError, TransferError, check_size, open_url

MIRROR_VARIABLE = "REPRODUCTION_MIRROR"
_HUB = "https://huggingface.co"
_HUB_VARIABLE = "HF_ENDPOINT"  # as in huggingface_hub
_HUB_MIRROR = re.compile(r"hf:((datasets/)?[\w.-]+/[\w.-]+)")
_MIRRORS = "http://, https://, hf:owner/name or a folder"


@dataclass(frozen=True)
class FileSource:
    """A place from which a published file can be fetched: its URL, or its path in a mirror that is a folder.

    Args:
        place: The URL or the path of the file there.
        vouched_by: Who offers the file there, such as ``the publisher`` or ``your mirror``.
    """

    place: str | Path
    vouched_by: str

    def __str__(self) -> str:
        return f"{self.place} ({self.vouched_by})"


def list_sources(entry: Entry, mirror: str | None = None) -> list[FileSource]:
    """Return the sources of a published file, in the order in which they are tried.

    Args:
        entry: The file's entry in the manifest.
        mirror: A URL, a folder, or a repository of Hugging Face to try first: ``hf:owner/name``, or
            ``hf:datasets/owner/name``. Another host of such repositories can be named by HF_ENDPOINT. None for the
            environment variable REPRODUCTION_MIRROR, if it is set.

    Raises:
        DataError: If the mirror is none of these.
    """
    mirror = _resolve_hub(mirror or os.environ.get(MIRROR_VARIABLE) or "")
    root = "weights" if entry.is_weights else "data"
    below = (f"{root}/{entry.path}", entry.file_name)
    found: list[str | Path] = []
    if mirror and "://" in mirror:
        if not re.match(r"https?://[\w\[]", mirror):
            raise DataError("the mirror is not an http address", got=repr(mirror), want=_MIRRORS)
        found += [f"{mirror.rstrip('/')}/{quote(name)}" for name in below]
    elif mirror:
        if not Path(mirror).is_dir():
            raise DataError("the mirror is not a folder", path=mirror, want=_MIRRORS)
        found += [next((path for name in below if (path := Path(mirror) / name).is_file()), Path(mirror) / below[0])]
    return [
        *(FileSource(place, "your mirror") for place in found),
        FileSource(entry.url, "the publisher" if not entry.origin else entry.source),
        *(FileSource(other.url, other.vouched_by) for other in entry.mirrors),
    ]


def _resolve_hub(mirror: str) -> str:
    """Return the URL of a repository of Hugging Face; any other mirror as it is."""
    if not mirror.startswith("hf:"):
        return mirror
    if not (found := _HUB_MIRROR.fullmatch(mirror)):
        want = "hf:owner/name or hf:datasets/owner/name"
        raise DataError("the mirror is not a repository of Hugging Face", got=repr(mirror), want=want)
    return f"{(os.environ.get(_HUB_VARIABLE) or _HUB).rstrip('/')}/{found[1]}/resolve/main"


@dataclass(frozen=True)
class SourceCheck:
    """The answer of a source that was asked whether it has a file.

    Args:
        source: The source that was asked.
        is_ok: True if the source has the file, and not of a wrong size.
        text: The size if ``is_ok``, else what is wrong.
        size: The size of the file in bytes; None if the source does not state it.
    """

    source: FileSource
    is_ok: bool
    text: str
    size: int | None = None


def check_source(entry: Entry, source: FileSource, timeout_s: float = 10.0) -> SourceCheck:
    """Ask a source whether it has a file, by requesting its headers or, if that is refused, its first bytes.

    Args:
        entry: The file's entry in the manifest, which states its size.
        source: The source, one of those that ``list_sources`` returns.
        timeout_s: Seconds to wait for the answer.
    """
    try:
        if isinstance(source.place, Path):
            if not source.place.is_file():
                raise SourceError("no such file")
            size: int | None = source.place.stat().st_size
        else:
            try:
                size = _request_size(entry, Request(source.place, headers=HEADERS, method="HEAD"), timeout_s)
            except SourceError:  # some servers refuse HEAD
                ranged = Request(source.place, headers={**HEADERS, "Range": "bytes=0-255"})
                size = _request_size(entry, ranged, timeout_s)
        if size is not None:
            check_size(entry, size)
    except (SourceError, TransferError) as error:
        return SourceCheck(source, False, str(error))
    return SourceCheck(source, True, "size not stated" if size is None else f"{size:,} bytes", size)


def _request_size(entry: Entry, request: Request, timeout_s: float) -> int | None:
    with open_url(request, None, timeout_s) as response:
        if response.headers.get_content_type() == "text/html":
            raise SourceError(IS_HTML)
        length = response.headers.get("Content-Length", "")
        if request.get_method() != "HEAD":
            if local_files.looks_like_html(response.block(256)):
                raise SourceError(IS_HTML)
            if response.status == 206:
                length = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(length) if NUMBER.fullmatch(length) else None
