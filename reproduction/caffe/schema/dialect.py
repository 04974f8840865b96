"""The forks of Caffe whose files are read: a record of each, and the table of the records.

A dialect's module declares a record with ``add_dialect``, and passes it to ``Message.add_field`` and to the classes of
its layer types. The core has no names of forks; it asks this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reproduction.caffe.errors import ReproductionError, did_you_mean


@dataclass(frozen=True)
class Dialect:
    """A fork of Caffe, or a family of forks, that adds layer types and fields.

    Attributes:
        name: the short name, as in ``load_net(..., dialect="pspnet")``.
        title: the name for readers, such as ``"PSPNet"``.
        source: the repository and commit that the dialect follows, such as ``"hszhao/PSPNet@798bdc9"``.
        since: the year in which the fork was published.
        missing: layer types of the fork that are not implemented. Maps each to a sentence on what to do instead.
    """

    name: str
    title: str
    source: str
    since: int
    missing: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.title} ({self.source})"


#: The dialects by name.
DIALECTS: dict[str, Dialect] = {}


def add_dialect(name: str, title: str, source: str, since: int, *, missing: Mapping[str, str] | None = None) -> Dialect:
    """Add a dialect to the table, and return its record; see ``Dialect`` for the arguments.

    Raises:
        TypeError: If there is a dialect of this name.
    """
    if name in DIALECTS:
        raise TypeError(f"two dialects are named {name!r}")
    DIALECTS[name] = Dialect(name, title, source, since, dict(missing or {}))
    return DIALECTS[name]


def find_dialect(name: str) -> Dialect:
    """Return the dialect of this name.

    Raises:
        ReproductionError: If there is none.
    """
    if name not in DIALECTS:
        want, near = f"one of {', '.join(sorted(DIALECTS))}", did_you_mean(name, DIALECTS)
        raise ReproductionError(f"there is no dialect {name!r}", want=want, remedy=near)
    return DIALECTS[name]


def find_missing_type(type: str) -> str:
    """Return a remedy for a layer type of a known fork that is not implemented; an empty string for any other type."""
    for dialect in DIALECTS.values():
        if type in dialect.missing:
            return f"It is a layer of {dialect}, which is not implemented. {dialect.missing[type]}".rstrip()
    return ""
