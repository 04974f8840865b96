"""The samples of a data layer are a function of the draw's number."""

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.fcn.datasets import draw_order
from reproduction.fcn.nets import net_files, published_nets
from reproduction.fcn.train import feeds
from tests.helpers import dataset_trees, small_trainings


@pytest.fixture
def train(tmp_path):
    row = published_nets.NETS["voc-fcn32s"]
    return net_files.build_net(row, row.data_layers[0]), small_trainings.data(tmp_path / "data")


def drawn(count, seed=1337):
    order = draw_order(len(small_trainings.IDS), seed)
    return [[small_trainings.IDS[next(order)]] for _ in range(count)]


def test_a_training_reads_in_the_published_order(train):
    feed = feeds.open_feed(train[0], train[1], Phase.TRAIN)
    assert [feed.images(draw) for draw in range(9)] == drawn(9)
    assert isinstance(feed, feeds.DatasetFeed)
    for draw in range(9):
        found = feed(draw)
        sample = feed.dataset[small_trainings.IDS.index(feed.images(draw)[0])]
        assert {top: array.shape[0] for top, array in found.items()} == {"data": 1, "label": 1}
        assert all(np.array_equal(found[top][0], sample[top]) for top in sample)


def test_another_seed_is_another_order(train):
    feed = feeds.open_feed(train[0], train[1], Phase.TRAIN, 7)
    assert [feed.images(draw) for draw in range(9)] == drawn(9, 7) != drawn(9)
    assert feed.description.endswith(", order 7")


@pytest.mark.parametrize("draws", [[5, 6, 7], [0, 4, 8, 9, 1], [3, 3, 2]])
def test_a_draw_does_not_depend_on_those_before(train, draws):
    feed, unbroken = (feeds.open_feed(train[0], train[1], Phase.TRAIN) for _ in range(2))
    want = [unbroken(draw) for draw in range(10)]
    for draw in draws:
        assert np.array_equal(feed(draw)["data"], want[draw]["data"]), draw


def test_the_next_sample_is_read_meanwhile_and_its_error_waits(train):
    feed = feeds.open_feed(train[0], train[1], Phase.TRAIN)
    broken = feed.images(1)[0] if feed.images(1) != feed.images(0) else feed.images(2)[0]
    at = next(draw for draw in range(9) if feed.images(draw) == [broken])
    (train[1] / "sbdd/dataset/img" / f"{broken}.jpg").write_bytes(b"no picture")
    for draw in range(at):
        feed(draw)
    with pytest.raises(DataError, match=broken):
        feed(at)
    feed(at + 1 if feed.images(at + 1) != [broken] else 0)


def test_a_validation_reads_its_list_round_and_round(train):
    row = published_nets.NETS["voc-fcn32s"]
    feed = feeds.open_feed(net_files.build_net(row, row.data_layers[1]), train[1], Phase.TEST)
    assert [feed.images(draw)[0] for draw in range(4)] == [*small_trainings.VALIDATED, small_trainings.VALIDATED[0]]
    assert list(feed.shapes) == ["data", "label"]
    assert feed.description.startswith("voc seg11valid, 3 images, sha1 ")


LISTED = """layer { name: "data" type: "ImageData" top: "data" top: "label" image_data_param {
    source: "../data/list/train.txt" root_folder: "../data/list/" batch_size: 2 } }"""


def test_a_list_of_images_is_read_in_batches(tmp_path):
    (tmp_path / "list").mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 5, 3), 10 * i, np.uint8)).save(tmp_path / f"list/{i}.png")
    dataset_trees.write_list(tmp_path / "list/train.txt", [f"{i}.png {i}" for i in range(3)])
    feed = feeds.open_feed(prototxt.loads(LISTED, NetParameter), tmp_path, Phase.TRAIN)
    assert feed.shapes == {"data": (2, 3, 4, 5), "label": (2,)}
    assert [feed.images(draw) for draw in (0, 1)] == [["0.png", "1.png"], ["2.png", "0.png"]]
    assert feed(1)["label"].tolist() == [2, 0]
    assert feed.description.startswith("3 images, sha1 ")


INPUT = 'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 1 } } }'


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (INPUT, "layer 'in' (Input)"),
        (LISTED + LISTED.replace('"data"', '"b"').replace('"label"', '"c"'), "layer 'data' (ImageData), layer 'b'"),
        (
            'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 } } }',
            "layer 'd' (DummyData)",
        ),
        ("", "no data layer"),
    ],
)
def test_a_net_that_cannot_be_fed_is_refused(text, got):
    message = prototxt.loads(f'name: "mine" {text}', NetParameter)
    with pytest.raises(ReproductionError) as caught:
        feeds.open_feed(message, "data", Phase.TRAIN)
    assert str(caught.value).startswith(f"nothing can be fed into net 'mine'; got {got}")
    assert str(caught.value).endswith("want one Python layer as the published nets have, or one ImageData layer.")
