"""Which published files are present, and from which source each missing one can be fetched; asked before a long run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.file_sources import FileSource, SourceCheck, check_source, list_sources
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.fetch.manifest import Entry, Manifest

_THREADS = 8


@dataclass(frozen=True)
class Availability:
    """Whether a published file is present, and if not, from which source it can be fetched.

    Args:
        entry: The file's entry in the manifest.
        used: The entry that is present or will be fetched: ``entry`` itself, or an alternative such as VOC 2012 for VOC
            2011; None if no source has either.
        path: The file, or the folder of an unpacked archive, if it is present; else None.
        check: The answer of the source that will be used; None if the file is present or no source has it.
        problems: The sources that were asked before and do not have the file, with reasons.
    """

    entry: Entry
    used: Entry | None
    path: Path | None = None
    check: SourceCheck | None = None
    problems: tuple[str, ...] = ()


def check_availability(
    entries: Iterable[Entry], manifest: Manifest, roots: FileRoots, mirror: str | None = None, timeout_s: float = 10.0
) -> list[Availability]:
    """Find out whether each published file is present and, if not, ask its sources in turn until one has it.

    Args:
        entries: The files' entries in the manifest.
        manifest: The manifest, in which alternatives are looked up.
        roots: The weights folder and the data root.
        mirror: Mirror to ask first, see ``list_sources``; None for the environment variable REPRODUCTION_MIRROR, if it
            is set.
        timeout_s: Seconds to wait for the answer of each source.
    """

    def check(entry: Entry) -> Availability:
        candidates = manifest.with_alternatives(entry)
        for candidate in candidates:
            if local_files.is_present(candidate, roots):
                return Availability(entry, candidate, roots.used_path(candidate))
        problems: list[str] = []
        for candidate in candidates:
            for source in list_sources(candidate, mirror):
                answer = check_source(candidate, source, timeout_s)
                if answer.is_ok:
                    return Availability(entry, candidate, None, answer, tuple(problems))
                problems.append(f"{source.place}: {answer.text}")
        return Availability(entry, None, None, None, tuple(problems))

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(check, entries))


def format_availability(found: Sequence[Availability]) -> list[str]:
    """Format the result of ``check_availability`` as a table: what is present, what is fetched from where, sizes."""
    rows = [("file", "size", "where")]
    for each in found:
        name = each.entry.name if each.used in (None, each.entry) else f"{each.entry.name} (as {each.used.name})"
        if each.path is not None:
            rows.append((name, "", f"present, {each.path}"))
        elif each.check is not None and each.used is not None:
            size = each.check.size or each.used.size_bytes or each.used.payload_bytes
            rows.append((name, format_megabytes(size), f"will be fetched from {_host(each.check.source)}"))
        else:
            rows.append((name, "", f"cannot be had; {'; '.join(each.problems)}"))
    return format_columns(rows)


def check_all_sources(entries: Iterable[Entry], timeout_s: float = 10.0) -> list[tuple[Entry, SourceCheck]]:
    """Ask every source in the manifest for every entry, and return (entry, answer) pairs in the order of the sources.

    Args:
        entries: The entries.
        timeout_s: Seconds to wait for the answer of each source.
    """
    asked = [(entry, source) for entry in entries for source in list_sources(entry)]
    with ThreadPoolExecutor(_THREADS) as pool:
        answers = pool.map(lambda pair: check_source(pair[0], pair[1], timeout_s), asked)
        return [(entry, answer) for (entry, _), answer in zip(asked, answers, strict=True)]


def format_source_checks(answers: Sequence[tuple[Entry, SourceCheck]]) -> list[str]:
    """Format the answers that ``check_all_sources`` returns as a table."""
    rows = [("file", "source", "vouched by", "answer")]
    for entry, answer in answers:
        text = answer.text if answer.is_ok else f"failed: {answer.text}"
        rows.append((entry.name, _host(answer.source), answer.source.vouched_by, text))
    return format_columns(rows)


def format_megabytes(size: int | None) -> str:
    """Format a number of bytes as megabytes; None as ``not known``."""
    if not size:
        return "not known"
    return f"{size / 1e6:,.1f} MB" if size > 1e6 else f"{size:,} bytes"


def format_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows of cells as lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _host(source: FileSource) -> str:
    return str(source.place) if isinstance(source.place, Path) else urlsplit(source.place).netloc
