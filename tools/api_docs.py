#!/usr/bin/env python3
"""Write the API reference of the library, generated from its docstrings, to docs/api/.

Takes a minute; ``make docs`` runs it.

    tools/api_docs.py            docs/api/index.html and a page for each module
    tools/api_docs.py -o DIR     write to another folder

Exits with 1 if a docstring, an annotation or an exported name cannot be resolved.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from pathlib import Path

from common import ROOT, run

from reproduction.caffe.errors import ReproductionError
from reproduction.commands.terminal import say

# What pdoc cannot know: annotations of Pillow's classes that name what Pillow imports for type checkers alone, those of
# a named tuple, which it resolves in another module, and names that a module finds when a program asks for them.
UNKNOWN = r"(?s).*(for PIL\.|\bcore\.ImagingCore\b|annotation ForwardRef\(|\.run\.scipy_misc\.__all__)"


def main() -> int:
    """Write the pages; a warning of pdoc is an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "docs/api", metavar="DIR", help="default: docs/api/"
    )
    args = parser.parse_args()
    try:
        import pdoc
        import pdoc.render
    except ImportError as error:
        raise ReproductionError(f"there is no {error.name}", remedy="Run `make docs`, which installs it.") from None
    pdoc.render.configure(docformat="google", show_source=False, footer_text="fcn-reproduction")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        warnings.filterwarnings("ignore", UNKNOWN, module="pdoc")
        try:
            pdoc.pdoc(*roots(), output_directory=args.output)
        except UserWarning as warning:
            raise ReproductionError("the reference is incomplete", got=warning) from None
    say(args.output / "index.html")
    return 0


def modules() -> list[str]:
    """Return the names of all public modules, but not that of the package ``caffe``: importing it renames classes."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "reproduction").rglob("*.py")))
    names = (".".join(path.parts).removesuffix(".__init__") for path in paths)
    return [name for name in names if "._" not in name and not name.endswith(".import_path.caffe")]


def roots() -> list[str]:
    """Return the names of the modules that pdoc does not find by itself: those not in a package's ``__all__``."""
    found = []
    for name in modules():
        package, _, module = name.rpartition(".")
        if not package or module not in getattr(importlib.import_module(package), "__all__", (module,)):
            found.append(name)
    return found


if __name__ == "__main__":
    run(main)
