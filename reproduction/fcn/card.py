"""What a net's weights need to be used: what its inputs hold, and what its classes are called.

A card travels with the weights: as ``card.json`` beside them, and inside files of safetensors and ONNX. Colour order,
mean and names are read from it, and are nobody's business to remember.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from reproduction.caffe import files
from reproduction.caffe.errors import DataError, StrPath
from reproduction.fcn import nets, palette, zoo
from reproduction.fcn.datasets import DATASETS, class_names, nyud, pascalcontext, siftflow
from reproduction.fcn.nets import CHANNELS, Published

FILE = "card.json"
KEY = "card"  # in the metadata of other files
FORMAT = 1
KEYS = ("format", "net", "inputs", "labels", "side", "weights", "licence", "source", "knows")

_MEANS: dict[str, npt.NDArray[np.floating]] = {
    "voc": np.array(nets.MEAN_BGR, np.float64),
    "mini": np.array(nets.MEAN_BGR, np.float64),
    "nyud": nyud.MEAN_BGR,
    "siftflow": siftflow.MEAN_BGR,
    "pascalcontext": pascalcontext.MEAN_BGR,
}
_ORDERS = {"color": "BGR", "hha": "RGB", "depth": "log(mm)"}


@dataclass(frozen=True)
class Input:
    """What one input of a net holds.

    Attributes:
        kind: ``color``, ``depth`` or ``hha``.
        order: of the channels; for depth, what is taken of millimetres.
        mean: subtracted from the channels in this order, of values from 0 to 255.
        precision: in which it is subtracted, ``float32`` or ``float64``, before the result becomes float32.
    """

    kind: str
    order: str
    mean: tuple[float, ...]
    precision: str

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
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]


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
    inputs: dict[str, Input]
    labels: dict[str, Labelling]
    side: int = 0
    weights: str = ""
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
        knows=nets.DATASETS[row.dataset].knows,
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
    inputs = {"data": _input("color", np.array(nets.MEAN_BGR, np.float64))}
    return Card(name, inputs, {"label": labelling("score", classes, colours)}, **more)


def sourced(about: Card, model: StrPath) -> Card:
    """Say on a card where the weights come from: their file, its content, and the licence of the published ones.

    Args:
        about: the card.
        model: the file of weights.
    """
    path, entry = Path(model), zoo.manifest().entries.get(about.net)
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
    return json.dumps(said, indent=1, ensure_ascii=False)


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
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"the card cannot be read ({(error.strerror or str(error)).lower()})", path=path) from None
    except UnicodeDecodeError:
        raise DataError("this is no card", path=path, want="JSON") from None
    return loads(text, path)


def loads(text: str, path: StrPath = "<card>") -> Card:
    """Read a card.

    Raises:
        DataError: it is none; says which part is wrong.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is no card: {error}", path=path) from None
    try:
        return _card(document)
    except DataError as error:
        raise error.at(str(path)) from None


def _card(document: object) -> Card:
    known = _table(document, "the card", KEYS)
    if known.get("format") != FORMAT:
        raise DataError("this card is of another format", got=known.get("format"), want=FORMAT)
    inputs = {blob: _read_input(blob, value) for blob, value in _table(known.get("inputs"), "inputs").items()}
    labels = {top: _read_labelling(top, value) for top, value in _table(known.get("labels"), "labels").items()}
    if not inputs or not labels:
        raise DataError("a card has inputs and labels")
    source = {key: _text(value, key) for key, value in _table(known.get("source", {}), "source").items()}
    side = known.get("side", 0)
    if type(side) is not int or side < 0:
        raise DataError("'side' is no number of pixels", got=repr(side)[:60])
    weights = _text(known.get("weights", ""), "weights")
    if Path(weights).name != weights:
        raise DataError("'weights' is a file beside the card", got=repr(weights))
    licence = _text(known.get("licence", ""), "licence")
    knows = _text(known.get("knows", ""), "knows")
    return Card(_text(known.get("net"), "net"), inputs, labels, side, weights, licence, source, knows)


def _read_input(blob: str, value: object) -> Input:
    known = _table(value, f"inputs.{blob}", ("kind", "order", "mean", "precision"))
    kind, mean, precision = known.get("kind"), known.get("mean"), known.get("precision")
    if kind not in CHANNELS or known.get("order") != _ORDERS[cast(str, kind)]:
        raise DataError(f"inputs.{blob} is of no known kind", got=f"{kind} {known.get('order')}", want=str(_ORDERS))
    if not _numbers(mean, CHANNELS[kind]) or precision not in ("float32", "float64"):
        raise DataError(f"inputs.{blob} has no mean", got=mean, want=f"{CHANNELS[kind]} numbers, and their precision")
    return Input(kind, _ORDERS[kind], tuple(map(float, cast(list[float], mean))), precision)


def _read_labelling(top: str, value: object) -> Labelling:
    known = _table(value, f"labels.{top}", ("score", "classes", "colours"))
    classes, colours = known.get("classes"), known.get("colours")
    if not isinstance(classes, list) or not 0 < len(classes) < 256 or not all(isinstance(n, str) for n in classes):
        raise DataError(f"labels.{top}.classes is no list of names")
    if not isinstance(colours, list) or len(colours) != len(classes) or not all(map(_is_colour, colours)):
        raise DataError(f"labels.{top}.colours is no list of R, G, B for each class")
    return labelling(_text(known.get("score"), "score"), classes, colours)


def _is_colour(value: object) -> bool:
    return _numbers(value, 3) and all(part in range(256) for part in cast(list[float], value))


def _numbers(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(type(each) in (int, float) and abs(each) < 1e6 for each in value)
    )


def _table(value: object, what: str, known: Sequence[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{what} is no table", got=type(value).__name__)
    if known is not None and (unknown := set(value) - set(known)):
        raise DataError(f"{what} has an unknown {min(unknown)!r}", want=", ".join(known))
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{what!r} is no text", got=repr(value)[:60])
    return value
