"""Jobs of a net of two layers, listed by a function that other processes can import."""

from dataclasses import replace
from pathlib import Path

from reproduction.fcn.train import recipes
from reproduction.fcn.train.jobs import Job


def list_jobs(folder: Path, iterations: int = 4) -> list[Job]:
    """Return two jobs that start from one: of four updates each, with snapshots after two."""
    recipe = recipes.load_solver_recipe(folder / "solver.prototxt").with_solver(max_iter=iterations, snapshot=2)
    first = Job(replace(recipe, name="first"), seed=1)
    child = replace(recipe, parents=("tiny",))
    return [Job(replace(child, name=name), 1, {"tiny": first}, scored=True) for name in ("left", "right")]
