"""A net used as any PyTorch module: called, copied, saved, wrapped, and sent to other processes."""

import copy
import io
import multiprocessing
import pickle
import queue
import subprocess
import sys

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from tests.helpers.paths import ROOT

TEXT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 9 dim: 9 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" param { name: "w" share_mode: PERMISSIVE }
  convolution_param { num_output: 4 kernel_h: 1 kernel_w: 9 pad_w: 4 bias_term: false } }
layer { name: "c" type: "Convolution" bottom: "b" top: "c" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "drop" type: "Dropout" bottom: "c" top: "c" dropout_param { dropout_ratio: 0.5 } }
layer { name: "norm" type: "LRN" bottom: "c" top: "norm" }
layer { name: "ip" type: "InnerProduct" bottom: "norm" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "ip" top: "ip" }
"""

TWO = """
layer { name: "data" type: "Input" top: "left" top: "right" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "diff" type: "Eltwise" bottom: "left" bottom: "right" top: "diff"
  eltwise_param { coeff: 1 coeff: -1 } }
"""


def build(phase=Phase.TEST, text=TEXT):
    return Net(prototxt.loads(text, NetParameter), phase, seed=3)


X = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 4, 9, 9), np.float32))


def saved(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "save": saved,
    "average": lambda net: torch.optim.swa_utils.AveragedModel(net).module,
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_computes_the_same_with_parameters_of_its_own(how, used):
    net = build()
    if used:
        net(X)["ip"].sum().backward()
    made = COPIES[how](net)
    assert torch.equal(made(X)["ip"], net(X)["ip"])
    assert list(made.state_dict()) == list(net.state_dict())
    assert len(made.learnable) == len(list(made.parameters())) == 3
    assert made.layers["a"].weight is made.layers["c"].weight, "shared parameters stay shared"
    before = net(X)["ip"]
    with torch.no_grad():
        made.layers["a"].weight.zero_()
    assert not made.layers["b"].weight.any(), "also those that are read in another shape"
    assert made(X)["ip"].abs().max() == 0
    assert torch.equal(net(X)["ip"], before)


def test_a_copy_draws_the_same_dropout():
    net = build(Phase.TRAIN)
    made = pickle.loads(pickle.dumps(net))
    for _ in range(2):
        assert torch.equal(made(X)["ip"], net(X)["ip"])


def test_inputs_are_passed_by_name_by_position_or_by_keyword():
    net, want = build(), build()({"data": X})["ip"]
    for found in (net(X), net(data=X), net(X.numpy()), net({"data": X}, ["ip"]), net(X, blobs=["ip"])):
        assert torch.equal(found["ip"], want)
    two, left, right = build(text=TWO), torch.ones(2, 3), torch.zeros(2, 3)
    for found in (
        two(left, right),
        two(left, right=right),
        two({"left": left}, right=right),
        two(left=left, right=right),
    ):
        assert found["diff"].eq(1).all()


AS_READ = "A Segmenter takes images as they are read."


@pytest.mark.parametrize(
    ("call", "want"),
    [
        (lambda net: net(X, X), "too many inputs; got 2: (SHAPE) float32, (SHAPE) float32, want data."),
        (lambda net: net({"image": X}),
         "input 'data' is missing; got 'image': (SHAPE) float32, want data. The net has no input 'image'."),
        (lambda net: net(np.zeros((9, 8, 3), np.uint8)),
         f"input 'data' has 3 axes; got (9, 8, 3) uint8, want 4 axes (N, C, H, W). {AS_READ}"),
        (lambda net: net(dta=X), "the net has no input 'dta'. Did you mean 'data'?"),
        (lambda net: net(X, data=X), "input 'data' is passed twice."),
        (
            lambda net: net({"data": X}, ["ip"], X),
            "too many arguments; got 3, want the inputs by name, and names of blobs.",
        ),
        (lambda net: net(), "input 'data' is missing; got no inputs, want data."),
        (lambda net: net("photo.jpg"), "input 'data' has no values; got str, want a tensor or an array of numbers."),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_named(call, want):
    with pytest.raises(NetError) as error:
        call(build())
    assert str(error.value) == want.replace("SHAPE", ", ".join(map(str, X.shape)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_run(dtype):
    want, found = build()(X)["ip"], build().to(dtype)(X)["ip"]
    assert found.dtype is dtype
    assert torch.allclose(found.float(), want, atol=0.1)


def test_a_net_on_the_meta_device_has_shapes():
    found = build().to("meta")(X)["ip"]
    assert found.is_meta
    assert found.shape == (2, 5)


@pytest.mark.filterwarnings("ignore")  # of torch.compile, about what it does itself
def test_torch_compiles_and_exports_the_net():
    net = build()
    want = net(X)["ip"]
    assert torch.allclose(torch.compile(net, backend="eager")(X)["ip"], want, atol=1e-5)
    assert torch.allclose(torch.export.export(net, (X,)).module()(X)["ip"], want, atol=1e-5)
    weights = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    assert not torch.func.functional_call(net, weights, (X,))["ip"].any()


def test_data_parallel_runs_the_net():
    assert torch.equal(torch.nn.DataParallel(build())(X)["ip"], build()(X)["ip"])


# In a process that ends by force: torch's process group joins its threads while it holds the interpreter's lock, for
# which these may wait.
DISTRIBUTED = """
import os, sys, torch
from torch.nn.parallel import DistributedDataParallel
from tests.caffe.net.test_as_module import X, build
torch.distributed.init_process_group("gloo", init_method=sys.argv[1], rank=0, world_size=1)
wrapped = DistributedDataParallel(build())
found = wrapped(X)["ip"]
found.sum().backward()
print(torch.equal(found, build()(X)["ip"]), wrapped.module.params["ip"][0].grad is not None, flush=True)
os._exit(0)
"""


def test_distributed_data_parallel_trains_the_net(tmp_path):
    command = [sys.executable, "-c", DISTRIBUTED, f"file://{tmp_path}/store"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


def _work(answers, net, x):
    with torch.inference_mode():
        answers.put(float(net(x)["ip"].sum()))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_another_process_runs_the_net(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    net, context = build(), multiprocessing.get_context(method)
    want = float(net(X)["ip"].detach().sum())
    torch.ones(1 << 20).add_(1)  # starts OpenMP's threads, which a fork leaves behind
    answers = context.Queue()
    process = context.Process(target=_work, args=(answers, net, X))
    process.start()
    try:
        assert answers.get(timeout=60) == pytest.approx(want, rel=1e-5)
    except queue.Empty:
        pytest.fail("the process hangs")
    finally:
        process.kill()
        process.join()
