"""Data layers read LMDB databases in Caffe's order and with Caffe's transformations."""

import builtins
import copy
import io
import pickle

import lmdb
import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.layers.database import Database
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Datum, NetParameter, Phase

RAW = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 7), np.uint8)


def write(folder, samples):
    environment = lmdb.open(str(folder), map_size=1 << 20)
    with environment.begin(write=True) as transaction:
        for number, datum in enumerate(samples):
            transaction.put(f"{number:08}".encode(), datum if isinstance(datum, bytes) else caffemodel.dumps(datum))
    environment.close()
    return folder


@pytest.fixture
def database(tmp_path):
    samples = [Datum(channels=3, height=6, width=7, data=raw.tobytes(), label=i) for i, raw in enumerate(RAW)]
    return write(tmp_path / "raw_lmdb", samples)


def net(source, batch=2, transform="", data="backend: LMDB", state=Phase.TEST, tops='top: "data" top: "label"'):
    text = f"""layer {{ name: "d" type: "Data" {tops} transform_param {{ {transform} }}
        data_param {{ source: "{source}" batch_size: {batch} {data} }} }}"""
    return Net(prototxt.loads(text, NetParameter), state)


def test_batches_follow_the_keys_and_start_again(database):
    run = net(database)
    batches = [run() for _ in range(3)]
    assert [batch["label"].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 0]]
    assert np.array_equal(batches[2]["data"].numpy(), RAW[[4, 0]].astype(np.float32))
    run.layers["d"].seek(1)
    assert run()["label"].tolist() == [2, 3]
    assert net(database, tops='top: "data"')()["data"].shape == (2, 3, 6, 7)


def test_the_mean_is_subtracted_before_the_crop_and_the_scale(database):
    got = net(database, transform="crop_size: 4 mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5")()["data"].numpy()
    want = (RAW[:2].astype(np.float32) - np.array([1, 2, 3], np.float32)[:, None, None])[:, :, 1:5, 1:5] * 0.5
    assert np.array_equal(got, want)


def test_crops_and_mirrors_are_random_in_training(database):
    run = net(database, batch=5, transform="crop_size: 5 mirror: true", state=Phase.TRAIN)
    windows = {tuple(x.reshape(-1).tolist()) for _ in range(20) for x in run()["data"][:1]}
    possible = {
        tuple(RAW[0, :, top : top + 5, left : left + 5][:, :, ::step].reshape(-1).tolist())
        for top in range(2) for left in range(3) for step in (1, -1)
    }  # fmt: skip
    assert windows <= possible
    assert len(windows) > 6


def encoded(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return Datum(data=file.getvalue(), encoded=True, label=7)


def test_encoded_images_are_decoded_and_converted(tmp_path):
    color = Image.fromarray(RAW[0].transpose(1, 2, 0))
    source = write(tmp_path / "png_lmdb", [encoded(color, "PNG"), encoded(color.convert("L"), "PNG")])
    one = net(source, batch=1)
    assert np.array_equal(one()["data"][0].numpy(), RAW[0][::-1])  # BGR
    assert one()["data"].shape == (1, 1, 6, 7)
    assert net(source, transform="force_color: true")()["data"].shape == (2, 3, 6, 7)
    assert net(source, transform="force_gray: true")()["data"].shape == (2, 1, 6, 7)
    with pytest.raises(DataError, match="sample 1: the images of a batch must have one size"):
        net(source)()


def test_floats_are_read(tmp_path):
    values = np.arange(6, dtype=np.float32) / 7
    source = write(tmp_path / "f", [Datum(channels=1, height=2, width=3, float_data=values)])
    assert np.array_equal(net(source, batch=1)()["data"].reshape(-1).numpy(), values)


def test_a_copy_reads_the_same_database(database):
    opened = Database(str(database))
    for twin in (copy.deepcopy(opened), pickle.loads(pickle.dumps(opened))):
        assert twin.read(3).label == 3


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([], "the database is empty"),
        ([b"\xff\xff"], "key '00000000': the value is not a Datum"),
        ([Datum(channels=3, height=2, width=2, data=b"123")], "the sample is damaged; got 3 values, want"),
        ([Datum(data=b"no image", encoded=True)], "sample 0: .*not an image"),
    ],
)
def test_damaged_databases_are_errors(tmp_path, samples, problem):
    with pytest.raises(DataError, match=problem):
        net(write(tmp_path / "x", samples), batch=1)


def test_what_cannot_be_read_says_what_to_do(tmp_path, database, monkeypatch):
    with pytest.raises(DataError, match=r"LevelDB databases are not read; want an LMDB database, .* Pass inputs=\{"):
        net(database, data="")
    (tmp_path / "level").mkdir()
    (tmp_path / "level/CURRENT").write_text("MANIFEST-1")
    with pytest.raises(DataError, match="this is not an LMDB database; got a LevelDB database"):
        net(tmp_path / "level")
    with pytest.raises(DataError, match=r"nowhere: the database cannot be read: .*No such file"):
        net(tmp_path / "nowhere")
    with pytest.raises(NetError, match="batch_size must be positive"):
        net(database, batch=0)
    real = builtins.__import__

    def without(name, *rest):
        if name == "lmdb":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"LMDB databases need the package lmdb\. Install it: pip install lmdb\."):
        net(database)
