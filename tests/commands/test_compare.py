"""``fcn compare``: train nets at an equal budget, score them, and write the table and the page."""

import json
import re

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.commands import compare
from reproduction.report import comparison
from tests.helpers import small_mini_voc

NETS = ["mini-fcn16s", "mini-fcn-googlenet"]
SMALL = ["--nets", *NETS, "--seeds", "1", "--iterations", "2", "--classifier-iterations", "1", "--processes", "1"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Compare two nets; return the folder."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        small_mini_voc.shrink(patch)
        patch.setattr(compare, "ROUNDS", 1)
        patch.setattr(compare, "SIZE", (48, 64))
        compare.main(arguments(folder))
    return folder


def arguments(folder, *more):
    folders = ("--data", "data", "--out", "runs", "--report", "reports", "--weights", "weights")
    paths = [text if text.startswith("--") else str(folder / text) for text in folders]
    return [*SMALL, *paths, *more]


def test_the_record_has_every_net_with_its_scores_and_costs(ran):
    found = comparison.load_comparison(ran / "reports/compare/comparison.json")
    assert [net.net for net in found.nets] == NETS
    assert (found.iterations, found.classifier_iterations, found.seeds) == (2, 1, [1])
    for net in found.nets:
        assert [run.seed for run in net.runs] == [1]
        assert len(net.runs[0].scores.images) == small_mini_voc.COUNTS["VAL"]
        assert 0 < net.mean_iu < 1
        assert min(net.parameters, net.products, net.receptive_field, net.seconds or 0.0) > 0
        assert net.iterations == 2
    assert [(stage.net, stage.iterations) for stage in found.nets[0].stages] == [("mini-fcn32s", 1), ("mini-fcn16s", 1)]


def test_the_page_has_every_net_in_every_section(ran):
    page = (ran / "reports/compare/index.html").read_text()
    sections = re.findall(r'<section id="(\w+)".*?</section>', page, re.DOTALL)
    assert sections == ["scores", "images", "classes", "budget", "ran"]
    for text in re.findall(r"<section.*?</section>", page, re.DOTALL)[:4]:
        assert "FCN-16s" in text
        assert "FCN-GoogLeNet" in text
    assert "Each net is given 2 updates of one image after its classifier" in page
    assert page.count("<image id=") == small_mini_voc.COUNTS["VAL"] * (2 + 2 * len(NETS))  # errors too


def test_a_second_run_trains_nothing_and_records(ran, monkeypatch, capsys):
    small_mini_voc.shrink(monkeypatch)
    monkeypatch.setattr(compare, "ROUNDS", 1)
    monkeypatch.setattr(compare, "SIZE", (48, 64))
    logs = {path: path.read_bytes() for path in ran.glob("runs/*/*/log.jsonl")}
    before = comparison.load_comparison(ran / "reports/compare/comparison.json")
    compare.main(arguments(ran, "--record"))
    assert {path: path.read_bytes() for path in logs} == logs
    (recorded,) = (ran / "weights/results/comparison").iterdir()
    assert str(recorded) in capsys.readouterr().out
    found = comparison.load_comparison(recorded)
    assert [net.mean_ius for net in found.nets] == [net.mean_ius for net in before.nets]
    assert not found.nets[0].runs[0].scores.images
    assert json.loads(recorded.read_text())["format"] == comparison.FORMAT_VERSION


def test_a_wrong_name_is_an_error_before_anything_is_drawn(tmp_path):
    with pytest.raises(ReproductionError, match="there is no net 'mini-fcn8' to compare"):
        compare.main(["--nets", "mini-fcn8", "--data", str(tmp_path / "data")])
    assert not (tmp_path / "data").exists()
