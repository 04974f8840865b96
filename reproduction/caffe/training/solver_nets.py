"""Load the nets that a solver names, each with its state, and their weights.

Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L63-L193.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, StrPath
from reproduction.caffe.formats import prototxt, upgrade, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, NetState, Phase, SolverParameter
from reproduction.caffe.training import update_rules

_TRAIN = ("net", "net_param", "train_net", "train_net_param")
_ELSEWHERE = {
    "solver_mode": "the device is chosen when the solver is built",
    "device_id": "the device is chosen when the solver is built",
    "layer_wise_reduce": "gradients are added up after the backward",
}


def load_train_net(param: SolverParameter, base: StrPath, *, legacy_crop: bool = False) -> NetParameter:
    """Load the net that a solver names for training, upgraded to the current format, with its state.

    The state starts as phase TRAIN; the net's ``state`` and then the solver's ``train_state`` are merged into it.

    Args:
        param: The solver's settings.
        base: The folder that relative paths refer to.
        legacy_crop: Whether Crop layers without an offset get the one that the Caffe of 2015 derived.

    Raises:
        ReproductionError: If the solver names no net or more than one, or if the net cannot be parsed.
        OSError: If a file cannot be read.
    """
    named = [name for name in _TRAIN if param.has(name)]
    if len(named) != 1:
        raise ReproductionError(
            "the solver must name one net to train", place="solver", got=" and ".join(named) or "none",
            want=f"one of {', '.join(_TRAIN)}",
        )  # fmt: skip
    value = getattr(param, named[0])
    return _load(value, base, legacy_crop, Phase.TRAIN, param.train_state)


def load_test_nets(param: SolverParameter, base: StrPath, *, legacy_crop: bool = False) -> Iterator[NetParameter]:
    """Yield the nets that a solver names for testing, one for each ``test_iter``, upgraded, with their states.

    The nets are those of ``test_net_param``, then those of ``test_net``; the remaining entries of ``test_iter`` use
    ``net_param`` or ``net``. The state starts as phase TEST; the net's ``state`` and then the solver's ``test_state``
    are merged into it.

    Args:
        param: The solver's settings.
        base: The folder that relative paths refer to.
        legacy_crop: Whether Crop layers without an offset get the one that the Caffe of 2015 derived.

    Raises:
        ReproductionError: If the numbers of nets, ``test_iter`` and ``test_state`` disagree, if ``test_interval`` or
            ``test_iter`` is not positive, or if a net cannot be parsed.
        OSError: If a file cannot be read.
    """
    sources: list[str | NetParameter] = [*param.test_net_param, *param.test_net]
    count = len(param.test_iter)
    generic = [getattr(param, name) for name in ("net_param", "net") if param.has(name)]
    if count < len(sources) or (count > len(sources) and not generic):
        want = f"{'at least ' if generic else ''}{len(sources)}, one for each test net"
        raise ReproductionError("test_iter does not fit the test nets", place="solver", got=count, want=want)
    sources += generic[:1] * (count - len(sources))
    if param.test_state and len(param.test_state) != count:
        raise ReproductionError(
            "test_state does not fit the test nets", place="solver", got=len(param.test_state), want=count
        )
    if count and (param.test_interval < 1 or min(param.test_iter) < 1):
        name = "test_interval" if param.test_interval < 1 else "test_iter"
        raise ReproductionError(f"there is a test net, but {name} is not positive", place="solver")
    states = list(param.test_state) or [NetState() for _ in sources]
    for source, state in zip(sources, states, strict=True):
        yield _load(source, base, legacy_crop, Phase.TEST, state)


def load_weights(param: SolverParameter, base: StrPath, nets: Sequence[Net]) -> list[str]:
    """Load the weights that a solver names into all of its nets.

    Args:
        param: The solver's settings; each entry of ``weights`` is one file name or several, separated by commas.
        base: The folder that relative paths refer to.
        nets: The net to train and the nets to test.

    Returns:
        One sentence per file, which reports the layers of the first net that were copied, ignored and unchanged.

    Raises:
        ReproductionError: If a file does not contain weights, or if they do not fit the nets.
        OSError: If a file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L62-L75, L116-L118.
    """
    notes = []
    for path in [Path(base) / name.strip() for entry in param.weights for name in entry.split(",")]:
        found = weights.read(path).net
        reports = [net.copy_from(found, path) for net in nets]
        notes.append(f"{path}: {reports[0]}.")
    return notes


def describe_unread_fields(param: SolverParameter) -> list[str]:
    """Return one sentence for each field of a solver that is set but has no effect.

    Raises:
        ReproductionError: If a field of a fork of Caffe changes the training, and is not implemented.
    """
    foreign = [(field, value) for field, value in param.set_fields() if field.dialect is not None]
    for field, value in foreign:
        if field.has_effect and value not in (field.default, field.unset()):
            raise ReproductionError(
                f"{field.name} changes the training, but is not implemented",
                place="solver",
                got=f"a field of {field.dialect}",
                remedy="Remove it to train as BVLC Caffe does.",
            )
    notes = [f"{name} changes nothing here: {why}." for name, why in _ELSEWHERE.items() if param.has(name)]
    notes += [f"{field.name} of {field.dialect} changes nothing here." for field, _ in foreign]
    notes += [
        f"{name} changes nothing: lr_policy {param.lr_policy!r} and type {param.type!r} do not read it."
        for name in update_rules.find_unread_fields(param)
    ]
    return notes


def _load(source: str | NetParameter, base: StrPath, legacy_crop: bool, phase: Phase, over: NetState) -> NetParameter:
    if isinstance(source, str):
        net, _ = prototxt.load_net(Path(base) / source, legacy_crop=legacy_crop)
    else:
        net = source.copy()
        upgrade.upgrade_net(net, legacy_crop=legacy_crop)
    # The solver's state overrides the net's own state, which overrides the phase.
    state = NetState(phase=phase)
    state.merge(net.state)
    state.merge(over)
    net.state = state
    return net
