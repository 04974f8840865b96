"""fcn reproduce on Mini-VOC: drawn, scored, recorded and compared, with few images and seeded weights."""

import importlib
import json
import shutil
import sys
from dataclasses import replace

import pytest

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.training.events import Step
from reproduction.fcn import datasets
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.train import log_file
from reproduction.report import ledger
from tests.helpers import small_mini_voc, small_trainings


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_mini_voc.weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def reproduce(weights, tmp_path, monkeypatch, capsys):
    """Run the tool with folders of its own; returns exit code and output."""
    small_mini_voc.shrink(monkeypatch)
    # Nets that learnt nothing are not better from stage to stage.
    monkeypatch.setitem(datasets.SPECS, "mini", replace(datasets.SPECS["mini"], least_rise_points=None))
    shutil.copytree(weights, tmp_path / "weights")
    module = importlib.import_module("reproduction.commands.reproduce")

    def run(*args):
        folders = [f"--{name}={tmp_path / name}" for name in ("weights", "data", "report")]
        monkeypatch.setattr(sys, "argv", ["reproduce.py", "mini", *folders, *map(str, args)])
        code = module.main()
        return code, capsys.readouterr()

    return run


def document(path):
    return json.loads(path.read_text())


def test_scores_are_recorded_and_met_again(reproduce, tmp_path):
    kept = tmp_path / "weights/mini/scores.json"
    code, said = reproduce("--record")
    assert (code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == f"data: drawn, {tmp_path}/data/mini"
    assert f"recorded in {tmp_path}/weights/mini" in lines
    recorded = document(kept)
    assert [net["net"] for net in recorded["nets"]] == list(mini_nets.NETS)
    assert recorded["split"]["count"] == 3
    assert {(net["predictions"], len(net["measured"][0]["references"])) for net in recorded["nets"]} == {("", 0)}
    shutil.rmtree(tmp_path / "report")  # or the scores of the run before would be taken over

    code, said = reproduce()
    assert (code, said.err) == (0, "")
    assert "drawn" not in said.out
    assert "mini-fcn8s: within 0.01 points of recorded.\n" in said.out
    measured = document(tmp_path / "report/mini/scores.json")
    for before, now in zip(recorded["nets"], measured["nets"], strict=True):
        assert now["measured"][0]["confusion"] == before["measured"][0]["confusion"]
        (reference,) = now["measured"][0]["references"]
        assert (reference["column"], reference["values"]["mean_iu"]) == ("recorded", before["measured"][0]["mean_iu"])
    assert document(kept) == recorded


def test_scores_are_added_to_the_ledger_under_a_name(reproduce, tmp_path):
    code, said = reproduce("--by", "Ada Lovelace", "--nets", "mini-fcn8s")
    assert code == 3  # there is no recorded score to compare it with, which does not make it less of a measurement
    (entry,) = ledger.load_entries(tmp_path / "weights/results")
    assert f"added to the ledger: {tmp_path}/weights/results/mini-" in said.out
    assert (entry.by, [net.net for net in entry.nets], entry.images) == ("Ada Lovelace", ["mini-fcn8s"], "VOC2011")
    assert "threads" in entry.device
    with pytest.raises(SystemExit, match="2"):
        reproduce("--by", "Ada Lovelace", "--limit", "2")
    for name in ("", " ", "a\x1b[2J"):
        with pytest.raises(SystemExit, match="2"):
            reproduce("--by", name)


def test_for_a_machine_the_report_is_all_of_standard_output(reproduce, tmp_path):
    code, said = reproduce("--json", "--nets", "mini-fcn8s")
    assert code == 3
    assert said.out == (tmp_path / "report/mini/scores.json").read_text()
    assert [net["net"] for net in json.loads(said.out)["nets"]] == ["mini-fcn8s"]
    assert said.err.startswith(f"data: drawn, {tmp_path}/data/mini\n")


def test_other_weights_are_off_the_record(reproduce, tmp_path):
    reproduce("--record")
    small_mini_voc.weights(tmp_path / "weights", seed=2)
    code, said = reproduce("--nets", "mini-fcn32s")
    assert (code, said.err) == (1, "error: off by more than 0.01 points: mini-fcn32s.\n")
    code, said = reproduce("--nets", "mini-fcn32s", "--limit", "2")
    assert (code, said.err) == (3, "not checked: mini-fcn32s; only 2 of 3 images were scored.\n")


def test_without_a_record_nothing_is_checked_and_that_is_no_success(reproduce, tmp_path):
    code, said = reproduce("--nets", "mini-fcn8s")
    assert (code, said.err) == (3, "not checked: mini-fcn8s; no score of it is known.\n")
    assert "mini-fcn8s: not checked; no score of it is known.\n" in said.out


def test_a_net_that_the_record_lacks_is_not_checked(reproduce, tmp_path):
    reproduce("--record")
    path = tmp_path / "weights/mini/scores.json"
    kept = document(path)
    kept["nets"] = kept["nets"][1:]
    path.write_text(json.dumps(kept))
    code, said = reproduce()
    assert (code, said.err) == (3, "not checked: mini-fcn32s; no score of it is known.\n")


def test_stages_that_are_not_better_are_an_error(reproduce, monkeypatch):
    monkeypatch.setitem(datasets.SPECS, "mini", replace(datasets.SPECS["mini"], least_rise_points=101))
    code, said = reproduce()
    assert code == 1
    assert [line.split(":")[1] for line in said.err.splitlines()] == [
        " mean IU from mini-fcn32s to mini-fcn16s",
        " mean IU from mini-fcn16s to mini-fcn8s",
    ]
    assert said.err.endswith(" points; at least +101 is required.\n")


def test_a_training_is_scored_and_may_be_kept(reproduce, weights, tmp_path):
    reproduce("--record")
    runs, kept = tmp_path / "runs", tmp_path / "weights/mini"
    for name in mini_nets.NETS:
        (runs / name).mkdir(parents=True)
        shutil.copy(weights / f"mini/{name}.caffemodel", runs / name)
        log = log_file.TrainingLog(runs / name / "log.jsonl")
        for iteration in range(12):
            log.write(Step(iteration, 1.5, 0.1))
        log.close()
    (runs / "mini-vgg").mkdir()
    (runs / "mini-vgg/mini-vgg.caffemodel").write_bytes(b"vgg")
    code, said = reproduce("--trained", runs)
    assert (code, said.err) == (0, "")
    assert "mini-fcn8s: within 1 point of recorded.\n" in said.out
    assert not (kept / "mini-fcn8s.log.jsonl").exists()
    for path in kept.glob("*.caffemodel"):
        path.unlink()
    code, said = reproduce("--trained", runs, "--record")
    assert code == 0
    assert {path.name for path in kept.iterdir()} == {
        "scores.json",
        "mini-vgg.caffemodel",
        *(f"{name}{end}" for name in mini_nets.NETS for end in (".caffemodel", ".log.jsonl")),
    }
    assert [each["iteration"] for each in small_trainings.read_json_lines(kept / "mini-fcn8s.log.jsonl")] == [0, 10]


def test_a_training_that_has_not_ended_is_said(reproduce, tmp_path, capsys):
    with pytest.raises(ReproductionError, match=r"^1 of 1 nets could not be scored\.$"):
        reproduce("--trained", tmp_path / "runs", "--nets", "mini-fcn8s")
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path}/runs/mini-fcn8s/mini-fcn8s.caffemodel: no training of mini-fcn8s has ended here."
    )


def test_a_record_of_other_pictures_is_not_compared(reproduce, tmp_path):
    reproduce("--record")
    path = tmp_path / "weights/mini/scores.json"
    path.write_text(json.dumps(document(path) | {"split": {"name": "val", "count": 9, "sha1": "f" * 40}}))
    with pytest.raises(DataError) as error:
        reproduce("--nets", "mini-fcn32s")
    assert str(error.value).startswith(
        f"{path}: these scores were recorded on other images; got 9 of sha1 {'f' * 40}, want 3 of sha1 "
    )


def test_a_part_is_not_recorded(reproduce, capsys):
    for part in (("--limit", "2"), ("--nets", "mini-fcn8s")):
        with pytest.raises(SystemExit) as end:
            reproduce("--record", *part)
        assert end.value.code == 2
        assert "--record is for all nets and all images: leave --nets and --limit out" in capsys.readouterr().err
