"""The folders of files that are not code: those that come with this project, and the one that downloads go to."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "REPRODUCTION_HOME"
_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = ("reproduction/__init__.py", "weights/manifest.json")


def find_included(name: str) -> Path:
    """Return a folder that comes with this project.

    In a checkout, they are next to the package; a wheel has them inside of it.

    Args:
        name: ``prototxt``: the published nets; ``weights``: the manifest, and the weights and scores of Mini-VOC.
    """
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def find_home() -> Path:
    """Return the folder of ``weights/`` and ``data/``, to which files are downloaded and images are drawn.

    It is the first of these:

    1. the folder that the environment variable REPRODUCTION_HOME names
    2. the checkout that this package is part of
    3. the current folder, if it is a checkout
    4. the user's cache folder, on Linux ``~/.cache/fcn-reproduction``

    A checkout is a folder that contains ``reproduction/`` and ``weights/manifest.json``. What a user asks a command to
    write (``runs/``, ``reports/``, ``segmented/``) goes to the current folder instead.
    """
    if named := os.environ.get(HOME_VARIABLE):
        return Path(named).expanduser()
    for folder in (_PACKAGE.parent, Path.cwd()):
        if all((folder / name).is_file() for name in _CHECKOUT):
            return folder
    import platformdirs  # here, since a checkout needs no such folder

    return platformdirs.user_cache_path("fcn-reproduction", appauthor=False)


def find_weights_folder() -> Path:
    """Return the weights folder: the one to which weights are downloaded, see ``find_home``."""
    return find_home() / "weights"


def find_data_root() -> Path:
    """Return the data root: the folder to which data sets are downloaded or drawn, see ``find_home``."""
    return find_home() / "data"
