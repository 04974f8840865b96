"""The steps of a reproduction; a step whose result exists is skipped."""

import hashlib

import numpy as np
import pytest

from reproduction.caffe.formats import weights
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import published_nets
from reproduction.fcn.reproduce import pipeline, sources
from reproduction.fcn.reproduce.pipeline import ScoringCallbacks, ScoringPlan
from tests.helpers import dataset_trees, http_servers, published_files

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
    dataset = pipeline.fetch_dataset(plan, ROW, ScoringCallbacks(note=notes.append))
    assert dataset.ids == IDS
    assert [note.split(":")[0] for note in notes] == ["seg11valid", "voc2011", "sbd"]
    host.server.requests.clear()
    assert pipeline.fetch_dataset(plan, ROW, ScoringCallbacks()).ids == IDS
    assert asked(host) == []


def test_data_that_are_there_in_another_layout_are_used_and_only_the_list_is_fetched(plan, host, tmp_path):
    dataset_trees.voc(tmp_path / "data" / "VOCdevkit" / "VOC2012", {"val": IDS})
    dataset = pipeline.fetch_dataset(plan, ROW, ScoringCallbacks())
    assert dataset.tree == tmp_path / "data" / "VOCdevkit" / "VOC2012"
    assert asked(host) == ["seg11valid.txt"]


def test_data_that_are_not_whole_are_left_to_their_owner(plan, host, tmp_path):
    dataset_trees.voc(tmp_path / "data" / "pascal" / "VOC2011", {"val": IDS, "seg11valid": IDS})
    lost = tmp_path / "data/pascal/VOC2011/JPEGImages" / f"{IDS[1]}.jpg"
    lost.unlink()
    assert pipeline.fetch_dataset(plan, ROW, ScoringCallbacks()).missing() == [lost]
    assert "VOCtrainval.tar" not in asked(host)


def test_weights_are_converted_without_a_change_and_only_once(plan, host, tmp_path):
    notes = []
    model, converted, sha256 = pipeline.fetch_weights(plan, ROW, ScoringCallbacks(note=notes.append))
    assert (model, converted) == (tmp_path / "weights/fcn8s.caffemodel", tmp_path / "weights/fcn8s.safetensors")
    assert sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    source, copy = weights.read(model).arrays(), weights.read(converted).arrays()
    assert source.keys() == copy.keys()
    for name, array in source.items():
        np.testing.assert_array_equal(array, copy[name])
    before = converted.stat()
    pipeline.fetch_weights(plan, ROW, ScoringCallbacks(note=notes.append))
    assert converted.stat().st_mtime_ns == before.st_mtime_ns
    assert [note.split(",")[0] for note in notes] == [
        "voc-fcn8s: fetched",
        "voc-fcn8s: converted",
        "voc-fcn8s: present",
    ]


@pytest.mark.parametrize("harm", ["cut", "another", "one bit"])
def test_a_converted_file_that_is_not_the_same_weights_is_made_again(plan, host, harm):
    _, converted, _ = pipeline.fetch_weights(plan, ROW, ScoringCallbacks())
    whole = converted.read_bytes()
    if harm == "cut":
        converted.write_bytes(whole[:-100])
    elif harm == "another":
        other = weights.read(converted)
        next(layer for layer in other.net.layer if layer.name == "fc7").clear("blobs")
        weights.write(other, converted)
    else:
        converted.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    pipeline.fetch_weights(plan, ROW, ScoringCallbacks())
    assert converted.read_bytes() == whole


def test_a_split_is_named_by_the_sha1_of_its_list():
    assert pipeline.compute_split_sha1(["a", "b"]) == hashlib.sha1(b"a\nb\n").hexdigest()


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
