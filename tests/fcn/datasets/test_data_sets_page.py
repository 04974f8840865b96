"""docs/data_sets.md: its data set is added to a copy of the project, fetched, trained on, scored and offered."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.formats import prototxt
from reproduction.fcn import datasets
from reproduction.fcn.nets import net_files
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs/data_sets.md").read_text()


def blocks(kind):
    """The code of the page, of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def write_stripes(folder):
    """Write four images of the data set, and its lists."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(4):
        label = np.zeros((40, 48), np.uint8)
        label[:, i::8] = 1
        label[:2] = 255
        rgb = np.stack([label * 100, 20 + label * i, label], axis=2)
        Image.fromarray(label).save(folder / f"labels/{i}.png")
        Image.fromarray(rgb.astype(np.uint8)).save(folder / f"images/{i}.png")
    (folder / "train.txt").write_text("0\n1\n")
    (folder / "test.txt").write_text("2\n3\n")
    return folder


def test_the_file_of_the_page_reads_samples_and_defines_a_net(tmp_path):
    module = types.ModuleType("stripes")
    exec(compile(blocks("python")[0], "docs/data_sets.md", "exec"), module.__dict__)
    write_stripes(tmp_path / "stripes")
    dataset = module.Stripes("test", tmp_path)
    sample = datasets.check_sample(dataset, 0)
    assert dataset.ids == ["2", "3"]
    assert set(np.unique(sample["label"])) == {0, 1, 255}
    assert dataset.overlap() == []
    (net,) = module.NETS
    message = net_files.build_net(net, module.SPEC.test)
    assert message.layer[0].python_param.layer == module.Stripes.layer
    assert "stripes_dir" in prototxt.dumps(message)


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the data set of the page, and the archive in a mirror."""
    for name in ("reproduction", "tools", "prototxt", "weights"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    file, line = blocks("python")
    (tmp_path / "reproduction/fcn/datasets/stripes.py").write_text(file)
    init = tmp_path / "reproduction/fcn/datasets/__init__.py"
    text, count = re.subn(r"^_FILES = .*$", line.strip(), init.read_text(), flags=re.MULTILINE)
    assert count == 1
    init.write_text(text)
    (added,) = map(json.loads, blocks("json"))
    manifest = json.loads((tmp_path / "weights/manifest.json").read_text())
    manifest["entries"] += added["entries"]
    manifest["sets"] |= added["sets"]
    manifest["unpublished"] += added["unpublished"]
    (tmp_path / "weights/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "mirror").mkdir()
    with tarfile.open(tmp_path / "mirror/stripes.tar.gz", "w:gz") as archive:
        archive.add(write_stripes(tmp_path / "source"), arcname="stripes")
    return tmp_path


def run(project, command):
    env = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    program, *args = shlex.split(command.replace("MIRROR", "mirror"))
    start = ["-m", "reproduction"] if program == "fcn" else [program]
    return subprocess.run(
        [sys.executable, *start, *args], cwd=project, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_command_of_the_page_works_on_the_new_data_set(project):
    (commands,) = blocks("sh")
    codes = []
    for command in commands.splitlines():
        done = run(project, command)
        codes.append(done.returncode)
        assert done.returncode in (0, 3), (command, done.stdout, done.stderr)
    assert codes == [0, 0, 0, 0, 3]
    assert {path.name for path in (project / "prototxt/stripes-fcn32s").iterdir()} == {
        "deploy.prototxt", "solver.prototxt", "test.prototxt", "train.prototxt",
    }  # fmt: skip
    report = json.loads((project / "reports/stripes/scores.json").read_text())
    assert [net["net"] for net in report["nets"]] == ["stripes-fcn32s"]
    assert list(report["nets"][0]["measured"][0]["class_iu"]) == ["background", "stripe"]
    assert "Stripes" in (project / "reports/stripes/index.html").read_text()
    assert "stripes" in run(project, "fcn evaluate --help").stdout
