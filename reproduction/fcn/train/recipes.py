"""The trainings of the paper as data: solver, nets, and the nets whose weights a training starts from.

``find_recipe("voc-fcn16s")`` returns one of them, and ``training.train`` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, StrPath, did_you_mean
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.caffe.training import solver_nets
from reproduction.fcn.datasets import SPECS, NetRecord
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets, net_files, registry
from reproduction.fcn.train.sample_changes import SampleChange

#: The nets that can be trained by name.
NAMES = (*registry.NETS, mini_nets.CLASSIFIER)


@dataclass(frozen=True)
class Recipe:
    """What one training needs: its solver, the nets to train and to validate, and whose weights it starts from.

    Attributes:
        name: the name of the net, and of the folder that the training writes.
        solver_param: the solver's settings. ``max_iter`` is the number of updates; ``snapshot`` and ``test_interval``
            are the numbers of updates between snapshots and between validations (0: only at the end). Its names of nets
            and files are ignored.
        train_net_param: the net to train.
        test_net_param: the net to validate with; None to skip validation.
        parents: the names of the nets whose weights the training starts from, e.g. ``("voc-fcn32s",)`` for voc-fcn16s.
        record: the record of the net by whose net surgery the weights are initialized, see ``nets.surgery``; None
            copies them by layer name, as Caffe does.
        dataset: the name of the data set, a key of ``datasets.SPECS``. Empty for custom data, and for a solver file
            without a named net: what the net's data layers name is then read.
        changes: changes of the training samples, which follow one another; empty for none, as published.
    """

    name: str
    solver_param: SolverParameter
    train_net_param: NetParameter
    test_net_param: NetParameter | None
    parents: tuple[str, ...] = ()
    record: NetRecord | None = None
    dataset: str = ""
    changes: tuple[SampleChange, ...] = ()

    def with_solver(self, **fields: object) -> Recipe:
        """Return a copy with other solver settings, e.g. ``with_solver(max_iter=100)``; None keeps a setting."""
        solver_param = self.solver_param.copy()
        for name, value in fields.items():
            if value is not None:
                setattr(solver_param, name, value)
        return replace(self, solver_param=solver_param)


def find_recipe(net_name: str) -> Recipe:
    """Return the recipe by which a net of ``NAMES`` is trained.

    Raises:
        ReproductionError: If there is no such net; the remedy names the closest match.
    """
    if net_name not in NAMES:
        remedy = did_you_mean(net_name, NAMES) or f"There are {', '.join(NAMES)}."
        raise ReproductionError(f"there is no net {net_name!r} to train", remedy=remedy)
    solver_param = registry.load_solver(net_name)
    train, test = (registry.load_net(net_name, file) for file in (solver_param.train_net, solver_param.test_net[0]))
    record = registry.NETS.get(net_name)
    if record is None:
        return Recipe(net_name, solver_param, train, test, dataset=mini_voc.SPEC.name)
    return make_recipe(record, solver_param, train, test)


def build_recipe(record: NetRecord) -> Recipe:
    """Return the recipe of a net that has no folder in prototxt/: one that was adapted to other data, or thinned.

    Args:
        record: the record of the net, from which its prototxts are built.
    """
    files = net_files.build_files(record)
    solver_param = files["solver.prototxt"]
    assert isinstance(solver_param, SolverParameter)
    train, test = files[solver_param.train_net], files[solver_param.test_net[0]]
    assert isinstance(train, NetParameter)
    assert isinstance(test, NetParameter)
    return make_recipe(record, solver_param, train, test)


def make_recipe(record: NetRecord, solver_param: SolverParameter, train: NetParameter, test: NetParameter) -> Recipe:
    """Return the recipe of a net from its prototxts.

    Args:
        record: the record of the net.
        train: the net to train, that of train.prototxt or finetune.prototxt.
        test: the net of val.prototxt or test.prototxt, for validation.
        solver_param: the solver.
    """
    dataset = record.dataset
    known = dataset.name if dataset.name in SPECS else ""
    recipe = Recipe(record.name, solver_param, train, test, tuple(record.parents), record, known)
    # The published solvers disable Caffe's tests: solve.py validates whenever a snapshot is written.
    iterations, every = dataset.schedule or (None, solver_param.snapshot)
    return recipe.with_solver(max_iter=iterations, snapshot=solver_param.snapshot or every, test_interval=every)


def start_from_fillers(recipe: Recipe) -> Recipe:
    """Return a copy of a recipe whose training starts from the values of the prototxt's fillers, not from weights.

    BatchNorm layers then normalize by the statistics of the batch. Most nets state no fillers for their trunk, since it
    is meant to start from a classifier's weights: their weights are zero, which the checks before a training reject.

    Args:
        recipe: the recipe.
    """
    if recipe.record is None:
        return recipe
    return replace(build_recipe(replace(recipe.record, parents={})), dataset=recipe.dataset)


def change_recipes(
    recipes: Sequence[Recipe],
    iterations: Sequence[int] = (),
    snapshot: int | None = None,
    test_interval: int | None = None,
) -> list[Recipe]:
    """Return copies of recipes with other numbers of iterations, or other intervals of snapshots and validations.

    Args:
        recipes: the recipes of several stages.
        iterations: the numbers of updates, one for each recipe or one for all; empty leaves them unchanged.
        snapshot: the number of updates between snapshots; None leaves it unchanged.
        test_interval: the number of updates between validations; None leaves it unchanged.

    Raises:
        ReproductionError: If ``iterations`` has neither one number nor one for each recipe.
    """
    counts: list[int | None] = [*iterations] or [None]
    counts *= len(recipes) if len(counts) == 1 else 1
    if len(counts) != len(recipes):
        problem = "--iterations takes one number, or one for each stage"
        raise ReproductionError(problem, got=len(counts), want=len(recipes))
    return [
        recipe.with_solver(max_iter=count, snapshot=snapshot, test_interval=test_interval)
        for recipe, count in zip(recipes, counts, strict=True)
    ]


def load_solver_recipe(path: StrPath, net_name: str | None = None, *, legacy_crop: bool = False) -> Recipe:
    """Load the recipe of any training from a solver prototxt.

    Args:
        path: the solver prototxt. The paths of its nets are relative to its folder, else to the working directory.
        net_name: a published net, whose net surgery then initializes the weights; None copies them by layer name, as
            Caffe does, and names the training after the solver's folder.
        legacy_crop: whether Crop layers without an offset align their bottoms, as in the Caffe of 2015; see
            ``prototxt.load_net``.

    Raises:
        ReproductionError: If a file is missing or invalid, or the solver does not name exactly one training net.
    """
    solver_param = prototxt.load_solver(path)
    folder = Path(path).parent
    nets = [name for name in (solver_param.net, solver_param.train_net, *solver_param.test_net) if name]
    missing = {base: [name for name in nets if not (base / name).is_file()] for base in (folder, Path())}
    base = next((base for base, names in missing.items() if not names), None)
    if base is None:
        raise ReproductionError(
            f"the net {missing[folder][0]!r} of this solver does not exist",
            place=str(path),
            remedy="Paths of nets are relative to the solver's folder, or to the working directory.",
        )
    train = solver_nets.load_train_net(solver_param, base, legacy_crop=legacy_crop)
    test = next(solver_nets.load_test_nets(solver_param, base, legacy_crop=legacy_crop), None)
    if net_name:
        recipe = find_recipe(net_name)
        return replace(recipe, solver_param=solver_param, train_net_param=train, test_net_param=test)
    return Recipe(folder.resolve().name, solver_param, train, test)


def final_model_path(net_name: str, out: Path) -> Path:
    """Return the path of the caffemodel that the training of a net writes at its end: ``out/NAME/NAME.caffemodel``."""
    return out / net_name / f"{net_name}.caffemodel"
