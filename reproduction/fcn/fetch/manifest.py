"""The manifest ``weights/manifest.json``: the published caffemodels, data sets and lists of ids.

The whole manifest is checked when it is loaded; an error names the entry and the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from reproduction.caffe.errors import DataError, ReproductionError, StrPath, WeightsError, cannot_read, did_you_mean
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.json_file import Constraint, at_least, matching
from reproduction.fcn.fetch.archives import plain_path

FORMAT_VERSION = 1

HASHES = ("md5", "sha1", "sha256")
SLACK_BYTES = 64 << 10
"""What a caffemodel may hold besides its floats: names, layer parameters, shapes. FCN-32s has 3,119 bytes of it."""
MAX_BYTES = 16 << 30
"""The most that is taken of a file whose size is not known."""


_LONGEST_NAME = 200  # bytes; leaves room for names derived from it, such as FILE.part.json


def _is_path(name: str) -> bool:
    path = plain_path(name)
    return path not in (None, PurePosixPath()) and len(PurePosixPath(name).name.encode()) <= _LONGEST_NAME


_Path = Annotated[str, Constraint("a path below a folder", _is_path)]
_Url = Annotated[
    str, matching(r"https?://[A-Za-z0-9_.-]+(:[0-9]{1,5})?/[!-~]+", "the URL of a file, http:// or https://")
]
_Name = Annotated[str, matching(r"[a-z0-9][a-z0-9._-]*", "small letters, digits, '.', '_' and '-'")]
_Bytes = Annotated[int, at_least(1)]
_Md5 = Annotated[str, matching("[0-9a-f]{32}", "32 hexadecimal digits")]
_Sha1 = Annotated[str, matching("[0-9a-f]{40}", "40 hexadecimal digits")]
_Sha256 = Annotated[str, matching("[0-9a-f]{64}", "64 hexadecimal digits")]


class EntryKind(StrEnum):
    """What a published file is. Weights belong below the weights folder, all others below the data root.

    ``COPY`` is a copy of a caffemodel's weights in another file format; ``LIST`` is the list of a split.
    """

    CAFFEMODEL = "caffemodel"
    COPY = "copy"  # of a caffemodel's weights, in another file format
    ARCHIVE = "archive"
    LIST = "list"


@dataclass(frozen=True)
class UnpackedArchive:
    """The folder into which an archive is unpacked, and what it then contains.

    Args:
        folder: Path of the folder below the data root.
        holds: Patterns, such as ``JPEGImages/*.jpg``. The folder is complete if each matches something in it; see
            ``archives.contains``.
    """

    folder: _Path
    holds: tuple[_Path, ...]


@dataclass(frozen=True)
class Mirror:
    """A further URL of a published file.

    Args:
        url: The URL.
        vouched_by: Who offers the file there, or says that it is the published one.
    """

    url: _Url
    vouched_by: str


@dataclass(frozen=True)
class Entry:
    """One published file: where it is fetched from, where it belongs, and how it is checked.

    Args:
        name: Name of the file in the tools; for a caffemodel, the net's name.
        kind: Whether it is a caffemodel, a copy of one in another format, an archive or a list.
        url: Where it was published.
        path: Path below the weights folder or the data root.
        licence: The terms of use that its publishers state.
        mirrors: Other URLs of the file, in the order in which they are tried.
        alternatives: Names of entries that serve as well, such as VOC 2012 for VOC 2011.
        size_bytes: Exact size, if known.
        payload_bytes: For a caffemodel of unknown size, the number of bytes of its weights, below which its size cannot
            be; None if not known.
        md5: MD5, if published.
        sha1: SHA-1, if published.
        sha256: SHA-256, if published.
        source: Where the size and the hashes were published, as text.
        archive: The folder into which it is unpacked, and its content; None if it is not an archive.
        note: Further information for users.
        origin: For a copy, how it was made from the published weights; reports state it.
        layers: For a copy with other names, the names of Caffe's layers by those in the file.
    """

    name: _Name
    kind: EntryKind
    url: _Url
    path: _Path
    licence: str
    mirrors: tuple[Mirror, ...] = ()
    alternatives: tuple[_Name, ...] = ()
    size_bytes: _Bytes | None = None
    payload_bytes: _Bytes | None = None
    md5: _Md5 | None = None
    sha1: _Sha1 | None = None
    sha256: _Sha256 | None = None
    source: str = ""
    archive: UnpackedArchive | None = None
    note: str = ""
    origin: str = ""
    layers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def check(self) -> str | None:
        """Return the rule that the fields break, such as a missing ``archive``, else None (see ``json_file``)."""
        if (self.kind is EntryKind.ARCHIVE) != (self.archive is not None):
            return "'archive' for archives, and for them alone"
        if self.layers and not (self.kind is EntryKind.COPY and self.hashes):
            return "'layers' for copies with a hash, and for them alone"
        if self.payload_bytes and self.size_bytes and self.payload_bytes > self.size_bytes:
            return f"payload_bytes of at most {self.size_bytes}, as the file has"
        return None

    @property
    def file_name(self) -> str:
        """The file's name where it was published: the last component of its URL; for a copy, that of its path."""
        if self.kind is EntryKind.COPY:  # its host names files by numbers
            return PurePosixPath(self.path).name
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]

    @property
    def is_weights(self) -> bool:
        """True if the file is a caffemodel or a copy of one, and so belongs below the weights folder."""
        return self.kind in (EntryKind.CAFFEMODEL, EntryKind.COPY)

    @property
    def hashes(self) -> dict[str, str]:
        """The published hashes by their kind (``md5``, ``sha1``, ``sha256``), the weakest first."""
        return {name: value for name in HASHES if (value := getattr(self, name)) is not None}

    @property
    def max_bytes(self) -> int:
        """The largest size that the file can have, in bytes."""
        if self.size_bytes is not None:
            return self.size_bytes
        return MAX_BYTES if self.payload_bytes is None else self.payload_bytes + SLACK_BYTES

    @property
    def min_bytes(self) -> int:
        """The smallest size that the file can have, in bytes: ``size_bytes``, else ``payload_bytes``, else 1."""
        return self.size_bytes if self.size_bytes is not None else self.payload_bytes or 1

    def error(self, problem: str, path: StrPath, **parts: Any) -> ReproductionError:
        """Return an error about the file: a ``WeightsError`` for weights, a ``DataError`` for other files.

        Args:
            problem: What is wrong.
            path: The path that the error names.
            parts: Further arguments of the error, such as ``got``, ``want`` and ``remedy``.
        """
        kind = WeightsError if self.is_weights else DataError
        return kind(problem, path=path, **parts)


@dataclass(frozen=True)
class _Document:
    """The content of the manifest, except its format number."""

    entries: tuple[Entry, ...]
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unpublished: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Manifest:
    """The list of all published files, and the sets of files that are used together.

    Attributes:
        path: Path of the manifest, for errors.
        entries: The entry of each file, by its name.
        sets: For each set, such as ``voc``, the names of its entries.
        unpublished: Names of the nets whose weights were never published.
    """

    path: Path
    entries: Mapping[str, Entry]
    sets: Mapping[str, tuple[str, ...]]
    unpublished: frozenset[str]

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of the file with this name.

        Raises:
            DataError: If there is no entry of this name, or the net's weights were never published.
        """
        if name in self.unpublished:
            raise DataError(f"no caffemodel was published for {name}", path=self.path, remedy="It has to be trained.")
        if name not in self.entries:
            near = did_you_mean(name, [*self.entries, *self.unpublished])
            remedy = near or "`fcn fetch --list` prints them all."
            raise DataError(f"there is no published file called {name!r}", path=self.path, remedy=remedy)
        return self.entries[name]

    def with_alternatives(self, entry: Entry) -> list[Entry]:
        """Return an entry, followed by those of files that serve as well, such as VOC 2012 for VOC 2011."""
        return [entry, *(self.entries[name] for name in entry.alternatives)]

    def select(self, name: str) -> list[Entry]:
        """Return the entries of a set of files that are used together, such as ``voc``.

        Args:
            name: Name of the set.

        Raises:
            DataError: If there is no such set.
        """
        if name not in self.sets:
            remedy = did_you_mean(name, self.sets) or f"There are {', '.join(self.sets)}."
            raise DataError(f"there is no set called {name!r}", path=self.path, remedy=remedy)
        return [self.entries[member] for member in self.sets[name]]


def read_manifest(path: StrPath) -> Manifest:
    """Load a manifest and check every entry.

    Args:
        path: Path of the JSON file.

    Raises:
        DataError: If the file is missing or not JSON, or an entry is invalid. The error names the entry and the field.
    """
    file = Path(path)
    try:
        document = json_file.load(file, _Document, "the manifest is wrong", version=FORMAT_VERSION)
    except OSError as error:
        remedy = "Name one with --manifest or REPRODUCTION_MANIFEST."
        raise cannot_read(error, "the manifest", file).advise(remedy) from None
    try:
        return _check_entries(file, document)
    except ReproductionError as error:
        raise error.at(str(file)) from None


def _check_entries(path: Path, document: _Document) -> Manifest:
    entries: dict[str, Entry] = {}
    places: dict[tuple[bool, str], str] = {}
    for entry in document.entries:
        if entry.name in entries:
            raise DataError(f"entry {entry.name!r} occurs twice")
        place = (entry.is_weights, entry.path)
        if place in places:
            raise DataError(f"entries {places[place]!r} and {entry.name!r} have the same path", got=entry.path)
        entries[entry.name], places[place] = entry, entry.name
    named = {f"set {name!r}": members for name, members in document.sets.items()}
    named |= {f"entry {entry.name!r}": entry.alternatives for entry in document.entries}
    for owner, members in named.items():
        for member in members:
            if member not in entries:
                remedy = did_you_mean(member, entries)
                raise DataError(f"{owner} names an entry that does not exist", got=repr(member), remedy=remedy)
    return Manifest(path, MappingProxyType(entries), MappingProxyType(dict(document.sets)), document.unpublished)
