"""The weights that trainings start from: files that users name, results of earlier trainings, or published weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reproduction.caffe.errors import WeightsError
from reproduction.caffe.formats import hashes
from reproduction.caffe.formats import weights as weights_files
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import registry, systems
from reproduction.fcn.train.recipes import Recipe, final_model_path


def find_external_parents(stages: Sequence[Recipe]) -> list[str]:
    """Return the names of the nets whose weights must exist at the start: the parents that no earlier stage trains.

    For example, ``voc-fcn16s`` followed by ``voc-fcn8s`` needs only the weights of ``voc-fcn32s``.

    Args:
        stages: the recipes, in the order in which they are trained.
    """
    trained: set[str] = set()
    names: list[str] = []
    for stage in stages:
        names += [name for name in stage.parents if name not in trained and name not in names]
        trained.add(stage.name)
    return names


def assign_weights(stages: Sequence[Recipe], weights: Mapping[str, Path], out: Path) -> list[dict[str, Path]]:
    """Return the weights files that each stage starts from: the results of earlier stages, else the given files.

    Args:
        stages: the recipes, in the order in which they are trained.
        weights: the given files, by the net names that ``find_external_parents`` returns.
        out: the folder that contains a folder for each training.

    Returns:
        For each stage, the weights files by the net names in its ``parents``. Results of earlier stages need not exist
        yet.
    """
    known = dict(weights)
    found = []
    for stage in stages:
        found.append({name: known[name] for name in stage.parents})
        known[stage.name] = final_model_path(stage.name, out)
    return found


def find_weights(
    stages: Sequence[Recipe], given: Sequence[Path], out: Path, published: Path | None = None, *, custom: bool = False
) -> list[dict[str, Path]]:
    """Return the weights files that each stage starts from: those given, else of earlier runs, else published.

    Args:
        stages: the recipes, in the order in which they are trained.
        given: one weights file for each name that ``find_external_parents`` returns, in its order; or none, to search.
        out: the folder that contains a folder for each training.
        published: the weights folder; None for ``folders.find_weights_folder``.
        custom: whether the data are custom. A net for other classes cannot start from published score layers, whose
            shapes depend on the classes, so that only nets that were trained in ``out`` are found.

    Returns:
        For each stage, the weights files by the net names in its ``parents``.

    Raises:
        WeightsError: If ``given`` has too few or too many files, or if weights are missing.
    """
    parents = find_external_parents(stages)
    if given and len(given) != len(parents):
        want = " and ".join(f"those of {name}" for name in parents) or "none"
        got = ", ".join(map(str, given))
        raise WeightsError("the training starts from other weights", path="--init", got=got, want=want)
    paths = given or [_find_parent(name, out, published, custom=custom) for name in parents]
    return assign_weights(stages, dict(zip(parents, paths, strict=True)), out)


def read_parent(name: str, path: Path) -> tuple[NetParameter, str]:
    """Read the weights of a parent net, with the names of Caffe's layers.

    A known copy of published weights is recognized by its hash. Other files with the same layer names may hold other
    weights: torchvision's VGG16 was trained on RGB images that were scaled differently.

    Args:
        name: the name of the net.
        path: its weights file.

    Returns:
        The weights, and how the file was made from the published one (empty if it is not a known copy).
    """
    found = weights_files.read(path)
    copies = local_files.find_copies(name) if found.format == "PyTorch" else []
    known = hashes.compute_hashes(path, {kind for copy in copies for kind in copy.hashes}) if copies else {}
    for copy in copies:
        if copy.hashes and copy.hashes.items() <= known.items():
            for layer in found.net.layer:
                layer.name = copy.layers.get(layer.name, layer.name)
            return found.net, copy.origin
    return found.net, ""


def _find_parent(name: str, out: Path, published: Path | None, *, custom: bool) -> Path:
    trained = final_model_path(name, out)
    if custom and name in registry.NETS:
        if not trained.is_file():
            remedy = f"Train it first with --net {name}, or both with --stages {name},NET."
            raise WeightsError(f"{name} with your classes is missing", path=trained, remedy=remedy)
        return trained
    entry = local_files.load_manifest().entries.get(name)
    entries = [entry, *local_files.find_copies(name)] if entry else []
    file_name, page = systems.CLASSIFIERS.get(name, ("", ""))
    files = [local_files.find_weights_path(file.path, published) for file in entries]
    files += [local_files.find_weights_path(file_name, published)] if file_name else []
    for path in [trained, local_files.find_weights_path(f"mini/{name}.caffemodel", published), *files]:
        if path.is_file():
            return path
    remedy = f"Fetch them with `fcn fetch {name}`" if entry else f"Train {name} first"
    remedy = f"Download them from {page}" if page else remedy
    raise WeightsError(
        f"the training starts from the weights of {name}, which are missing",
        path=files[0] if files else trained,
        remedy=f"{remedy}, or name their file with --init.",
    )
