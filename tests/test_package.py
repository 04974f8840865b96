"""The package installed from a wheel in another folder: it is complete, and it works."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

import reproduction
from reproduction.fcn import folders
from tests.helpers.paths import ROOT

NEEDED = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
TREES = ("reproduction", "prototxt", "weights")


def build(kind, source, out):
    """Build a sdist or a wheel with what pip would use, without a network; returns its file."""
    code = f"import setuptools.build_meta as build; print(build.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    return out / done.stdout.splitlines()[-1]


def tracked(name):
    """The files of a folder that git tracks, or would: of weights/, not what was downloaded to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {path for path in done.stdout.split() if (ROOT / path).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, from the sources to an sdist, and from that to a wheel, as a package index would."""
    pytest.importorskip("setuptools", reason="setuptools is not installed: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for name in TREES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.h5"))
    for name in NEEDED:
        shutil.copy(ROOT / name, source)
    (source / "weights/fcn8s-heavy-pascal.caffemodel").write_bytes(b"a download")
    shutil.unpack_archive(build("sdist", source, folder), folder / "sdist", filter="data")
    (sdist,) = (folder / "sdist").iterdir()
    return build("wheel", sdist, folder)


def test_every_file_of_the_package_is_in_it_and_no_download(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = tracked("reproduction") | {f"reproduction/{path}" for tree in TREES[1:] for path in tracked(tree)}
    assert {"reproduction/py.typed", "reproduction/prototxt/voc-fcn8s/deploy.prototxt"} < names
    assert {"reproduction/weights/manifest.json", "reproduction/weights/mini/mini-fcn8s.caffemodel"} < names
    assert names == wanted


def test_its_metadata_say_what_it_is_and_how_it_starts(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {Path(name).parts[0] for name in archive.namelist() if ".dist-info/" in name}
        about = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        starts = archive.read(f"{folder}/entry_points.txt").decode()
    assert about["Version"] == reproduction.__version__
    assert {"Paper", "Caffe"} <= {url.split(",")[0] for url in about.get_all("Project-URL")}
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert "semantic segmentation" in about["Keywords"].split(",")
    assert "fcn = reproduction.commands.program:main" in starts.splitlines()


ALONE = """
import sys
from importlib.metadata import packages_distributions
without = {name for name, of in packages_distributions().items() if {each.lower() for each in of} & {*sys.argv[2:]}}
assert {"scipy", "jinja2", "matplotlib", "tqdm", "h5py", "onnx", "fissix", "platformdirs"} <= without
sys.modules |= dict.fromkeys(without)
import hubconf
print(hubconf.mini_fcn8s()(sys.argv[1]).labels.shape)
import reproduction
weights = reproduction.read_weights("weights/mini/mini-vgg.caffemodel")
try:
    reproduction.write_weights(weights, sys.argv[1] + ".caffemodel.h5")
except reproduction.caffe.errors.ReproductionError as error:
    print(error)
"""


def test_segmenting_needs_only_what_hubconf_lists_and_a_missing_extra_is_one_line(tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (every,) = extras["all"]
    wanted = list(project["dependencies"])
    for extra in re.findall(r"\w+", every.partition("[")[2]):
        wanted += extras[extra]
    names = {re.split(r"[><=]", name)[0].lower() for name in wanted} - {"torch", "numpy", "pillow"}
    assert 'dependencies = ["torch", "numpy", "PIL"]\n' in (ROOT / "hubconf.py").read_text()
    image = tmp_path / "photo.png"
    Image.new("RGB", (48, 40)).save(image)
    command = [sys.executable, "-c", ALONE, image, *sorted(names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shape, error = done.stdout.splitlines()
    assert shape == "(40, 48)"
    assert error == "the package h5py is not installed. Install it by `pip install 'fcn-reproduction[hdf5]'`."
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"], "nothing is half written"


@pytest.mark.parametrize("where", ["variable", "package", "current folder", "cache"])
def test_downloads_go_to_the_checkout_or_the_cache_folder_unless_a_variable_names_another(where, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.HOME_VARIABLE, raising=False)
    checkout = tmp_path / "checkout"
    for name in ("reproduction/__init__.py", "weights/manifest.json"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    site = tmp_path / "site/reproduction"
    monkeypatch.setattr(folders, "_PACKAGE", checkout / "reproduction" if where == "package" else site)
    monkeypatch.chdir(checkout if where == "current folder" else tmp_path)
    if where == "variable":
        monkeypatch.setenv(folders.HOME_VARIABLE, str(tmp_path / "mine"))
    home = {"variable": tmp_path / "mine", "cache": tmp_path / "cache/fcn-reproduction"}.get(where, checkout)
    assert (folders.find_home(), folders.find_weights_folder()) == (home, home / "weights")
    assert folders.find_data_root() == home / "data"


def test_included_folders_are_next_to_the_package_or_in_it(tmp_path, monkeypatch):
    assert folders.find_included("prototxt") == ROOT / "prototxt"
    monkeypatch.setattr(folders, "_PACKAGE", tmp_path / "reproduction")
    assert folders.find_included("weights") == tmp_path / "weights"
    (tmp_path / "reproduction/weights").mkdir(parents=True)
    assert folders.find_included("weights") == tmp_path / "reproduction/weights"


class Installed(NamedTuple):
    """An environment that has the wheel; a call runs one of its programs in an empty folder."""

    environment: Path
    here: Path
    cache: Path
    variables: dict[str, str]

    def __call__(self, program, *args):
        command = [self.environment / "bin" / program, *map(str, args)]
        return subprocess.run(command, cwd=self.here, env=self.variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A new environment with the wheel, and with the packages that it depends on, which are those of this one."""
    folder = tmp_path_factory.mktemp("installed")
    environment, here = folder / "environment", folder / "here"
    here.mkdir()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True)
    python = environment / "bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    # This environment's packages come second, without its .pth files, one of which leads to the checkout.
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REPRODUCTION"))}
    env |= {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder)}

    return Installed(environment, here, folder / "cache/fcn-reproduction", env)


SEGMENT = """
import sys, reproduction
from reproduction.fcn.nets import registry
assert str(reproduction.__file__).startswith(sys.prefix), reproduction.__file__
for name in registry.NETS:
    registry.load_net(name)
    registry.load_solver(name)
segmenter = reproduction.Segmenter.load("mini-fcn8s")
print(segmenter(sys.argv[1]).labels.shape)
try:
    reproduction.Segmenter.load("voc-fcn8s")
except reproduction.caffe.errors.WeightsError as error:
    print(error)
"""


@pytest.mark.slow
def test_it_works_where_there_is_nothing_else_of_the_project(installed):
    done = installed("fcn", "reproduce", "mini")
    assert (done.returncode, "\nerror" in done.stderr) == (0, False), done.stdout + done.stderr
    assert (installed.here / "reports/mini/index.html").is_file()
    (image, *_) = sorted((installed.cache / "data/mini/pascal/VOC2011/JPEGImages").glob("*.jpg"))

    done = installed("fcn", "infer", image, "--net", "mini-fcn8s")
    assert done.returncode == 0, done.stderr
    assert (installed.here / "segmented" / f"{image.stem}.png").is_file()

    done = installed("fcn", "evaluate", "--net", "mini-fcn8s", "--limit", 3)
    assert done.returncode == 0, done.stderr
    assert "mini-fcn8s on voc val, 3 images" in done.stdout

    done = installed("python", "-c", SEGMENT, image)
    assert done.returncode == 0, done.stderr
    shape, error = done.stdout.splitlines()
    assert shape.startswith("(")
    assert error == (
        f"{installed.cache}/weights/fcn8s-heavy-pascal.caffemodel: the weights of voc-fcn8s are missing."
        " Fetch them with `fcn fetch voc-fcn8s`, or name yours with --weights."
        " Without any download: `fcn reproduce mini`, or `fcn infer photo.jpg --net mini-fcn8s`."
    )


@pytest.mark.slow
def test_the_program_starts_from_each_of_its_names(installed):
    for program, *start in (("fcn",), ("python", "-m", "reproduction")):
        done = installed(program, *start, "--version")
        assert (done.returncode, done.stdout) == (0, f"fcn {reproduction.__version__}\n"), done.stderr
    done = installed("fcn", "--help")
    assert str(installed.cache) in done.stdout
