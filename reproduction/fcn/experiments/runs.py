"""Run an experiment: train and score its nets, or compute its figures.

Trainings are resumed from their snapshots and evaluations from their state files, so that an experiment that is run
again continues where it was stopped, and a finished one only reads its results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from reproduction.caffe.formats import hashes
from reproduction.caffe.typing import Progress
from reproduction.fcn.datasets import Dataset, NetRecord
from reproduction.fcn.reproduce import pipeline
from reproduction.fcn.scoring.score import METRICS, Scores
from reproduction.fcn.train import initial_weights, jobs, recipes
from reproduction.fcn.train.jobs import Job
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.sample_changes import CueMask
from reproduction.fcn.train.training import TrainingCallbacks


@dataclass(frozen=True)
class Variant:
    """A net that an experiment trains: a net of the data set, with a changed recipe.

    Attributes:
        suffix: the name of the variant, the last part of its folder's name: ``mini-fcn32s-fixed``; empty
            for a net whose name no other variant has.
        net: the net that it is a variant of: its name without that of the data set, such as ``fcn32s``, or a function
            that returns its record, given the name of the data set.
        change: a function that returns the changed recipe, given the net's recipe and the data root.
        iterations: the number of updates on Mini-VOC; on other data sets those of the net's recipe.
        needs: the variants whose weights it starts from, which are trained first; empty for the net's own parents.
    """

    suffix: str
    net: str | Callable[[str], NetRecord] = "fcn32s"
    change: Callable[[Recipe, Path], Recipe] = lambda recipe, data: recipe
    iterations: int = 300
    needs: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A row of an experiment: a variant that is trained, and how its net is scored.

    Attributes:
        variant: the variant.
        mask: the change of the images on which it is scored; None for none.
    """

    variant: Variant
    mask: CueMask | None = None


@dataclass(frozen=True)
class Settings:
    """What a run of experiments depends on.

    Attributes:
        set_name: the name of the data set.
        data: the data root.
        out: the folder of the trainings; each seed has a folder in it.
        weights: the weights folder; None for ``folders.find_weights_folder``.
        seeds: the seeds of the trainings.
        iterations: the number of updates of each training; None for those of the variants.
        limit: the number of images to score and of labels to look at, from the start of the split; None for all.
        device: the device.
        progress: returns a function that shows the progress of a task, given its name and its unit.
        note: called with a message.
    """

    set_name: str
    data: Path
    out: Path
    weights: Path | None = None
    seeds: Sequence[int] = (1,)
    iterations: int | None = None
    limit: int | None = None
    device: str = "cpu"
    progress: Callable[[str, str], Progress] = lambda name, unit: lambda done, total: None
    note: Callable[[str], object] = lambda text: None

    def open_dataset(self) -> Dataset:
        """Return the split on which the nets of the data set are scored.

        Raises:
            DataError: If it is missing.
        """
        drawing = self.progress("drawing", "image")
        return pipeline.open_complete_dataset(pipeline.select_nets(self.set_name)[0], self.data, drawing)


@dataclass(frozen=True)
class Measured:
    """The figures of one row of an experiment.

    Attributes:
        label: the row.
        figures: by column, one number for each seed; one number if nothing is trained. Scores are fractions.
    """

    label: str
    figures: Mapping[str, Sequence[float]] = field(default_factory=dict)


def set_iterations(recipe: Recipe, iterations: int | None) -> Recipe:
    """Return a recipe with another number of updates, whose steps of the learning rate move in proportion.

    Args:
        recipe: the recipe.
        iterations: the number of updates; None keeps it.
    """
    before = recipe.solver_param.max_iter
    if iterations is None or iterations == before:
        return recipe
    steps = [step * iterations // before for step in recipe.solver_param.stepvalue]
    return recipe.with_solver(max_iter=iterations, stepvalue=steps, snapshot=max(iterations // 2, 1))


def find_recipe(variant: Variant, settings: Settings) -> Recipe:
    """Return the recipe of a variant, named by its net and its suffix, which is not validated in training.

    Raises:
        ReproductionError: If the data set has no such net, or the change needs data that are missing.
    """
    if isinstance(variant.net, str):
        recipe = recipes.find_recipe(f"{settings.set_name}-{variant.net}")
    else:
        recipe = recipes.build_recipe(variant.net(settings.set_name))
    iterations = settings.iterations or (variant.iterations if settings.set_name == "mini" else None)
    return rename(variant.change(set_iterations(recipe, iterations), settings.data), variant)


def rename(recipe: Recipe, variant: Variant) -> Recipe:
    """Return a copy of a recipe that is named after a variant, and is trained in a folder of that name."""
    return replace(recipe, name=f"{recipe.name}-{variant.suffix}") if variant.suffix else recipe


def make_job(
    recipe: Recipe, settings: Settings, seed: int | None = None, needs: Sequence[Job] = (), init: Sequence[Path] = ()
) -> Job:
    """Return the job that trains a recipe.

    Args:
        recipe: the recipe.
        settings: the folders.
        seed: the seed; None for that of the solver, and ``settings.out`` itself as the folder.
        needs: the jobs that are trained first; the recipe's other parents are searched.
        init: the initial weights; none to search those of the recipe's parents.

    Raises:
        WeightsError: If weights are missing.
    """
    job = Job(recipe, seed, {need.recipe.name: need for need in needs})
    folder = (settings.out / job.key).parent
    stages = [*(need.recipe for need in needs), recipe]
    return replace(job, files=initial_weights.find_weights(stages, init, folder, settings.weights)[-1])


def find_job(variant: Variant, settings: Settings, seed: int) -> Job:
    """Return the job that trains a variant, with those that it needs.

    Raises:
        ReproductionError: If the data set has no such net, or weights or data are missing.
    """
    needs = [find_job(need, settings, seed) for need in variant.needs]
    return make_job(find_recipe(variant, settings), settings, seed, needs)


def train(job: Job, settings: Settings) -> None:
    """Train a job and those that it needs, or resume it; a finished training is not repeated.

    Raises:
        ReproductionError: If data or weights are missing or broken.
    """
    for each in jobs.collect_jobs([job]).values():
        jobs.train_job(each, settings.out, settings.data, _show_steps(each, settings), settings.device)


def _show_steps(job: Job, settings: Settings) -> TrainingCallbacks:
    progress, total = settings.progress(job.recipe.name, "it"), job.recipe.solver_param.max_iter
    return TrainingCallbacks(step=lambda step: progress(step.iteration + 1, total))


def score(job: Job, settings: Settings, mask: CueMask | None = None) -> Scores:
    """Return the scores of a trained job's net.

    Args:
        job: the job, whose recipe has the net to validate with.
        settings: the folders, the device and the limit.
        mask: a change of the images; None for none.

    Raises:
        ReproductionError: If the weights or the data are broken or missing.
    """
    model = job.weights_path(settings.out)
    sha256, limit = hashes.hash_file(model), settings.limit
    # A state file holds one evaluation, so that its name states the weights, the mask and the limit.
    about = ["scores", sha256[:12], *([mask.name] if mask else []), *([f"first{limit}"] if limit else [])]
    progress = settings.progress(f"{job.recipe.name}, scored", "image")
    evaluation = jobs.score_job(
        job, settings.out, settings.data, mask, settings.device, limit=limit, weights_sha256=sha256,
        state=model.with_name(f"{'-'.join(about)}.jsonl"), progress=lambda done, total, seconds: progress(done, total),
    )  # fmt: skip
    (scores,) = evaluation.scores.values()
    return scores


def run_trials(trials: Mapping[str, Trial], settings: Settings) -> list[Measured]:
    """Train and score each variant once for every seed, and return the figures of the rows.

    Args:
        trials: the trials by the label of their row.
        settings: the seeds, the folders and the device.

    Raises:
        ReproductionError: If data or weights are missing or broken.
    """
    settings.open_dataset()  # missing data end the run here
    found: dict[str, dict[str, list[float]]] = {label: {} for label in trials}
    for seed in settings.seeds:
        for label, trial in trials.items():
            job = find_job(trial.variant, settings, seed)
            train(job, settings)
            scores = score(job, settings, trial.mask)
            figures = {metric: float(getattr(scores, metric)) for metric in METRICS}
            if objects := [iu for iu in scores.class_iu[1:] if iu == iu]:  # classes that do not occur are NaN
                figures["object_iu"] = fmean(objects)
            for column, value in figures.items():
                found[label].setdefault(column, []).append(value)
            settings.note(f"{label}, seed {seed}: mean IU {100 * scores.mean_iu:.2f}")
    return [Measured(label, figures) for label, figures in found.items()]
