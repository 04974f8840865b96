"""How a script in this folder starts: the project is found without being installed, and a missing package is one line.

Each script imports this module before any third-party package.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

try:
    import tqdm  # noqa: F401 (that it is missing is found here)

    from reproduction.commands import program, start
except ImportError as error:
    had = f"Python {platform.python_version()}" if sys.version_info < (3, 11) else f"no {error.name}"
    sys.exit(f"error: this environment is not set up; got {had}. Run `make setup`, then `. .venv/bin/activate`.")

if Path(sys.argv[0]).resolve().parent == ROOT / "tools":  # a script runs, rather than a test that imports this module
    start.begin()
run = start.run


def run_command(name: str) -> None:
    """Run a sub-command of ``fcn`` with the arguments of this script."""
    program.main([name, *sys.argv[1:]])
