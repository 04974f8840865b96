"""A net with its weights and the data set that it is scored on: a published net, a trained one, or any prototxt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import hashes, prototxt
from reproduction.caffe.net import graph
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.datasets.custom import own_images
from reproduction.fcn.datasets.custom.color_labels import RGB
from reproduction.fcn.datasets.custom.folder import Folder, find_classes
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import registry
from reproduction.fcn.segment import card, segmenter


@dataclass(frozen=True)
class NetToScore:
    """A net with its weights file, and the split of a data set that it is scored on.

    Attributes:
        name: The name of the net.
        net_param: The net for inference, with an Input layer instead of the data layer.
        weights: The weights file.
        dataset: The split of a data set that it is scored on.
        set_name: The name of the data set on pages: that of a published data set, or of a folder of custom images.
        is_published_split: True if the paper scores this net on this split, so that scores can be compared.
        colours: The R, G, B values of the classes in the net's model card; empty for a net without a card.
    """

    name: str
    net_param: NetParameter
    weights: Path
    dataset: Dataset
    set_name: str
    is_published_split: bool = False
    colours: tuple[RGB, ...] = ()

    @cached_property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weights file."""
        return hashes.hash_file(self.weights)


def is_trained_folder(name_or_folder: str) -> bool:
    """Return True if ``net`` is a folder that a training on custom data wrote, and not the name of a published net."""
    return name_or_folder not in registry.NETS and (Path(name_or_folder) / card.CARD_FILE).is_file()


def find_published(net_name: str, data: Path, split: str | None = None, weights: Path | None = None) -> NetToScore:
    """Return a published net with its weights, and the data set that its test prototxt names.

    Args:
        net_name: The name of the net.
        data: The data root.
        split: The split to score; None for that of the test prototxt.
        weights: The weights file; None for the published one in the weights folder, see
            ``folders.find_weights_folder``.

    Raises:
        ReproductionError: If there is no such net, or its data or weights are missing.
    """
    segmenter.find_card(net_name)  # its error is more precise if the name is a folder
    published = registry.find_net(net_name)
    name = published.dataset.name
    if published.dataset == own_images.SPEC:
        want = "the folder that fcn train wrote, with --data FOLDER"
        raise DataError(f"{net_name} is trained and scored on your own images", got=f"--net {net_name}", want=want)
    try:
        dataset = registry.open_test_split(published, data, split)
    except DataError:
        if published.dataset.draw is None or (data / name).is_dir():
            raise
        remedy = f"`fcn reproduce {name}` draws them."
        raise DataError("its images are not drawn yet", path=data / name, remedy=remedy) from None
    weights = weights or local_files.find_weights(published)
    return NetToScore(net_name, registry.load_net(net_name), weights, dataset, name, split is None)


def find_trained(folder: Path, data: StrPath, split: str | None = None, weights: Path | None = None) -> NetToScore:
    """Return a net that was trained on custom data, and a user's folder of images and labels to score it on.

    Args:
        folder: The training's folder.
        data: The folder of images and labels.
        split: ``train`` or ``val``; None for ``val``.
        weights: The weights file; None for the one that the training wrote.

    Raises:
        ReproductionError: If a file is missing or invalid, or the labels have other classes than the net.
    """
    net_card = segmenter.find_card(folder)
    labels = next(iter(net_card.labels.values()))
    classes = labels.classes
    data_classes, reading = find_classes(data)
    if data_classes not in (None, classes):
        got, want = (", ".join(names) for names in (data_classes, classes))
        raise DataError("the images have other classes than the net", path=data, got=got, want=want)
    layer = prototxt.load_net(folder / "train.prototxt")[0].layer[0]  # param_str has classes, palette, mean, side
    dataset = datasets.from_layer(layer.python_param, list(layer.top), data, split or "val")
    if reading is not None:
        datasets.set_label_reading(dataset, reading)
    net_param = prototxt.load_net(folder / "deploy.prototxt")[0]
    path, name = segmenter.locate_weights(folder, weights), _set_name(dataset)
    return NetToScore(net_card.net, net_param, path, dataset, name, colours=labels.colours)


def find_prototxt(
    path: Path,
    weights: Path,
    dataset: str,
    split: str,
    data: StrPath,
    *,
    legacy_crop: bool = False,
    any_names: bool = False,
) -> NetToScore:
    """Return a net of any prototxt with its weights, and a data set to score it on.

    Each input of the net must have the name of a kind of image in the data set, such as ``data`` or ``color``, unless
    ``any_names`` is set.

    Args:
        path: The prototxt, without a data layer.
        weights: The weights file.
        dataset: The data set, a key of ``datasets.DATASETS``.
        split: The split.
        data: The data root.
        legacy_crop: Whether Crop layers without an offset align their bottoms, as in the Caffe of 2015; see
            ``prototxt.load_net``.
        any_names: Whether the net takes the colour images of the data set, whatever its input is called; see
            ``card_scorer.CardScorer``.

    Raises:
        ReproductionError: If a file is missing or invalid, or the data set has no such images.
    """
    net_param = prototxt.load_net(path, legacy_crop=legacy_crop)[0]
    kind = datasets.DATASETS.get(dataset)
    inputs: list[tuple[str, ...]] = [("color",) if kind and "color" in kind.kinds else ("data",)]
    if not any_names:
        inputs = [node.tops for node in graph.build_graph(net_param, Phase.TEST).nodes if node.type == "Input"]
    tops = [*chain(*inputs), *(kind.kind_classes if kind else ())]
    opened = datasets.open_split(dataset, split, data, tops)
    return NetToScore(str(path), net_param, weights, opened, _set_name(opened))


def _set_name(dataset: Dataset) -> str:
    return dataset.tree.resolve().name if isinstance(dataset, Folder) else dataset.name
