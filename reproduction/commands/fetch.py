"""Download the published weights, data sets and lists of ids, check their hashes, and unpack them.

    fcn fetch voc-fcn8s              one net's weights (540 MB)
    fcn fetch --set voc              all that `make reproduce-voc` needs (about 4 GB)
    fcn fetch --list                 what can be downloaded
    fcn fetch --check                which hosts of which files answer
    fcn fetch --set voc --offline-list    the files to copy to a machine without a network, and their paths

The same command resumes a download that was stopped. A mirror is a URL, a folder, or a repository of Hugging Face
(hf:OWNER/NAME) that holds the files under the same paths as this project (weights/..., data/...), or all in one folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reproduction.caffe.errors import ReproductionError
from reproduction.commands.bars import Bars
from reproduction.commands.parsers import make_parser
from reproduction.commands.terminal import fail, note, say, say_json
from reproduction.fcn import folders
from reproduction.fcn.fetch import availability, download, local_files
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.fetch.manifest import HASHES, Entry, Manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Download the chosen files; return 1 if one of them failed, else 0."""
    parser = make_parser("fetch")
    args = parser.parse_args(arguments)
    root = args.root or folders.find_home()
    roots = FileRoots(args.weights or root / "weights", args.data or root / "data")
    manifest = local_files.load_manifest(args.manifest)
    chosen = [manifest[name] for name in dict.fromkeys(args.names)]
    for name in args.set:
        chosen += [entry for entry in manifest.select(name) if entry not in chosen]
    if args.list or args.offline_list:
        listed = chosen or list(manifest.entries.values())
        if args.offline_list:
            listed = local_files.find_missing(listed, roots)
        if args.json:
            say_json([_known(entry, roots) for entry in listed])
        elif args.list:
            _print_list(listed, manifest, roots)
        else:
            say(*(local_files.format_offline_list(listed, roots) if listed else ["Nothing is missing."]))
        return 0
    if args.check:
        answers = availability.check_all_sources(chosen or manifest.entries.values())
        say(*availability.format_source_checks(answers))
        working = {entry.name for entry, answer in answers if answer.is_ok}
        dead = sorted({entry.name for entry, _ in answers} - working)
        return fail(f"no source of {', '.join(dead)} answers.") if dead else 0
    if not chosen:
        parser.error("name what to fetch, or a --set; --list prints them")
    return _fetch_all(chosen, manifest, roots, args)


def _fetch_all(chosen: list[Entry], manifest: Manifest, roots: FileRoots, args: argparse.Namespace) -> int:
    results = []
    failed = []
    for entry in chosen:
        try:
            with Bars() as bars:
                got = download.fetch_entry(
                    entry,
                    roots,
                    alternatives=manifest.with_alternatives(entry)[1:],
                    mirror=args.mirror,
                    progress=bars,
                    note=note,
                    keep_archive=not args.delete_archives,
                )
        except ReproductionError as error:
            fail(error)
            failed.append(entry)
            results.append({"name": entry.name, "path": str(roots.used_path(entry)), "how": "failed", "checked": ""})
            continue
        results.append({"name": entry.name, "path": str(got.path), "how": got.how, "checked": got.checked})
        if not args.json:
            say("; ".join(filter(None, (f"{entry.name}: {got.how}, {got.path}", got.checked))))
    if args.json:
        say_json(results)
    elif failed:
        say("", f"{len(failed)} of {len(chosen)} are missing. To put them there by hand:", "")
        say(*local_files.format_offline_list(failed, roots))
    return 1 if failed else 0


def _known(entry: Entry, roots: FileRoots) -> dict[str, object]:
    """Return the known properties of a file for JSON; None for unknown ones."""
    return {
        "name": entry.name,
        "kind": str(entry.kind),
        "url": entry.url,
        "path": str(roots.file_path(entry)),
        "there": local_files.is_present(entry, roots),
        "size_bytes": entry.size_bytes,
        "payload_bytes": entry.payload_bytes,
        **{name: entry.hashes.get(name) for name in HASHES},
        "licence": entry.licence,
    }


def _print_list(entries: list[Entry], manifest: Manifest, roots: FileRoots) -> None:
    table = [["name", "kind", "size", "there", "hash", "licence"]]
    for entry in entries:
        there = "yes" if local_files.is_present(entry, roots) else "no"
        known = ", ".join(entry.hashes) or "recorded on first download"
        size = availability.format_megabytes(entry.size_bytes or entry.payload_bytes)
        table.append([entry.name, str(entry.kind), size, there, known, entry.licence])
    say(*availability.format_columns(table))
    say("", f"sets: {', '.join(manifest.sets)}")
    if manifest.unpublished:
        say(f"never published: {', '.join(sorted(manifest.unpublished))}")
