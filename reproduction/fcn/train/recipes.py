"""The trainings of the paper as data: which net, from whose weights, with which solver, how long.

``named("voc-fcn16s")`` is one of them; ``chain`` lets each of several start from the one before. What runs them is
``training.train``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, StrPath, did_you_mean
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.caffe.training import solver_nets
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets, published_nets, registry
from reproduction.fcn.nets.published_nets import Published

# How far these nets' solve.py step, and how often they validate, whatever max_iter and snapshot of the solver say.
# Source: shelhamer/fcn.berkeleyvision.org@1305c73 nyud-*/solve.py, siftflow-*/solve.py, pascalcontext-*/solve.py.
_SOLVE = {"nyud": (100_000, 2000), "siftflow": (100_000, 2000), "pascalcontext": (400_000, 8000)}

#: The nets that can be trained by name.
NAMES = (*published_nets.NETS, mini_nets.CLASSIFIER, *mini_nets.NETS)


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of the net, and of the folder that the training writes to.
        solver: its settings; what they say of nets and files is not used.
        train: the net that learns.
        test: the net that it is validated by; None for none.
        iterations: updates in all.
        snapshot: updates between snapshots.
        validate: updates between validations; 0 for one at the end only.
        parents: the nets whose weights it starts from, by name.
        row: what the published recipe does with these weights; None is what Caffe does, a copy by layer name.
        dataset: a key of ``nets.DATASETS``; empty for a solver's file, whose nets say what they read.
    """

    name: str
    solver: SolverParameter
    train: NetParameter
    test: NetParameter | None
    iterations: int
    snapshot: int
    validate: int
    parents: tuple[str, ...] = ()
    row: Published | None = None
    dataset: str = ""


def named(name: str) -> Stage:
    """Give the training of a published net, or of one of Mini-VOC's.

    Raises:
        ReproductionError: there is no such net; the remedy names the nearest.
    """
    if name not in NAMES:
        remedy = did_you_mean(name, NAMES) or f"There are {', '.join(NAMES)}."
        raise ReproductionError(f"there is no net {name!r} to train", remedy=remedy)
    row = registry.NETS.get(name)
    files = published_nets.files(row) if row else mini_nets.files(name)
    solver = files["solver.prototxt"]
    assert isinstance(solver, SolverParameter)
    train, test = files[solver.train_net], files[solver.test_net[0]]
    assert isinstance(train, NetParameter)
    assert isinstance(test, NetParameter)
    stage = replace(_stage(name, solver, train, test, row), dataset=row.dataset if row else mini_voc.FOLDER)
    if row and row.dataset in _SOLVE:
        iterations, validate = _SOLVE[row.dataset]
        return replace(stage, iterations=iterations, validate=validate, snapshot=solver.snapshot or validate)
    # The solvers never test themselves: the published solve.py validates where a snapshot is made.
    return replace(stage, validate=solver.snapshot) if row else stage


def read(path: StrPath, name: str | None = None, *, legacy_crop: bool = False) -> Stage:
    """Read a training from a solver's prototxt.

    Args:
        path: the solver; its nets are looked for in its folder, then where the program runs.
        name: a net of ``NAMES`` whose recipe says what becomes of the weights that it starts from; None copies them
            by layer name, as Caffe does, and calls the training as the solver's folder.
        legacy_crop: see ``prototxt.load_net``.

    Raises:
        ReproductionError: a file is missing or wrong, or the solver names no net or several.
    """
    solver = prototxt.load_solver(path)
    folder = Path(path).parent
    named_here = [name for name in (solver.net, solver.train_net, *solver.test_net) if name]
    missing = {base: [name for name in named_here if not (base / name).is_file()] for base in (folder, Path())}
    base = next((base for base, names in missing.items() if not names), None)
    if base is None:
        raise ReproductionError(
            f"its net {missing[folder][0]!r} is not there",
            place=str(path),
            remedy="Nets are looked for beside the solver, then where the program runs.",
        )
    train = solver_nets.training_net(solver, base, legacy_crop=legacy_crop)
    test = next(solver_nets.testing_nets(solver, base, legacy_crop=legacy_crop), None)
    stage = _stage(name or folder.resolve().name, solver, train, test, named(name).row if name else None)
    return replace(stage, dataset=named(name).dataset if name else "")


def _stage(
    name: str, solver: SolverParameter, train: NetParameter, test: NetParameter | None, row: Published | None
) -> Stage:
    return Stage(
        name=name,
        solver=solver,
        train=train,
        test=test,
        iterations=solver.max_iter,
        snapshot=solver.snapshot,
        validate=solver.test_interval,
        parents=tuple(row.parents) if row else (),
        row=row,
    )


def needed(stages: Sequence[Stage]) -> list[str]:
    """List the parents of several trainings, in the order of these, that none of those before brings."""
    made: set[str] = set()
    names: list[str] = []
    for stage in stages:
        names += [name for name in stage.parents if name not in made and name not in names]
        made.add(stage.name)
    return names


def chain(stages: Sequence[Stage], init: Mapping[str, Path], out: Path) -> list[dict[str, Path]]:
    """Find where each of several trainings starts from: the results of those before it, else the given files.

    Args:
        stages: in the order of their training.
        init: files of weights by the names that ``needed`` lists.
        out: the folder that each training's folder is made in.

    Returns:
        For each stage, the files of its parents.
    """
    made = dict(init)
    starts = []
    for stage in stages:
        starts.append({name: made[name] for name in stage.parents})
        made[stage.name] = result(stage.name, out)
    return starts


def result(name: str, out: Path) -> Path:
    """Return the file that the training of a net leaves its weights in."""
    return out / name / f"{name}.caffemodel"
