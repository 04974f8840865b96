"""Read ``weights/manifest.json``: the published caffemodels, data sets and split lists, and what is known of each.

Everything is checked on reading; an error names the entry and the field.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from reproduction.caffe.errors import DataError, ReproductionError, StrPath, WeightsError, did_you_mean
from reproduction.fcn.archives import plain_path

FORMAT = 1

HASHES = {"md5": 32, "sha1": 40, "sha256": 64}
SLACK_BYTES = 64 << 10
"""What a caffemodel may hold besides its floats: names, layer parameters, shapes. FCN-32s has 3,119 bytes of it."""
MAX_BYTES = 16 << 30
"""The most that is taken of a file whose size is not known."""


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

    folder: str
    holds: tuple[str, ...]


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

    name: str
    kind: Kind
    url: str
    path: str
    licence: str
    mirrors: tuple[str, ...] = ()
    size_bytes: int | None = None
    payload_bytes: int | None = None
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None
    source: str = ""
    archive: Unpacked | None = None
    note: str = ""

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
        document = json.loads(file.read_bytes())
    except OSError as error:
        problem = f"the manifest cannot be read ({(error.strerror or str(error)).lower()})"
        raise DataError(problem, path=file, remedy="Name one with --manifest or REPRODUCTION_MANIFEST.") from None
    except (ValueError, RecursionError) as error:
        raise DataError("the manifest is not JSON", path=file, got=str(error).splitlines()[0]) from None
    try:
        return _read(file, document)
    except ReproductionError as error:
        raise error.at(str(file)) from None


def _read(path: Path, document: object) -> Manifest:
    top = _object(document, "the manifest", {"format", "entries", "sets", "unpublished"})
    if top.get("format") != FORMAT:
        raise DataError("field 'format' is not one that this version reads", got=top.get("format"), want=FORMAT)
    entries: dict[str, Entry] = {}
    places: dict[tuple[bool, str], str] = {}
    for number, item in enumerate(_list(top.get("entries"), "field 'entries'")):
        entry = _entry(item, number)
        if entry.name in entries:
            raise DataError(f"entry {entry.name!r} is there twice")
        place = (entry.kind is Kind.CAFFEMODEL, entry.path)
        if place in places:
            raise DataError(f"entries {places[place]!r} and {entry.name!r} have the same path", got=entry.path)
        entries[entry.name], places[place] = entry, entry.name
    sets = {}
    for name, members in _object(top.get("sets", {}), "field 'sets'").items():
        sets[name] = tuple(_strings(members, f"set {name!r}"))
        for member in sets[name]:
            if member not in entries:
                remedy = did_you_mean(member, entries)
                raise DataError(f"set {name!r} names an entry that is not there", got=repr(member), remedy=remedy)
    unpublished = frozenset(_strings(top.get("unpublished", []), "field 'unpublished'"))
    return Manifest(path, MappingProxyType(entries), MappingProxyType(sets), unpublished)


def _entry(item: object, number: int) -> Entry:
    fields = {field.name for field in dataclasses.fields(Entry)}
    values = _object(item, f"entry {number + 1}", fields)
    name = values.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        want = "small letters, digits, '.', '_' and '-'"
        raise DataError(f"entry {number + 1}: field 'name' is no name", got=repr(name), want=want)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(Entry):
        if field.name in values:
            try:
                made[field.name] = _READERS[field.name](values[field.name])
            except ReproductionError as error:
                raise error.at(f"entry {name!r}: field {field.name!r}") from None
        elif field.default is dataclasses.MISSING:
            raise DataError(f"entry {name!r}: field {field.name!r} is missing")
    entry = Entry(**made)
    if (entry.kind is Kind.ARCHIVE) != (entry.archive is not None):
        raise DataError(f"entry {name!r}: field 'archive' belongs to archives, and to them alone", got=str(entry.kind))
    if entry.payload_bytes and entry.size_bytes and entry.payload_bytes > entry.size_bytes:
        problem = f"entry {name!r}: field 'payload_bytes' is larger than the file"
        raise DataError(problem, got=entry.payload_bytes, want=f"at most {entry.size_bytes}")
    return entry


def _object(value: object, what: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{what} is not a JSON object", got=_shown(value))
    for key in value:
        if known is not None and key not in known:
            raise DataError(f"{what} has an unknown field {key!r}", remedy=did_you_mean(key, known))
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{what} is not a list", got=_shown(value))
    return value


def _strings(value: object, what: str) -> tuple[str, ...]:
    for item in _list(value, what):
        if not isinstance(item, str):
            raise DataError(f"{what} holds something else than strings", got=_shown(item))
    return tuple(_list(value, what))


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise DataError("it is not a string", got=_shown(value))
    return value


def _kind(value: object) -> Kind:
    if value not in list(Kind):
        raise DataError("it is no kind of file", got=_shown(value), want=" or ".join(Kind))
    return Kind(str(value))


def _url(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?/[!-~]+", text, re.ASCII):
        raise DataError("it is not the URL of a file", got=_shown(value), want="http:// or https://")
    return text


def _path(value: object) -> str:
    text = _text(value)
    if plain_path(text) in (None, PurePosixPath()):
        raise DataError("it is not a path below a folder", got=_shown(value))
    return text


def _bytes(value: object) -> int | None:
    if value is not None and (type(value) is not int or value <= 0):
        raise DataError("it is not a number of bytes", got=_shown(value))
    return value


def _hash(kind: str) -> Callable[[object], str | None]:
    def read(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{HASHES[kind]}}}", value):
            raise DataError(f"it is no {kind}", got=_shown(value), want=f"{HASHES[kind]} hexadecimal digits")
        return value

    return read


def _unpacked(value: object) -> Unpacked | None:
    if value is None:
        return None
    parts = _object(value, "it", {"folder", "holds"})
    patterns = _strings(parts.get("holds"), "field 'holds'")
    return Unpacked(_path(parts.get("folder")), tuple(_path(pattern) for pattern in patterns))


_READERS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "kind": _kind,
    "url": _url,
    "path": _path,
    "licence": _text,
    "mirrors": lambda value: tuple(_url(item) for item in _strings(value, "it")),
    "size_bytes": _bytes,
    "payload_bytes": _bytes,
    **{kind: _hash(kind) for kind in HASHES},
    "source": _text,
    "archive": _unpacked,
    "note": _text,
}
