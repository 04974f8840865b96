"""Read ``weights/manifest.json``: the published caffemodels, data sets and split lists, and what is known of each.

Everything is checked on reading; an error names the entry and the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from reproduction.caffe.errors import DataError, ReproductionError, StrPath, WeightsError, did_you_mean
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.json_file import Check, at_least, matching
from reproduction.fcn.fetch.archives import plain_path

FORMAT = 1

HASHES = ("md5", "sha1", "sha256")
SLACK_BYTES = 64 << 10
"""What a caffemodel may hold besides its floats: names, layer parameters, shapes. FCN-32s has 3,119 bytes of it."""
MAX_BYTES = 16 << 30
"""The most that is taken of a file whose size is not known."""


_LONGEST_NAME = 200  # bytes of a file's name, so that names that are made from it fit


def _is_path(name: str) -> bool:
    path = plain_path(name)
    return path not in (None, PurePosixPath()) and len(PurePosixPath(name).name.encode()) <= _LONGEST_NAME


_Path = Annotated[str, Check("a path below a folder", _is_path)]
_Url = Annotated[
    str, matching(r"https?://[A-Za-z0-9_.-]+(:[0-9]{1,5})?/[!-~]+", "the URL of a file, http:// or https://")
]
_Name = Annotated[str, matching(r"[a-z0-9][a-z0-9._-]*", "small letters, digits, '.', '_' and '-'")]
_Bytes = Annotated[int, at_least(1)]
_Md5 = Annotated[str, matching("[0-9a-f]{32}", "32 hexadecimal digits")]
_Sha1 = Annotated[str, matching("[0-9a-f]{40}", "40 hexadecimal digits")]
_Sha256 = Annotated[str, matching("[0-9a-f]{64}", "64 hexadecimal digits")]


class Kind(StrEnum):
    """What a file is; the caffemodels lie below the weights folder, the rest below the data folder."""

    CAFFEMODEL = "caffemodel"
    ARCHIVE = "archive"
    LIST = "list"


@dataclass(frozen=True)
class Unpacked:
    """Where an archive goes, and what must then be there.

    Args:
        folder: below the data folder.
        holds: patterns, each of which must match something in the folder; see ``archives.holds``.
    """

    folder: _Path
    holds: tuple[_Path, ...]


@dataclass(frozen=True)
class Entry:
    """One published file.

    Args:
        name: how the tools call it; of a caffemodel, the net's name.
        kind: caffemodel, archive or list.
        url: where it was published.
        path: where it lies, below the weights or the data folder.
        licence: what its publishers say of its use.
        mirrors: other places that have it.
        size_bytes: its exact size, where known.
        payload_bytes: of a caffemodel, the bytes of its floats: the least it can have.
        md5: where known.
        sha1: where known.
        sha256: where known.
        source: who says so.
        archive: where and what it unpacks to; archives only.
        note: what else a user should know.
    """

    name: _Name
    kind: Kind
    url: _Url
    path: _Path
    licence: str
    mirrors: tuple[_Url, ...] = ()
    size_bytes: _Bytes | None = None
    payload_bytes: _Bytes | None = None
    md5: _Md5 | None = None
    sha1: _Sha1 | None = None
    sha256: _Sha256 | None = None
    source: str = ""
    archive: Unpacked | None = None
    note: str = ""

    def check(self) -> str | None:
        """Return what the fields should be together, see ``json_file``; None where they fit."""
        if (self.kind is Kind.ARCHIVE) != (self.archive is not None):
            return "'archive' for archives, and for them alone"
        if self.payload_bytes and self.size_bytes and self.payload_bytes > self.size_bytes:
            return f"payload_bytes of at most {self.size_bytes}, as the file has"
        return None

    @property
    def file_name(self) -> str:
        """The last part of its URL."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]

    @property
    def hashes(self) -> dict[str, str]:
        """The published hashes, weakest first."""
        return {name: value for name in HASHES if (value := getattr(self, name)) is not None}

    @property
    def max_bytes(self) -> int:
        """The most bytes that this file can have."""
        if self.size_bytes is not None:
            return self.size_bytes
        return MAX_BYTES if self.payload_bytes is None else self.payload_bytes + SLACK_BYTES

    @property
    def min_bytes(self) -> int:
        """The least bytes that this file can have."""
        return self.size_bytes if self.size_bytes is not None else self.payload_bytes or 1

    def error(self, problem: str, path: StrPath, **parts: Any) -> ReproductionError:
        """Return the error for this kind of file."""
        kind = WeightsError if self.kind is Kind.CAFFEMODEL else DataError
        return kind(problem, path=path, **parts)


@dataclass(frozen=True)
class _Document:
    """The file, besides its format."""

    entries: tuple[Entry, ...]
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unpublished: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Manifest:
    """The published files by name, and the sets in which they are used together."""

    path: Path
    entries: Mapping[str, Entry]
    sets: Mapping[str, tuple[str, ...]]
    unpublished: frozenset[str]

    def __getitem__(self, name: str) -> Entry:
        """Return an entry.

        Raises:
            DataError: there is none of this name, or the net's weights were never published.
        """
        if name in self.unpublished:
            raise DataError(f"no caffemodel was published for {name}", path=self.path, remedy="It has to be trained.")
        if name not in self.entries:
            near = did_you_mean(name, [*self.entries, *self.unpublished])
            remedy = near or "`tools/fetch.py --list` prints them all."
            raise DataError(f"there is no published file called {name!r}", path=self.path, remedy=remedy)
        return self.entries[name]

    def select(self, name: str, nets: Iterable[str] | None = None) -> list[Entry]:
        """Return the files of a set, its caffemodels narrowed to some nets.

        Raises:
            DataError: there is no such set, or a net is not in it.
        """
        if name not in self.sets:
            remedy = did_you_mean(name, self.sets) or f"There are {', '.join(self.sets)}."
            raise DataError(f"there is no set called {name!r}", path=self.path, remedy=remedy)
        found = [self.entries[member] for member in self.sets[name]]
        if nets is None:
            return found
        wanted = [self[net] for net in nets]
        for entry in wanted:
            if entry not in found or entry.kind is not Kind.CAFFEMODEL:
                raise DataError(f"{entry.name} is not a net of the set {name!r}", path=self.path)
        return wanted + [entry for entry in found if entry.kind is not Kind.CAFFEMODEL]


def load(path: StrPath) -> Manifest:
    """Read a manifest.

    Raises:
        DataError: it is missing, not JSON, or an entry is wrong; the entry and the field are named.
    """
    file = Path(path)
    try:
        document = json_file.load(file, _Document, "the manifest is wrong", version=FORMAT)
    except OSError as error:
        problem = f"the manifest cannot be read ({(error.strerror or str(error)).lower()})"
        raise DataError(problem, path=file, remedy="Name one with --manifest or REPRODUCTION_MANIFEST.") from None
    try:
        return _manifest(file, document)
    except ReproductionError as error:
        raise error.at(str(file)) from None


def _manifest(path: Path, document: _Document) -> Manifest:
    entries: dict[str, Entry] = {}
    places: dict[tuple[bool, str], str] = {}
    for entry in document.entries:
        if entry.name in entries:
            raise DataError(f"entry {entry.name!r} is there twice")
        place = (entry.kind is Kind.CAFFEMODEL, entry.path)
        if place in places:
            raise DataError(f"entries {places[place]!r} and {entry.name!r} have the same path", got=entry.path)
        entries[entry.name], places[place] = entry, entry.name
    for name, members in document.sets.items():
        for member in members:
            if member not in entries:
                remedy = did_you_mean(member, entries)
                raise DataError(f"set {name!r} names an entry that is not there", got=repr(member), remedy=remedy)
    return Manifest(path, MappingProxyType(entries), MappingProxyType(dict(document.sets)), document.unpublished)
