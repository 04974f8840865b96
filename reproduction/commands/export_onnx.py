"""The earlier name of ``fcn export --format onnx``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from reproduction.commands import export


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fcn export --format onnx`` and return its exit code."""
    return export.main(["--format", "onnx", *(sys.argv[1:] if arguments is None else arguments)])
