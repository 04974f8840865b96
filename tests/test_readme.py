"""The README is true: its generated parts are current, its example runs, its commands exist."""

import importlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from reproduction.commands import program
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.datasets.mini.objects import Random
from reproduction.fcn.segment.segmenter import Segmenter
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "weights/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_generated_parts_are_current():
    done = subprocess.run(
        [sys.executable, "tools/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_tables_of_speed_show_the_figures_of_the_newest_machine_and_name_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    speed = importlib.import_module("readme_parts.speed")
    machines = [json.loads(path.read_text()) for path in sorted((ROOT / "tools/bench/results").glob("*.json"))]
    figures = next(kinds for kinds in machines if "forward" in kinds)
    others = {kind: found for kinds in machines for kind, found in kinds.items() if kind != "forward"}
    figures = others | {"forward": {"voc-fcn8s 500x500": figures["forward"]["voc-fcn8s 500x500"]}}
    monkeypatch.setattr(speed.results, "FOLDER", tmp_path)
    (section,) = figures["forward"].values()
    rows = section["contenders"]
    rows["ncnn"] |= {"seconds": 1.2345}
    small = {"measured": {"date": "2031"}, "contenders": {}}  # of --train --quick
    figures["train"] = {"voc-fcn32s 96x96": small} | figures["train"]
    rows["OpenVINO"] = {"ours": False, "precision": "float32", "failed": "cannot read it"}
    section["measured"] |= {"date": "2031-01-02T03:04:05+00:00", "cpu": "A processor", "other_load": 0.7}
    del section["measured"]["openvino"]
    (tmp_path / "a.json").write_text(json.dumps(figures))
    text = speed.speed_table()
    head, _, first, *_ = text.splitlines()
    cells = dict(zip(head.split(" | "), first.split(" | "), strict=True))
    assert (cells["ncnn"], cells["OpenVINO"]) == ("1,234", "")
    assert cells["**compiled**"] == f"{1e3 * rows['our exact']['seconds']:,.0f}"
    assert "of A processor, next to other programs on 0.7 processors at most; torch " in text
    assert " Not measured: openvino." in text
    assert " Measured on another processor: training" in text
    assert "loading, evaluating (20" in text
    assert "- voc-fcn8s 500x500, OpenVINO: cannot read it" in speed.speed_page()


def test_a_difference_names_what_it_is_about_and_links_the_lines_of_caffe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    differences = importlib.import_module("readme_parts.differences")
    source = """
class Pooling:
    def forward(self):
        # Caffe: a window may start past the end (pooling_layer.cpp L74-L76,
        # hdf5.cpp, score.py L3)
        pass

    # Caffe: `k` is 1.
    pass

A = 1  # Upstream bug, kept: NaN where x is 0
"""
    caffe = "https://github.com/BVLC/caffe/blob/9b891540183ddc834a02b2bd81b31afae71b2153/src/caffe"
    pooling = f"[pooling_layer.cpp L74-L76]({caffe}/layers/pooling_layer.cpp#L74-L76)"
    hdf5 = f"[hdf5.cpp]({caffe}/util/hdf5.cpp)"
    assert list(differences.find_marked_comments(source)) == [
        ("Caffe", "Pooling.forward", f"A window may start past the end ({pooling}, {hdf5}, score.py L3)."),
        ("Caffe", "Pooling", "`k` is 1."),
        ("Upstream bug, kept", "", "NaN where x is 0."),
    ]  # fmt: skip
    follows = "Source: someone/caffe@1a2b3c4 src/caffe/layers/pooling_layer.cpp L1-L9,\nsrc/x.cpp."
    fork = f'"""A layer.\n\n{follows}\n"""\n{source}'
    address = "https://github.com/someone/caffe/blob/1a2b3c4/src/caffe/layers/pooling_layer.cpp#L74-L76"
    ((_, _, text), *_) = differences.find_marked_comments(fork)
    assert f"[pooling_layer.cpp L74-L76]({address})" in text
    assert hdf5 in text


def test_the_python_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    for name in ("prototxt", "weights"):
        (tmp_path / name).symlink_to(ROOT / name)
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    size, shares = done.stdout.splitlines()
    assert size == "torch.Size([1, 7, 97, 131])"
    assert shares.startswith("[Share(")


def test_the_page_is_short_and_starts_with_a_figure_and_two_commands():
    assert len(README.splitlines()) <= 150
    assert README.index("docs/figures/mini-light.png") < 600
    quick, *_ = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert [line.split("#")[0].strip() for line in quick.splitlines()] == ["make reproduce-mini", "make reproduce-voc"]
    assert all("downloads" in line for line in quick.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_that_a_page_links_exist(page):
    links = re.findall(r"\]\(([^)\s#]+)|(?:src|srcset)=\"([^\"]+)\"", page.read_text())
    found = [link or source for link, source in links if not (link or source).startswith("http")]
    assert [link for link in found if not (page.parent / link).exists()] == []


@pytest.fixture(scope="module")
def figure():
    """The tool that draws the figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("figure")


@pytest.fixture(scope="module")
def drawing(figure):
    """The module that draws it."""
    return sys.modules["readme_parts.drawing"]


def test_the_figure_is_current(figure, drawing, tmp_path):
    saved = {theme: PngImageFile(figure.FIGURES / f"mini-{theme}.png") for theme in drawing.THEMES}
    names = saved["light"].text[drawing.KEY].split()
    assert len(names) == len(figure.RANKS)
    tree = draw_mini_voc(tmp_path, names)
    nets = [Segmenter.load(name) for name in figure.NETS]
    rows = [figure.load_row(tree, name, nets) for name in names]
    for theme, old in saved.items():
        new = np.asarray(drawing.draw_figure(figure.TITLES, rows, drawing.THEMES[theme]), int)
        off = np.abs(new - np.asarray(old.convert("RGB"), int)).max(axis=2)
        assert old.text[drawing.KEY].split() == names
        assert (off > 40).mean() < 0.01, f"mini-{theme}.png is not current; run `make readme`"  # 255 colours of many
        assert (figure.FIGURES / f"mini-{theme}.png").stat().st_size < 150_000


@pytest.mark.slow
def test_the_figure_shows_the_images_that_the_rule_chooses(figure, drawing, tmp_path):
    ids = [f"{mini_voc.DRAWING_SEED}_{mini_voc.TRAIN + 1 + i:06d}" for i in range(mini_voc.VAL)]
    chosen = figure.choose_images(draw_mini_voc(tmp_path, ids), Segmenter.load("mini-fcn8s"))
    assert chosen == PngImageFile(figure.FIGURES / "mini-light.png").text[drawing.KEY].split()


def draw_mini_voc(folder, names):
    """Draw some of Mini-VOC's validation images, with their labels; returns their VOC tree."""
    tree = folder / mini_voc._VOC
    for path in (*(tree / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")),
                 *(folder / mini_voc._SBD / name for name in ("img", "cls"))):  # fmt: skip
        path.mkdir(parents=True)
    for name in names:
        stream, i = 1, int(name.split("_")[1]) - mini_voc.TRAIN - 1
        mini_voc._write_scene(folder, name, mini_voc._scene(Random([mini_voc.DRAWING_SEED, stream, i])), in_voc=True)
    (tree / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    return tree


def test_the_picture_that_is_segmented_is_one_that_make_draws():
    name = f"{mini_voc.DRAWING_SEED}_{mini_voc.TRAIN + 1:06d}"
    assert f"{mini_voc.FOLDER}/pascal/VOC2011/JPEGImages/{name}.jpg --net mini-fcn8s" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z][a-z-]*)", README))))
def test_every_target_named_is_in_the_makefile(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("tool", sorted(set(re.findall(r"tools/([a-z_]+\.py)", README))))
def test_every_tool_named_is_there_and_has_help(tool):
    done = run_tool(tool.removesuffix(".py"), "--help")
    assert done.returncode == 0, done.stderr
    assert f"tools/{tool}" in done.stdout, "the help has an example"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_there(page):
    named = re.findall(r"(?:`|^|&& |\$ )fcn ([a-z][a-z-]*)|-m reproduction ([a-z-]+)", page.read_text(), re.MULTILINE)
    assert {one or other for one, other in named} <= {*program.COMMANDS}
