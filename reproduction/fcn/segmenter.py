"""A picture in, a label map out: colour order, mean, scale and class names are never the caller's business.

segmenter = Segmenter.load("voc-fcn8s", "weights/fcn8s-heavy-pascal.caffemodel")
result = segmenter("photo.jpg")
result.labels, result.shares
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from reproduction.caffe import devices, prototxt, weights
from reproduction.caffe.errors import DataError, NetError, StrPath, WeightsError
from reproduction.caffe.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn import catalogue, images, nets, palette
from reproduction.fcn.datasets import DATASETS, class_names, nyud, pascalcontext, pictures, siftflow, voc
from reproduction.fcn.nets import Published

Array = npt.NDArray[Any]
Picture = StrPath | Image.Image | Array

_MEANS: dict[str, Array] = {
    "voc": np.array(voc.MEAN_BGR, np.float64),
    "nyud": nyud.MEAN_BGR,
    "siftflow": siftflow.MEAN_BGR,
    "pascalcontext": pascalcontext.MEAN_BGR,
    "mini": np.array(nets.MEAN_BGR, np.float64),
}
_AS_READ = "Pass the picture as it was read: colour order, mean and scale are the segmenter's business."


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a net says of one picture.

    Attributes:
        labels: (H, W) uint8, the class of each pixel.
        classes: the names of the classes; index = label.
        scores: (C, H, W) float32, the net's scores before the choice; None unless they were asked for.
    """

    labels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    scores: npt.NDArray[np.float32] | None = None

    @property
    def shares(self) -> list[palette.Share]:
        """The classes that occur, with their share of the pixels, greatest first."""
        return palette.shares(self.labels, self.classes)

    @property
    def background(self) -> int | None:
        """The class that is no thing; None for data sets without one."""
        return self.classes.index("background") if "background" in self.classes else None


class Segmenter:
    """A net with weights, called with pictures.

    Args:
        row: the net's row in ``catalogue.NETS``: it says what the net takes and tells apart.
        net: the module, in phase TEST.

    Attributes:
        row: as given.
        net: as given.
        classes: label top -> class names; one entry, but for SIFT Flow's two.
        takes: the kinds of pictures that the net takes: ``color``, ``depth``, ``hha``.
    """

    def __init__(self, row: Published, net: Net):
        self.row = row
        self.net = net
        lists = DATASETS[row.dataset].label_lists
        self.classes = {head.label: class_names(lists[head.label]) for head in row.heads}
        self.takes = tuple(row.inputs.values())

    @classmethod
    def load(cls, net: StrPath, model: StrPath, *, device: str = "cpu") -> Segmenter:
        """Build a net of the catalogue and give it weights.

        Args:
            net: its name, or its folder with a ``deploy.prototxt``; the folder is called as the net.
            model: a file of weights of any format.
            device: where it runs: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ReproductionError: no such net or device; the weights are missing, broken or of another net.
        """
        name = os.fspath(net)
        if name in catalogue.NETS or not Path(name).is_dir():
            row = catalogue.net(name)
            return cls(row, load(row.name, nets.deploy(row), model, device=device))
        row = catalogue.net(Path(name).resolve().name)
        return cls(row, load(row.name, prototxt.load_net(Path(name) / "deploy.prototxt")[0], model, device=device))

    def __call__(
        self,
        image: Picture | None = None,
        *,
        depth: Picture | None = None,
        hha: Picture | None = None,
        scores: bool = False,
    ) -> Segmentation:
        """Segment a picture; of several labellings (SIFT Flow) the first, the semantic one.

        Args:
            image: a file, a PIL image, or (H, W, 3) or grey (H, W) uint8 in R G B, of any size.
            depth: for nets that take it: a 16-bit picture or (H, W) array of millimetres.
            hha: for nets that take it: a picture or (H, W, 3) uint8 of disparity, height and angle.
            scores: whether the scores are wanted too.

        Raises:
            DataError: a picture is missing, broken, or not as described; the sizes differ; it does not fit in memory.
            NetError: the scores are not numbers.
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
        """Segment a picture as ``__call__`` does, with every labelling: label top -> segmentation."""
        given = {"color": image, "depth": depth, "hha": hha}
        inputs = {blob: self._input(kind, given[kind]) for blob, kind in self.row.inputs.items()}
        sizes = {kind: inputs[blob].shape[2:] for blob, kind in self.row.inputs.items()}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{kind} {height} x {width}" for kind, (height, width) in sizes.items())
            raise DataError("the pictures differ in height and width", got=said)
        found = self._forward(inputs)
        return {
            head.label: self._segmentation(head.score, found[head.score][0], self.classes[head.label], scores)
            for head in self.row.heads
        }

    def _input(self, kind: str, picture: Picture | None) -> Tensor:
        if picture is None:
            raise DataError(f"{self.row.name} takes a picture of kind {kind!r}", got="none", want=", ".join(self.takes))
        if kind == "depth":
            return torch.from_numpy(_log_depth(picture))[None]
        mean = nyud.MEAN_HHA if kind == "hha" else _MEANS[self.row.dataset]
        return torch.from_numpy(pictures.caffe_input(_rgb(picture), mean, flip=kind == "color"))[None]

    def _forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            with torch.inference_mode():
                found: dict[str, Tensor] = self.net(inputs, blobs=[head.score for head in self.row.heads])
                return found
        except RuntimeError as error:  # torch has a class of its own for this on CUDA alone
            if "alloc" not in str(error) and "memory" not in str(error):
                raise
            height, width = next(iter(inputs.values())).shape[2:]
            raise DataError(
                "the picture is too large for the memory", got=f"{height} x {width}", remedy="Shrink it."
            ) from None

    @staticmethod
    def _segmentation(blob: str, found: Tensor, classes: tuple[str, ...], scores: bool) -> Segmentation:
        # torch, like numpy, gives the first of equal maxima, and NaN for a maximum where there is one.
        highest, labels = found.max(dim=0)
        if highest.isnan().any():
            raise NetError(f"blob {blob!r} is not a number (NaN)", remedy="Check the weights.")
        kept = found.float().cpu().numpy() if scores else None
        return Segmentation(labels.to(torch.uint8).cpu().numpy(), classes, kept)


def load(name: str, net: NetParameter, model: StrPath, *, device: str = "cpu") -> Net:
    """Build a net and give every layer its weights.

    Args:
        name: which net it is.
        net: its layers.
        model: a file of weights of any format.
        device: where it runs.

    Raises:
        ReproductionError: the weights are missing, broken or of another net; there is no such device.
    """
    if not Path(model).is_file():
        raise WeightsError("no such file of weights", path=model)
    target = devices.use(device)
    made = Net(net)
    report = made.copy_from(weights.read(model).net, model)
    if report.untouched:
        raise WeightsError(
            f"these are not the weights of {name}; {len(report.untouched)} of its layers are not there,"
            f" the first is {report.untouched[0]!r}",
            path=model,
            remedy="Name the net that they belong to.",
        )
    return made.to(target)


def _rgb(picture: Picture) -> npt.NDArray[np.uint8]:
    if isinstance(picture, str | os.PathLike):
        return images.read_rgb(picture)
    if isinstance(picture, Image.Image):
        return images.from_pil(picture)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        raise DataError("this is not a picture", got=_said(picture), want="uint8, 0 to 255", remedy=_AS_READ)
    if picture.ndim != 2 and (picture.ndim != 3 or picture.shape[2] not in (3, 4)):
        raise DataError("this is not a picture", got=_said(picture), want="(H, W, 3)", remedy=_AS_READ)
    return images.from_pil(Image.fromarray(picture))


def _log_depth(picture: Picture) -> Array:
    if isinstance(picture, str | os.PathLike):
        values = pictures.depth(picture)
        try:
            return nyud.log_depth(values)
        except DataError as error:
            raise error.at(os.fspath(picture)) from None
    values = np.asarray(picture)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError("this is not a depth map", got=_said(values), want="(H, W) millimetres")
    return nyud.log_depth(values)


def _said(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of {dtype}, shape {tuple(shape)}"
