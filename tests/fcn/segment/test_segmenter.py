import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import DataError, NetError, ReproductionError, WeightsError
from reproduction.caffe.formats import files, prototxt, weights
from reproduction.fast.compiler import CompiledNet
from reproduction.fcn import datasets
from reproduction.fcn.nets import published_nets
from reproduction.fcn.segment import card
from reproduction.fcn.segment.segmenter import Segmenter, find_card
from tests.golden import seeded
from tests.helpers import dataset_trees, thin_nets
from tests.helpers.cards import make_card
from tests.helpers.parity import relative

IMAGE = seeded.synth_image(45, 61, 3)


def segmenter(name, seed=1):
    return Segmenter(
        card.published_card(published_nets.NETS[name]), thin_nets.net(name, 16 if "alexnet" in name else 32, seed)
    )


@pytest.fixture(scope="module")
def voc():
    return segmenter("voc-fcn8s")


def test_it_is_compiled_and_copied_as_it_is():
    made = segmenter("voc-fcn8s")
    assert isinstance(made.scorer, CompiledNet)
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert copied.scorer.net is copied.net
        assert copied.net is not made.net
        assert relative(copied(IMAGE, scores=True).scores, made(IMAGE, scores=True).scores) < 2e-5


def test_a_picture_becomes_the_classes_of_the_highest_scores(voc):
    # All of the preprocessing once more, by hand, as shelhamer/fcn.berkeleyvision.org@1305c73 infer.py has it.
    data = np.array(IMAGE, np.float32)[:, :, ::-1] - np.array((104.00699, 116.66877, 122.67892))
    data = data.astype(np.float32).transpose(2, 0, 1)[None].copy()
    with torch.no_grad():
        scores = voc.net({"data": data}, ["score"])["score"][0].numpy()
    got = voc(IMAGE, scores=True)
    assert relative(got.scores, scores) < 2e-5
    np.testing.assert_array_equal(got.labels, got.scores.argmax(0))
    assert got.labels.dtype == np.uint8
    assert got.labels.shape == (45, 61)
    assert got.classes[:3] == ("background", "aeroplane", "bicycle")
    assert sum(share.pixels for share in got.shares) == 45 * 61
    assert len(got.shares) > 1, "a net that tells nothing apart shows nothing"


def test_scores_are_left_out_unless_asked_for(voc):
    assert voc(IMAGE).scores is None


def test_a_file_a_pil_image_and_an_array_are_the_same_picture(voc, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    want = voc(IMAGE, scores=True).scores
    for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(IMAGE)):
        np.testing.assert_array_equal(voc(picture, scores=True).scores, want)


def test_grey_is_three_equal_channels_and_alpha_is_laid_on_white(voc):
    grey = IMAGE[..., 0]
    want = voc(np.repeat(grey[..., None], 3, axis=-1), scores=True).scores
    np.testing.assert_array_equal(voc(grey, scores=True).scores, want)
    np.testing.assert_array_equal(voc(grey[..., None], scores=True).scores, want)
    opaque = np.dstack([IMAGE, np.full(grey.shape, 255, np.uint8)])
    np.testing.assert_array_equal(voc(opaque, scores=True).scores, voc(IMAGE, scores=True).scores)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (70, 50)])
def test_any_size_gives_labels_of_that_size(voc, size):
    height, width = size
    assert voc(seeded.synth_image(height, width, 0)).labels.shape == size


SCALED = "It was scaled to 0 to 1, as by ToTensor: leave that out."
CENTRED = "Its mean was subtracted, as by Normalize: leave that out."
BUSINESS = "the segmenter handles colour order, mean and scale."
AS_READ = f"Pass the image as it was read: {BUSINESS}"
WANT = "want a file, bytes, a PIL image, or an array (H, W, 3) of uint8, 0 to 255."


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        (
            IMAGE.astype(np.float32) / 255,
            f"got ndarray of float32, shape (45, 61, 3), {WANT} {SCALED} {AS_READ}",
        ),
        (
            torch.zeros(1, 3, 45, 61),
            f"got Tensor of torch.float32, shape (1, 3, 45, 61), {WANT} {SCALED} {AS_READ}",
        ),
        (
            torch.zeros(3, 45, 61, dtype=torch.bfloat16, requires_grad=True),
            f"got Tensor of torch.bfloat16, shape (3, 45, 61), {WANT} {SCALED} {AS_READ}",
        ),
        (
            torch.full((1, 3, 45, 61), -2.0),
            f"got Tensor of torch.float32, shape (1, 3, 45, 61), {WANT} {CENTRED} {AS_READ}",
        ),
        (IMAGE > 99, f"got ndarray of bool, shape (45, 61, 3), {WANT} {AS_READ}"),
    ],
    ids=["scaled", "a tensor", "brain floats", "centred", "bits"],
)
def test_what_is_no_picture_is_refused_with_a_hint(voc, picture, text):
    with pytest.raises(DataError) as info:
        voc(picture)
    assert str(info.value) == f"this is not an image; {text}"


TENSOR = torch.from_numpy(IMAGE)


@pytest.mark.parametrize(
    ("picture", "how"),
    [
        (IMAGE.astype(np.float64), 'image.astype("uint8")'),
        (IMAGE.astype(np.int64), 'image.astype("uint8")'),
        (IMAGE.transpose(2, 0, 1), "image.transpose(1, 2, 0)"),
        (IMAGE[None], "image[0]"),
        (TENSOR, "image.numpy()"),
        (TENSOR.permute(2, 0, 1), "image.numpy().transpose(1, 2, 0)"),
        (TENSOR.permute(2, 0, 1)[None].float(), 'image.numpy()[0].transpose(1, 2, 0).astype("uint8")'),
    ],
    ids=["floats", "integers", "channels first", "a batch", "a tensor", "as torchvision reads", "a batch of floats"],
)
def test_what_can_be_undone_is_told_how_and_that_does_it(voc, picture, how):
    with pytest.raises(DataError) as info:
        voc(picture)
    assert info.value.remedy == f"Pass {how}: {BUSINESS}"
    np.testing.assert_array_equal(voc(eval(how, {"image": picture})).labels, voc(IMAGE).labels)


def test_a_folder_without_a_net_is_told_from_one_with_several(tmp_path):
    def said(net=tmp_path):
        with pytest.raises(DataError) as info:
            find_card(net)
        return str(info.value).replace(str(tmp_path), "DIR")

    problem = "DIR: this is neither a folder with a net nor the name of a net"
    assert said() == (f"{problem}; want card.json and deploy.prototxt, as fcn train writes them, or a net's name.")
    for name in ("voc-fcn32s", "voc-fcn16s"):
        (tmp_path / name).mkdir()
        card.write_card(make_card(name, ["a", "b"]), tmp_path / name / card.CARD_FILE)
    assert said() == f"{problem}; want DIR/voc-fcn16s or DIR/voc-fcn32s."
    (tmp_path / "a.caffemodel").write_bytes(b"")
    assert said(tmp_path / "a.caffemodel") == (
        "DIR/a.caffemodel: this is a file, not a net; want a net's name, or a folder with one. Name the net, and its"
        " weights separately."
    )


def test_an_empty_array_is_refused(voc):
    with pytest.raises(DataError):
        voc(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize("name", [row.name for row in published_nets.NETS.values() if row.dataset.name == "nyud"])
def test_every_nyud_net_reads_its_pictures_as_the_data_set_does(name, tmp_path):
    dataset_trees.nyud(tmp_path / "nyud", {"test": ["5001"]})
    row = published_nets.NETS[name]
    dataset = datasets.open_split("nyud", "test", tmp_path, {**row.inputs, "label": "label"})
    made = segmenter(name)
    pictures = {kind: dataset.file(kind, "5001") for kind in ("color", "depth", "hha")}
    sample = {top: array[None] for top, array in dataset[0].items() if top != "label"}
    with torch.no_grad():
        want = made.net(sample, ["score"])["score"][0].numpy()
    got = made(pictures["color"], depth=pictures["depth"], hha=pictures["hha"], scores=True)
    assert relative(got.scores, want) < 2e-5
    assert got.background is None
    arrays = {kind: np.array(Image.open(path)) for kind, path in pictures.items()}
    again = made(arrays["color"], depth=arrays["depth"], hha=arrays["hha"], scores=True)
    assert relative(again.scores, want) < 2e-5


@pytest.mark.parametrize("name", ["siftflow-fcn16s", "pascalcontext-fcn16s", "voc-fcn-alexnet"])
def test_every_data_set_has_its_own_mean(name, tmp_path):
    dataset_trees.siftflow(tmp_path / "sift-flow", {"test": ["a"]})
    dataset_trees.voc(tmp_path / "pascal" / "VOC2010", {}, main={"val": ["a"]})
    dataset_trees.context(tmp_path / "pascal-context", ["a"])
    dataset_trees.voc(tmp_path / "pascal" / "VOC2012", {"val": ["a"]})
    made, row = segmenter(name), published_nets.NETS[name]
    dataset = datasets.open_split(row.dataset.name, "test" if "sift" in name else "val", tmp_path)
    image = Image.open(dataset.file("data", "a"))
    blobs = [head.score for head in row.heads]
    with torch.no_grad():
        want = made.net({"data": dataset[0]["data"][None]}, blobs)
    got = made.segment(image, scores=True)
    assert list(got) == [head.label for head in row.heads]
    for head in row.heads:
        assert relative(got[head.label].scores, want[head.score][0].numpy()) < 2e-5
        assert len(got[head.label].classes) == len(head.classes)


def test_a_kind_of_picture_that_is_missing_is_named():
    made = segmenter("nyud-fcn32s-color-hha")
    with pytest.raises(DataError) as info:
        made(IMAGE)
    assert str(info.value) == "nyud-fcn32s-color-hha needs an image of kind 'hha'; got none, want color, hha."


def test_pictures_of_one_scene_must_have_one_size():
    made = segmenter("nyud-fcn32s-color-hha")
    with pytest.raises(DataError) as info:
        made(IMAGE, hha=IMAGE[:40])
    assert str(info.value) == "the images differ in height and width; got color 45 x 61, hha 40 x 61."


def test_a_depth_map_with_holes_or_of_another_shape_is_refused(tmp_path):
    made = segmenter("nyud-fcn32s-color-d")
    depth = np.full((45, 61), 900, np.uint16)
    depth[3, :7] = 0
    Image.fromarray(depth).save(tmp_path / "d.png")
    with pytest.raises(DataError) as info:
        made(IMAGE, depth=tmp_path / "d.png")
    assert str(info.value) == f"{tmp_path}/d.png: 7 pixels have no depth; want depths with their holes filled."
    with pytest.raises(DataError) as info:
        made(IMAGE, depth=IMAGE)
    assert str(info.value) == (
        "this is not a depth map; got ndarray of uint8, shape (45, 61, 3), want (H, W) millimetres."
    )


def test_scores_that_are_not_numbers_are_an_error():
    made = segmenter("voc-fcn32s")
    with torch.no_grad():
        made.net.params["score_fr"][1][3] = float("nan")
    with pytest.raises(NetError) as info:
        made(IMAGE)
    assert str(info.value) == "blob 'score' is not a number (NaN). Check the weights."


def test_a_picture_beyond_the_memory_is_an_error_not_a_crash(voc, monkeypatch):
    def full(inputs, blobs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:132] DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(voc, "scorer", full)
    with pytest.raises(DataError) as info:
        voc(IMAGE)
    assert str(info.value) == "the image is too large for the memory; got 45 x 61. Shrink it."


@pytest.fixture
def thinned(monkeypatch):
    """Have the registry load nets that are built in a moment."""
    thin_nets.patch(monkeypatch)


@pytest.mark.usefixtures("thinned")
def test_a_net_is_loaded_by_its_name_with_weights_of_any_format(tmp_path):
    model = thin_nets.write(tmp_path / "w.caffemodel", "voc-fcn8s")
    want = segmenter("voc-fcn8s")(IMAGE, scores=True).scores
    np.testing.assert_array_equal(Segmenter.load("voc-fcn8s", model)(IMAGE, scores=True).scores, want)
    weights.write(weights.read(model), tmp_path / "w.safetensors")
    loaded = Segmenter.load("voc-fcn8s", tmp_path / "w.safetensors")
    np.testing.assert_array_equal(loaded(IMAGE, scores=True).scores, want)


@pytest.mark.usefixtures("thinned")
def test_a_net_is_loaded_from_its_folder(tmp_path):
    folder = tmp_path / "voc-fcn8s"
    folder.mkdir()
    prototxt.dump(thin_nets.deploy("voc-fcn8s"), folder / "deploy.prototxt")
    loaded = Segmenter.load(folder, thin_nets.write(tmp_path / "w.caffemodel", "voc-fcn8s"))
    assert loaded(IMAGE).labels.shape == (45, 61)


def test_the_folder_of_a_training_of_ones_own_is_loaded_as_it_is(tmp_path):
    names, colours = ("sky", *map(str, range(1, 21))), [(200, 3, 4), *[(9, 9, i) for i in range(20)]]
    prototxt.dump(thin_nets.deploy("voc-fcn8s"), tmp_path / "deploy.prototxt")
    thin_nets.write(tmp_path / "w.caffemodel", "voc-fcn8s")
    card.write_card(make_card("mine", names, colours, weights="w.caffemodel"), tmp_path / card.CARD_FILE)
    found = Segmenter.load(tmp_path)(IMAGE, scores=True)
    np.testing.assert_array_equal(found.scores, segmenter("voc-fcn8s")(IMAGE, scores=True).scores)
    assert found.classes == names
    assert found.colours[:2].tolist() == [[200, 3, 4], [9, 9, 0]]


@pytest.mark.usefixtures("thinned")
def test_without_weights_the_weights_folder_is_looked_into(tmp_path):
    with pytest.raises(WeightsError) as info:
        Segmenter.load("voc-fcn8s", weights_folder=tmp_path)
    assert str(info.value) == (
        f"{tmp_path}/fcn8s-heavy-pascal.caffemodel: the weights of voc-fcn8s are missing."
        " Fetch them with `fcn fetch voc-fcn8s`, or name yours with --weights."
        " Without any download: `fcn reproduce mini`, or `fcn infer photo.jpg --net mini-fcn8s`."
    )
    thin_nets.write(tmp_path / "fcn8s-heavy-pascal.caffemodel", "voc-fcn8s")
    assert Segmenter.load("voc-fcn8s", weights_folder=tmp_path)(IMAGE).labels.shape == (45, 61)


@pytest.mark.usefixtures("thinned")
def test_scales_that_other_programs_keep_in_their_code_need_not_be_in_the_file(tmp_path):
    model = thin_nets.write(tmp_path / "w.caffemodel", "voc-fcn8s-atonce")
    found = weights.read(model)
    found.net.layer[:] = [layer for layer in found.net.layer if not layer.name.startswith("scale_")]
    weights.write(found, tmp_path / "w.pth")
    want = segmenter("voc-fcn8s-atonce")(IMAGE, scores=True).scores
    got = Segmenter.load("voc-fcn8s-atonce", tmp_path / "w.pth")(IMAGE, scores=True).scores
    np.testing.assert_array_equal(got, want)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(WeightsError) as info:
        Segmenter.load("voc-fcn8s", tmp_path / "no.caffemodel")
    assert str(info.value) == f"{tmp_path}/no.caffemodel: there is no such weights file."


@pytest.mark.usefixtures("thinned")
def test_weights_of_another_net_are_refused(tmp_path):
    model = thin_nets.write(tmp_path / "w.caffemodel", "voc-fcn32s")
    with pytest.raises(WeightsError) as info:
        Segmenter.load("voc-fcn8s", model)
    assert str(info.value) == (
        f"{model}: these are not the weights of voc-fcn8s; 5 of its layers are missing, the first is 'upscore2'."
        " Name the net that they belong to."
    )


def test_an_unknown_net_and_an_unknown_device_are_named(tmp_path):
    with pytest.raises(ReproductionError) as info:
        Segmenter.load("voc-fcn8", tmp_path / "w")
    assert str(info.value).startswith("there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?")
    with files.open_atomic(tmp_path / "w") as file:
        file.write(b"x")
    with pytest.raises(ReproductionError) as info:
        Segmenter.load("voc-fcn8s", tmp_path / "w", device="gpu0")
    assert str(info.value).startswith("device 'gpu0' cannot be used (")
    assert str(info.value).endswith("). Use cpu, or cuda.")
