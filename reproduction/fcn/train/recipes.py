"""The trainings of the paper as data: the net, its initial weights, the solver and the number of iterations.

``find_recipe("voc-fcn16s")`` returns one of them; ``assign_weights`` finds the initial weights of several consecutive
ones.
``training.train`` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, StrPath, did_you_mean
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.caffe.training import solver_nets
from reproduction.fcn.datasets import PublishedNet
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets, published_nets, registry

#: The nets that can be trained by name.
NAMES = (*published_nets.NETS, mini_nets.CLASSIFIER, *mini_nets.NETS)


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes:
        name: the name of the net, and of the folder that the training writes to.
        solver: the solver's settings; its nets and file names are not used.
        train: the net to train.
        test: the net to validate with; None to skip validation.
        iterations: the number of updates.
        snapshot: the number of updates between snapshots.
        validate: the number of updates between validations; 0 validates at the end only.
        parents: the names of the nets whose weights it starts from.
        row: the published net, whose recipe initializes the weights; None copies them by layer name, as Caffe does.
        dataset: a key of ``datasets.SPECS``; empty for custom data, or for a solver file without a named net,
            whose data layers determine what is read.
    """

    name: str
    solver: SolverParameter
    train: NetParameter
    test: NetParameter | None
    iterations: int
    snapshot: int
    validate: int
    parents: tuple[str, ...] = ()
    row: PublishedNet | None = None
    dataset: str = ""


def find_recipe(name: str) -> Recipe:
    """Return the training of a published net or of a net of Mini-VOC.

    Raises:
        ReproductionError: If there is no such net; the remedy names the closest match.
    """
    if name not in NAMES:
        remedy = did_you_mean(name, NAMES) or f"There are {', '.join(NAMES)}."
        raise ReproductionError(f"there is no net {name!r} to train", remedy=remedy)
    row = registry.NETS.get(name)
    solver = registry.load_solver(name)
    train, test = (registry.load_net(name, file) for file in (solver.train_net, solver.test_net[0]))
    stage = replace(_stage(name, solver, train, test, row), dataset=row.dataset.name if row else mini_voc.SPEC.name)
    if row and row.dataset.schedule:
        iterations, validate = row.dataset.schedule
        return replace(stage, iterations=iterations, validate=validate, snapshot=solver.snapshot or validate)
    # The published solvers disable Caffe's tests: solve.py validates whenever a snapshot is written.
    return replace(stage, validate=solver.snapshot) if row else stage


def load_solver_recipe(path: StrPath, name: str | None = None, *, legacy_crop: bool = False) -> Recipe:
    """Load a training from a solver prototxt.

    Args:
        path: the solver prototxt. The paths of its nets are relative to its folder, else to the working directory.
        name: a net of ``NAMES`` whose recipe initializes the weights; None copies them by layer name, as Caffe does,
            and names the training after the solver's folder.
        legacy_crop: see ``prototxt.load_net``.

    Raises:
        ReproductionError: If a file is missing or invalid, or the solver does not name exactly one training net.
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
    train = solver_nets.load_train_net(solver, base, legacy_crop=legacy_crop)
    test = next(solver_nets.load_test_nets(solver, base, legacy_crop=legacy_crop), None)
    stage = _stage(name or folder.resolve().name, solver, train, test, find_recipe(name).row if name else None)
    return replace(stage, dataset=find_recipe(name).dataset if name else "")


def _stage(
    name: str, solver: SolverParameter, train: NetParameter, test: NetParameter | None, row: PublishedNet | None
) -> Recipe:
    return Recipe(
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


def find_external_parents(stages: Sequence[Recipe]) -> list[str]:
    """Return the parents of several consecutive trainings that no earlier training of the list produces."""
    made: set[str] = set()
    names: list[str] = []
    for stage in stages:
        names += [name for name in stage.parents if name not in made and name not in names]
        made.add(stage.name)
    return names


def assign_weights(stages: Sequence[Recipe], init: Mapping[str, Path], out: Path) -> list[dict[str, Path]]:
    """Return the initial weights of several consecutive trainings: results of earlier ones, else the given files.

    Args:
        stages: the trainings in their order.
        init: weights files by the names that ``find_external_parents`` returns.
        out: the folder that contains each training's folder.

    Returns:
        For each stage, the weights files of its parents by name.
    """
    made = dict(init)
    starts = []
    for stage in stages:
        starts.append({name: made[name] for name in stage.parents})
        made[stage.name] = final_model_path(stage.name, out)
    return starts


def final_model_path(name: str, out: Path) -> Path:
    """Return the path of the caffemodel that the training of a net writes at its end."""
    return out / name / f"{name}.caffemodel"
