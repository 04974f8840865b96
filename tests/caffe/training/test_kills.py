"""A run that is killed at any moment loses only the updates since its last snapshot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


def survive(folder: Path, kills: int, seed: int) -> tuple[list[int], list[int]]:
    """Kill and go on; return, for each kill, how far the newest snapshot was and how many files were half written."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed_trainings", str(folder), str(kills), str(seed)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    return [int(row[2]) for row in rows], [int(row[4]) for row in rows]


def test_a_few_kills_lose_nothing(tmp_path):
    reached, _ = survive(tmp_path, 5, 0)
    assert len(reached) == 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_sixty_kills_lose_nothing(seed, tmp_path):
    reached, half = survive(tmp_path, 60, seed)
    assert len(reached) == 60
    assert any(half), "some were killed while they wrote"
    assert len(set(reached)) > 10, "the runs got somewhere"
