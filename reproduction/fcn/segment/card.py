"""Model cards: the preprocessing of a net's inputs, and the names and colours of its classes.

A card is stored with the weights: as ``card.json`` in the same folder, or in the metadata of safetensors and ONNX
files. Channel order, mean and class names are read from the card, so that callers need not know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files, hashes, json_file
from reproduction.caffe.formats.json_file import Constraint, at_least, between, one_of
from reproduction.caffe.typing import Floating
from reproduction.fcn.datasets import PublishedNet, voc
from reproduction.fcn.datasets.spec import CHANNEL_ORDERS, CHANNELS
from reproduction.fcn.fetch import local_files
from reproduction.fcn.images import palette

CARD_FILE = "card.json"
_NOT_A_CARD = "not a model card"
METADATA_KEY = "card"  # key in the metadata of safetensors and ONNX files
FORMAT_VERSION = 1

_Part = Annotated[int, between(0, 255)]
_NOT_EMPTY = Constraint("at least one", len)
_NAMES = Constraint("1 to 255 names", lambda names: 0 < len(names) < 256)
_FILE_NAME = Constraint("the name of a file next to the card", lambda name: Path(name).name == name)


@dataclass(frozen=True)
class CardInput:
    """The preprocessing of one input of a net.

    Attributes:
        kind: ``color``, ``depth`` or ``hha``.
        order: the channel order, ``BGR`` or ``RGB``; for depth, ``log(mm)``: the logarithm of millimetres.
        mean: one value for each channel, in this order, subtracted from values from 0 to 255 (from ``log(mm)`` for
            depth).
        precision: the dtype of the subtraction, ``float32`` or ``float64``; its result is converted to float32.
    """

    kind: Annotated[str, one_of(CHANNELS)]
    order: str
    mean: tuple[Annotated[float, between(-1e6, 1e6)], ...]
    precision: Annotated[str, one_of(("float32", "float64"))]

    def check(self) -> str | None:
        """Return what ``order`` or ``mean`` should be for this ``kind`` (see ``json_file``); None if they fit."""
        if self.order != CHANNEL_ORDERS[self.kind]:
            return f"the order {CHANNEL_ORDERS[self.kind]} for {self.kind}"
        return None if len(self.mean) == CHANNELS[self.kind] else f"{CHANNELS[self.kind]} numbers as mean"

    @property
    def mean_array(self) -> Floating:
        """The mean as an array (C,) of dtype ``precision``."""
        return np.array(self.mean, self.precision)


@dataclass(frozen=True)
class CardLabels:
    """One output of a net: a label for each pixel.

    Attributes:
        score: the name of the score blob, (N, classes, H, W).
        classes: the class names; index = label.
        colours: the R, G, B values of each class, 0 to 255.
    """

    score: str
    classes: Annotated[tuple[str, ...], _NAMES]
    colours: tuple[tuple[_Part, _Part, _Part], ...]

    def check(self) -> str | None:
        """Return the condition that is not met (see ``json_file``): one colour for each class; None if it is."""
        return None if len(self.colours) == len(self.classes) else "R, G, B for each class"


@dataclass(frozen=True)
class Card:
    """A model card: everything besides the weights that inference needs.

    Attributes:
        net: the name of the net.
        inputs: the inputs, by blob name.
        labels: the outputs, by the label top that they were trained on; the first is the main one.
        side: the longer side in pixels to which larger training images were shrunk; 0 if they were not shrunk.
        weights: the name of the weights file in the card's folder; empty if the card is stored inside the file.
        licence: the licence that the publishers of the weights state.
        source: where the weights come from, such as file name and sha256.
        knows: what the net can recognize, such as ``drawn things only``; empty for photographs.
    """

    net: str
    inputs: Annotated[dict[str, CardInput], _NOT_EMPTY]
    labels: Annotated[dict[str, CardLabels], _NOT_EMPTY]
    side: Annotated[int, at_least(0)] = 0
    weights: Annotated[str, _FILE_NAME] = ""
    licence: str = ""
    source: dict[str, str] = field(default_factory=dict)
    knows: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each input: ``color``, ``depth`` or ``hha``."""
        return tuple(each.kind for each in self.inputs.values())


def published_card(published: PublishedNet, **more: Any) -> Card:
    """Return the card of a published net or of a net of Mini-VOC.

    Args:
        published: the net.
        more: other fields of ``Card``, such as ``licence`` and ``source``.
    """
    return Card(
        published.name,
        {blob: _card_input(kind, published.dataset.means[kind]) for blob, kind in published.inputs.items()},
        {head.label: card_labels(head.score, head.classes) for head in published.heads},
        knows=published.dataset.knows,
        **more,
    )


def custom_card(
    name: str, classes: Sequence[str], colours: Sequence[tuple[int, int, int]] | None = None, **more: Any
) -> Card:
    """Return the card of a net that was trained on custom images: one colour input, one output.

    Args:
        name: the name of the net.
        classes: the class names; index = label.
        colours: the R, G, B values of each class; None selects VOC's colours.
        more: other fields of ``Card``: ``side``, ``weights``, ``licence`` and ``source``.
    """
    inputs = {"data": _card_input("color", voc.SPEC.means["color"])}
    return Card(name, inputs, {"label": card_labels("score", classes, colours)}, **more)


def add_source(card: Card, weights_path: StrPath) -> Card:
    """Return a copy of a card with the name and sha256 of its weights file as ``source``.

    If the file's name, and its size where that is recorded, match the net's entry in the manifest, the entry's licence
    replaces the card's.

    Args:
        card: the card.
        weights_path: the weights file.
    """
    path, entry = Path(weights_path), local_files.load_manifest().entries.get(card.net)
    published = entry and path.name == entry.file_name and entry.size_bytes in (None, path.stat().st_size)
    licence = entry.licence if entry and published else card.licence
    return replace(card, licence=licence, source={"file": path.name, "sha256": hashes.hash_file(path)})


def card_labels(
    score: str, classes: Sequence[str], colours: Sequence[tuple[int, int, int]] | None = None
) -> CardLabels:
    """Return a ``CardLabels`` of a score blob; ``colours=None`` selects VOC's colours."""
    given = palette.voc_colours(len(classes)).tolist() if colours is None else colours
    return CardLabels(score, tuple(classes), tuple((int(r), int(g), int(b)) for r, g, b in given))


def _card_input(kind: str, mean: Floating) -> CardInput:
    return CardInput(kind, CHANNEL_ORDERS[kind], tuple(float(str(value)) for value in mean), str(mean.dtype))


def format_card(card: Card) -> str:
    """Format a card as JSON."""
    document = {"format": FORMAT_VERSION, **asdict(card)}
    if not card.knows:  # earlier versions reject fields that they do not know
        del document["knows"]
    return json_file.dumps(document, indent=1)


def write_card(card: Card, path: StrPath) -> None:
    """Write a card to a JSON file atomically.

    Raises:
        ReproductionError: If the file cannot be written.
    """
    with files.open_atomic(path) as file:
        file.write((format_card(card) + "\n").encode())


def load_card(path: StrPath) -> Card:
    """Load a card from a JSON file.

    Raises:
        DataError: If the file is missing, cannot be read, or is not a card.
    """
    try:
        return json_file.load(path, Card, _NOT_A_CARD, version=FORMAT_VERSION)
    except OSError as error:
        raise DataError(f"the card cannot be read ({(error.strerror or str(error)).lower()})", path=path) from None


def parse_card(text: str, path: StrPath = "<card>") -> Card:
    """Parse a card from JSON text.

    Args:
        text: the JSON.
        path: where the text comes from, for error messages.

    Raises:
        DataError: If the text is not a card; the message names the field that is wrong.
    """
    return json_file.loads(text.encode("utf-8", "surrogatepass"), Card, path, _NOT_A_CARD, version=FORMAT_VERSION)
