"""Model cards: the preprocessing of a net's inputs, and the names and colours of its classes.

A card is stored with the weights: as ``card.json`` in the same folder, or in the metadata of safetensors and ONNX
files. Channel order, mean and class names are read from the card, so that callers need not know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from reproduction.caffe.errors import StrPath, cannot_read
from reproduction.caffe.formats import files, hashes, json_file
from reproduction.caffe.formats.json_file import Constraint, at_least, between, one_of
from reproduction.caffe.typing import Floating
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.datasets.spec import CHANNEL_ORDERS, CHANNELS
from reproduction.fcn.fetch import local_files
from reproduction.fcn.images import palette
from reproduction.fcn.images.framing import NO_FRAME, Framing

CARD_FILE = "card.json"
_NOT_A_CARD = "not a model card"
METADATA_KEY = "card"  # key in the metadata of safetensors and ONNX files
BEST_KEY = "best"  # key in ``Card.source`` of the validation by which a training chose the weights
#: What an exported net takes: uint8 images, or preprocessed float32 blobs as Caffe feeds them.
INPUTS = ("picture", "blob")
#: What an exported net returns: the class of each pixel, or the scores of all classes.
OUTPUTS = ("labels", "scores")
# Fields that earlier versions reject, so that their defaults are left out.
_NEW_FIELDS = ("knows", "scale", "size", "holds", "task", "framing")
FORMAT_VERSION = 1

_Part = Annotated[int, between(0, 255)]
_NOT_EMPTY = Constraint("at least one", len)
_NAMES = Constraint("at least one name", len)
_SIZE = Constraint("height and width, or nothing", lambda size: len(size) in (0, 2))

#: What a net predicts: a class for each pixel, or for the whole image.
TASKS = ("segment", "classify")
#: What the blob of a kind of labels holds: a score for each class, or the labels themselves, as SegNet's ArgMax layer.
CONTENTS = ("scores", "labels")
_MOST_CLASSES = 255  # of a label map, uint8 with 255 for void
_ORDERS = {"color": ("BGR", "RGB", "grey")}
_FILE_NAME = Constraint("the name of a file next to the card", lambda name: Path(name).name == name)


@dataclass(frozen=True)
class CardInput:
    """How one input of a net is preprocessed, as its model card says.

    Attributes:
        kind: the content of the image: ``color``, ``depth`` or ``hha``.
        order: the order of the channels, ``BGR`` or ``RGB``; ``grey`` for one channel of brightness; for depth
            ``log(mm)``, the natural logarithm of millimetres.
        mean: one value for each channel, in ``order``, that is subtracted from values of 0 to 255 (for depth, from the
            logarithm).
        precision: the dtype in which the mean is subtracted, ``float32`` or ``float64``; the result is converted to
            float32.
        scale: a factor for each channel, or one for all, by which the result is multiplied; empty for none.
        size: (height, width) to which images are resized; empty if the net takes any size.
    """

    kind: Annotated[str, one_of(CHANNELS)]
    order: str
    mean: tuple[Annotated[float, between(-1e6, 1e6)], ...]
    precision: Annotated[str, one_of(("float32", "float64"))]
    scale: tuple[Annotated[float, between(-1e6, 1e6)], ...] = ()
    size: Annotated[tuple[Annotated[int, between(1, 1 << 15)], ...], _SIZE] = ()

    def check(self) -> str | None:
        """Return what ``order``, ``mean`` or ``scale`` should be if they do not fit ``kind``, else None."""
        orders = _ORDERS.get(self.kind, (CHANNEL_ORDERS[self.kind],))
        if self.order not in orders:
            return f"the order {' or '.join(orders)} for {self.kind}"
        if len(self.mean) != self.channels:
            return f"{self.channels} numbers as mean"
        return None if len(self.scale) in (0, 1, self.channels) else f"1 or {self.channels} numbers as scale"

    @property
    def channels(self) -> int:
        """The number of channels of the input blob."""
        return 1 if self.order == "grey" else CHANNELS[self.kind]

    @property
    def mean_array(self) -> Floating:
        """The mean of each channel as an array (C,), of the dtype that ``precision`` names."""
        return np.array(self.mean, self.precision)

    @property
    def scale_array(self) -> Floating:
        """The factor of each channel as an array, (C,) float32; all 1 if there is none."""
        return np.broadcast_to(np.array(self.scale or (1.0,), np.float32), (self.channels,))


@dataclass(frozen=True)
class CardLabels:
    """One kind of labels that a net predicts; SIFT Flow's nets predict two kinds, others one.

    Attributes:
        score: the name of the blob with their scores, (N, classes, H, W); of a classifier (N, classes).
        classes: the class names; the index is the label.
        colours: the R, G, B values of each class, 0 to 255; a classifier has none.
        holds: what the blob holds: ``scores``, or ``labels``, (N, 1, H, W).
    """

    score: str
    classes: Annotated[tuple[str, ...], _NAMES]
    colours: tuple[tuple[_Part, _Part, _Part], ...]
    holds: Annotated[str, one_of(CONTENTS)] = "scores"

    def check(self) -> str | None:
        """Return what ``colours`` should be if there is neither one for each class nor none, else None."""
        return None if len(self.colours) in (0, len(self.classes)) else "R, G, B for each class"


@dataclass(frozen=True)
class Card:
    """A model card: everything besides weights and prototxt that is needed to segment images with a net.

    Attributes:
        net: the name of the net.
        inputs: the inputs, by blob name.
        labels: the kinds of labels that the net predicts, by the label top that they were trained on (``label``; SIFT
            Flow has ``sem`` and ``geo``); the first is the main one.
        side: images whose longer side exceeds this number of pixels were shrunk to it in training, and are in
            inference; 0 if none were.
        weights: the name of the weights file in the card's folder; empty if the card is inside the weights file.
        licence: the licence that the publishers of the weights state.
        source: where the weights come from, e.g. ``{"file": name, "sha256": hash}``.
        knows: what kind of images the net can recognize, such as ``drawn things only``; empty for photographs.
        task: one of ``TASKS``.
        framing: the frame that the net needs around an image, to have scores for each of its pixels.
    """

    net: str
    inputs: Annotated[dict[str, CardInput], _NOT_EMPTY]
    labels: Annotated[dict[str, CardLabels], _NOT_EMPTY]
    side: Annotated[int, at_least(0)] = 0
    weights: Annotated[str, _FILE_NAME] = ""
    licence: str = ""
    source: dict[str, str] = field(default_factory=dict)
    knows: str = ""
    task: Annotated[str, one_of(TASKS)] = "segment"
    framing: Framing = NO_FRAME

    def check(self) -> str | None:
        """Return what ``labels`` should be if a segmentation lacks colours or has too many classes, else None."""
        for top, labels in self.labels.items():
            if self.task == "segment" and (len(labels.classes) > _MOST_CLASSES or not labels.colours):
                return f"1 to {_MOST_CLASSES} classes with colours in labels.{top}"
        return None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each input, in order: ``color``, ``depth`` or ``hha``."""
        return tuple(each.kind for each in self.inputs.values())


def published_card(record: NetRecord, colours: Sequence[tuple[int, int, int]] | None = None, **more: Any) -> Card:
    """Return the model card of a published net, of a net of Mini-VOC, or of one that is trained on custom images.

    Args:
        record: the net.
        colours: the R, G, B values of each class; None selects VOC's colours.
        more: values of other fields of ``Card``, such as ``side``, ``weights``, ``licence`` and ``source``.
    """
    return Card(
        record.name,
        card_inputs(record),
        {head.label: card_labels(head.score, head.classes, colours) for head in record.heads},
        knows=record.dataset.knows,
        framing=record.framing,
        **more,
    )


def card_inputs(record: NetRecord) -> dict[str, CardInput]:
    """Return how the inputs of a net are preprocessed, by blob name.

    Args:
        record: the record of the net.
    """
    if record.grey_mean is None:
        return {blob: _card_input(kind, record.dataset.means[kind]) for blob, kind in record.inputs.items()}
    scale = () if record.scale == 1 else (record.scale,)
    return {blob: CardInput("color", "grey", (record.grey_mean,), "float64", scale) for blob in record.inputs}


def add_source(card: Card, weights_path: StrPath) -> Card:
    """Return a copy of a card whose ``source`` states the name and SHA-256 of a weights file.

    If the file is the published one, as its name and (if known) size in the manifest show, the copy also gets the
    licence of the published weights.

    Args:
        card: the card to copy.
        weights_path: the weights file.
    """
    path, entry = Path(weights_path), local_files.load_manifest().entries.get(card.net)
    published = entry and path.name == entry.file_name and entry.size_bytes in (None, path.stat().st_size)
    licence = entry.licence if entry and published else card.licence
    return replace(card, licence=licence, source={"file": path.name, "sha256": hashes.hash_file(path)})


def card_labels(
    score: str, classes: Sequence[str], colours: Sequence[tuple[int, int, int]] | None = None
) -> CardLabels:
    """Return the ``CardLabels`` of a score blob: its classes and their colours.

    Args:
        score: the name of the score blob.
        classes: the class names; the index is the label.
        colours: the R, G, B values of each class; None selects VOC's colours.
    """
    given = palette.voc_colours(len(classes)).tolist() if colours is None else colours
    return CardLabels(score, tuple(classes), tuple((int(r), int(g), int(b)) for r, g, b in given))


def _card_input(kind: str, mean: Floating) -> CardInput:
    return CardInput(kind, CHANNEL_ORDERS[kind], tuple(float(str(value)) for value in mean), str(mean.dtype))


def as_json(card: Card) -> dict[str, Any]:
    """Return a card as a dict of JSON types."""
    document = {"format": FORMAT_VERSION, **_without_new_defaults(card)}
    for part in ("inputs", "labels"):
        document[part] = {name: _without_new_defaults(each) for name, each in getattr(card, part).items()}
    return document


def describe_choice(card: Card, folder: StrPath) -> str:
    """Return a sentence on the weights that a card names if a training chose them by their scores, else ``""``.

    Args:
        card: the card.
        folder: the folder of the card.
    """
    if BEST_KEY not in card.source:
        return ""
    best, last = Path(folder) / card.weights, Path(folder) / f"{card.net}.caffemodel"
    return f"{best} has the best weights: {card.source[BEST_KEY]}. `--weights {last}` selects the last ones."


def _without_new_defaults(part: Card | CardInput | CardLabels) -> dict[str, Any]:
    """Return the fields of a part, without those of ``_NEW_FIELDS`` that have their default."""
    new = {
        field.name for field in fields(part) if field.name in _NEW_FIELDS and getattr(part, field.name) == field.default
    }
    return {name: value for name, value in asdict(part).items() if name not in new}


def format_card(card: Card) -> str:
    """Format a card as JSON text."""
    return json_file.dumps(as_json(card), indent=1)


def write_card(card: Card, path: StrPath) -> None:
    """Write a model card to a JSON file atomically.

    Raises:
        ReproductionError: If the file cannot be written.
    """
    files.write_text(path, format_card(card) + "\n")


def load_card(path: StrPath) -> Card:
    """Load a model card from a JSON file.

    Raises:
        DataError: If the file is missing, cannot be read, or is not a card.
    """
    try:
        return json_file.load(path, Card, _NOT_A_CARD, version=FORMAT_VERSION)
    except OSError as error:
        raise cannot_read(error, "the card", path) from None


def parse_card(text: str, path: StrPath = "<card>") -> Card:
    """Parse a model card from JSON text, such as the metadata of a safetensors or ONNX file.

    Args:
        text: the JSON.
        path: the file that the text comes from, for error messages.

    Raises:
        DataError: If the text is not a card; the message names the field that is wrong.
    """
    return json_file.loads(text.encode("utf-8", "surrogatepass"), Card, path, _NOT_A_CARD, version=FORMAT_VERSION)
