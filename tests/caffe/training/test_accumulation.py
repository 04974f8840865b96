"""The gradients that Caffe's solver accumulates and those that it overwrites; autograd always accumulates."""

import numpy as np
import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase, SolverParameter
from reproduction.caffe.training import solver
from reproduction.caffe.training.parallel import Ranks

SUM = 'layer { name: "l" type: "Reduction" bottom: "%s" top: "l" loss_weight: 1 reduction_param { operation: SUMSQ } }'
SCALE = 'layer { name: "s" type: "Scale" bottom: "x" top: "s" scale_param { bias_term: true } }' + SUM % "s"
SHARED = (
    'layer { name: "s" type: "Scale" bottom: "x" top: "s" param { name: "g" } }'
    'layer { name: "t" type: "Scale" bottom: "s" top: "t" param { name: "g" } }' + SUM % "t"
)
PARAMETER = (
    'layer { name: "s" type: "Parameter" top: "s" parameter_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } } }'
    'layer { name: "e" type: "Eltwise" bottom: "s" bottom: "x" top: "e" }' + SUM % "e"
)


def text(rest, batch):
    shape = f"shape {{ dim: {batch} dim: 3 dim: 2 dim: 2 }}"
    return f'layer {{ name: "x" type: "Input" top: "x" input_param {{ {shape} }} }}{rest}'


def sample(draw, batch=1):
    return {"x": np.random.RandomState(draw).randn(batch, 3, 2, 2).astype(np.float32)}


def made(rest, batch=1, ranks=None):
    """A solver that adds up two samples, and its net."""
    param = SolverParameter(base_lr=0.1, lr_policy="fixed", iter_size=2, snapshot_after_train=False)
    net = Net(prototxt.loads(text(rest, batch), NetParameter), Phase.TRAIN)
    return solver.Solver(param, net, lambda draw: sample(draw, batch), ranks=ranks), net


def gradients(net, inputs):
    """Autograd's gradients of one sample by parameter."""
    net.zero_grad()
    net.loss(net(inputs)).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters()}


@pytest.mark.parametrize(
    ("rest", "batch", "name", "added"),
    [
        (SCALE, 1, "s.weight", False),
        (SCALE, 1, "s.bias", True),
        (SCALE, 2, "s.weight", True),
        (SCALE.replace("bias_term: true", "axis: 0 num_axes: -1"), 2, "s.weight", False),
        (SCALE.replace("bias_term: true", "num_axes: 0"), 1, "s.weight", True),
        (PARAMETER, 1, "s.weight", False),
    ],
)
def test_the_solver_adds_what_caffe_adds(rest, batch, name, added):
    run, net = made(rest, batch)
    first, second = (gradients(net, sample(draw, batch))[name] for draw in range(2))
    run.accumulate()
    found = dict(net.named_parameters())[name].grad
    assert torch.allclose(found, first + second if added else second)
    assert not torch.allclose(first + second, second)


def test_a_module_always_adds():
    _, net = made(SCALE)
    one = [gradients(net, sample(draw))["s.weight"] for draw in range(2)]
    net.zero_grad()
    for draw in range(2):
        net.loss(net(sample(draw))).backward()
    assert torch.allclose(net.layers["s"].weight.grad, sum(one))


def test_of_layers_that_share_a_factor_the_first_wins():
    run, net = made(SHARED)
    apart = Net(prototxt.loads(text(SHARED.replace('param { name: "g" }', ""), 1), NetParameter), Phase.TRAIN)
    run.accumulate()
    found = net.layers["s"].weight.grad
    assert torch.allclose(found, gradients(apart, sample(1))["s.weight"])
    assert net.layers["t"].weight is net.layers["s"].weight  # hidden in a forward only


def test_a_forward_that_fails_hides_nothing_for_good():
    run, net = made(SHARED)
    net.layers["t"].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.accumulate()
    assert net.layers["t"].weight is net.layers["s"].weight
    assert len(net.layers["s"]._forward_hooks) == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_last_one_s_gradient_counts(rank, monkeypatch):
    monkeypatch.setattr(Ranks, "all_reduce_sum", lambda self, tensor: None)
    monkeypatch.setattr(Ranks, "gather", lambda self, mine, count: list(mine) * 2)
    monkeypatch.setattr(Ranks, "broadcast", lambda self, tensors: None)
    run, net = made(SCALE, ranks=Ranks(rank, 2))
    wanted = gradients(net, sample(rank))
    run.accumulate()
    assert torch.allclose(net.layers["s"].weight.grad, wanted["s.weight"] * rank)
    assert torch.allclose(net.layers["s"].bias.grad, wanted["s.bias"])
