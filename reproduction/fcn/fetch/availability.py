"""What is present, what will be fetched from where, and what cannot be had; asked before anything slow begins."""

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
    """How an entry can be had.

    Args:
        entry: The entry of the manifest that was asked for.
        used: The entry that is present or will be fetched: ``entry``, or one that serves as well; None if no source
            answers.
        path: The file or folder if it is present, else None.
        check: The answer of the source that will be used; None if the entry is present or no source answers.
        problems: The sources that failed, with reasons.
    """

    entry: Entry
    used: Entry | None
    path: Path | None = None
    check: SourceCheck | None = None
    problems: tuple[str, ...] = ()


def check_availability(
    entries: Iterable[Entry], manifest: Manifest, roots: FileRoots, mirror: str | None = None, timeout_s: float = 10.0
) -> list[Availability]:
    """Find out how each entry can be had, by asking its sources in the order in which they are tried.

    Args:
        entries: The entries.
        manifest: The manifest, for the entries that serve as well.
        roots: The weights folder and the data root.
        mirror: URL or folder to try first.
        timeout_s: Seconds to wait for each answer.
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
    """Format a table of what is present, what will be fetched, from where and how large, and what cannot be had."""
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
    """Ask every source of the manifest for every entry; the answers are in the order of the sources."""
    asked = [(entry, source) for entry in entries for source in list_sources(entry)]
    with ThreadPoolExecutor(_THREADS) as pool:
        answers = pool.map(lambda pair: check_source(pair[0], pair[1], timeout_s), asked)
        return [(entry, answer) for (entry, _), answer in zip(asked, answers, strict=True)]


def format_source_checks(answers: Sequence[tuple[Entry, SourceCheck]]) -> list[str]:
    """Format the answers of ``check_all_sources`` as a table."""
    rows = [("file", "source", "vouched by", "answer")]
    for entry, answer in answers:
        text = answer.text if answer.is_ok else f"failed: {answer.text}"
        rows.append((entry.name, _host(answer.source), answer.source.vouched_by, text))
    return format_columns(rows)


def format_megabytes(size: int | None) -> str:
    """Format a size for people; None as ``not known``."""
    if not size:
        return "not known"
    return f"{size / 1e6:,.1f} MB" if size > 1e6 else f"{size:,} bytes"


def format_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _host(source: FileSource) -> str:
    return str(source.place) if isinstance(source.place, Path) else urlsplit(source.place).netloc
