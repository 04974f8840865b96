"""What a net's weights need to be used: what its inputs hold, and what its classes are called.

A card travels with the weights: as ``card.json`` beside them, and inside files of safetensors and ONNX. Colour order,
mean and names are read from it, and are nobody's business to remember.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import Check, at_least, between, one_of
from reproduction.fcn.datasets import DATASETS, class_names, nyud, pascalcontext, siftflow
from reproduction.fcn.fetch import local_files
from reproduction.fcn.images import palette
from reproduction.fcn.nets import published_nets
from reproduction.fcn.nets.published_nets import CHANNELS, Published

FILE = "card.json"
_NO_CARD = "this is no card"
KEY = "card"  # in the metadata of other files
FORMAT = 1

_MEANS: dict[str, npt.NDArray[np.floating]] = {
    "voc": np.array(published_nets.MEAN_BGR, np.float64),
    "mini": np.array(published_nets.MEAN_BGR, np.float64),
    "nyud": nyud.MEAN_BGR,
    "siftflow": siftflow.MEAN_BGR,
    "pascalcontext": pascalcontext.MEAN_BGR,
}
_ORDERS = {"color": "BGR", "hha": "RGB", "depth": "log(mm)"}
_Part = Annotated[int, between(0, 255)]
_SOME = Check("at least one", len)
_NAMES = Check("1 to 255 names", lambda names: 0 < len(names) < 256)
_BESIDE = Check("the name of a file beside the card", lambda name: Path(name).name == name)


@dataclass(frozen=True)
class Input:
    """What one input of a net holds.

    Attributes:
        kind: ``color``, ``depth`` or ``hha``.
        order: of the channels; for depth, what is taken of millimetres.
        mean: subtracted from the channels in this order, of values from 0 to 255.
        precision: in which it is subtracted, ``float32`` or ``float64``, before the result becomes float32.
    """

    kind: Annotated[str, one_of(CHANNELS)]
    order: str
    mean: tuple[Annotated[float, between(-1e6, 1e6)], ...]
    precision: Annotated[str, one_of(("float32", "float64"))]

    def check(self) -> str | None:
        """Return what the fields should be together, see ``json_file``; None where they fit."""
        if self.order != _ORDERS[self.kind]:
            return f"the order {_ORDERS[self.kind]} for {self.kind}"
        return None if len(self.mean) == CHANNELS[self.kind] else f"{CHANNELS[self.kind]} numbers as mean"

    @property
    def mean_array(self) -> npt.NDArray[np.floating]:
        """The mean in its precision."""
        return np.array(self.mean, self.precision)


@dataclass(frozen=True)
class Labelling:
    """What one output of a net says of each pixel.

    Attributes:
        score: the blob of its scores.
        classes: their names; index = label.
        colours: R, G, B of each class.
    """

    score: str
    classes: Annotated[tuple[str, ...], _NAMES]
    colours: tuple[tuple[_Part, _Part, _Part], ...]

    def check(self) -> str | None:
        """Return what the fields should be together, see ``json_file``; None where they fit."""
        return None if len(self.colours) == len(self.classes) else "R, G, B for each class"


@dataclass(frozen=True)
class Card:
    """What a net's weights need to be used.

    Attributes:
        net: the net's name.
        inputs: by the name of the blob.
        labels: by the name of the label that it learnt from; the first is the main one.
        side: pictures with a longer side were shrunk to it before the net learnt from them; 0 for none.
        weights: the file of weights that lies beside the card; empty where the card is inside it.
        licence: what the publishers of the weights say of their use.
        source: where the weights come from, such as file and sha256.
        knows: what the net can recognize, such as ``drawn things only``; empty for photographs.
    """

    net: str
    inputs: Annotated[dict[str, Input], _SOME]
    labels: Annotated[dict[str, Labelling], _SOME]
    side: Annotated[int, at_least(0)] = 0
    weights: Annotated[str, _BESIDE] = ""
    licence: str = ""
    source: dict[str, str] = field(default_factory=dict)
    knows: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of pictures that the net takes."""
        return tuple(each.kind for each in self.inputs.values())


def of(row: Published, **more: Any) -> Card:
    """Give the card of a net of a published data set.

    Args:
        row: the net.
        more: licence and source.
    """
    means = {"color": _MEANS[row.dataset], "hha": nyud.MEAN_HHA, "depth": nyud.MEAN_LOG_DEPTH}
    lists = DATASETS[row.dataset].label_lists
    return Card(
        row.name,
        {blob: _input(kind, means[kind]) for blob, kind in row.inputs.items()},
        {head.label: labelling(head.score, class_names(lists[head.label])) for head in row.heads},
        knows=published_nets.DATASETS[row.dataset].knows,
        **more,
    )


def own(name: str, classes: Sequence[str], colours: Sequence[tuple[int, int, int]] | None = None, **more: Any) -> Card:
    """Give the card of a net that learnt from somebody's own pictures.

    Args:
        name: of the net.
        classes: their names.
        colours: R, G, B of each; None is VOC's.
        more: side, weights, licence and source.
    """
    inputs = {"data": _input("color", np.array(published_nets.MEAN_BGR, np.float64))}
    return Card(name, inputs, {"label": labelling("score", classes, colours)}, **more)


def sourced(about: Card, model: StrPath) -> Card:
    """Say on a card where the weights come from: their file, its content, and the licence of the published ones.

    Args:
        about: the card.
        model: the file of weights.
    """
    path, entry = Path(model), local_files.manifest().entries.get(about.net)
    published = entry and path.name == entry.file_name and entry.size_bytes in (None, path.stat().st_size)
    licence = entry.licence if entry and published else about.licence
    return replace(about, licence=licence, source={"file": path.name, "sha256": sha256(path)})


def labelling(score: str, classes: Sequence[str], colours: Sequence[tuple[int, int, int]] | None = None) -> Labelling:
    """Describe an output, in VOC's colours unless others are given."""
    given = palette.voc(len(classes)).tolist() if colours is None else colours
    return Labelling(score, tuple(classes), tuple((int(r), int(g), int(b)) for r, g, b in given))


def _input(kind: str, mean: npt.NDArray[np.floating]) -> Input:
    return Input(kind, _ORDERS[kind], tuple(float(str(value)) for value in mean), str(mean.dtype))


def sha256(path: StrPath) -> str:
    """Name the content of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dumps(card: Card) -> str:
    """Write a card as JSON."""
    said = {"format": FORMAT, **asdict(card)}
    if not card.knows:  # earlier versions refuse a field that they do not know
        del said["knows"]
    return json_file.dumps(said, indent=1)


def dump(card: Card, path: StrPath) -> None:
    """Write a card to a file, which is whole or absent.

    Raises:
        ReproductionError: it cannot be written.
    """
    with files.atomic(path) as file:
        file.write((dumps(card) + "\n").encode())


def load(path: StrPath) -> Card:
    """Read a card from its file.

    Raises:
        DataError: it is missing, or no card.
    """
    try:
        return json_file.load(path, Card, _NO_CARD, version=FORMAT)
    except OSError as error:
        raise DataError(f"the card cannot be read ({(error.strerror or str(error)).lower()})", path=path) from None


def loads(text: str, path: StrPath = "<card>") -> Card:
    """Read a card.

    Raises:
        DataError: it is none; says which part is wrong.
    """
    return json_file.loads(text.encode("utf-8", "surrogatepass"), Card, path, _NO_CARD, version=FORMAT)
