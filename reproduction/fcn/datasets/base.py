"""The one contract of all data sets, and what they share.

A data set is a sequence of samples: a dict from the tops of a net's data layer to arrays, ready to be fed.

    kind    shape      dtype    content
    images  (3, H, W)  float32  mean subtracted; B G R except HHA
    depth   (1, H, W)  float32  logarithm of millimetres, minus its mean
    labels  (1, H, W)  uint8    classes from 0; 255 = void

``check_sample`` is this table as code.
"""

from __future__ import annotations

import operator
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import DataError, StrPath, did_you_mean

Array = npt.NDArray[Any]
Sample = dict[str, Array]
Tops = Mapping[str, str]

VOID = 255


class Dataset(Sequence[Sample]):
    """A split of a data set.

    Args:
        split: its list of ids.
        root: the data root.
        tops: what each top of the sample holds: top -> kind. Default: every kind, under its own name.
        seed: of the training order.
        randomize: False keeps a training split in its list's order.

    Attributes:
        split: as given.
        root: as given.
        tree: the folder where the data set was found.
        ids: names of the samples, in the order of the list.
        tops: top -> kind.

    Raises:
        DataError: the tree or the split is not there, or a kind is unknown. Files are opened sample by sample;
            ``missing`` says at once which are not there.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]  # what it can read, in the order of the published layer's tops
    label_lists: ClassVar[Mapping[str, str]]  # kind of label -> its file in classes/

    split: str
    root: Path
    tree: Path
    ids: list[str]
    tops: dict[str, str]

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        seed: int | None = 1337,
        randomize: bool = True,
    ):
        self.split, self.root, self.seed, self.randomize = split, Path(root), seed, randomize
        self.tops = dict(tops) if tops is not None else {kind: kind for kind in self.kinds}
        for kind in self.tops.values():
            if kind not in self.kinds:
                known = f"one of {', '.join(self.kinds)}"
                raise DataError(f"{self.name} has no {kind!r}", want=known, remedy=did_you_mean(kind, self.kinds))
        self.label_classes = {
            top: class_names(self.label_lists[kind]) for top, kind in self.tops.items() if kind in self.label_lists
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the first label; index = label."""
        return class_names(next(iter(self.label_lists.values())))

    @abstractmethod
    def file(self, kind: str, id: str) -> Path:
        """Return where the data set keeps that kind of that sample."""

    @abstractmethod
    def read(self, kind: str, path: Path) -> Array:
        """Read one file into what the top holds, see the module's table."""

    @abstractmethod
    def training_ids(self) -> set[str] | None:
        """Return the ids that the published nets were trained on; None where that list is not at hand."""

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Read a sample, or a list of them.

        Raises:
            DataError: a file is missing, broken, of another size than its fellows, or has labels out of range.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        id = self.ids[operator.index(index)]
        sample: Sample = {}
        first: tuple[Path, tuple[int, ...]] | None = None
        for top, kind in self.tops.items():
            path = self.file(kind, id)
            try:
                sample[top] = self.read(kind, path)
            except DataError as error:
                raise error if error.place.startswith(str(path)) else error.at(str(path)) from None
            size = sample[top].shape[1:]
            first = first or (path, size)
            if size != first[1]:
                raise DataError("height and width differ", path=path, got=size, want=f"{first[1]} as in {first[0]}")
        return sample

    def missing(self, limit: int | None = None) -> list[Path]:
        """List the files that the samples need and that are not there.

        Args:
            limit: look at that many samples only.
        """
        files = [self.file(kind, id) for id in self.ids[:limit] for kind in self.tops.values()]
        present = {folder: _names(folder) for folder in {path.parent for path in files}}
        return [path for path in files if path.name not in present[path.parent]]

    def overlap(self) -> list[str] | None:
        """List the ids that the published nets were trained on; None where nobody can tell."""
        trained = self.training_ids()
        return None if trained is None else [id for id in self.ids if id in trained]

    def order(self) -> Iterator[int]:
        """Give the endless order in which the published data layer reads its samples.

        Splits with ``train`` in their name are drawn with replacement, unless ``randomize`` is False; the others go
        round and round.

        Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L53-61, L77-84.
        """
        if self.randomize and "train" in self.split:
            yield from draw_order(len(self), self.seed)
        while True:
            yield from range(len(self))


def draw_order(n: int, seed: int | None = 1337) -> Iterator[int]:
    """Draw indices as Python 2's ``random.randint(0, n - 1)`` does, from that seed on, without end.

    Python 3 keeps the generator and its seeding from integers, but takes ``randint`` from bits instead of
    ``random()``: its own order would be another.

    Args:
        n: number of samples, >= 1.
        seed: of the generator; None takes one from the clock.

    Source: CPython 2.7 Lib/random.py, Random.randrange.
    """
    generator = random.Random(seed)
    while True:
        yield int(generator.random() * n)


@cache
def class_names(name: str) -> tuple[str, ...]:
    """Read the names of a labelling's classes, in the order of the nets' outputs.

    Args:
        name: ``voc``, ``nyud``, ``siftflow-sem``, ``siftflow-geo``, ``pascalcontext``, ``pascalcontext-459``
            (PASCAL-Context's own labels, from 1) or ``mini``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 data/*/classes*.txt.
    """
    text = resources.files("reproduction.fcn.datasets").joinpath(f"classes/{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def check_sample(dataset: Dataset, i: int) -> Sample:
    """Read a sample and hold it against the contract.

    Returns:
        The sample.

    Raises:
        DataError: a top is missing or too many; a dtype, shape or value is not as the module's table says; height
            and width differ.
    """
    sample, place = dataset[i], f"{dataset.name} {dataset.split}, {dataset.ids[i]}"
    if list(sample) != list(dataset.tops):
        raise DataError("the sample has other tops", path=place, got=list(sample), want=list(dataset.tops))
    sizes = {array.shape[1:] for array in sample.values()}
    if len(sizes) != 1:
        raise DataError("height and width differ", path=place, got=sorted(sizes))
    for top, array in sample.items():
        label = top in dataset.label_classes
        channels = 1 if label or dataset.tops[top] == "depth" else 3
        dtype = np.dtype(np.uint8 if label else np.float32)
        got = f"{array.dtype}, shape {array.shape}"
        if array.dtype != dtype or array.ndim != 3 or array.shape[0] != channels:
            raise DataError(f"{top!r} is not what a net takes", path=place, got=got, want=f"{dtype} ({channels}, H, W)")
        if label and not ((array < len(dataset.label_classes[top])) | (array == VOID)).all():
            raise DataError(f"{top!r} has labels out of range", path=place, got=np.unique(array).tolist())
        if not label and not np.isfinite(array).all():
            raise DataError(f"{top!r} is not finite", path=place)
    return sample


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
