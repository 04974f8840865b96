"""Semantic segmentation of images: ``Segmenter`` preprocesses an image, runs a net, and returns each pixel's class.

segmenter = Segmenter.load("voc-fcn8s", "weights/fcn8s-heavy-pascal.caffemodel")  # or the folder that a training wrote
result = segmenter("photo.jpg")
result.labels, result.shares
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe import devices
from reproduction.caffe.errors import DataError, NetError, StrPath, WeightsError
from reproduction.caffe.formats import prototxt, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.typing import Array, Float32, UInt8
from reproduction.fast import compiler
from reproduction.fcn.datasets import nyud
from reproduction.fcn.fetch import local_files
from reproduction.fcn.images import caffe_input, decode, palette
from reproduction.fcn.nets import registry, surgery
from reproduction.fcn.scoring.evaluate import Scorer
from reproduction.fcn.segment.card import CARD_FILE, Card, CardInput, load_card, published_card

Picture = StrPath | Image.Image | Array

_AS_READ = "Pass {}: the segmenter handles colour order, mean and scale."


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of segmenting one image: a label for each pixel.

    Attributes:
        labels: (H, W) uint8, the class of each pixel, an index of ``classes``.
        classes: the class names; the index is the label.
        scores: (C, H, W) float32, the class scores before the argmax; None if they were not requested.
        colours: (256, 3) uint8, the R, G, B values of every label; None stands for VOC's colours.
    """

    labels: UInt8
    classes: tuple[str, ...]
    scores: Float32 | None = None
    colours: UInt8 | None = None

    @property
    def shares(self) -> list[palette.Share]:
        """The classes that occur, each with the fraction of the pixels that it covers, in descending order."""
        return palette.count_shares(self.labels, self.classes)

    @property
    def background(self) -> int | None:
        """The number of the class named ``background``, which overlays leave clear; None if there is no such class."""
        return self.classes.index("background") if "background" in self.classes else None


class Segmenter:
    """A net with its weights, which segments images of any size: ``Segmenter.load("voc-fcn8s")("photo.jpg").labels``.

    Args:
        card: the net's model card, which states its inputs, its classes and their colours.
        net: the ``torch.nn.Module``, in phase TEST, with its weights.

    Attributes:
        card: the net's model card.
        net: the ``torch.nn.Module``.
        scorer: the callable that computes the scores, by default the net compiled for inference; assign another to
            replace it.
        classes: the class names by label top: one entry, ``label``; two for SIFT Flow, ``sem`` and ``geo``.
        input_kinds: the kinds of images that the net takes: ``color``, ``depth``, ``hha``.
    """

    def __init__(self, card: Card, net: Net):
        self.card = card
        self.net = net
        self.scorer: Scorer = compiler.compile(net)
        self.classes = {top: labels.classes for top, labels in card.labels.items()}
        self.input_kinds = card.kinds
        self._colours = {top: palette.colour_table(labels.colours) for top, labels in card.labels.items()}

    @classmethod
    def load(
        cls,
        name_or_folder: StrPath,
        weights_path: StrPath | None = None,
        *,
        weights_folder: StrPath = local_files.WEIGHTS,
        device: str = "cpu",
    ) -> Segmenter:
        """Build a net and load its weights.

        Args:
            name_or_folder: the name of a net of the catalogue, such as ``voc-fcn8s``; or a folder with a
                ``deploy.prototxt`` that contains a ``card.json``, as a training on custom images writes it, or has the
                name of such a net.
            weights_path: a weights file of any supported format; None selects the file that the folder's card names,
                else the net's file in the weights folder.
            weights_folder: the weights folder.
            device: the device to run on: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ReproductionError: If the net or device does not exist, or the weights are missing, broken or of another
                net.
        """
        card, net_folder = find_card(name_or_folder), _net_folder(name_or_folder)
        weights_path = locate_weights(name_or_folder, weights_path, weights_folder)
        net_param = prototxt.load_net(net_folder / "deploy.prototxt")[0] if net_folder else registry.load_net(card.net)
        return cls(card, load_net_with_weights(card.net, net_param, weights_path, device=device))

    def __call__(
        self,
        image: Picture | None = None,
        *,
        depth: Picture | None = None,
        hha: Picture | None = None,
        scores: bool = False,
    ) -> Segmentation:
        """Segment an image and return the labels; of SIFT Flow, the semantic ones.

        Args:
            image: a file, a PIL image, or a uint8 array of any size: (H, W, 3) in R G B order, or (H, W) grey.
            depth: for nets that take depth: a 16-bit image file or an (H, W) array, in millimetres.
            hha: for nets that take HHA: an image or (H, W, 3) uint8 array of disparity, height and angle.
            scores: if True, also return the class scores.

        Raises:
            DataError: If an input is missing, broken or of another type or shape, if the inputs differ in height or
                width, or if the image does not fit in memory.
            NetError: If the scores contain NaN.
        """
        return next(iter(self.segment(image, depth=depth, hha=hha, scores=scores).values()))

    def segment(
        self,
        image: Picture | None = None,
        *,
        depth: Picture | None = None,
        hha: Picture | None = None,
        scores: bool = False,
    ) -> dict[str, Segmentation]:
        """Segment an image and return all kinds of labels that the net predicts; arguments as for ``__call__``.

        The keys of the result are the label tops: ``label``; for SIFT Flow ``sem`` and ``geo``.
        """
        given = {"color": image, "depth": depth, "hha": hha}
        read = {taken.kind: self._read(taken, given[taken.kind]) for taken in self.card.inputs.values()}
        sizes = {kind: values.shape[:2] for kind, values in read.items()}
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{kind} {height} x {width}" for kind, (height, width) in sizes.items())
            raise DataError("the images differ in height and width", got=got)
        score_maps = self._forward(
            {blob: self._input(taken, read[taken.kind]) for blob, taken in self.card.inputs.items()}
        )
        size = next(iter(sizes.values()))
        return {
            top: self._segmentation(top, score_maps[labels.score], size, scores=scores)
            for top, labels in self.card.labels.items()
        }

    def _read(self, taken: CardInput, picture: Picture | None) -> Array:
        """Read an image as (H, W, 3) uint8, or depth as (H, W) float32, its logarithm minus the mean."""
        if picture is None:
            problem = f"{self.card.net} needs an image of kind {taken.kind!r}"
            raise DataError(problem, got="none", want=", ".join(self.input_kinds))
        return _to_log_depth(picture)[0] if taken.kind == "depth" else _to_rgb(picture)

    def _input(self, taken: CardInput, values: Array) -> Tensor:
        """Convert an image, shrunk to the card's ``side``, or a depth map to an input blob (1, C, H, W) float32."""
        if taken.kind == "depth":
            return torch.from_numpy(values)[None, None]
        small = decode.shrink(values, self.card.side)
        return torch.from_numpy(caffe_input.subtract_mean(small, taken.mean_array, flip=taken.order == "BGR"))[None]

    def _forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            with torch.inference_mode():
                return self.scorer(inputs, blobs=[labels.score for labels in self.card.labels.values()])
        except RuntimeError as error:  # out of memory on the CPU has no exception class
            if "alloc" not in str(error) and "memory" not in str(error):
                raise
            height, width = next(iter(inputs.values())).shape[2:]
            raise DataError(
                "the image is too large for the memory", got=f"{height} x {width}", remedy="Shrink it."
            ) from None

    def _segmentation(self, top: str, score_map: Tensor, size: tuple[int, int], *, scores: bool) -> Segmentation:
        if tuple(score_map.shape[2:]) != size:  # the image was shrunk
            score_map = F.interpolate(score_map, size, mode="bilinear", align_corners=False)
        score_map = score_map[0]
        # max returns the first of equal maxima, as NumPy's argmax does, and NaN if there is one.
        highest, labels = score_map.max(dim=0)
        if highest.isnan().any():
            raise NetError(f"blob {self.card.labels[top].score!r} is not a number (NaN)", remedy="Check the weights.")
        class_scores = score_map.float().cpu().numpy() if scores else None
        return Segmentation(labels.to(torch.uint8).cpu().numpy(), self.classes[top], class_scores, self._colours[top])


def find_card(name_or_folder: StrPath) -> Card:
    """Return the model card of a net, which states its inputs and classes, without loading the net.

    Args:
        name_or_folder: the name of a net of the catalogue, or a folder, see ``Segmenter.load``.

    Raises:
        ReproductionError: If there is no such net, or its card is broken.
    """
    folder = _net_folder(name_or_folder)
    if folder is None and Path(name_or_folder).is_file():
        remedy = "Name the net, and its weights separately."
        want = "a net's name, or a folder with one"
        raise DataError("this is a file, not a net", path=name_or_folder, want=want, remedy=remedy)
    if folder is None:
        return published_card(registry.find_net(os.fspath(name_or_folder)))
    if (folder / CARD_FILE).is_file():
        return load_card(folder / CARD_FILE)
    name = folder.resolve().name
    if name in registry.NETS:
        return published_card(registry.find_net(name))
    trained = sorted(str(path.parent) for path in folder.glob(f"*/{CARD_FILE}"))
    raise DataError(
        "this is neither a folder with a net nor the name of a net",
        path=name_or_folder,
        want=" or ".join(trained) or f"{CARD_FILE} and deploy.prototxt, as fcn train writes them, or a net's name",
    )


def locate_weights(
    name_or_folder: StrPath, weights_path: StrPath | None = None, weights_folder: StrPath = local_files.WEIGHTS
) -> Path:
    """Return the path of a net's weights file.

    Args:
        name_or_folder: the name of a net of the catalogue, or a folder, see ``Segmenter.load``.
        weights_path: the weights file, which is returned without a check; None to search for it.
        weights_folder: the weights folder.

    Raises:
        ReproductionError: If there is no such net, or its weights are not in ``weights_folder``; the message states
            how to get them.
    """
    if weights_path is not None:
        return Path(weights_path)
    card = find_card(name_or_folder)
    if card.weights:
        return Path(name_or_folder) / card.weights
    return local_files.find_weights(registry.find_net(card.net), weights_folder)


def _net_folder(name_or_folder: StrPath) -> Path | None:
    """Return the path of a folder, None for a net's name; names of the catalogue take precedence."""
    path = Path(name_or_folder)
    return path if os.fspath(name_or_folder) not in registry.NETS and path.is_dir() else None


def load_net_with_weights(net_name: str, net_param: NetParameter, weights_path: StrPath, *, device: str = "cpu") -> Net:
    """Build a net from its definition, and copy the weights of a file to it by layer name.

    Args:
        net_name: the net's name, for error messages.
        net_param: the net's definition.
        weights_path: a weights file of any supported format.
        device: the device to move the net to.

    Raises:
        ReproductionError: If there is no such device, or the weights are missing, broken or lack a layer of the net.
            Layers whose constant values the prototxt states (Scale with a constant filler) may be absent.
    """
    if not Path(weights_path).is_file():
        raise WeightsError("there is no such weights file", path=weights_path)
    target = devices.select_device(device)
    net = Net(net_param)
    report = net.copy_from(weights.read(weights_path).net, weights_path)
    if missing := [layer for layer in report.untouched if layer not in surgery.find_constant_scales(net)]:
        raise WeightsError(
            f"these are not the weights of {net_name}; {len(missing)} of its layers are missing,"
            f" the first is {missing[0]!r}",
            path=weights_path,
            remedy="Name the net that they belong to.",
        )
    return net.to(target)


def _to_rgb(picture: Picture) -> UInt8:
    if isinstance(picture, str | os.PathLike):
        return decode.read_rgb(picture)
    if isinstance(picture, Image.Image):
        return decode.from_pil(picture)
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]  # (H, W, 1), as some libraries return grey images
    fits = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
    if not fits or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))):
        want = "a file, a PIL image, or an array (H, W, 3) of uint8, 0 to 255"
        raise DataError("this is not an image", got=_describe_type(picture), want=want, remedy=_remedy_for(picture))
    return decode.from_pil(Image.fromarray(picture))


def _remedy_for(value: object) -> str:
    """Return a remedy for an array that is not an image: which preprocessing to leave out, or how to convert it."""
    name, values, as_read = "image", value, _AS_READ.format("the image as it was read")
    if isinstance(value, Tensor):
        values = (value.detach().float() if value.is_floating_point() else value.detach()).cpu().numpy()
        name = "image.numpy()"
    if not isinstance(values, np.ndarray) or not values.size:
        return as_read
    if values.dtype.kind == "f" and values.min() < 0:
        return f"Its mean was subtracted, as by Normalize: leave that out. {as_read}"
    if values.dtype.kind == "f" and values.max() <= 1:
        return f"It was scaled to 0 to 1, as by ToTensor: leave that out. {as_read}"
    if values.ndim == 4 and len(values) == 1:
        name, values = f"{name}[0]", values[0]
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3, 4):
        name += ".transpose(1, 2, 0)"
    if values.dtype != np.uint8 and values.dtype.kind in "fiu" and values.min() >= 0 and values.max() <= 255:
        name += '.astype("uint8")'
    return _AS_READ.format(name) if name != "image" else as_read


def _to_log_depth(picture: Picture) -> Array:
    if isinstance(picture, str | os.PathLike):
        values = caffe_input.read_depth(picture)
        try:
            return nyud.log_depth(values)
        except DataError as error:
            raise error.at(os.fspath(picture)) from None
    values = np.asarray(picture)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError("this is not a depth map", got=_describe_type(values), want="(H, W) millimetres")
    return nyud.log_depth(values)


def _describe_type(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of {dtype}, shape {tuple(shape)}"
