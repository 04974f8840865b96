"""The steps of a reproduction; a step whose result exists is skipped."""

import hashlib
from pathlib import Path

import pytest

import reproduction
from reproduction.caffe.formats import hashes
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import published_nets
from reproduction.fcn.reproduce import pipeline, sources
from reproduction.fcn.reproduce.pipeline import ScoringPlan
from reproduction.fcn.reproduce.sources import Callbacks
from tests.helpers import dataset_trees, http_servers, published_files, thin_nets

ROW = published_nets.NETS["voc-fcn8s"]
IDS = ["2007_000033", "2007_000042"]


@pytest.fixture
def host(tmp_path):
    with http_servers.serve() as site:
        host = published_files.Host(tmp_path, site.url)
        host.voc(IDS, size=(24, 32))
        host.net("voc-fcn8s", "fcn8s.caffemodel")
        for path in host.site.iterdir():
            site.add(f"origin/{path.name}", path)
        host.server = site
        yield host


@pytest.fixture
def plan(host, tmp_path):
    roots = local_files.FileRoots(tmp_path / "weights", tmp_path / "data")
    return ScoringPlan(sources.find_source("voc", local_files.load_manifest(host.manifest)), roots, tmp_path / "out")


def asked(host):
    return sorted({request.path.rpartition("/")[2] for request in host.server.requests})


def test_data_are_fetched_once_lists_before_archives(plan, host):
    notes = []
    dataset = pipeline.fetch_dataset(plan, ROW, Callbacks(note=notes.append))
    assert dataset.ids == IDS
    assert [note.split(":")[0] for note in notes] == ["seg11valid", "voc2011", "sbd"]
    host.server.requests.clear()
    assert pipeline.fetch_dataset(plan, ROW, Callbacks()).ids == IDS
    assert asked(host) == []


def test_data_that_are_there_in_another_layout_are_used_and_only_the_list_is_fetched(plan, host, tmp_path):
    dataset_trees.voc(tmp_path / "data" / "VOCdevkit" / "VOC2012", {"val": IDS})
    dataset = pipeline.fetch_dataset(plan, ROW, Callbacks())
    assert dataset.tree == tmp_path / "data" / "VOCdevkit" / "VOC2012"
    assert asked(host) == ["seg11valid.txt"]


def test_data_that_are_not_whole_are_left_to_their_owner(plan, host, tmp_path):
    dataset_trees.voc(tmp_path / "data" / "pascal" / "VOC2011", {"val": IDS, "seg11valid": IDS})
    lost = tmp_path / "data/pascal/VOC2011/JPEGImages" / f"{IDS[1]}.jpg"
    lost.unlink()
    assert pipeline.fetch_dataset(plan, ROW, Callbacks()).missing() == [lost]
    assert "VOCtrainval.tar" not in asked(host)


def test_weights_are_used_as_they_are_and_hashed_once(plan, host, tmp_path, monkeypatch):
    hashed, real = [], hashes.compute_hashes
    monkeypatch.setattr(hashes, "compute_hashes", lambda path, *rest: hashed.append(path.name) or real(path, *rest))
    notes = []
    for how in ("fetched", "present"):
        found = plan.source.weights(ROW, plan.roots, Callbacks(note=notes.append))
        assert found.path == tmp_path / "weights/fcn8s.caffemodel"
        assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
        assert notes.pop().startswith(f"voc-fcn8s: {how}, {found.path}; sha1 as published")
    assert hashed == ["fcn8s.caffemodel.part", "fcn8s.caffemodel"]
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["fcn8s.caffemodel"]


def test_a_run_is_known_by_its_weights_data_and_versions_not_by_the_source_text(plan, host, monkeypatch):
    monkeypatch.setattr(published_nets, "build_deploy", lambda row: thin_nets.deploy(row.name))
    dataset = pipeline.fetch_dataset(plan, ROW, Callbacks())
    scored = pipeline.score_net(plan, ROW, dataset, Callbacks())
    assert scored.seconds_per_image is not None
    touched = Path(pipeline.__file__).with_name("_touched.py")
    try:
        touched.write_text("# a new module of this project\n")
        again = pipeline.score_net(plan, ROW, dataset, Callbacks())
    finally:
        touched.unlink()
    assert (again.predictions, again.seconds_per_image) == (scored.predictions, None)
    monkeypatch.setattr(reproduction, "__version__", "other")
    assert pipeline.score_net(plan, ROW, dataset, Callbacks()).predictions != scored.predictions


def test_a_split_is_named_by_the_sha1_of_its_list():
    assert hashes.hash_lines(["a", "b"]) == hashlib.sha1(b"a\nb\n").hexdigest()


def test_the_nets_of_a_data_set_are_all_of_them_unless_named():
    assert [row.name for row in pipeline.select_nets("siftflow")] == [
        "siftflow-fcn32s",
        "siftflow-fcn16s",
        "siftflow-fcn8s",
    ]
    assert [row.name for row in pipeline.select_nets("voc", ["voc-fcn8s", "voc-fcn8s"])] == ["voc-fcn8s"]


def test_the_mean_time_of_an_image_counts_only_what_this_run_scored():
    clock = pipeline._Clock(None)
    for done, seconds in ((3, 0.0), (4, 2.0), (5, 3.0)):
        clock(done, 5, seconds)
    assert clock.mean() == 1.5
    assert pipeline._Clock(None, 5, 5).mean() is None
