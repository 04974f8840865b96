"""The steps of a reproduction; a step whose result exists is skipped."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import reproduction
from reproduction.caffe.errors import DataError, WeightsError
from reproduction.caffe.formats import hashes
from reproduction.fcn.fetch import availability, local_files
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
        host = published_files.Host(tmp_path, site)
        host.voc(IDS, size=(24, 32))
        host.net("voc-fcn8s", "fcn8s.caffemodel")
        for path in host.site.iterdir():
            site.add(f"origin/{path.name}", path)
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

    def recorded(path, *rest):
        hashed.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(hashes, "compute_hashes", recorded)
    notes = []
    for how in ("fetched", "present"):
        found = plan.source.weights(ROW, plan.roots, Callbacks(note=notes.append))
        assert found.path == tmp_path / "weights/fcn8s.caffemodel"
        assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
        assert notes.pop().startswith(f"voc-fcn8s: {how}, {found.path}; sha1 as published")
    assert hashed == ["fcn8s.caffemodel.part", "fcn8s.caffemodel"]
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["fcn8s.caffemodel"]


def test_a_run_is_known_by_its_weights_data_and_versions_not_by_the_source_text(plan, host, monkeypatch):
    thin_nets.patch(monkeypatch)
    dataset = pipeline.fetch_dataset(plan, ROW, Callbacks())
    scored = pipeline.score_net(plan, ROW, dataset, Callbacks())
    assert len(scored.evaluation.images) == len(dataset)
    touched = Path(pipeline.__file__).with_name("_touched.py")
    try:
        touched.write_text("# a new module of this project\n")
        again = pipeline.score_net(plan, ROW, dataset, Callbacks())
    finally:
        touched.unlink()
    assert (again.predictions, again.evaluation) == (scored.predictions, scored.evaluation), "nothing was scored again"
    monkeypatch.setattr(reproduction, "__version__", "other")
    assert pipeline.score_net(plan, ROW, dataset, Callbacks()).predictions != scored.predictions


def add_2012(host, tmp_path):
    """Have VOC 2011's host answer with a web page, and serve VOC 2012 as what serves as well."""
    host.server.add("origin/VOCtrainval.tar", b"", always=http_servers.page)
    tree = tmp_path / "2012"
    dataset_trees.voc(tree / "VOCdevkit/VOC2012", {"val": IDS}, size=(24, 32))
    host.archive("voc", "voc2012", tree, "2012.tar", "pascal/VOC2012", ["JPEGImages/*.jpg", "SegmentationClass/*.png"])
    host.server.add("origin/2012.tar", host.site / "2012.tar")
    return with_alternatives(host, voc2011="voc2012")


def with_alternatives(host, **names):
    """Rewrite the manifest so that some entries have an alternative, which is in no set; return its source."""
    document = json.loads(host.manifest.read_text())
    for entry in document["entries"]:
        if other := names.get(entry["name"].replace("-", "_")):
            entry["alternatives"] = [other]
    document["sets"]["voc"] = [name for name in document["sets"]["voc"] if name not in names.values()]
    host.manifest.write_text(json.dumps(document))
    return sources.find_source("voc", local_files.load_manifest(host.manifest))


def test_voc_2012_serves_when_the_host_of_2011_fails(plan, host, tmp_path):
    plan = replace(plan, source=add_2012(host, tmp_path))
    table = availability.format_availability(pipeline.check_availability(plan, [ROW]))
    assert [line.split()[0] for line in table] == ["file", "voc-fcn8s", "seg11valid", "voc2011", "sbd"]
    assert table[3].startswith("voc2011 (as voc2012)  ")
    assert not (tmp_path / "data").exists()
    notes = []
    dataset = pipeline.fetch_dataset(plan, ROW, Callbacks(note=notes.append))
    assert (dataset.tree.name, dataset.ids) == ("VOC2012", IDS)
    assert "voc2011: voc2012 is used instead" in notes
    assert pipeline.fetch_dataset(plan, ROW, Callbacks(note=pytest.fail)).tree == dataset.tree


def test_the_published_lists_are_included_so_that_no_list_is_asked_for(plan, host):
    document = json.loads(host.manifest.read_text())
    document["sets"]["voc"] = ["voc-fcn8s", "voc2011"]
    host.manifest.write_text(json.dumps(document))
    source = sources.find_source("voc", local_files.load_manifest(host.manifest))
    plan = replace(plan, source=source, limit=len(IDS))
    table = availability.format_availability(pipeline.check_availability(plan, [ROW]))
    assert [line.split()[0] for line in table] == ["file", "voc-fcn8s", "voc2011"]
    dataset = pipeline.fetch_dataset(plan, ROW, Callbacks())
    assert (dataset.ids[: len(IDS)], len(dataset)) == (IDS, 736)
    assert asked(host) == ["VOCtrainval.tar", "fcn8s.caffemodel"]  # the caffemodel's size, for the table


def test_a_list_that_cannot_be_fetched_is_an_error_before_any_archive_is_fetched(plan, host):
    host.server.add("origin/seg11valid.txt", b"", always=http_servers.status(403))
    with pytest.raises(DataError, match=r"seg11valid\.txt: it cannot be fetched; .*403 Forbidden"):
        pipeline.require_available(plan, pipeline.check_availability(plan, [ROW]))
    with pytest.raises(DataError, match=r"seg11valid\.txt: it cannot be fetched; .*403 Forbidden"):
        pipeline.fetch_dataset(plan, ROW, Callbacks())
    assert "VOCtrainval.tar" not in {
        request.path.rpartition("/")[2] for request in host.server.requests if request.method == "GET"
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["voc-fcn8s", "voc-fcn8s-atonce"])
def test_weights_can_be_read_from_the_copy_of_pytorch_fcn(plan, host, tmp_path, monkeypatch, name, legacy):
    published = published_nets.NETS[name]
    net = thin_nets.net(name)
    # pytorch-fcn's modules are named as Caffe's layers, and its at-once net has the two scales in its code.
    state = {key: value for key, value in net.state_dict().items() if not key.startswith("scale_")}
    torch.save(state, host.site / "fcn.pth", _use_new_zipfile_serialization=not legacy)
    if name == "voc-fcn8s-atonce":
        host.net(name, "atonce.caffemodel")
    origin = "converted from pytorch-fcn's copy"
    host.add("voc", "copy", "copy", "fcn.pth", "pytorch-fcn/fcn.pth", origin=origin)
    host.server.add("origin/fcn.pth", host.site / "fcn.pth")
    for file in ("fcn8s.caffemodel", "atonce.caffemodel"):
        host.server.add(f"origin/{file}", b"", always=http_servers.status(403))
    plan = replace(plan, source=with_alternatives(host, voc_fcn8s="copy", voc_fcn8s_atonce="copy"))
    found = plan.source.weights(published, plan.roots, Callbacks())
    assert (found.path, found.origin) == (tmp_path / "weights/pytorch-fcn/fcn.pth", origin)
    thin_nets.patch(monkeypatch)
    dataset = pipeline.fetch_dataset(plan, published, Callbacks())
    by_copy = pipeline.score_net(plan, published, dataset, Callbacks())
    caffemodel = thin_nets.write(tmp_path / "mine.caffemodel", name)
    own = replace(plan, source=sources.OwnWeights(plan.source, lambda net_name: caffemodel))
    by_caffemodel = pipeline.score_net(own, published, dataset, Callbacks())
    np.testing.assert_array_equal(
        by_copy.evaluation.scores["label"].confusion, by_caffemodel.evaluation.scores["label"].confusion
    )
    assert by_copy.weights.origin == origin
    assert by_caffemodel.weights.origin == ""


def test_when_no_weights_can_be_had_nothing_is_downloaded(plan, host, tmp_path):
    host.server.add("origin/fcn8s.caffemodel", b"", always=http_servers.page)
    found = pipeline.check_availability(plan, [ROW])
    (row,) = (line for line in availability.format_availability(found) if line.startswith("voc-fcn8s "))
    assert row.split()[1:4] == ["cannot", "be", "had;"]
    with pytest.raises(WeightsError, match=r"it cannot be fetched; .*web page"):
        pipeline.require_available(plan, found)
    assert not (tmp_path / "data").exists()


def test_nothing_is_asked_when_everything_is_present(plan, host):
    pipeline.fetch_dataset(plan, ROW, Callbacks())
    plan.source.weights(ROW, plan.roots, Callbacks())
    host.server.requests.clear()
    assert pipeline.check_availability(plan, [ROW]) == []
    assert host.server.requests == []


def test_a_split_is_named_by_the_sha1_of_its_list():
    assert hashes.hash_lines(["a", "b"]) == hashlib.sha1(b"a\nb\n").hexdigest()


def test_the_nets_of_a_data_set_are_all_of_them_unless_named():
    assert [row.name for row in pipeline.select_nets("siftflow")] == [
        "siftflow-fcn32s",
        "siftflow-fcn16s",
        "siftflow-fcn8s",
    ]
    assert [row.name for row in pipeline.select_nets("voc", ["voc-fcn8s", "voc-fcn8s"])] == ["voc-fcn8s"]
