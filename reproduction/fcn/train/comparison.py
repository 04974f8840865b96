"""The trainings of the comparison of ``nets.mini_family``: one classifier for each trunk and seed, then the nets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_family, mini_nets
from reproduction.fcn.nets.mini_family import Budget, ThinNet
from reproduction.fcn.train import recipes
from reproduction.fcn.train.jobs import Job
from reproduction.fcn.train.recipes import Recipe


def list_jobs(budget: Budget, seeds: Sequence[int], names: Sequence[str] = ()) -> list[Job]:
    """Return the jobs that train and score the nets with each seed, seed by seed.

    A seed determines the initial weights of the classifier and of the layers that the classifier lacks, dropout, and
    the order of the images.

    Args:
        budget: the numbers of updates.
        seeds: the seeds.
        names: the names of the nets; empty for all.
    """
    members = [member for member in mini_family.list_thin_nets(budget) if not names or member.record.name in names]
    trunks = {member.classifier for member in members if member.classifier}
    classifiers = {name: _build_classifier_recipe(name, budget.classifier_iterations) for name in trunks}
    stages = [[_build_recipe(record) for record in member.stages] for member in members]
    return [
        _make_job(classifiers.get(member.classifier), recipes_of_member, seed)
        for seed in seeds
        for member, recipes_of_member in zip(members, stages, strict=True)
    ]


def job_key(member: ThinNet, seed: int) -> str:
    """Return the key of the job that trains a net with a seed; see ``Job.key``."""
    return f"seed{seed}/{_job_name(member.record)}"


def _make_job(classifier: Recipe | None, stages: Sequence[Recipe], seed: int) -> Job:
    """Return the job of the last stage of a net, which has those before it, and its classifier, as parents."""
    job = Job(classifier, seed) if classifier else None
    for number, recipe in enumerate(stages, 1):
        parents = {parent: job for parent in recipe.parents if job}
        job = Job(recipe, seed, parents, scored=number == len(stages))
    assert job is not None
    return job


def _build_recipe(record: NetRecord) -> Recipe:
    return replace(recipes.build_recipe(record), name=_job_name(record))


def _job_name(record: NetRecord) -> str:
    # Nets share a first stage, which has the name of a net that is itself compared but fewer updates.
    return f"{record.name}-{record.solver['max_iter']}"


def _build_classifier_recipe(name: str, iterations: int) -> Recipe:
    solver_param = mini_nets.build_classifier_solver(iterations, mini_family.CLASSIFIER_RATES[name])
    train = mini_family.build_classifier(name, "train")
    return Recipe(f"{name}-{iterations}", solver_param, train, None, dataset=mini_voc.SPEC.name)
