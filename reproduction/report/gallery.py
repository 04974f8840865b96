"""The images of a scoring run: the choice of those that a page shows, and their rendering.

A label top is the top of the data layer with the true labels: ``label``; SIFT Flow has two, ``sem`` and ``geo``.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import Dataset, label_files
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.custom.color_labels import RGB, VOID_NAME
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.images import decode, palette
from reproduction.fcn.scoring import score
from reproduction.report.record import ImageScore

SAMPLING_SEED = 2015  # of the random sample
EACH = 3  # images of each kind: best, worst, sample
LONGEST = 512  # pixels of the longer side, on the page
RIGHT, WRONG, IGNORED = range(3)  # values of an error map
ERROR_COLOURS = {WRONG: (224, 24, 104), IGNORED: (128, 134, 144)}

_ERROR_PALETTE = np.array([(0, 0, 0), ERROR_COLOURS[WRONG], ERROR_COLOURS[IGNORED]], np.uint8)
_JPEG_QUALITY = 82
_PHOTO_KINDS = ("data", "color", "hha")  # kinds of inputs to display, in order of preference


@dataclass(frozen=True)
class Gallery:
    """The images of a data set, with the true labels and a net's predictions, loaded one at a time.

    Attributes:
        dataset: the data set that was scored.
        predictions: the folder to which ``evaluate.evaluate`` wrote the label maps.
        net_colours: the R, G, B values of each class of the net's model card, which take precedence over those of the
            data set; empty for a net without a card.
    """

    dataset: Dataset
    predictions: Path
    net_colours: Sequence[RGB] = ()

    @property
    def colours(self) -> UInt8:
        """The colour of each label, (256, 3) uint8 R G B: the net's, else those of a custom data set, else VOC's."""
        own = (self.dataset.colours if isinstance(self.dataset, Folder) else None) or {}
        classes = [colour for name, colour in own.items() if name != VOID_NAME]
        table = palette.colour_table(self.net_colours or classes)
        if VOID_NAME in own:
            table[VOID] = own[VOID_NAME]
        return table

    def photo(self, image_id: str) -> UInt8:
        """Load the photograph (or HHA image) of a sample to display it, (H, W, 3) uint8 in R G B order.

        Raises:
            DataError: If the image is missing or broken.
        """
        files = [self.dataset.file(kind, image_id) for kind in _PHOTO_KINDS if kind in self.dataset.kinds]
        return decode.read_rgb(next((path for path in files if path.is_file()), files[0]))

    def truth(self, top: str, image_id: str) -> UInt8:
        """Load the true labels of an image for one label top, (H, W) uint8; 255 is void.

        Raises:
            DataError: If the labels are missing or broken.
        """
        kind = self.dataset.tops[top]
        labels: UInt8 = self.dataset.load(kind, image_id)[0]
        return labels

    def prediction(self, top: str, image_id: str) -> UInt8:
        """Load the labels that the net predicted for an image and label top, (H, W) uint8.

        Raises:
            DataError: If the label map is missing or broken.
        """
        folder = self.predictions / top if len(self.dataset.label_classes) > 1 else self.predictions
        return label_files.read_indices(folder / f"{image_id}.png")


def choose_images(scores: Sequence[ImageScore]) -> dict[str, list[ImageScore]]:
    """Choose the images that a page shows: the best and the worst by mean IU, and a sample of the others.

    The sample is the first images in a shuffled order, which is the same for all nets of a split so that the nets can
    be compared. With few images, the best, the worst and the sample are one third of them each.

    Returns:
        The images by ``best``, ``worst`` and ``sample``, up to ``EACH`` of each.
    """
    ranked = sorted(scores, key=lambda image: (-image.mean_iu, image.id))
    each = min(EACH, len(ranked) // 3) or 1
    best = ranked[:each]
    worst = ranked[each:][-each:][::-1]
    others = sorted(ranked, key=lambda image: image.id)
    random.Random(SAMPLING_SEED).shuffle(others)
    sample = [image for image in others if image not in best and image not in worst]
    return {"best": best, "worst": worst, "sample": sample[:each]}


@dataclass(frozen=True)
class ImageClass:
    """A class that occurs in one image, in the true labels or the prediction; void pixels do not count.

    Attributes:
        name: the name of the class.
        colour: its R, G, B in label maps, 0 to 255.
        iu: the intersection over union of the class in this image.
        in_truth: True if the true labels contain the class.
        predicted: True if the prediction contains the class.
    """

    name: str
    colour: Sequence[int]
    iu: float
    in_truth: bool
    predicted: bool


@dataclass(frozen=True)
class RenderedImage:
    """One image of a page, with its scores and the names under which its renderings are stored in a ``Media``.

    Attributes:
        score: the image's id and scores.
        width: the width on the page, in pixels.
        height: the height on the page, in pixels.
        photo: the name of the photograph.
        truth: the name of the true label map in colours.
        prediction: the name of the predicted label map in colours.
        errors: the name of the error map: wrong pixels in one colour, void ones in another, correct ones transparent.
        classes: the classes in the truth or the prediction, by descending number of pixels in both together.
        has_void: True if the true labels contain void pixels.
    """

    score: ImageScore
    width: int
    height: int
    photo: str
    truth: str
    prediction: str
    errors: str
    classes: list[ImageClass]
    has_void: bool


@dataclass
class Media:
    """A store of a page's images as data URLs, in which an image that several nets share is stored once.

    Attributes:
        urls: the data URL of each image, by the name that ``add`` returned.
    """

    urls: dict[str, str] = field(default_factory=dict)
    _names: dict[tuple[str, ...], str] = field(default_factory=dict)
    _labels: dict[tuple[str, ...], UInt8] = field(default_factory=dict)

    def truth(self, gallery: Gallery, top: str, image_id: str) -> UInt8:
        """Load the true labels of an image; they are cached for the other nets of the page."""
        key = (str(gallery.dataset.tree), image_id, top)
        if key not in self._labels:
            self._labels[key] = gallery.truth(top, image_id)
        return self._labels[key]

    def add(self, key: tuple[str, ...], make: Callable[[], tuple[str, bytes]]) -> str:
        """Store an image unless it is stored already, and return its name.

        Args:
            key: what identifies the image, such as ``("truth", folder, id, top)``; the same key returns the same name.
            make: a function that renders the image and returns its MIME type and bytes; called only for a new key.
        """
        if key not in self._names:
            kind, content = make()
            self._names[key] = f"media{len(self.urls)}"
            self.urls[self._names[key]] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        return self._names[key]


def render_image(gallery: Gallery, net_name: str, top: str, image: ImageScore, media: Media) -> RenderedImage:
    """Render one image for a page: the photograph, the true labels, the prediction and the error map.

    Args:
        gallery: the source of the photograph, the labels and the prediction.
        net_name: the name of the net that predicted.
        top: the label top, such as ``label``.
        image: the id and scores of the image.
        media: the store to which the rendered images are added.

    Raises:
        DataError: If a file is missing or broken.
    """
    names = gallery.dataset.label_classes[top]
    truth, prediction = media.truth(gallery, top, image.id), gallery.prediction(top, image.id)
    counts = score.confusion_matrix(truth, prediction, len(names))
    errors = np.where(truth == VOID, IGNORED, np.where(truth == prediction, RIGHT, WRONG)).astype(np.uint8)
    size = _size(truth)
    clear = names.index("background") if "background" in names else None
    colours = gallery.colours
    image_key = str(gallery.dataset.tree), image.id
    prediction_key = *image_key, top, net_name
    return RenderedImage(
        score=image,
        width=size[0],
        height=size[1],
        photo=media.add(("photo", *image_key), lambda: _jpeg(gallery.photo(image.id), size)),
        truth=media.add(("truth", *image_key, top), lambda: _png(truth, colours, size, clear)),
        prediction=media.add(("prediction", *prediction_key), lambda: _png(prediction, colours, size, clear)),
        errors=media.add(("errors", *prediction_key), lambda: _png(errors, _ERROR_PALETTE, size, RIGHT)),
        classes=_present(counts, names, colours),
        has_void=bool((truth == VOID).any()),
    )


def _present(counts: score.Confusion, names: Sequence[str], table: UInt8) -> list[ImageClass]:
    truth, predicted = counts.sum(1), counts.sum(0)
    here = [int(k) for k in np.argsort(-(truth + predicted), kind="stable") if truth[k] + predicted[k]]
    return [
        ImageClass(
            names[k],
            table[k].tolist(),
            float(counts[k, k] / (truth[k] + predicted[k] - counts[k, k])),
            bool(truth[k]),
            bool(predicted[k]),
        )
        for k in here
    ]


def _size(labels: UInt8) -> tuple[int, int]:
    """Return (width, height) on the page: the longer side is at most ``LONGEST``."""
    height, width = labels.shape
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _jpeg(rgb: UInt8, size: tuple[int, int]) -> tuple[str, bytes]:
    file = io.BytesIO()
    Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=_JPEG_QUALITY)
    return "image/jpeg", file.getvalue()


def _png(labels: UInt8, colours: UInt8, size: tuple[int, int], clear: int | None) -> tuple[str, bytes]:
    """Encode a label map as a palette PNG, in which label ``clear`` is transparent; None makes all opaque."""
    image = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    alpha = bytes(0 if label == clear else 255 for label in range(len(colours)))
    image.save(file, "PNG", optimize=True, transparency=alpha)
    return "image/png", file.getvalue()
