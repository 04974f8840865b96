"""Runs programs that import caffe, each in a process of its own."""

import os
import subprocess
import sys

from tests.helpers.paths import ROOT


def run_program(folder, *command, path=(), **environment):
    """Run ``python -m reproduction.pycaffe`` in a folder; return the exit code and the texts of stdout and stderr."""
    paths = os.pathsep.join(map(str, [ROOT, *path]))
    done = subprocess.run(
        [sys.executable, "-m", "reproduction.pycaffe", *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
