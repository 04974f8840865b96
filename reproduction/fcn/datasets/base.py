"""The interface of all data sets, ``Dataset``, and the code that they share.

A data set is a sequence of samples. A sample is a dict from the tops of a net's data layer to arrays. Each array is of
one kind of data, such as ``color`` or ``label``; the kinds are of three sorts:

    kind    shape      dtype    content
    images  (3, H, W)  float32  mean subtracted; B G R except HHA
    depth   (1, H, W)  float32  logarithm of millimetres, minus its mean
    labels  (1, H, W)  uint8    classes from 0; 255 = void

``check_sample`` checks a sample against this table.
"""

from __future__ import annotations

import operator
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar, overload

import numpy as np

from reproduction.caffe.errors import DataError, StrPath, did_you_mean, safe_repr
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Array
from reproduction.fcn.datasets import layouts
from reproduction.fcn.datasets.layouts import FolderLayout
from reproduction.fcn.images.framing import NO_FRAME, Framing

T = TypeVar("T")
Sample = dict[str, Array]
Tops = Mapping[str, str]

VOID = 255  # the label of pixels that are neither trained on nor scored
SEED = 1337  # of the order of training samples


class Dataset(Sequence[Sample]):
    """A split of a data set: a sequence of samples, each a dict from the tops of a data layer to arrays.

    A data set has several kinds of data, such as ``data`` and ``label``, or ``color``, ``depth``, ``hha`` and
    ``label``.

    Args:
        split: Name of the split.
        root: The data root.
        tops: Mapping from each top, a key of the samples, to the kind of data that it gets. None for every kind, under
            its own name.
        seed: Seed of the random order in which training samples are drawn; None for the clock.
        randomize: If False, samples of a training split are read in the order of the list.

    Attributes:
        split: Name of the split.
        root: The data root.
        tree: The folder in which the data set was found.
        ids: Names of the samples, in the order of the list.
        tops: Mapping from top to kind.
        label_classes: Class names of each top with labels; the index is the label.
        framing: The frame that the net of a data layer needs around each sample; the samples themselves have none.
        name: Name of the data set, of the class.
        kinds: The kinds of data that the data set has, of the class, in the order of the published layer's tops.

    Raises:
        DataError: If the folder or the split is not found, or a kind is unknown. Missing image and label files raise
            only when their sample is read; ``missing`` lists them in advance.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]  # in the order of the published layer's tops
    kind_classes: ClassVar[Mapping[str, tuple[str, ...]]]  # class names of each kind of label

    # The published Python layer that reads the data set, the folders in its ``param_str`` with the arguments of this
    # class that take them, and checks of its other values; see ``datasets.from_layer``.
    layer: ClassVar[str]
    layer_folders: ClassVar[Mapping[str, str]] = {}
    layer_checks: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    split: str
    root: Path
    tree: Path
    ids: list[str]
    tops: dict[str, str]
    framing: Framing = NO_FRAME

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        seed: int | None = SEED,
        randomize: bool = True,
    ):
        self.split, self.root, self.seed, self.randomize = split, Path(root), seed, randomize
        self.tops = dict(tops) if tops is not None else {kind: kind for kind in self.kinds}
        for kind in self.tops.values():
            if kind not in self.kinds:
                known = f"one of {', '.join(self.kinds)}"
                raise DataError(f"{self.name} has no {kind!r}", want=known, remedy=did_you_mean(kind, self.kinds))
        self.label_classes = {
            top: self.kind_classes[kind] for top, kind in self.tops.items() if kind in self.kind_classes
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the labels (of SIFT Flow, the semantic ones); the index is the label."""
        return next(iter(self.kind_classes.values()))

    @abstractmethod
    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of the file with one kind of data of a sample; it need not exist.

        Args:
            kind: The kind of data, one of the data set's ``kinds``.
            image_id: The sample's name, one of ``ids``.
        """

    @abstractmethod
    def read(self, kind: str, path: Path) -> Array:
        """Read a file with one kind of data, and convert it to the array of a sample (see the module's table).

        Args:
            kind: The kind of data, one of the data set's ``kinds``.
            path: The file, as ``file`` returns it.
        """

    def load(self, kind: str, image_id: str) -> Array:
        """Read one kind of data of a sample by the sample's name, see ``file`` and ``read``."""
        return self.read(kind, self.file(kind, image_id))

    @abstractmethod
    def training_ids(self) -> set[str] | None:
        """Return the ids of all images that the published nets were trained on, or None if their list is not found."""

    def channels(self, kind: str) -> int:
        """Return the number of channels of a kind of data: 1 for labels and depth, 3 for images."""
        return 1 if kind in self.kind_classes or kind == "depth" else 3

    def frame(self, sample: Sample) -> Sample:
        """Return a sample with the frame around its images and labels that the net needs in training."""
        return {
            top: self.framing.frame_labels(array, VOID)
            if top in self.label_classes
            else self.framing.frame_image(array)
            for top, array in sample.items()
        }

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Read a sample: a dict of arrays by top. For a slice, read a list of samples.

        Raises:
            DataError: If a file is missing or broken, differs in size from the sample's first file, or has labels out
                of range.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        image_id = self.ids[operator.index(index)]
        sample: Sample = {}
        first: tuple[Path, tuple[int, ...]] | None = None
        for top, kind in self.tops.items():
            path = self.file(kind, image_id)
            try:
                sample[top] = self.load(kind, image_id)
            except DataError as error:
                raise error if error.place.startswith(str(path)) else error.at(str(path)) from None
            size = sample[top].shape[1:]
            first = first or (path, size)
            if size != first[1]:
                raise DataError("height and width differ", path=path, got=size, want=f"{first[1]} as in {first[0]}")
        return sample

    def missing(self, limit: int | None = None) -> list[Path]:
        """Return the paths of the samples' files that do not exist.

        Args:
            limit: Check only the first ``limit`` samples; None for all.
        """
        paths = [self.file(kind, image_id) for image_id in self.ids[:limit] for kind in self.tops.values()]
        # List each folder once instead of testing each file.
        folders = {path.parent for path in paths if path.parent.is_dir()}
        present = {path for folder in folders for path in folder.iterdir()}
        return [path for path in paths if path not in present]

    def find_missing(self, limit: int | None = None) -> DataError | None:
        """Return the error for files of the samples that do not exist, or None if there are all; see ``missing``."""
        if not (paths := self.missing(limit)):
            return None
        problem, place = f"{len(paths)} files are missing, the first is {paths[0]}", f"{self.name} {self.split}"
        return DataError(problem, path=place, remedy="Extract the data set again.")

    def overlap(self) -> list[str] | None:
        """Return the ids of this split that the published nets were trained on, or None if that is not known."""
        trained = self.training_ids()
        return None if trained is None else [image_id for image_id in self.ids if image_id in trained]

    def order(self) -> Iterator[int]:
        """Yield sample indices without end, in the order in which the published data layer reads the samples.

        Splits with ``train`` in their name are drawn with replacement, unless ``randomize`` is False. Others are read
        in order, again and again.

        Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L53-61, L77-84.
        """
        if self.randomize and "train" in self.split:
            yield from draw_order(len(self), self.seed)
        while True:
            yield from range(len(self))


class PublishedDataset(Dataset):
    """A data set of the paper: a folder below the data root that has a file of each kind of data for each sample.

    Args:
        split: Name of the split.
        root: The data root.
        tops: Mapping from top to kind; None for every kind, under its name.
        folder: The data set's path in a prototxt, tried before the usual places; None for none.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.

    Attributes:
        places: The places where the folder may be, of the class.
        patterns: The path of the file of each kind in the folder, with ``{}`` for the sample's name, of the class.
    """

    places: ClassVar[tuple[FolderLayout, ...]]
    patterns: ClassVar[Mapping[str, str]]

    def __init__(self, split: str, root: StrPath, tops: Tops | None = None, *, folder: str | None = None, **order: Any):
        super().__init__(split, root, tops, **order)
        self.tree = layouts.find_folder(self.places, root, folder)
        self.ids = self.list_ids(split)

    @abstractmethod
    def list_ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list."""

    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of the file with one kind of data of a sample; it need not exist."""
        return self.tree / self.patterns[kind].format(image_id)

    def training_ids(self) -> set[str] | None:
        """Return the ids of the split ``trainval``, on which the published nets were trained."""
        return set(self.list_ids("trainval"))


def draw_order(n: int, seed: int | None = SEED) -> Iterator[int]:
    """Yield random indices without end, as Python 2's ``random.randint(0, n - 1)`` draws them.

    Python 3 has the same generator and the same seeding from integers, but its ``randint`` draws from bits rather than
    from ``random()``, so it would yield another order.

    Args:
        n: Number of samples, at least 1.
        seed: Seed of the generator; None for the clock.

    Source: CPython 2.7 Lib/random.py, Random.randrange.
    """
    generator = random.Random(seed)
    while True:
        yield int(generator.random() * n)


def check_param(value: T, is_valid: bool, problem: str, want: str | None = None) -> T:
    """Return a value of a data layer's ``param_str`` if it is valid, else raise.

    Args:
        value: The value.
        is_valid: Whether it is valid.
        problem: What is wrong if it is not.
        want: What is valid; None to leave that out.

    Raises:
        DataError: If it is not valid.
    """
    if not is_valid:
        raise DataError(problem, got=safe_repr(value)[:80], want=want)
    return value


def check_text(value: str) -> str:
    """Return a value of a data layer's ``param_str`` if it is a string that can be a name or path, else raise.

    Raises:
        DataError: If it is not a string, or cannot be a path.
    """
    is_path = isinstance(value, str) and "\0" not in value and files.is_utf8(value)
    return check_param(value, is_path, "param_str has a value that is not a string")


@cache
def load_class_names(name: str) -> tuple[str, ...]:
    """Load the class names of one of the paper's data sets, in the order of the nets' outputs.

    Args:
        name: ``voc``, ``nyud``, ``siftflow-sem``, ``siftflow-geo``, ``pascalcontext``, ``pascalcontext-459``
            (PASCAL-Context's original labels, which count from 1) or ``mini``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 data/*/classes*.txt.
    """
    text = resources.files("reproduction.fcn.datasets").joinpath(f"classes/{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def check_sample(dataset: Dataset, i: int) -> Sample:
    """Read a sample, check that its tops, dtypes, shapes and values are as documented, and return it.

    Args:
        dataset: The data set.
        i: Index of the sample.

    Returns:
        The sample.

    Raises:
        DataError: If the tops differ from the data set's, an array has a wrong dtype, shape or value, or the arrays
            differ in height or width.
    """
    sample, place = dataset[i], f"{dataset.name} {dataset.split}, {dataset.ids[i]}"
    if list(sample) != list(dataset.tops):
        raise DataError("the sample has other tops", path=place, got=list(sample), want=list(dataset.tops))
    sizes = {array.shape[1:] for array in sample.values()}
    if len(sizes) != 1:
        raise DataError("height and width differ", path=place, got=sorted(sizes))
    for top, array in sample.items():
        label = top in dataset.label_classes
        channels = dataset.channels(dataset.tops[top])
        dtype = np.dtype(np.uint8 if label else np.float32)
        got = f"{array.dtype}, shape {array.shape}"
        if array.dtype != dtype or array.ndim != 3 or array.shape[0] != channels:
            raise DataError(f"{top!r} is not what a net takes", path=place, got=got, want=f"{dtype} ({channels}, H, W)")
        if label and not ((array < len(dataset.label_classes[top])) | (array == VOID)).all():
            raise DataError(f"{top!r} has labels out of range", path=place, got=np.unique(array).tolist())
        if not label and not np.isfinite(array).all():
            raise DataError(f"{top!r} is not finite", path=place)
    return sample
