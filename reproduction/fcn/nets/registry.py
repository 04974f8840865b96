"""All nets and their prototxts, by net name."""

from __future__ import annotations

from reproduction.caffe.errors import ReproductionError, StrPath, did_you_mean
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.fcn import datasets, folders
from reproduction.fcn.datasets import Dataset, NetRecord
from reproduction.fcn.nets import systems

#: The published nets, those of Mini-VOC, and the systems, by name.
NETS: dict[str, NetRecord] = {**datasets.NETS, **systems.NETS}

PROTOTXT = folders.find_included("prototxt")


def find_net(net_name: str) -> NetRecord:
    """Return the record of a net.

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
        PrototxtError: If the file is missing or broken.
    """
    return prototxt.load_net(PROTOTXT / net_name / file)[0]


def load_solver(net_name: str) -> SolverParameter:
    """Load the solver prototxt of a net from its folder ``prototxt/NAME/``.

    Args:
        net_name: Name of the net: a key of ``NETS``, or ``mini-vgg``.

    Raises:
        PrototxtError: If the file is missing or broken.
    """
    return prototxt.load_solver(PROTOTXT / net_name / "solver.prototxt")


def open_test_split(record: NetRecord, root: StrPath, split: str | None = None) -> Dataset:
    """Open the split of a data set on which a net is scored: the one that the data layer of its test prototxt reads.

    Args:
        record: The record of the net.
        root: The data root.
        split: The split to open; None for the one that the prototxt states.

    Raises:
        DataError: If the data set is not below ``root``, see ``datasets.from_layer``.
    """
    layer = load_net(record.name, f"{record.dataset.test.file}.prototxt").layer[0]
    return datasets.from_layer(layer.python_param, list(layer.top), root, split)
