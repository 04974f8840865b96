import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import blobs, caffemodel, hdf5, prototxt, tensors, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import BlobProto, LayerParameter, NetParameter
from reproduction.caffe.training import snapshot
from tests.caffe.formats.test_caffemodel import said
from tests.helpers.paths import GOLDEN

SNAPSHOT = GOLDEN / "snapshot/snapshot_iter_3.caffemodel"
FILES = {
    SNAPSHOT: "caffemodel V2",
    SNAPSHOT.with_name("snapshot_iter_3.caffemodel.h5"): "HDF5",
    GOLDEN / "legacy/v0.caffemodel": "caffemodel V0",
    GOLDEN / "legacy/v1_tiny_vgg.caffemodel": "caffemodel V1",
}
SUFFIXES = (".caffemodel", ".caffemodel.h5", ".safetensors", ".pt", ".npz")


def same(got: weights.Weights, want: weights.Weights) -> None:
    mine, theirs = got.arrays(), want.arrays()
    assert mine.keys() == theirs.keys()
    for name, values in theirs.items():
        assert mine[name].dtype == values.dtype, name
        assert mine[name].shape == values.shape, name
        assert mine[name].tobytes() == values.tobytes(), name


def net_of(**layers) -> weights.Weights:
    net = NetParameter()
    for name, values in layers.items():
        net.layer.add(name=name, blobs=[blobs.from_array(np.asarray(each, np.float32)) for each in values])
    return weights.Weights(net)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("first", SUFFIXES)
def test_every_format_goes_to_every_other_bit_by_bit(path, first, tmp_path):
    want = weights.read(path)
    assert want.format == FILES[path]
    weights.write(want, tmp_path / f"a{first}")
    for second in SUFFIXES:
        weights.write(weights.read(tmp_path / f"a{first}"), tmp_path / f"b{second}")
        same(weights.read(tmp_path / f"b{second}"), want)


def test_a_caffemodel_that_went_through_safetensors_is_whole(tmp_path):
    weights.write(weights.read(SNAPSHOT), tmp_path / "a.safetensors")
    weights.write(weights.read(tmp_path / "a.safetensors"), tmp_path / "a.caffemodel")
    assert (tmp_path / "a.caffemodel").read_bytes() == SNAPSHOT.read_bytes()


def test_metadata_travel_in_safetensors_files(tmp_path):
    found = net_of(conv1=[np.ones((2, 3))])
    found.metadata = {"card": "{}", "source": "größer"}
    weights.write(found, tmp_path / "a.safetensors")
    assert weights.read(tmp_path / "a.safetensors").metadata == found.metadata
    weights.write(weights.read(tmp_path / "a.safetensors"), tmp_path / "b.pt")
    assert weights.read(tmp_path / "b.pt").metadata == {}


def test_the_prefix_of_data_parallel_is_taken_away(tmp_path):
    torch.save({"module.conv1.weight": torch.ones(2), "module.conv1.bias": torch.ones(1)}, tmp_path / "a.pth")
    assert list(weights.read(tmp_path / "a.pth").arrays()) == ["conv1.weight", "conv1.bias"]


def test_old_nets_are_upgraded_and_say_so():
    found = weights.read(GOLDEN / "legacy/v0.caffemodel")
    assert "V0" in found.notes[0]
    assert [name for name, _ in found] == ["conv1", "conv2", "fc6"]
    assert {layer.name: layer.type for layer in found.net.layer}["fc6"] == "InnerProduct"
    shapes = {name: [values.shape for values in each] for name, each in found}
    assert shapes["fc6"][1] == shapes["fc6"][0][:1]


def test_parameters_are_called_as_pytorchs_modules_call_them():
    found = net_of(**{"conv1_1": [[[1.0]], [2.0]], "bn.a/b": [[1.0], [2.0], [3.0], [4.0]]})
    bn = ["bn.a/b.weight", "bn.a/b.bias", "bn.a/b.2", "bn.a/b.3"]
    assert list(found.arrays()) == ["conv1_1.weight", "conv1_1.bias", *bn]


def test_a_pytorch_module_loads_what_we_write_and_the_reverse(tmp_path):
    module = torch.nn.Sequential()
    module.add_module("conv1", torch.nn.Conv2d(3, 4, 3))
    module.add_module("up", torch.nn.ConvTranspose2d(4, 2, 4, bias=False))
    torch.save(module.state_dict(), tmp_path / "net.pth")
    found = weights.read(tmp_path / "net.pth")
    weights.write(found, tmp_path / "net.pt")
    module.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    same(weights.read(tmp_path / "net.pt"), found)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_double_stays_a_double(suffix, tmp_path):
    net = NetParameter(layer=[LayerParameter(name="a", blobs=[blobs.from_array(np.array([0.1, 0.2]))])])
    weights.write(weights.Weights(net), tmp_path / f"a{suffix}")
    (values,) = weights.read(tmp_path / f"a{suffix}").arrays().values()
    assert values.dtype == np.float64
    assert values.tolist() == [0.1, 0.2]


def test_a_parameter_that_another_layer_owns_stays_absent(tmp_path):
    net = net_of(a=[[1.0], [2.0]], b=[[1.0], [3.0]]).net
    net.layer[1].blobs[0] = BlobProto()
    hdf5.dump(net, tmp_path / "a.h5")
    for suffix in (".h5", ".safetensors", ".pt", ".npz"):
        weights.write(weights.read(tmp_path / "a.h5"), tmp_path / f"b{suffix}")
        found = weights.read(tmp_path / f"b{suffix}")
        assert list(found.arrays()) == ["a.weight", "a.bias", "b.bias"]
        assert found.net.layer[1].blobs[0].is_empty()
        assert [values.size for values in dict(found)["b"]] == [0, 1]
    text = said(weights.write, weights.read(tmp_path / "a.h5"), tmp_path / "a.caffemodel")
    assert text == (
        f"{tmp_path}/a.h5: parameter 0 of layer 'b' is not in the file; another layer owns it. "
        "A caffemodel contains every parameter: write .h5, .safetensors, .pt or .npz."
    )


SIAMESE = """
layer { name: "data" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "a" top: "x" param { name: "w" } param { name: "b" }
        convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "gaussian" } } }
layer { name: "twin" type: "Convolution" bottom: "b" top: "y" param { name: "w" } param { name: "b" }
        convolution_param { num_output: 2 kernel_size: 3 } }
"""


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_net_that_shares_all_parameters_of_a_layer_loads_its_hdf5_file(device, tmp_path):
    message = prototxt.loads(SIAMESE, NetParameter)
    first = Net(message, seed=1)
    weights.write(weights.Weights(first.to_proto()), tmp_path / "a.h5")
    found = weights.read(tmp_path / "a.h5")
    assert list(found.arrays()) == ["conv.weight", "conv.bias"]
    with torch.device(device):
        second = Net(message)
    assert second.copy_from(found.net).untouched == []
    weights.write(found, tmp_path / "a.npz")  # which knows no layer without a parameter of its own
    assert second.copy_from(weights.read(tmp_path / "a.npz").net).untouched == []
    if device == "cpu":
        assert torch.equal(second.params["twin"][0], first.params["conv"][0])
    found.net.layer[0].blobs.pop()
    with pytest.raises(ReproductionError) as error:
        second.copy_from(found.net, "a.h5")
    assert "another shape" in str(error.value) or "another number of blobs" in str(error.value)


def test_the_content_says_what_a_file_is_when_its_ending_lies(tmp_path):
    want = weights.read(SNAPSHOT)
    for suffix, wrong in itertools.product(SUFFIXES, (".caffemodel", ".bin")):
        weights.write(want, tmp_path / f"a{suffix}")
        (tmp_path / f"a{suffix}").rename(tmp_path / f"b{wrong}")
        same(weights.read(tmp_path / f"b{wrong}"), want)


def test_weights_are_views_of_the_file():
    for values in weights.read(SNAPSHOT).arrays().values():
        assert not values.flags.owndata


# ---- what is no file of weights


def write_npz(path: Path, **arrays) -> None:
    tensors.write_npz({name: np.asarray(values, np.float32) for name, values in arrays.items()}, path)


def test_files_without_weights_are_one_line(tmp_path):
    path = tmp_path / "net.caffemodel"
    remedy = "Pass the trained model, not the net's definition or the solver's state."
    caffemodel.dump(NetParameter(name="x", layer=[LayerParameter(name="a")]), path)
    assert (
        said(weights.read, path) == f"{path}: the file contains no weights; got 1 layers without parameters. {remedy}"
    )
    path.write_bytes(b"\xfa\x01\x03abc")
    assert (
        said(weights.read, path) == f"{path}: the file contains no weights; got 0 layers without parameters. {remedy}"
    )
    for suffix in SUFFIXES[1:]:
        weights.write(weights.Weights(NetParameter()), tmp_path / f"a{suffix}")
        with pytest.raises(ReproductionError, match="the file contains no weights"):
            weights.read(tmp_path / f"a{suffix}")


def test_a_solver_state_is_no_model():
    for path in (SNAPSHOT.with_suffix(".solverstate"), SNAPSHOT.with_suffix(".solverstate.h5")):
        assert said(weights.read, path) == (
            f"{path}: this is a solver's state, not weights. They are in the .caffemodel of the same name."
        )


WANTED = "LAYER.weight, LAYER.bias, LAYER.2 and so on"


@pytest.mark.parametrize("name", ["conv1", "weight", ".weight", "conv1.running_mean", "conv1.0", "conv1.-2", "a.²"])
def test_an_array_that_is_no_parameter_is_one_line(name, tmp_path):
    write_npz(tmp_path / "a.npz", **{name: [1.0]})
    assert said(weights.read, tmp_path / "a.npz") == (
        f"{tmp_path}/a.npz: array {name!r} is not a parameter of a layer; want {WANTED}."
    )


def test_a_parameter_far_from_the_others_is_one_line(tmp_path):
    write_npz(tmp_path / "a.npz", **{"a.weight": [1.0], "a.99999999": [1.0]})
    assert said(weights.read, tmp_path / "a.npz") == (
        f"{tmp_path}/a.npz: layer 'a': parameter 99999999 is present, but most of those before it are missing."
    )


def test_a_blob_that_disagrees_names_file_layer_and_blob(tmp_path):
    path = tmp_path / "a.caffemodel"
    net = net_of(conv1=[[1.0], [2.0, 3.0]]).net
    net.layer[0].blobs[1].shape.dim = [3]
    caffemodel.dump(net, path)
    assert said(weights.read(path).arrays) == (
        f"{path}: layer 'conv1' blob 1: the shape (3,) and the data disagree; got 2 values, want 3. "
        "The file is damaged, or was not written by Caffe."
    )


def test_two_layers_of_one_name_are_one_line(tmp_path):
    net = NetParameter(layer=[*net_of(a=[[1.0]]).net.layer, *net_of(a=[[2.0]]).net.layer])
    text = said(weights.write, weights.Weights(net, path="a.caffemodel"), tmp_path / "a.npz")
    assert text == "a.caffemodel: two layers are called 'a'. Rename one."


def test_an_ending_that_is_no_format_is_one_line(tmp_path):
    assert said(weights.write, net_of(a=[[1.0]]), tmp_path / "a.onnx") == (
        f"{tmp_path}/a.onnx: the ending is not that of a format of weights; "
        "got '.onnx', want .caffemodel, .h5, .hdf5, .npz, .pt, .pth, .safetensors."
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_download_that_failed_is_one_line(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"<html><body>Quota exceeded")
    assert said(weights.read, path) == (
        f"{path}: this is not a caffemodel; got a web page. "
        "The download failed: open the file to read why, and fetch it again."
    )


def test_a_safetensors_file_whose_net_is_damaged_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors.write_safetensors({"a.weight": np.zeros(1, np.float32)}, path, {"caffe.prototxt": "layer { nam: 'a' }"})
    with pytest.raises(ReproductionError) as error:
        weights.read(path)
    assert str(error.value).startswith(f"{path}: caffe.prototxt:1:")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".pth", ".solverstate", ".solverstate.h5", ".binaryproto"])
def test_a_pipe_a_device_and_a_folder_are_no_weights(suffix, tmp_path):
    read: Callable[[Path], object] = weights.read
    if "solverstate" in suffix:
        read = partial(snapshot.load, like=[])
    elif suffix == ".binaryproto":
        read = blobs.load_mean
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        path = tmp_path / f"{name}{suffix}"
        assert said(read, path) == f"{path}: this is not a file; got a {name}. Name a file on a disk."
