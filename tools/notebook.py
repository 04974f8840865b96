#!/usr/bin/env python3
"""Run docs/fcn.ipynb and store what its cells show, and a hash of their code, which a test compares.

tools/notebook.py      after a change of the notebook's code, or of what it shows; needs the extra `docs`
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from common import ROOT, run

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import files

NOTEBOOK = ROOT / "docs/fcn.ipynb"
KEY = "executed_code_sha256"  # in the metadata of the notebook


def main() -> None:
    """Run the notebook and write it.

    Raises:
        ReproductionError: If the extra `docs` is not installed, or a cell fails.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path, nargs="?", default=NOTEBOOK, help="default: docs/fcn.ipynb")
    path = parser.parse_args().notebook
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    except ImportError as error:
        raise ReproductionError(f"there is no {error.name}", remedy="Install the extra docs.") from None
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": path.parent}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise ReproductionError(f"a cell failed with {error.ename}: {error.evalue}", place=str(path)) from None
    notebook.metadata[KEY] = hash_code(notebook.cells)
    files.write_text(path, nbformat.writes(notebook, indent=1).rstrip() + "\n")


def hash_code(cells: list[dict[str, Any]]) -> str:
    """Return the SHA-256 of the code of a notebook's cells.

    Args:
        cells: the cells, whose source is a string or a list of lines.
    """
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


if __name__ == "__main__":
    run(main)
