"""The sources of a set's data and weights."""

import hashlib

import pytest

from reproduction.caffe.errors import WeightsError
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.reproduce import sources
from reproduction.fcn.reproduce.sources import Callbacks, DownloadedSource, DrawnSource, WeightsFile

ROW = mini_nets.NETS["mini-fcn8s"]


@pytest.fixture
def roots(tmp_path):
    return FileRoots(tmp_path / "weights", tmp_path / "data")


def test_mini_voc_is_drawn_and_all_else_is_fetched():
    manifest = local_files.load_manifest()
    assert isinstance(sources.find_source("mini", manifest), DrawnSource)
    assert sources.find_source("voc", manifest, "http://h") == DownloadedSource("voc", manifest, "http://h")


def test_pictures_are_drawn_once(roots, monkeypatch):
    for name, value in {"TRAIN": 2, "VAL": 1, "IN_BOTH": 1, "OBJECTS": {"train": 1, "val": 1}}.items():
        monkeypatch.setattr(mini_voc, name, value)
    moved, notes = [], []
    watch = Callbacks(pictures=lambda what: lambda done, total: moved.append((what, done, total)), note=notes.append)
    source = sources.find_source("mini", local_files.load_manifest())
    assert len(list(source.data(roots, watch))) == 1
    assert moved == [("drawing", i, 5) for i in range(1, 6)]
    assert notes == [f"data: drawn, {roots.data}/mini"]
    assert len(list(source.data(roots, watch))) == 1
    assert len(moved) == 5
    assert len(notes) == 1


def test_weights_of_this_project_are_found_or_can_be_trained(roots, monkeypatch):
    source = sources.find_source("mini", local_files.load_manifest())
    found = source.weights(ROW, roots, Callbacks())
    assert found.path == local_files.INCLUDED_WEIGHTS / "mini/mini-fcn8s.caffemodel"
    monkeypatch.setattr(local_files, "INCLUDED_WEIGHTS", roots.weights / "none")
    with pytest.raises(WeightsError) as error:
        source.weights(ROW, roots, Callbacks())
    assert str(error.value) == (
        f"{roots.weights}/mini/mini-fcn8s.caffemodel: the weights of mini-fcn8s are missing."
        " Train it with `fcn train --net mini-fcn8s`, or name yours with --weights."
    )
    path = roots.weights / "mini/mini-fcn8s.caffemodel"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert source.weights(ROW, roots, Callbacks()) == WeightsFile(path, hashlib.sha256(b"weights").hexdigest())


def test_a_training_brings_its_own_weights(roots, tmp_path):
    source = sources.find_source("mini", local_files.load_manifest(), runs=tmp_path / "runs")
    path = tmp_path / "runs/mini-fcn8s/mini-fcn8s.caffemodel"
    with pytest.raises(WeightsError) as error:
        source.weights(ROW, roots, Callbacks())
    assert str(error.value) == (
        f"{path}: no training of mini-fcn8s has ended here. Train it: fcn train --net mini-fcn8s --out {tmp_path}/runs."
    )
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert source.weights(ROW, roots, Callbacks()) == WeightsFile(path, hashlib.sha256(b"weights").hexdigest())
