"""The batches of an ImageData layer are a function of the draw's number."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase
from reproduction.fcn.train.image_list import ImageList

COUNT, SIZE = 7, 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Seven pictures; the first pixel of each is its number."""
    root = tmp_path_factory.mktemp("data")
    (root / "things").mkdir()
    lines = []
    for i in range(COUNT):
        pixels = np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)
        pixels[..., 2] = i
        Image.fromarray(pixels).save(root / "things" / f"a {i}.png")
        lines.append(f"a {i}.png {i % 3}\n")
    (root / "things" / "list.txt").write_text("".join(lines))
    return root


def layer(more: str = "", transform: str = "") -> LayerParameter:
    text = f"""
        name: "data" type: "ImageData" top: "data" top: "label"
        image_data_param {{
            source: "../../data/things/list.txt" root_folder: "../../data/things/" batch_size: 3 {more}
        }}
        transform_param {{ {transform} }}"""
    return prototxt.loads(text, LayerParameter)


def numbers(batch: dict[str, np.ndarray]) -> list[int]:
    """Which pictures are in a batch: blue comes first, and is their number."""
    return [int(image[0, 0, 0]) for image in batch["data"]]


def test_batches_go_round_and_round(root):
    images = ImageList(layer(), root)
    assert [numbers(images(draw)) for draw in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert images(0)["label"].tolist() == [0, 1, 2]
    assert images(0)["data"].dtype == images(0)["label"].dtype == np.float32
    assert len(images) == 3
    assert images.shapes == {"data": (3, 3, SIZE, SIZE), "label": (3,)}


def test_every_round_has_an_order_of_its_own_and_shows_every_picture(root):
    images = ImageList(layer("shuffle: true"), root)
    seen = [number for draw in range(7) for number in numbers(images(draw))]
    rounds = [seen[at : at + COUNT] for at in range(0, 21, COUNT)]
    assert all(sorted(once) == list(range(COUNT)) for once in rounds)
    assert len({tuple(once) for once in rounds}) == 3
    assert [n % 3 for n in seen] == [int(label) for draw in range(7) for label in images(draw)["label"]]


def test_a_draw_is_the_same_whenever_it_is_asked_for(root):
    text = "shuffle: true", "crop_size: 4 mirror: true mean_value: 1 mean_value: 2 mean_value: 3"
    one, other = ImageList(layer(*text), root), ImageList(layer(*text), root)
    for draw in (5, 0, 5):
        other(draw + 1)
        for top in ("data", "label"):
            assert np.array_equal(one(draw)[top], other(draw)[top])
    another = ImageList(layer(*text), root, seed=1)
    assert any(not np.array_equal(one(draw)["data"], another(draw)["data"]) for draw in range(3))


def test_crops_are_random_to_learn_from_and_in_the_middle_to_score(root):
    corners = Counter()
    for phase in (Phase.TRAIN, Phase.TEST):
        images = ImageList(layer(transform="crop_size: 4"), root, phase)
        found = {int(image[2, 0, 0]) // 3 for draw in range(30) for image in images(draw)["data"]}
        corners[phase] = len(found)
        if phase is Phase.TEST:
            assert found == {SIZE + 1}
    assert corners[Phase.TRAIN] == 9


def test_a_net_is_fed_in_place_of_its_own_layer(root):
    data = layer()
    images = ImageList(data, root)
    score = 'name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 }'
    message = NetParameter(layer=[data, prototxt.loads(score, LayerParameter)])
    net = Net(message, Phase.TRAIN, inputs=images.shapes)
    assert net.inputs == ["data", "label"]
    assert net(images(4))["ip"].shape == (3, 2)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("rand_skip: 3", "layer 'data': rand_skip is not supported here; got 3."),
        (
            "new_height: 5 new_width: 5",
            "layer 'data': new_height is not supported here; got 5.",
        ),
    ],
)
def test_what_it_does_not_follow_is_an_error(root, more, problem):
    with pytest.raises(ReproductionError) as error:
        ImageList(layer(more), root)
    assert str(error.value) == problem


def test_another_layer_or_folder_is_an_error(root, tmp_path):
    with pytest.raises(ReproductionError) as error:
        ImageList(LayerParameter(name="data", type="Input", top=["data"]), root)
    assert str(error.value) == "layer 'data' (Input): not an ImageData layer with two tops."
    with pytest.raises(ReproductionError) as error:
        ImageList(layer(), tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/things/list.txt: the list of files cannot be read (no such file or directory)."
    )


def test_pictures_of_two_sizes_make_no_batch(root, tmp_path):
    (tmp_path / "things").mkdir()
    for i, size in enumerate((4, 4, 5)):
        Image.new("RGB", (size, size)).save(tmp_path / "things" / f"{i}.png")
    (tmp_path / "things" / "list.txt").write_text("0.png 0\n1.png 0\n2.png 0\n")
    with pytest.raises(ReproductionError) as error:
        ImageList(layer(), tmp_path)(0)
    assert str(error.value) == (
        f"{tmp_path}/things/2.png: the images of a batch must have one size; got (3, 5, 5), want (3, 4, 4)."
    )
