"""The published nets and their prototxts, by net name."""

from __future__ import annotations

from pathlib import Path

from reproduction.caffe.errors import ReproductionError, StrPath, did_you_mean
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset, PublishedNet
from reproduction.fcn.nets import mini_nets, published_nets

#: The published nets and those of Mini-VOC, by name.
NETS: dict[str, PublishedNet] = datasets.NETS

PROTOTXT = Path(__file__).parents[3] / "prototxt"


def find_net(net_name: str) -> PublishedNet:
    """Return the record of a published net or of a net of Mini-VOC.

    Args:
        net_name: Name of the net, such as ``voc-fcn8s``; a key of ``NETS``.

    Raises:
        ReproductionError: If there is no net of this name; the remedy suggests the most similar name.
    """
    if net_name not in NETS:
        remedy = did_you_mean(net_name, NETS) or f"There are {', '.join(NETS)}."
        raise ReproductionError(f"there is no net {net_name!r}", remedy=remedy)
    return NETS[net_name]


def load_net(net_name: str, file: str = "deploy.prototxt") -> NetParameter:
    """Load a net from a prototxt of its folder ``prototxt/NAME/``.

    Args:
        net_name: Name of the net: a key of ``NETS``, or ``mini-vgg``.
        file: File name of the prototxt, such as ``train.prototxt``.

    Raises:
        PrototxtError: If the file is broken.
    """
    path = PROTOTXT / net_name / file
    return prototxt.load_net(path)[0] if path.is_file() else _build(net_name, file)  # type: ignore[return-value]


def load_solver(net_name: str) -> SolverParameter:
    """Load the solver prototxt of a net from its folder ``prototxt/NAME/``.

    Args:
        net_name: Name of the net: a key of ``NETS``, or ``mini-vgg``.

    Raises:
        PrototxtError: If the file is broken.
    """
    path = PROTOTXT / net_name / "solver.prototxt"
    return prototxt.load_solver(path) if path.is_file() else _build(net_name, path.name)  # type: ignore[return-value]


def _build(net_name: str, file: str) -> NetParameter | SolverParameter:
    """Return the content of a file of prototxt/, which an installed package comes without."""
    build = published_nets.build_files(NETS[net_name]) if net_name in NETS else mini_nets.build_files(net_name)
    return build[file]


def open_test_split(published: PublishedNet, root: StrPath, split: str | None = None) -> Dataset:
    """Open the split of a data set on which a net is scored: the one that the data layer of its test prototxt reads.

    Args:
        published: The record of the net.
        root: The data root.
        split: The split to open; None for the one that the prototxt states.

    Raises:
        DataError: If the data set is not below ``root``, see ``datasets.from_layer``.
    """
    layer = load_net(published.name, f"{published.dataset.test.file}.prototxt").layer[0]
    return datasets.from_layer(layer.python_param, list(layer.top), root, split)
