"""Where the data and the weights of a set come from: those of the paper are fetched, those of Mini-VOC are made here.

``of("voc", ...)`` says which; what asks for them need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reproduction.caffe.errors import WeightsError
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.fetch import download, local_files
from reproduction.fcn.fetch.archives import Progress
from reproduction.fcn.fetch.local_files import Roots
from reproduction.fcn.fetch.manifest import Entry, Kind, Manifest
from reproduction.fcn.nets.published_nets import Published
from reproduction.fcn.train import recipes

Draw = Callable[[Path, Progress | None], Path]


@dataclass(frozen=True)
class Watch:
    """Who is told what is brought.

    Attributes:
        bytes: called with what is fetched, unpacked or converted; returns what is then called with the bytes done.
        pictures: the same for what is drawn, in pictures.
        note: called with a sentence for each file that became usable.
    """

    bytes: Callable[[str], Progress] | None = None
    pictures: Callable[[str], Progress] | None = None
    note: Callable[[str], object] = lambda _: None


class Supply(Protocol):
    """What brings the data and the weights of a set."""

    def data(self, roots: Roots, watch: Watch) -> Iterator[None]:
        """Bring more of the data at each step; who needs no more stops.

        Raises:
            DataError: they cannot be had.
        """

    def weights(self, row: Published, roots: Roots, watch: Watch) -> Path:
        """Bring the weights of a net.

        Raises:
            WeightsError: they cannot be had.
        """


@dataclass(frozen=True)
class Fetched:
    """A set of the manifest.

    Data come last from the long archives, after the short lists; data that lie elsewhere below the data root than they
    would be fetched to may do.

    Attributes:
        name: the set.
        manifest: the published files.
        mirror: a URL or a folder to fetch from first.
    """

    name: str
    manifest: Manifest
    mirror: str | None = None

    def data(self, roots: Roots, watch: Watch) -> Iterator[None]:
        """Fetch nothing, then the lists, then the archives."""
        entries = self.manifest.select(self.name)
        for kind in (Kind.LIST, Kind.ARCHIVE):
            yield
            for entry in entries:
                if entry.kind is kind and not local_files.present(entry, roots):
                    self._provide(entry, roots, watch)
        yield

    def weights(self, row: Published, roots: Roots, watch: Watch) -> Path:
        """Fetch a published caffemodel."""
        return self._provide(self.manifest[row.name], roots, watch)

    def _provide(self, entry: Entry, roots: Roots, watch: Watch) -> Path:
        got = download.provide(entry, roots, mirror=self.mirror, progress=watch.bytes)
        watch.note(f"{entry.name}: {got.how}, {got.path}" + (f"; {got.checked}" if got.checked else ""))
        return got.path


@dataclass(frozen=True)
class Drawn:
    """A set whose pictures are drawn, and whose weights come with this project.

    Attributes:
        draw: writes the pictures below a data root, unless they are there.
    """

    draw: Draw

    def data(self, roots: Roots, watch: Watch) -> Iterator[None]:
        """Draw the pictures."""
        roots.data.mkdir(parents=True, exist_ok=True)
        drawn = False
        bar = watch.pictures("drawing") if watch.pictures else None

        def progress(done: int, total: int | None) -> None:
            nonlocal drawn
            drawn = True
            if bar:
                bar(done, total)

        place = self.draw(roots.data, progress)
        if drawn:
            watch.note(f"data: drawn, {place}")
        yield

    def weights(self, row: Published, roots: Roots, watch: Watch) -> Path:
        """Find a caffemodel that comes with this project."""
        return local_files.weights(row, roots.weights)


@dataclass(frozen=True)
class Trained:
    """Another supply's data, and weights that ``training`` made.

    Attributes:
        base: whose data.
        runs: the folder that each training's folder is in.
    """

    base: Supply
    runs: Path

    def data(self, roots: Roots, watch: Watch) -> Iterator[None]:
        """Bring the data."""
        return self.base.data(roots, watch)

    def weights(self, row: Published, roots: Roots, watch: Watch) -> Path:
        """Find the caffemodel of a training."""
        path = recipes.result(row.name, self.runs)
        if not path.is_file():
            remedy = f"Train it: tools/train.py --net {row.name} --out {self.runs}."
            raise WeightsError(f"no training of {row.name} has ended here", path=path, remedy=remedy)
        return path


@dataclass(frozen=True)
class Given:
    """Another supply's data, and weights in a file of the user's.

    Attributes:
        base: the supply of the data.
        file: the weights, of any format.
    """

    base: Supply
    file: Path

    def data(self, roots: Roots, watch: Watch) -> Iterator[None]:
        """Fetch or draw the data."""
        return self.base.data(roots, watch)

    def weights(self, row: Published, roots: Roots, watch: Watch) -> Path:
        """Return the file."""
        return self.file


#: The sets that are drawn.
DRAWN: dict[str, Draw] = {"mini": lambda root, progress: mini_voc.generate(root, progress=progress)}


def of(name: str, manifest: Manifest, mirror: str | None = None) -> Supply:
    """Say where a set comes from."""
    return Drawn(DRAWN[name]) if name in DRAWN else Fetched(name, manifest, mirror)
