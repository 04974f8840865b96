"""Makes ``import caffe`` import this project in every program of a Python environment, and undoes it.

A file ``fcn-reproduction-caffe.pth`` in the environment's ``site-packages`` adds a folder with a package ``caffe`` to
the end of the import path. A real Caffe is therefore found before it, and removing this project removes it as well.
Nothing else changes in the programs: for names that NumPy and others have removed since a program was written, and for
Python 2, there is ``python -m reproduction.pycaffe SCRIPT``.
"""

from __future__ import annotations

import importlib.machinery
import os
import site
import sys
import sysconfig
from pathlib import Path

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import files

IMPORT_PATH = Path(__file__).parent / "import_path"
FILE_NAME = "fcn-reproduction-caffe.pth"


def install(folder: Path | None = None) -> Path:
    """Make ``import caffe`` import this project, and return the file that does so.

    Args:
        folder: A folder whose ``.pth`` files Python reads; None for that of the running environment.

    Raises:
        ReproductionError: If another package ``caffe`` is installed, or no such folder can be written to.
    """
    other = find_other_caffe()
    if other is not None:
        remedy = "Remove it first, or run programs with python -m reproduction.pycaffe SCRIPT."
        raise ReproductionError("another package named caffe is installed", got=other, remedy=remedy)
    path = (folder or _site_folder()) / FILE_NAME
    with files.open_atomic(path) as file:
        file.write(os.fsencode(f"{IMPORT_PATH}\n"))
    return path


def remove(folder: Path | None = None) -> list[Path]:
    """Undo ``install``; return the files that were deleted, none if ``install`` was not called before.

    Args:
        folder: The folder that was passed to ``install``; None to search those of the running environment.
    """
    found = find_installed() if folder is None else [path for path in [folder / FILE_NAME] if path.is_file()]
    for path in found:
        path.unlink()
    return found


def find_installed() -> list[Path]:
    """Return the files that ``install`` wrote in the running environment."""
    return [path for path in (folder / FILE_NAME for folder in _site_folders()) if path.is_file()]


def find_other_caffe() -> str | None:
    """Return the path of an installed package ``caffe`` that is not this project's, or None.

    The first entry of the import path, the folder of the program or the current one, is not searched.
    """
    folders = [folder for folder in sys.path[1:] if folder and Path(folder) != IMPORT_PATH]
    spec = importlib.machinery.PathFinder.find_spec("caffe", folders)
    return spec.origin if spec is not None and spec.loader is not None else None


def _site_folders() -> list[Path]:
    """Return the folders whose ``.pth`` files Python reads at its start: the environment's, then the user's."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [Path(folder) for folder in dict.fromkeys([sysconfig.get_path("purelib"), *user])]


def _site_folder() -> Path:
    for folder in _site_folders():
        if os.access(folder, os.W_OK):
            return folder
    raise ReproductionError(
        "no folder of this environment's packages can be written to",
        got=" and ".join(map(str, _site_folders())),
        remedy="Create a virtual environment (python -m venv .venv) and install this project there.",
    )
