"""The prototxts of a net, built from its record: for training, for scoring, for inference, and the solver.

``build_files`` returns all of them. Its layers are added by ``published_nets`` for a net of the paper, and by the
function in its record for a ``System``. Nothing here builds a module; that is done from the prototxt.

Source: shelhamer/fcn.berkeleyvision.org@1305c73, each net's net.py, solver.prototxt and solve.py.
"""

from __future__ import annotations

from typing import Any

from reproduction.caffe.net.netspec import NetSpec, layers
from reproduction.caffe.schema import LayerParameter, NetParameter, SolverParameter
from reproduction.fcn.datasets.base import SEED
from reproduction.fcn.datasets.spec import CHANNELS, DataLayer, NetRecord, PublishedNet
from reproduction.fcn.nets import published_nets
from reproduction.fcn.nets.systems.system import System

FINETUNE = "finetune.prototxt"


def build_net(record: NetRecord, data_layer: DataLayer, *, global_statistics: bool | None = None) -> NetParameter:
    """Return a net for training or scoring: its data layer, and its layers from the images to the losses.

    Args:
        record: The net.
        data_layer: The data layer to read from, one of ``record.data_layers``.
        global_statistics: Whether BatchNorm layers normalize by the statistics that they store, rather than by those of
            the batch; None for the default of Caffe: by the stored ones except in training.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's net.py.
    """
    n = NetSpec()
    _add_data(n, record, data_layer)
    if isinstance(record, System):
        record.add_layers(n, record)
    else:
        assert isinstance(record, PublishedNet)
        published_nets.add_layers(n, record)
    net_param = n.to_proto()
    for part in net_param.layer:
        if part.type == "BatchNorm":
            is_test = data_layer == record.dataset.test
            part.batch_norm_param.use_global_stats = is_test if global_statistics is None else global_statistics
    return net_param


def _add_data(n: NetSpec, record: NetRecord, data_layer: DataLayer) -> None:
    spec = record.dataset
    values: dict[str, Any] = {key: f"{record.data}/{folder}" for key, folder in spec.folders.items()}
    values |= {"seed": SEED, "split": data_layer.split, "mean": tuple(spec.means["color"].tolist())} | dict(spec.params)
    values |= {"tops": [*record.inputs.values(), *(head.label for head in record.heads)]}
    more: dict[str, Any] = dict(record.framing.params)
    if record.grey_mean is not None:
        values["mean"], more["scale"] = (record.grey_mean,), record.scale
    param_str = repr({key: values[key] for key in data_layer.keys} | more)
    kind = data_layer.dataset.layer
    blobs = layers("Python", ntop=len(record.tops), module=spec.module, layer=kind, param_str=param_str)
    for name, blob in zip(record.tops, blobs, strict=True):
        n[name] = blob


def build_deploy(record: NetRecord) -> NetParameter:
    """Return the net for inference: an Input layer instead of the data layer, and no labels, losses or dropout.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc-fcn8s/deploy.prototxt, the one that is published.
    """
    size = record.deploy_size
    channels = [1 if record.grey_mean is not None else CHANNELS[what] for what in record.inputs.values()]
    shapes = [{"dim": [1, count, size, size]} for count in channels]
    pictures = LayerParameter(name="input", type="Input", top=list(record.inputs), input_param={"shape": shapes})
    kept, of_labels = [], {head.label for head in record.heads}
    for part in build_net(record, record.dataset.test).layer:
        if of_labels.intersection(part.bottom):  # the losses, and what crops the labels for them
            of_labels.update(part.top)
        elif part.type not in ("Python", "Dropout"):
            kept.append(part)
    return NetParameter(layer=[pictures, *kept])


def build_solver(record: NetRecord) -> SolverParameter:
    """Return the solver prototxt of a net, for a net of the paper as published.

    Args:
        record: The net.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's solver.prototxt.
    """
    spec = record.dataset
    fields: dict[str, Any] = {
        "train_net": f"{spec.train.file}.prototxt",
        "test_net": [f"{spec.test.file}.prototxt"],
        "test_iter": [spec.test_iter],
        "test_interval": 999_999_999,  # the solver builds the test net but never runs it
        "test_initialization": False,
        "display": 20,
        "average_loss": 20,
        "lr_policy": "fixed",
        "base_lr": record.base_lr,
        "momentum": 0.99,
        "iter_size": 1,
        "max_iter": spec.max_iter,
        "weight_decay": 0.0005,
    }
    if spec.snapshot:
        fields |= {"snapshot": spec.snapshot, "snapshot_prefix": "snapshot/train"}
    return SolverParameter(**fields | dict(record.solver))


def build_files(record: NetRecord) -> dict[str, NetParameter | SolverParameter]:
    """Return every prototxt of a net, by file name: the train and test nets, the deploy net and the solver.

    A net with BatchNorm that starts from the weights of another also has ``finetune.prototxt``, which its solver names:
    it keeps the statistics of these weights, since those of a single image are too uncertain. Its ``train.prototxt``
    normalizes by the batch, for a training from the start.
    """
    train, _ = record.data_layers
    written: dict[str, NetParameter | SolverParameter] = {
        f"{data_layer.file}.prototxt": build_net(record, data_layer) for data_layer in record.data_layers
    }
    solver_param = build_solver(record)
    tuned = build_net(record, train, global_statistics=True)
    if record.parents and any(part.type == "BatchNorm" for part in tuned.layer):
        written[FINETUNE] = tuned
        solver_param.train_net = FINETUNE
    return written | {"deploy.prototxt": build_deploy(record), "solver.prototxt": solver_param}
