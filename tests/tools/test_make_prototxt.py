"""tools/make_prototxt.py: the committed files are current, and the tool lists files that are not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

COUNT = len([*(ROOT / "prototxt").rglob("*.prototxt")]) + 1  # and README.md


def tool(*args: object) -> subprocess.CompletedProcess[str]:
    return run_tool("make_prototxt", *args)


def test_the_committed_prototxts_are_current():
    done = tool("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_stale_or_missing_is_named_and_written_anew(tmp_path: Path):
    done = tool("-o", tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == COUNT
    assert {path.name for path in (tmp_path / "nyud-fcn32s-hha").iterdir()} == {
        "trainval.prototxt",
        "test.prototxt",
        "deploy.prototxt",
        "solver.prototxt",
    }

    stale, missing = tmp_path / "voc-fcn8s" / "val.prototxt", tmp_path / "README.md"
    stale.write_text(stale.read_text() + "# mine\n")
    missing.unlink()
    done = tool("--check", "-o", tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [str(missing), str(stale)]
    assert done.stderr == (
        f"error: {tmp_path}: 2 of {COUNT} files are not current. Run `make prototxt` and commit the result.\n"
    )

    assert tool("-o", tmp_path).stdout.splitlines() == [str(missing), str(stale)]
    assert tool("--check", "-o", tmp_path).returncode == 0


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = tool("-o", blocked)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
