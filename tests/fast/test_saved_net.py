"""Compiled nets that are saved and opened again."""

import copy
import json
import struct

import pytest
import torch

import reproduction
from reproduction.caffe.errors import NetError, ReproductionError, WeightsError
from reproduction.caffe.formats import prototxt, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fast import compiler, convolution, precisions, saved_net
from reproduction.fast.winograd import WinogradConvolution
from tests.fast.conftest import draw_image
from tests.fast.test_compiler import MIXED
from tests.helpers import thin_nets

pytestmark = pytest.mark.usefixtures("always_winograd")

FOLDED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 32 dim: 18 dim: 20 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true
  filler { type: "uniform" min: 0.5 max: 2 } } }
layer { name: "again" type: "Convolution" bottom: "conv" top: "again" param { name: "shared" }
  convolution_param { num_output: 32 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "again" bottom: "conv" top: "sum" }
layer { name: "twin" type: "Convolution" bottom: "sum" top: "twin" param { name: "shared" }
  convolution_param { num_output: 32 kernel_size: 1 weight_filler { type: "xavier" } } }
"""


def folded():
    net = Net(prototxt.loads(FOLDED, NetParameter), seed=1)
    net.params["bn"][0].data.uniform_(-1, 1)
    net.params["bn"][1].data.uniform_(0.5, 1)
    net.params["bn"][2].data.fill_(1)
    return net


NETS = {
    "mixed": lambda: Net(prototxt.loads(MIXED, NetParameter), seed=1),
    "folded": folded,
    "thin": lambda: thin_nets.net("voc-fcn8s", 16),
}


def saved(compiled, path):
    compiled.save(path)
    return reproduction.load_compiled(path)


@pytest.mark.parametrize("precision", ["exact", "winograd", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_an_opened_net_computes_the_same_bits(name, precision, tmp_path):
    compiled = compiler.compile(NETS[name](), precision)
    inputs = draw_image(compiled.net, *compiled.net.blob_shapes[compiled.net.inputs[0]][2:])
    blobs = [*compiled.net.outputs, compiled.net.inputs[0]]
    for _ in range(5):  # the plan may change at the second call, and oneDNN prepares its steps at the fourth
        want = compiled(inputs, blobs)
    opened = saved(compiled, tmp_path / "net.compiled")
    assert opened.precision == compiled.precision
    assert opened.net.state_dict().keys() == compiled.net.state_dict().keys()
    for _ in range(5):
        got = opened(inputs, blobs)
    assert all(torch.equal(got[blob], want[blob]) for blob in blobs)
    other = draw_image(compiled.net, 40, 37)
    assert all(map(torch.equal, opened(other, blobs).values(), compiled(other, blobs).values()))


def test_a_net_in_double_precision_stays_so(tmp_path):
    compiled = compiler.compile(folded().double())
    inputs = draw_image(compiled.net, 18, 20)
    opened = saved(compiled, tmp_path / "net.compiled")
    assert opened.net.dtype is torch.float64
    assert torch.equal(opened(inputs)["twin"], compiled(inputs)["twin"])


@pytest.mark.parametrize("precision", ["exact", "bf16"])
def test_freed_weights_are_in_the_file_in_converted_form(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "LARGE", 1 << 12)
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", 8), precision, discard=True)
    inputs = draw_image(compiled.net, 40, 50)
    for _ in range(2):
        want = compiled(inputs)["score"]
    assert "conv5_1.weight" in compiled._discarded
    opened = saved(compiled, tmp_path / "net.compiled")
    assert opened._discarded.keys() == compiled._discarded.keys()
    assert torch.equal(opened(inputs)["score"], want)
    again = saved(opened, tmp_path / "net.compiled")  # the file that the opened net was read from
    assert torch.equal(again(inputs)["score"], want)
    assert torch.equal(opened(inputs)["score"], want)


def test_nothing_is_filled_or_converted_when_a_net_is_opened(tmp_path, monkeypatch):
    compiled = compiler.compile(folded(), "exact")
    inputs = draw_image(compiled.net, 18, 20)
    want = compiled(inputs)["twin"]
    compiled.save(tmp_path / "net.compiled")

    def fail(*_, **__):
        raise AssertionError("a weight was filled or transformed")

    monkeypatch.setattr(torch.Tensor, "uniform_", fail)
    monkeypatch.setattr(torch.Tensor, "double", fail)
    assert torch.equal(saved_net.load_compiled(tmp_path / "net.compiled")(inputs)["twin"], want)


def test_changed_weights_change_the_scores_but_not_the_file(tmp_path):
    compiled = compiler.compile(folded())
    inputs = draw_image(compiled.net, 18, 20)
    opened = saved(compiled, tmp_path / "net.compiled")
    before, first = (tmp_path / "net.compiled").read_bytes(), opened(inputs)["twin"]
    with torch.no_grad():
        for net in (opened.net, compiled.net):
            net.params["conv"][0].mul_(2)
    changed = opened(inputs)["twin"]
    assert not torch.equal(changed, first)
    assert torch.equal(changed, compiled(inputs)["twin"])
    assert (tmp_path / "net.compiled").read_bytes() == before


def test_an_opened_net_can_be_copied(tmp_path):
    opened = saved(compiler.compile(folded()), tmp_path / "net.compiled")
    inputs = draw_image(opened.net, 18, 20)
    assert torch.equal(copy.deepcopy(opened)(inputs)["twin"], opened(inputs)["twin"])


def test_the_options_are_kept(tmp_path):
    opened = saved(compiler.compile(folded(), steady=True, engine="auto"), tmp_path / "net.compiled")
    assert opened._options == {"precision": "exact", "steady": True, "engine": "auto"}


def test_converted_weights_are_aligned_to_64_bytes(tmp_path):
    opened = saved(compiler.compile(folded()), tmp_path / "net.compiled")
    assert [weight.data_ptr() % 64 for weight in opened._converted.values()] == [0]


def test_a_processor_without_the_precision_converts_again(tmp_path, monkeypatch):
    net = folded()
    compiler.compile(net, "bf16").save(tmp_path / "net.compiled")
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: False)
    opened = saved_net.load_compiled(tmp_path / "net.compiled")
    inputs = draw_image(net, 18, 20)
    exact = compiler.compile(net, opened.precision)
    assert opened.precision != "bf16"
    assert torch.equal(opened(inputs)["twin"], exact(inputs)["twin"])


def test_a_processor_without_the_precision_cannot_replace_freed_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "LARGE", 1 << 12)
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)
    path = tmp_path / "net.compiled"
    compiler.compile(thin_nets.net("voc-fcn8s", 8), "bf16", discard=True).save(path)
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: False)
    with pytest.raises(WeightsError) as error:
        saved_net.load_compiled(path)
    problem = "this processor does not compute in bf16, and other weights were freed"
    assert str(error.value) == f"{path}: {problem}. Compile the net without discard, and save it."


def edit(path, change):
    """Change the settings in the header of a file."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    settings = json.loads(header["__metadata__"]["compiled_net"])
    change(settings, header)
    header["__metadata__"]["compiled_net"] = json.dumps(settings)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def rename(settings, header):
    header["weights:other"] = header.pop("weights:conv.weight")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda settings, _: settings.update(version=9), ("another version of this program has saved this compiled net;"
         " got 9, want 1. Compile the net again, and save it.")),
        (rename, "the file of this compiled net is damaged; got KeyError: 'weights:conv.weight'. Compile"),
        (lambda settings, _: settings.update(precision=["exact"]), "the file of this compiled net is damaged; got"),
        (lambda settings, _: settings.update(discarded=["conv.weight"]), ("the file lacks weights of this compiled net;"
         " got ['conv.weight']. Compile the net again, and save it.")),
        (lambda settings, _: settings.update(engine="other"), "there is no such engine"),
        (lambda settings, _: settings.update(inputs={"data": [1, 3]}), "conv.weight has the shape (32, 32, 3, 3)"),
    ],
)  # fmt: skip
def test_a_file_of_other_content_is_refused(change, message, tmp_path):
    path = tmp_path / "net.compiled"
    compiler.compile(folded()).save(path)
    edit(path, change)
    with pytest.raises(ReproductionError) as error:
        saved_net.load_compiled(path)
    assert message in str(error.value)


def test_converted_weights_of_another_size_are_refused():
    net = folded()
    (name,) = _converted_names(net)
    compiled = compiler.CompiledNet(net, "exact", converted={name: torch.zeros(7)})
    want = "the file's converted weights do not fit the layer; got 7 of torch.float32, want 36864 of torch.float32."
    with pytest.raises(NetError) as error:
        compiled(draw_image(net, 18, 20))
    assert str(error.value) == want


def _converted_names(net):
    compiled = compiler.compile(net)
    compiled(draw_image(net, 18, 20))
    return list(compiled._converted)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "net.compiled"
    compiler.compile(folded()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(ReproductionError, match=r"100 bytes are missing\. The file was cut off"):
        saved_net.load_compiled(path)
    path.write_bytes(data[:100])
    with pytest.raises(WeightsError, match="this is not the file of a compiled net; got"):
        saved_net.load_compiled(path)


def test_other_files_are_named(tmp_path):
    net, path = folded(), tmp_path / "net.compiled"
    weights.write(weights.Weights(net.to_proto()), tmp_path / "net.safetensors")
    with pytest.raises(ReproductionError) as error:
        saved_net.load_compiled(tmp_path / "net.safetensors")
    problem = "this is not the file of a compiled net; got weights. CompiledNet.save() writes such files."
    assert str(error.value) == f"{tmp_path / 'net.safetensors'}: {problem}"
    compiler.compile(net).save(path)
    with pytest.raises(ReproductionError) as error:
        weights.read(path)
    problem = "this is a compiled net, not a file of weights. reproduction.load_compiled() opens it."
    assert str(error.value) == f"{path}: {problem}"


def test_python_layers_cannot_be_saved(tmp_path):
    class Same:
        def setup(self, bottom, top):
            pass

        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].shape)

        def forward(self, bottom, top):
            top[0].data[...] = bottom[0].data

    text = (
        FOLDED + 'layer { name: "py" type: "Python" bottom: "twin" top: "py" python_param { module: "m" layer: "L" } }'
    )
    net = Net(prototxt.loads(text, NetParameter), python_layers={"L": Same})
    with pytest.raises(NetError) as error:
        compiler.compile(net).save(tmp_path / "net.compiled")
    assert str(error.value).startswith("layer 'py' (Python), line 13: a net with Python layers cannot be saved")
    assert not (tmp_path / "net.compiled").exists()


@pytest.mark.parametrize(
    ("channels", "size", "tile", "dtype", "want"),
    [
        (256, 3, (4, 4), torch.float32, 198636.745),
        (256, 3, (4, 4), torch.bfloat16, 246663.216),
        (32, 7, (3, 1), torch.float32, 36565.246),
        (32, 7, (2, 1), torch.bfloat16, 126016.643),
    ],
)
def test_other_converted_weights_need_another_version(channels, size, tile, dtype, want):
    # Files of another order of the weights are refused by their version alone. If one of these sums, which depend on
    # the order, changes: increase saved_net.VERSION, and write the new sums and the new version here.
    count = channels * channels * size * size
    weight = torch.arange(float(count)).remainder(7 if size == 3 else 11).view(channels, channels, size, size)
    converted = WinogradConvolution(weight, None, tile, relu=False, dtype=dtype).weight.double()
    found = float((converted * torch.linspace(-1, 1, len(converted), dtype=torch.float64)).sum())
    assert found == pytest.approx(want, rel=1e-4)
    assert saved_net.VERSION == 1
