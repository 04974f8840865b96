"""The package installed from a wheel in another folder: it is complete, and it works."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.helpers.paths import ROOT

NEEDED = ("pyproject.toml", "README.md", "LICENSE")

USE = """
import reproduction
from reproduction.caffe.errors import WeightsError
from reproduction.caffe.net.net import Net
from reproduction.fcn.segment import card
from reproduction.fcn.nets import registry, published_nets
from reproduction.fcn.segment.segmenter import Segmenter
from reproduction.report import page

for row in registry.NETS.values():
    card.published_card(row)
Net(published_nets.build_deploy(registry.find_net("mini-fcn8s")))
try:
    Segmenter.load("voc-fcn8s")
except WeightsError as error:
    print(error)
print(Segmenter.load("mini-fcn8s", WEIGHTS).classes["label"][0])
print(reproduction.__file__)
"""


def build(kind, source, out):
    """Build a sdist or a wheel with what pip would use, without a network; returns its file."""
    code = f"import setuptools.build_meta as build; print(build.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    return out / done.stdout.splitlines()[-1]


def files(folder):
    return {
        str(path.relative_to(folder.parent))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package, from its sources to an sdist, from that to a wheel, and that unpacked."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(ROOT / "reproduction", source / "reproduction", ignore=shutil.ignore_patterns("__pycache__"))
    for name in NEEDED:
        shutil.copy(ROOT / name, source)
    shutil.unpack_archive(build("sdist", source, folder), folder / "sdist", filter="data")
    (sdist,) = (folder / "sdist").iterdir()
    zipfile.ZipFile(build("wheel", sdist, folder)).extractall(folder / "site")
    return folder / "site"


def test_every_file_of_the_package_is_in_it(installed):
    assert files(installed / "reproduction") == files(ROOT / "reproduction")


def test_it_works_where_there_is_nothing_else_of_the_project(installed, tmp_path):
    model = ROOT / "weights/mini/mini-fcn8s.caffemodel"
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); WEIGHTS = {str(model)!r}\n{USE}"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == (
        "the weights of voc-fcn8s are not part of the package. Name their file.\n"
        f"background\n{installed}/reproduction/__init__.py\n"
    )
