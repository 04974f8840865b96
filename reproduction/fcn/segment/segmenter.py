"""Semantic segmentation of images: ``Segmenter`` preprocesses an image, runs a net, and returns each pixel's class.

segmenter = Segmenter.load("voc-fcn8s", "weights/fcn8s-heavy-pascal.caffemodel")  # or the folder that a training wrote
result = segmenter("photo.jpg")  # or bytes, a PIL image, an array, a list of these, a folder
result.labels, result.shares, result.overlay()
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe import devices
from reproduction.caffe.errors import DataError, NetError, StrPath
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.typing import Array, UInt8
from reproduction.fast import compiler
from reproduction.fcn.fetch import local_files
from reproduction.fcn.images import palette
from reproduction.fcn.nets import registry
from reproduction.fcn.scoring.evaluate import Scorer
from reproduction.fcn.segment import any_net, batches, preprocess, read_images
from reproduction.fcn.segment.any_net import NetOptions
from reproduction.fcn.segment.card import CARD_FILE, Card, CardInput, load_card, published_card
from reproduction.fcn.segment.read_images import Picture, Pictures
from reproduction.fcn.segment.segmentation import Segmentation


@dataclass(frozen=True, eq=False)
class SegmenterInput:
    """An image that was read for a net, with its depth or HHA image if the net takes them.

    Attributes:
        arrays: what each input of the net is made from, by kind: ``color`` and ``hha`` (H, W, 3) uint8, ``depth``
            (1, H, W) float32.
        shown: (H, W, 3) uint8 R G B, the image over which labels are drawn; None if there is only depth.
        name: the image's file name without ending; empty if it has none.
        size: height and width.
    """

    arrays: Mapping[str, Array]
    shown: UInt8 | None
    name: str
    size: tuple[int, int]


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
        self.scorer: Scorer = compiler.compile(net, steady=True)  # equal images have equal results
        self.classes = {top: labels.classes for top, labels in card.labels.items()}
        self.input_kinds = card.kinds
        self._colours = {top: palette.colour_table(labels.colours) for top, labels in card.labels.items()}

    @classmethod
    def load(
        cls,
        name_or_folder: StrPath,
        weights_path: StrPath | None = None,
        *,
        weights_folder: StrPath | None = None,
        device: str = "cpu",
    ) -> Segmenter:
        """Build a net and load its weights.

        Args:
            name_or_folder: the name of a net of the catalogue, such as ``voc-fcn8s``; or a folder with a
                ``deploy.prototxt`` that contains a ``card.json``, as a training on custom images writes it, or has the
                name of such a net.
            weights_path: a weights file of any supported format; None selects the file that the folder's card names,
                else the net's file in the weights folder.
            weights_folder: the weights folder; None for ``folders.find_weights_folder``.
            device: the device to run on: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ReproductionError: If the net or device does not exist, or the weights are missing, broken or of another
                net.
        """
        card, net_folder = find_card(name_or_folder), _net_folder(name_or_folder)
        weights_path = locate_weights(name_or_folder, weights_path, weights_folder)
        net_param = prototxt.load_net(net_folder / "deploy.prototxt")[0] if net_folder else registry.load_net(card.net)
        return cls(card, any_net.load_net_with_weights(card.net, net_param, weights_path, device=device))

    @classmethod
    def from_prototxt(
        cls, prototxt_path: StrPath, weights_path: StrPath, options: NetOptions | None = None, *, device: str = "cpu"
    ) -> Segmenter:
        """Build a segmenter of any net that computes labels or scores for each pixel, and load its weights.

        Args:
            prototxt_path: the net's prototxt, a deploy net.
            weights_path: its weights, a file of any supported format.
            options: how images are preprocessed, and the class names; what is not given is found from the net. See
                ``any_net.NetOptions``.
            device: the device to run on: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ReproductionError: If a file is missing, broken or of another net, or if the net does not segment.
        """
        card, net, _ = any_net.load_any_net(prototxt_path, weights_path, options, device=device)
        if card.task != "segment":
            problem = f"{card.net} classifies whole images"
            raise NetError(problem, want="labels of each pixel", remedy="Use Classifier.from_prototxt.")
        return cls(card, net)

    def to(self, device: str | torch.device) -> Segmenter:
        """Move the net to a device, and return this segmenter.

        A ``scorer`` that you assigned stays as it is, unless it is a compiled net or the net itself.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:1``.

        Raises:
            ReproductionError: If there is no such device, or the weights were freed when the net was compiled.
        """
        target = devices.select_device(device)
        if isinstance(self.scorer, compiler.CompiledNet) and self.scorer.net is self.net:
            self.scorer.to(target)
        else:
            self.net.to(target)
        return self

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        depth: Pictures = None,
        hha: Pictures = None,
        scores: bool = False,
    ) -> list[Segmentation]: ...
    @overload
    def __call__(
        self,
        image: Picture | None = None,
        *,
        depth: Picture | None = None,
        hha: Picture | None = None,
        scores: bool = False,
    ) -> Segmentation: ...
    def __call__(
        self,
        image: Pictures = None,
        *,
        depth: Pictures = None,
        hha: Pictures = None,
        scores: bool = False,
    ) -> Segmentation | list[Segmentation] | Iterator[Segmentation]:
        """Segment an image, or many, and return the labels; of SIFT Flow, the semantic ones.

        Args:
            image: a file, the bytes of one, a file object, a PIL image, or a uint8 array of any size: (H, W, 3) in
                R G B order, or (H, W) grey; a list of these; or a folder, which is searched recursively.
            depth: for nets that take depth: a 16-bit image file or an (H, W) array, in millimetres. For a list of
                images a list, for a folder of images a folder with files of the same names.
            hha: for nets that take HHA: an image or (H, W, 3) uint8 array of disparity, height and angle; a list or a
                folder as for ``depth``.
            scores: if True, also return the class scores.

        Returns:
            Of one image its ``Segmentation``, of a list a list, and of a folder an iterator that segments the images
            as they are requested, sorted by path. Images of one size are computed together, see ``segment_many``.

        Raises:
            DataError: If an input is missing, broken or of another type or shape, if the inputs differ in height or
                width, or if the image does not fit in memory.
            NetError: If the scores contain NaN.
        """
        first = next((each for each in (image, depth, hha) if each is not None), None)
        if not read_images.is_many(first):
            return _main(self.segment(image, depth=depth, hha=hha, scores=scores))  # type: ignore[arg-type]
        found = map(_main, self.segment_many(image, depth=depth, hha=hha, scores=scores))
        return list(found) if isinstance(first, list | tuple) else found

    def segment(
        self,
        image: Picture | None = None,
        *,
        depth: Picture | None = None,
        hha: Picture | None = None,
        scores: bool = False,
    ) -> dict[str, Segmentation]:
        """Segment one image and return all kinds of labels that the net predicts; arguments as for ``__call__``.

        The keys of the result are the label tops: ``label``; for SIFT Flow ``sem`` and ``geo``.
        """
        return self.segment_batch([self.read(image, depth=depth, hha=hha)], scores=scores)[0]

    def segment_many(
        self,
        images: Pictures = None,
        *,
        depth: Pictures = None,
        hha: Pictures = None,
        scores: bool = False,
        batch: int | None = None,
    ) -> Iterator[dict[str, Segmentation]]:
        """Segment many images, and yield the result of ``segment`` for each, in the order of the images.

        Images of one size are computed together, as soon as there are enough of them; results may differ from those of
        single images by rounding.

        Args:
            images: a list or another iterable of images, or a folder, which is searched recursively.
            depth: for nets that take depth, as many depth maps; or a folder with files of the same names.
            hha: for nets that take HHA, as many HHA images; or a folder with files of the same names.
            scores: if True, also return the class scores.
            batch: the most images that are computed together; None selects up to 8, as long as they have no more pixels
                together than one of 512 x 512.

        Raises:
            DataError, NetError: As for ``__call__``; the error names the image.
        """
        limit = batches.choose_limit(batch)
        inputs = enumerate(self._read_all({"color": images, "depth": depth, "hha": hha}))
        grouped = batches.group(inputs, lambda numbered: numbered[1].size, limit)

        def segmented() -> Iterator[tuple[int, dict[str, Segmentation]]]:
            for numbered in grouped:
                numbers, together = zip(*numbered, strict=True)
                yield from zip(numbers, self.segment_batch(together, scores=scores), strict=True)

        return batches.in_order(segmented())

    def _read_all(self, given: Mapping[str, Pictures]) -> Iterator[SegmenterInput]:
        for place, pictures in read_images.pair_pictures(given):
            try:
                yield self.read(pictures.get("color"), depth=pictures.get("depth"), hha=pictures.get("hha"))
            except DataError as error:
                raise error.at(place) if error.place in ("", read_images.CONTENT) else error from None

    def read(
        self, image: Picture | None = None, *, depth: Picture | None = None, hha: Picture | None = None
    ) -> SegmenterInput:
        """Read the images that ``segment_batch`` segments; arguments as for ``segment``.

        Raises:
            DataError: If an image is missing, broken or of another type or shape, or if they differ in height or width.
        """
        given = {"color": image, "depth": depth, "hha": hha}
        arrays = {kind: self._read(kind, given[kind]) for kind in self.input_kinds}
        shown = arrays.get("color")
        if shown is None:
            shown = arrays.get("hha") if image is None else read_images.read_rgb(image)
        sizes = {kind: values.shape[-2:] if kind == "depth" else values.shape[:2] for kind, values in arrays.items()}
        sizes |= {} if shown is None else {"image": shown.shape[:2]}
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{kind} {height} x {width}" for kind, (height, width) in sizes.items() if kind != "image")
            raise DataError("the images differ in height and width", got=got)
        named = next(each for each in (image, hha, depth) if each is not None)
        return SegmenterInput(arrays, shown, read_images.find_name(named), next(iter(sizes.values())))

    def _read(self, kind: str, picture: Picture | None) -> Array:
        if picture is None:
            problem = f"{self.card.net} needs an image of kind {kind!r}"
            raise DataError(problem, got="none", want=", ".join(self.input_kinds))
        return read_images.read_log_depth(picture) if kind == "depth" else read_images.read_rgb(picture)

    def segment_batch(self, inputs: Sequence[SegmenterInput], *, scores: bool = False) -> list[dict[str, Segmentation]]:
        """Segment images of one size together, and return the result of ``segment`` for each.

        A net that does not take several images, such as one that reshapes blobs to fixed shapes, gets them singly.

        Args:
            inputs: the images, as ``read`` returns them.
            scores: if True, also return the class scores.

        Raises:
            DataError: If the images do not fit in memory.
            NetError: If the scores contain NaN.
        """
        try:
            score_maps = self.compute_scores(inputs)
        except NetError:
            if len(inputs) == 1:
                raise
            score_maps = {}
        count = len(inputs)
        if count > 1 and not (score_maps and all(blob.shape[:1] == (count,) for blob in score_maps.values())):
            return [self.segment_batch([each], scores=scores)[0] for each in inputs]
        return [
            {
                top: self._segmentation(top, score_maps[labels.score][number : number + 1], each, scores=scores)
                for top, labels in self.card.labels.items()
            }
            for number, each in enumerate(inputs)
        ]

    def compute_scores(self, inputs: Sequence[SegmenterInput]) -> dict[str, Tensor]:
        """Run the net on images of one size, and return the blobs that the card's ``labels`` name.

        Scores of a net that needs a frame around the image are those of the image alone.

        Args:
            inputs: the images, as ``read`` returns them.

        Raises:
            DataError: If the images do not fit in memory.
        """
        blobs = {
            blob: torch.stack([self._input(taken, each.arrays[taken.kind]) for each in inputs])
            for blob, taken in self.card.inputs.items()
        }
        framing, size = self.card.framing, next(iter(blobs.values())).shape[2:]
        framed = {blob: framing.frame_tensor(values) for blob, values in blobs.items()}
        return {blob: framing.crop_scores(scores, size) for blob, scores in self._forward(framed).items()}

    def _input(self, taken: CardInput, values: Array) -> Tensor:
        """Convert an image or a depth map to an input (C, H, W) float32."""
        if taken.kind == "depth":
            return torch.from_numpy(values)
        return torch.from_numpy(preprocess.to_blob(taken, values, self.card.side))

    def _forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            with torch.inference_mode():
                return self.scorer(inputs, blobs=[labels.score for labels in self.card.labels.values()])
        except RuntimeError as error:  # out of memory on the CPU has no exception class
            if "alloc" not in str(error) and "memory" not in str(error):
                raise
            count, _, height, width = next(iter(inputs.values())).shape
            if count > 1:
                got = f"{count} images of {height} x {width}"
                raise DataError("the batch is too large for the memory", got=got, remedy="Use a smaller one.") from None
            raise DataError(
                "the image is too large for the memory", got=f"{height} x {width}", remedy="Shrink it."
            ) from None

    def _segmentation(self, top: str, score_map: Tensor, read: SegmenterInput, *, scores: bool) -> Segmentation:
        told = self.card.labels[top]
        if told.holds == "labels":
            labels = preprocess.labels_of(score_map, told, read.size)
        else:
            if tuple(score_map.shape[2:]) != read.size:  # the image was resized, or the net shrinks it
                score_map = F.interpolate(score_map, read.size, mode="bilinear", align_corners=False)
            # max returns the first of equal maxima, as NumPy's argmax does, and NaN if there is one.
            highest, labels = score_map[0].max(dim=0)
            if highest.isnan().any():
                raise NetError(f"blob {told.score!r} is not a number (NaN)", remedy="Check the weights.")
        return Segmentation(
            labels.to(torch.uint8).cpu().numpy(),
            self.classes[top],
            score_map[0].float().cpu().numpy() if scores and told.holds == "scores" else None,
            self._colours[top],
            read.shown,
            read.name,
            f"{self.card.net} recognizes {self.card.knows}" if self.card.knows else "",
        )


def _main(segmentations: Mapping[str, Segmentation]) -> Segmentation:
    """Return the first kind of labels, which is the main one."""
    return next(iter(segmentations.values()))


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
    name_or_folder: StrPath, weights_path: StrPath | None = None, weights_folder: StrPath | None = None
) -> Path:
    """Return the path of a net's weights file.

    Args:
        name_or_folder: the name of a net of the catalogue, or a folder, see ``Segmenter.load``.
        weights_path: the weights file, which is returned without a check; None to search for it.
        weights_folder: the weights folder; None for ``folders.find_weights_folder``.

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
