"""How layers are computed where there are several ways; calls and copies of compiled nets."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import CLASSES, Layer
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.schema.types import TYPES
from reproduction.fast import compiler, convolution, precisions
from tests.fast.test_compiler import EXACT, differ, images
from tests.helpers import classifiers, thin_nets
from tests.helpers.parity import relative


def inputs_of(net, seed=1):
    torch.manual_seed(seed)
    return {name: torch.randn(1, *net.blob_shapes[name][1:]) for name in net.inputs}


@pytest.mark.parametrize("precision", ["exact", "winograd", "bf16"])
@pytest.mark.parametrize("name", classifiers.NETS)
def test_classifiers_compute_the_same(monkeypatch, name, precision, request):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)
    if precision != "exact":
        request.getfixturevalue("always_winograd")
    net = classifiers.net(name, 32)
    blobs = [blob for blob in net.blob_shapes if "_split" not in blob]
    allowed = {"exact": EXACT, "winograd": 1e-4, "bf16": 0.1}[precision]
    assert differ(net, compiler.compile(net, precision), inputs_of(net), blobs) < allowed


@pytest.mark.parametrize("name", classifiers.NETS)
def test_classifiers_compute_the_same_if_winograd_is_used_wherever_it_applies(always_winograd, name):
    net = classifiers.net(name, 16)
    assert differ(net, compiler.compile(net, discard=True), inputs_of(net), None) < EXACT


def find_plan(compiled, **shapes):
    """Plan for shapes of the inputs."""
    return compiled._find_plan(shapes, compiled.net.outputs)


def how(compiled, side):
    """Return how each layer of a plan is computed."""
    rows = {line.split("  ")[0]: line for line in compiled.explain(side, side).splitlines()[1:-1]}
    return {name: row for name, row in rows.items() if name not in ("", "total")}


@pytest.mark.parametrize("name", ["resnet50", "mobilenet", "alexnet", "googlenet", "lenet", "cifar10_quick"])
def test_classifiers_run_by_onednn(name):
    net = classifiers.net(name, 2)
    side = net.blob_shapes["data"][2]
    found = how(compiler.compile(net), side)
    small = [line for layer, line in found.items() if "oneDNN" in line]
    assert small
    assert not any(line.split("  ")[1].startswith("as torch does it") for line in found.values())
    if name in ("resnet50", "mobilenet"):
        assert not any(layer.startswith(("bn", "scale", "relu")) for layer in found), "they are folded"


def test_a_net_of_large_convolutions_uses_winograd_where_that_is_faster():
    found = how(compiler.compile(classifiers.net("vgg16", 2)), 224)
    assert "Winograd" in found["conv2_2"]
    assert "Winograd" in found["conv4_2"], "28 x 28"
    assert "oneDNN with ReLU" in found["conv5_2"], "14 x 14: reading the weights costs more"


@pytest.mark.parametrize(
    "param",
    ["kernel_size: 1", *(f"kernel_size: 3 pad: 1 {more}" for more in ("group: 64", "group: 2", "stride: 2"))],
)
def test_convolutions_without_fewer_products_use_onednn(param):
    text = f"""
    layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 64 dim: 112 dim: 112 }} }} }}
    layer {{ name: "quick" type: "Convolution" bottom: "data" top: "quick"
      convolution_param {{ num_output: 64 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "kept" type: "Convolution" bottom: "quick" top: "kept"
      convolution_param {{ num_output: 64 {param} weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "relu" type: "ReLU" bottom: "kept" top: "kept" }}
    """
    net = Net(prototxt.loads(text, NetParameter), seed=1)
    compiled = compiler.compile(net)
    found = how(compiled, 112)
    assert "Winograd" in found["quick"]
    assert "oneDNN with ReLU" in found["kept"]
    assert differ(net, compiled, inputs_of(net), ["quick", "kept"]) < EXACT


def test_an_image_of_zeros_that_pays_off_later_is_computed_at_the_second_call():
    net = thin_nets.net("voc-fcn8s", 16)
    compiled, inputs = compiler.compile(net), images(net, 64, 64)
    plans = []
    for _ in range(3):
        assert differ(net, compiled, inputs, ["score"]) < EXACT
        (found,) = compiled._plans.values()
        plans.append(bool(found.plan.zero_image_blobs))
    assert plans == [False, True, True]


def test_a_compiled_net_is_called_as_the_net():
    net = thin_nets.net("voc-fcn8s", 32)
    x = images(net, 40, 50)["data"]
    compiled = compiler.compile(net)
    for _ in range(5):  # the second call may be planned in another way, and the fourth one prepared by oneDNN
        compiled(x)
    want = compiled({"data": x})["score"]
    for found in (compiled(x), compiled(data=x), compiled(x.numpy()), compiled(x, blobs=["score"])):
        assert torch.equal(found["score"], want)
    with pytest.raises(NetError, match=r"^too many inputs; got 2: "):
        compiled(x, x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda compiled: pickle.loads(pickle.dumps(compiled))])
def test_a_compiled_net_is_copied_with_its_net(copied):
    net = thin_nets.net("voc-fcn8s", 32)
    inputs, compiled = images(net, 40, 50), compiler.compile(net, "winograd")
    want = compiled(inputs)["score"]
    made = copied(compiled)
    assert made.precision == "winograd"
    with torch.no_grad():
        net.params["conv1_1"][0].zero_()
    assert relative(made(inputs)["score"].numpy(), want.numpy()) < 1e-6


def test_a_compiled_net_whose_weights_were_freed_cannot_be_copied(always_winograd, monkeypatch):
    monkeypatch.setattr(convolution, "LARGE", 1)
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", 16), discard=True)
    with pytest.raises(NetError) as error:
        copy.deepcopy(compiled)
    want = "a compiled net cannot be copied or pickled after its weights were freed. Compile it without discard."
    assert str(error.value) == want


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["lenet", "mixed"])
def test_nets_of_other_dtypes_compute_as_the_net(always_winograd, dtype, name):
    net = classifiers.net("lenet", 4) if name == "lenet" else thin_nets.net("voc-fcn8s", 16)
    net = net.to(dtype)
    inputs = inputs_of(net) if name == "lenet" else images(net, 40, 50)
    compiled = compiler.compile(net)
    with torch.inference_mode():
        want = net(inputs)
    for blob, found in compiled(inputs).items():
        assert found.dtype is dtype
        allowed = {torch.float64: 1e-13, torch.float16: 2e-2, torch.bfloat16: 0.1}[dtype]
        assert relative(found.double().numpy(), want[blob].double().numpy()) < allowed


PARKED = """
import threading, torch
from reproduction.fast import threads
torch.set_num_threads({count})
threads.reduce_spinning(); threads.reduce_spinning()
print(sum(thread.name == "parked OpenMP team" for thread in threading.enumerate()))
"""


@pytest.mark.parametrize(("count", "parked"), [(1, 0), (2, 1)])
def test_one_team_of_threads_is_parked_where_there_are_several(count, parked):
    done = subprocess.run(
        [sys.executable, "-c", PARKED.format(count=count)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == parked


def test_threads_are_parked_on_the_cpu(monkeypatch):
    calls = []
    monkeypatch.setattr(compiler, "reduce_spinning", lambda: calls.append(1))
    find_plan(compiler.compile(thin_nets.net("voc-fcn8s", 32)), data=(1, 3, 500, 375))
    assert calls


INVENTED = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 32 dim: 20 dim: 20 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 32 kernel_size: 3 pad: 30 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "invented" type: "{kind}" bottom: "conv1" top: "invented" }}
layer {{ name: "conv2" type: "Convolution" bottom: "invented" top: "conv2"
  convolution_param {{ num_output: 32 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
"""


class Cube(Layer):
    """The third power."""

    def shapes(self, bottoms):
        return list(bottoms)

    def forward(self, *bottoms):
        return (bottoms[0] ** 3,)


class PointwiseCube(Cube):
    """The same, which says that it is pointwise."""

    def compiled_form(self, bottoms):
        return PointwiseForm()


@pytest.mark.parametrize(("kind", "part"), [(Cube, "78 x 78"), (PointwiseCube, "26 x 26")])
def test_an_invented_layer_type_runs_as_it_is_or_where_the_image_reaches(always_winograd, monkeypatch, kind, part):
    monkeypatch.setitem(LAYERS, kind.__name__, kind)
    monkeypatch.setitem(CLASSES, kind.__name__, [kind])
    monkeypatch.setitem(TYPES, kind.__name__, ())
    net = Net(prototxt.loads(INVENTED.format(kind=kind.__name__), NetParameter), seed=1)
    compiled = compiler.compile(net)
    for _ in range(2):
        assert differ(net, compiled, inputs_of(net), ["conv2"]) < EXACT
    assert part in how(compiled, 20)["invented"]


def test_the_plan_of_an_unknown_blob_is_a_plain_error():
    compiled = compiler.compile(classifiers.net(next(iter(classifiers.NETS)), 32))
    with pytest.raises(NetError, match="the net has no blob 'nothing'"):
        compiled.explain(32, 32, ["nothing"])
