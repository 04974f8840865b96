"""fcn page: pages written again from trainings and reproductions."""

import importlib
import sys
from dataclasses import replace

import pytest

from reproduction.caffe.formats import hashes
from reproduction.commands import start
from reproduction.report import page, record
from tests.helpers import report_runs


@pytest.fixture
def tool(monkeypatch, capsys):
    module = importlib.import_module("reproduction.commands.page")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["page.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            start.run(module.main)
        return end.value.code, *capsys.readouterr()

    return call


def test_a_page_is_made_from_logs(tool, tmp_path):
    report_runs.log(tmp_path, "mini-fcn32s", 8, made=5, classes=["background", "cat"])
    code, out, err = tool(tmp_path)
    assert (code, out, err) == (0, f"{tmp_path}/index.html\n", "")
    assert "5 of 8 iterations" in (tmp_path / "index.html").read_text()


def test_a_page_of_scores_is_made_with_its_pictures(tool, tmp_path, monkeypatch):
    report, galleries = report_runs.run(tmp_path)
    nets = [replace(net, predictions=f"predictions/{net.net}") for net in report.nets]
    split = replace(report.split, sha1=hashes.hash_lines(report_runs.IDS))
    report = replace(report, nets=nets, split=split)
    record.write_report(report, tmp_path / "scores.json")
    # The published nets are scored on seg11valid.
    tree = galleries["voc-fcn8s"].dataset.tree
    (tree / "ImageSets/Segmentation/seg11valid.txt").write_text(
        "".join(f"{image_id}\n" for image_id in report_runs.IDS)
    )
    code, out, err = tool(tmp_path, "--data", tmp_path, "-o", tmp_path / "anew.html")
    assert (code, out, err) == (0, f"{tmp_path}/anew.html\n", "")
    assert (tmp_path / "anew.html").read_text() == page.format_page(report, galleries)
    record.write_report(replace(report, split=replace(split, sha1="0" * 40)), tmp_path / "scores.json")
    code, out, err = tool(tmp_path, "--data", tmp_path, "-o", tmp_path / "anew.html")
    assert (code, err.splitlines()[0]) == (
        0, f"no images of voc-fcn32s: {tree}: seg11valid is not the split that was scored.",
    )  # fmt: skip


def test_a_page_with_pictures_of_ones_own_is_not_lost(tool, tmp_path):
    report, _ = report_runs.run(tmp_path)
    record.write_report(replace(report, set="photos"), tmp_path / "scores.json")
    (tmp_path / "index.html").write_text("with pictures")
    assert tool(tmp_path, "--data", tmp_path) == (
        1, "",
        (
            f"error: {tmp_path}/scores.json: these scores are of images of 'photos', which is not a published data set."
            " fcn evaluate writes their page.\n"
        ),
    )  # fmt: skip
    assert (tmp_path / "index.html").read_text() == "with pictures"


def test_it_says_of_which_nets_there_are_no_pictures(tool, tmp_path):
    report, _ = report_runs.run(tmp_path)
    record.write_report(report, tmp_path / "scores.json")
    code, _, err = tool(tmp_path, "--data", tmp_path)
    assert code == 0
    assert err.splitlines() == [
        f"no images of {net}: {tmp_path}: its label maps are not here." for net in report_runs.NETS
    ]
    assert '<article class="shot">' not in (tmp_path / "index.html").read_text()


def test_mistakes_end_in_one_line(tool, tmp_path):
    code, out, err = tool(tmp_path / "nowhere")
    assert (code, out, err) == (1, "", f"error: {tmp_path}/nowhere: there is no such folder.\n")
    code, out, err = tool(tmp_path)
    assert (code, out, err) == (
        1,
        "",
        f"error: {tmp_path}: the folder contains no training; want NET/log.jsonl. fcn train writes it.\n",
    )
