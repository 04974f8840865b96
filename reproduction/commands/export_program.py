"""The earlier name of ``fcn export --format program``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from reproduction.commands import export


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fcn export --format program`` and return its exit code."""
    return export.main(["--format", "program", *(sys.argv[1:] if arguments is None else arguments)])
