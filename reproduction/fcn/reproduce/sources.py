"""Sources of data and weights for a scoring run: published files are downloaded, Mini-VOC's images are drawn.

``find_source("voc", ...)`` returns the source of a data set; all sources implement ``Source``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from reproduction.caffe.errors import WeightsError
from reproduction.caffe.formats import hashes
from reproduction.caffe.typing import Progress
from reproduction.fcn.datasets import SPECS, NetRecord
from reproduction.fcn.fetch import download, local_files
from reproduction.fcn.fetch.availability import Availability, check_availability
from reproduction.fcn.fetch.download import FetchedEntry
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.fetch.manifest import Entry, EntryKind, Manifest
from reproduction.fcn.scoring.evaluate import TimedProgress
from reproduction.fcn.train import recipes

DrawFunction = Callable[[Path, Progress | None], Path]


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called to report the progress of fetching, drawing and scoring.

    Attributes:
        bytes: called with a description of what is fetched, unpacked or checked; returns a function that is then called
            with the bytes done and in all.
        pictures: called with a description of what is drawn; returns a function that is then called with the images
            done and in all.
        note: called with a message when a file or data set becomes available.
        images: called for each image that was scored, with images done, images in all, and seconds since the start.
    """

    bytes: Callable[[str], Progress] = lambda what: lambda done, total: None
    pictures: Callable[[str], Progress] = lambda what: lambda done, total: None
    note: Callable[[str], object] = lambda _: None
    images: TimedProgress | None = None


@dataclass(frozen=True)
class WeightsFile:
    """A net's weights file on this machine, with its hash.

    Attributes:
        path: its path.
        sha256: its SHA-256.
        origin: how it was made from the published weights, as text; empty if it is the published file, or the user's.
    """

    path: Path
    sha256: str
    origin: str = ""


def _hash_weights(path: Path) -> WeightsFile:
    return WeightsFile(path, hashes.hash_file(path))


class Source(Protocol):
    """The interface of all sources: it fetches (or draws, or finds) a data set and the weights of its nets."""

    def data(self, roots: FileRoots, callbacks: Callbacks) -> Iterator[None]:
        """Fetch the data step by step; yield after each, so that the caller can stop once the data set is complete.

        Args:
            roots: the weights folder and the data root.
            callbacks: functions that report progress.

        Raises:
            DataError: If the data cannot be fetched or drawn.
        """

    def weights(self, record: NetRecord, roots: FileRoots, callbacks: Callbacks) -> WeightsFile:
        """Return the weights file of a net; fetch it if it is missing.

        Args:
            record: the record of the net.
            roots: the weights folder and the data root.
            callbacks: functions that report progress.

        Raises:
            WeightsError: If the weights are missing and cannot be fetched.
        """


@dataclass(frozen=True)
class DownloadedSource:
    """A source that downloads a data set and weights which the manifest of published files lists.

    The published lists of ids are included in the package. If a manifest has further lists, these small files are
    downloaded before the large archives. ``data`` yields before each, since data that are elsewhere below the data root
    may suffice.

    Attributes:
        name: the name of the data set.
        manifest: the manifest of the published files.
        mirror: a URL, ``hf:owner/name`` or folder to try first; None selects that of the environment variable
            REPRODUCTION_MIRROR.
    """

    name: str
    manifest: Manifest
    mirror: str | None = None

    def data(self, roots: FileRoots, callbacks: Callbacks) -> Iterator[None]:
        """Download the data to the data root; yield before any download, after the lists, and after the archives."""
        yield
        for kind in (EntryKind.LIST, EntryKind.ARCHIVE):
            for entry in local_files.find_missing(self._entries(kind), roots):
                self._fetch(entry, roots, callbacks)
            yield

    def weights(self, record: NetRecord, roots: FileRoots, callbacks: Callbacks) -> WeightsFile:
        """Return the published caffemodel of a net or a copy of its weights, downloaded unless one is present."""
        entry = self.manifest[record.name]
        got = self._fetch(entry, roots, callbacks)
        return WeightsFile(got.path, got.sha256, got.entry.origin)

    def check(self, nets: Sequence[NetRecord], roots: FileRoots, *, with_data: bool) -> list[Availability]:
        """Find out whether everything that is needed to score nets is present or can be downloaded, and from where.

        Args:
            nets: the nets whose weights are needed; those whose weights were not published are left out.
            roots: the weights folder and the data root.
            with_data: if False, the data are known to be present, and only the weights are looked for.
        """
        entries = [self.manifest[net.name] for net in nets if net.caffemodel is not None]
        if with_data:
            entries += self._entries(EntryKind.LIST) + self._entries(EntryKind.ARCHIVE)
        return check_availability(entries, self.manifest, roots, self.mirror)

    def _entries(self, kind: EntryKind) -> list[Entry]:
        return [entry for entry in self.manifest.select(self.name) if entry.kind is kind]

    def _fetch(self, entry: Entry, roots: FileRoots, callbacks: Callbacks) -> FetchedEntry:
        got = download.fetch_entry(
            entry,
            roots,
            alternatives=self.manifest.with_alternatives(entry)[1:],
            mirror=self.mirror,
            progress=callbacks.bytes,
            note=callbacks.note,
        )
        callbacks.note(f"{got.entry.name}: {got.how}, {got.path}" + (f"; {got.checked}" if got.checked else ""))
        return got


@dataclass(frozen=True)
class DrawnSource:
    """A source that draws a data set's images, and whose weights are included in this project: that of Mini-VOC.

    Attributes:
        draw: a function that draws the images below a data root, unless they exist, and returns the folder.
    """

    draw: DrawFunction

    def data(self, roots: FileRoots, callbacks: Callbacks) -> Iterator[None]:
        """Draw the data set's images below the data root, unless they exist.

        This is the only step: it yields once, after it, as ``Source.data`` describes.
        """
        roots.data.mkdir(parents=True, exist_ok=True)
        drawn = False
        bar = callbacks.pictures("drawing")

        def progress(done: int, total: int | None) -> None:
            nonlocal drawn
            drawn = True
            bar(done, total)

        place = self.draw(roots.data, progress)
        if drawn:
            callbacks.note(f"data: drawn, {place}")
        yield

    def weights(self, record: NetRecord, roots: FileRoots, callbacks: Callbacks) -> WeightsFile:
        """Return the net's file in the weights folder; nothing is fetched."""
        return _hash_weights(local_files.find_weights(record, roots.weights))


@dataclass(frozen=True)
class OwnWeights:
    """A source with the data of another source, and weights files of the user.

    Attributes:
        base: the source of the data.
        find: a function that returns the weights file of a net, in any supported format, given its name.
    """

    base: Source
    find: Callable[[str], Path]

    def data(self, roots: FileRoots, callbacks: Callbacks) -> Iterator[None]:
        """Fetch or draw the data as the source ``base`` does, and yield as it does."""
        return self.base.data(roots, callbacks)

    def weights(self, record: NetRecord, roots: FileRoots, callbacks: Callbacks) -> WeightsFile:
        """Return the user's weights file of a net."""
        return _hash_weights(self.find(record.name))


def _find_trained(runs: Path, net_name: str) -> Path:
    """Return the caffemodel that the training of a net wrote at its end, below the folder of all trainings."""
    path = recipes.final_model_path(net_name, runs)
    if not path.is_file():
        remedy = f"Train it: fcn train --net {net_name} --out {runs}."
        raise WeightsError(f"no training of {net_name} has ended here", path=path, remedy=remedy)
    return path


#: The data sets that are drawn, with the functions that draw them.
DRAWN: dict[str, DrawFunction] = {name: spec.draw for name, spec in SPECS.items() if spec.draw}


def draw_missing(names: Iterable[str], roots: FileRoots, callbacks: Callbacks) -> None:
    """Draw the images of those data sets that are drawn, unless they exist.

    Args:
        names: the names of data sets, of which those that are not drawn are ignored.
        roots: the weights folder and the data root.
        callbacks: called for progress and messages.
    """
    for name in dict.fromkeys(names):
        if name in DRAWN:
            list(DrawnSource(DRAWN[name]).data(roots, callbacks))


def find_source(
    name: str,
    manifest: Manifest,
    mirror: str | None = None,
    *,
    runs: Path | None = None,
    weights_file: Path | None = None,
) -> Source:
    """Return the source that fetches (or draws) a data set and finds the weights of its nets.

    Args:
        name: the name of the data set; those in ``DRAWN`` are drawn, all others downloaded.
        manifest: the manifest of the published files.
        mirror: a URL, ``hf:owner/name`` or folder to try first; None for the environment variable REPRODUCTION_MIRROR,
            if it is set.
        runs: the folder with the user's trainings, to use their weights; None for the published weights.
        weights_file: a weights file to use for every net; None for the published weights.

    Raises:
        WeightsError: If ``weights_file`` does not exist.
    """
    source = DrawnSource(DRAWN[name]) if name in DRAWN else DownloadedSource(name, manifest, mirror)
    if weights_file is not None:
        if not weights_file.is_file():  # checked before anything is downloaded
            raise WeightsError("there is no such weights file", path=weights_file)
        return OwnWeights(source, lambda net_name: weights_file)
    return source if runs is None else OwnWeights(source, partial(_find_trained, runs))
