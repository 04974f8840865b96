"""Updates from gradients: Caffe's order, the same bits in every mode, and parameters that do not learn."""

import numpy as np
import pytest
import torch
from torch import nn

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.quick import convolve
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, ParamSpec, Phase, SolverParameter
from reproduction.caffe.training import apply_update, solver
from reproduction.caffe.training.apply_update import Updates
from tests.helpers import tiny_training

TYPES = ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]


def text(kind: str) -> str:
    return f'type: "{kind}"' + (" momentum: 0" if kind in {"AdaGrad", "RMSProp"} else "")


def updates(fields: dict, *params: tuple[float, float, float], keep: bool = False, **spec) -> Updates:
    """Parameters of one number each, given as value, gradient and lr_mult."""
    learned = []
    for value, gradient, lr_mult in params:
        p = nn.Parameter(torch.tensor([value]))
        p.grad = torch.tensor([gradient])
        learned.append((p, ParamSpec(lr_mult=lr_mult, **spec)))
    return Updates(SolverParameter(**fields), learned, keep=keep)


def test_normalise_then_regularise_then_update():
    run = updates({"iter_size": 4, "weight_decay": 0.5, "momentum": 0.5}, (2.0, 8.0, 1.0))
    run.apply_all(0.25, 0)
    assert run.learned[0][0].item() == 2 - 0.25 * (8 / 4 + 0.5 * 2)
    assert run.history[0].item() == 0.75
    run.learned[0][0].grad = torch.tensor([0.0])
    run.apply_all(1.0, 1)  # the rate is inside the history: what was learned at the old one stays
    assert run.history[0].item() == 0.75 * 0.5 + 0.5 * 1.25


def test_rates_and_decays_are_multiplied_by_each_parameters_own():
    run = updates({"weight_decay": 0.5}, (2.0, 1.0, 2.0), (2.0, 1.0, 0.5), decay_mult=4.0)
    run.apply_all(0.125, 0)
    assert [p.item() for p, _ in run.learned] == [2 - 0.25 * 5, 2 - 0.0625 * 5]


def test_l1_decay_pulls_by_the_sign():
    run = updates(
        {"weight_decay": 0.5, "regularization_type": "L1"}, (2.0, 0.0, 1.0), (-3.0, 0.0, 1.0), (0.0, 0.0, 1.0)
    )
    run.apply_all(1.0, 0)
    assert [p.item() for p, _ in run.learned] == [1.5, -2.5, 0.0]


@pytest.mark.parametrize(("limit", "scale"), [(10.0, 1.0), (2.5, 0.5), (0.0, 0.0), (-1.0, 1.0)])
def test_all_gradients_are_clipped_by_their_norm_before_all_else(limit, scale):
    run = updates({"clip_gradients": limit, "weight_decay": 1.0}, (0.0, 3.0, 1.0), (1.0, -4.0, 1.0))
    run.apply_all(1.0, 0)
    assert [p.item() for p, _ in run.learned] == [-3 * scale, 1 - (-4 * scale + 1)]


def test_a_regularisation_that_there_is_not_is_one_line():
    with pytest.raises(ReproductionError) as caught:
        updates({"regularization_type": "l2"})
    assert str(caught.value) == "solver: unknown regularization_type; got l2, want L1 or L2."


@pytest.mark.parametrize("kind", TYPES)
def test_updating_inside_the_backward_gives_the_same_bits(kind):
    # Clipping far away changes no gradient, but needs all of them at once.
    at_once, later = tiny_training.built(text(kind)), tiny_training.built(text(kind) + " clip_gradients: 1e30")
    at_once.step(5)
    later.step(5)
    assert tiny_training.same(tiny_training.weights(at_once), tiny_training.weights(later))
    for one, other in zip(at_once.history, later.history, strict=True):
        assert torch.equal(one, other)


def test_a_gradient_is_freed_as_soon_as_it_was_used():
    run = tiny_training.built()
    alive = []
    hooks = [
        p.register_post_accumulate_grad_hook(
            lambda p: alive.append(sum(q.grad is not None for q, _ in run.updates.learned))
        )
        for p, _ in run.updates.learned
        if p.requires_grad
    ]
    run.step()
    assert alive == [1, 1, 1, 1]
    for hook in hooks:
        hook.remove()
    run.updates.keep = True
    alive.clear()
    run.step()
    assert run.net.params["fc"][0].grad is not None


def test_kept_gradients_hold_the_update_as_caffes_diff_does():
    run = tiny_training.built(keep_gradients=True)
    before = tiny_training.weights(run)
    run.step()
    for layer, blobs in run.net.params.items():
        for name, blob in zip(("weight", "bias"), blobs, strict=False):
            step = blob.grad.numpy() if blob.grad is not None else 0
            np.testing.assert_array_equal(before[f"{layer}.{name}"] - step, blob.detach().numpy())
    run.net.params["fc"][0].grad.zero_()
    assert run.history[3].any(), "the history is not the gradient's memory"


def test_what_does_not_learn_costs_nothing():
    run = tiny_training.built()
    run.step(3)
    frozen = run.net.params["up"][0]
    assert not frozen.requires_grad
    assert frozen.grad is None
    assert run.history[2].shape == frozen.shape
    assert run.history[2].untyped_storage().nbytes() == 4


def test_what_does_not_learn_coasts_on_a_momentum_that_it_has():
    run = updates({"momentum": 0.5}, (2.0, 1.0, 0.0))
    run.take_history([torch.tensor([1.0])])
    run.apply_all(1.0, 0)
    assert run.learned[0][0].item() == 1.5
    assert run.history[0].item() == 0.5


def test_rules_without_a_rate_in_their_history_keep_it_for_what_does_not_learn():
    # Caffe: the decay of a frozen weight enters AdaGrad's history, and so Caffe's files.
    run = updates({"type": "AdaGrad", "weight_decay": 0.5}, (2.0, 0.0, 0.0))
    run.apply_all(1.0, 0)
    assert run.learned[0][0].item() == 2
    assert run.history[0].item() == 1


def test_a_parameter_that_the_loss_does_not_reach_still_decays_and_coasts():
    net = tiny_training.net(tiny_training.NET + 'layer { name: "idle" type: "InnerProduct" bottom: "data" top: "idle"'
        ' inner_product_param { num_output: 2 weight_filler { type: "constant" value: 1 } } }')  # fmt: skip
    results = []
    for more in ("", "clip_gradients: 1e30"):
        param = tiny_training.param(more)
        param.net_param = net
        run = solver.build_solver(param, feed=tiny_training.feed)
        run.step(2)
        results.append(tiny_training.weights(run))
    assert tiny_training.same(*results)
    assert results[0]["idle.weight"].max() < 1


def test_a_parameter_that_layers_share_is_updated_once():
    share = 'param { name: "w" } param { name: "b" }'
    chain = "".join(
        f'layer {{ name: "fc{i}" type: "InnerProduct" bottom: "{bottom}" top: "fc{i}" {share}'
        ' inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }'
        for i, bottom in ((2, "fc"), (3, "fc2"))
    )
    text = tiny_training.NET.replace('bottom: "fc" bottom: "label"', 'bottom: "fc3" bottom: "label"')
    head, loss = text.split('layer { name: "loss"')
    results = []
    for more in ("", "clip_gradients: 1e30"):
        param = tiny_training.param(more)
        param.net_param = tiny_training.net(head + chain + 'layer { name: "loss"' + loss)
        run = solver.build_solver(param, feed=tiny_training.feed)
        run.step(3)
        results.append(tiny_training.weights(run))
    assert tiny_training.same(*results)
    assert len(run.history) == 7
    assert np.array_equal(results[0]["fc2.weight"], results[0]["fc3.weight"])


def test_norms_are_of_weights_and_summed_gradients():
    run = tiny_training.built()
    run.accumulate()
    norms = run.updates.norms(run.net.params)
    weight = run.net.params["fc"][0]
    assert norms.blobs["fc/0"] == pytest.approx((weight.abs().mean().item(), weight.grad.abs().mean().item()))
    assert norms.blobs["up/0"][1] == 0
    values = [p.detach() for p, _ in run.updates.learned]
    gradients = [p.grad for p, _ in run.updates.learned if p.grad is not None]
    for which, tensors in enumerate((values, gradients)):
        flat = torch.cat([t.reshape(-1) for t in tensors])
        assert norms.l1[which] == pytest.approx(flat.abs().sum().item(), rel=1e-5)
        assert norms.l2[which] == pytest.approx(flat.norm().item(), rel=1e-5)


CLASSIFIER = """
    layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 8 dim: 9 dim: 9 }} }} }}
    layer {{ name: "fc6" type: "Convolution" bottom: "data" top: "fc6" {shared}
             convolution_param {{ num_output: 600 kernel_size: 7 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "again" type: "Convolution" bottom: "data" top: "again" {shared}
             convolution_param {{ num_output: 600 kernel_size: 7 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "EuclideanLoss" bottom: "fc6" bottom: "again" top: "loss" loss_weight: 1 }}
"""


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shared", ["", 'param { name: "w" } param { name: "b" }'])
def test_gradients_in_parts_give_the_same_weights(kind, shared, monkeypatch):
    """A large weight is updated part by part in the backward pass, unless two layers share it."""
    monkeypatch.setattr(convolve, "_LARGE", 0)
    monkeypatch.setattr(apply_update, "_CACHED_VALUES", 1000)
    inputs = {"data": torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(4))}
    update, places = apply_update.Updates._apply_rows, []

    def record(updates, index, first, *others):
        places.append(first)
        update(updates, index, first, *others)

    monkeypatch.setattr(apply_update.Updates, "_apply_rows", record)
    found = []
    for keep in (False, True):  # gradients that are kept are computed as a whole
        net = Net(prototxt.loads(CLASSIFIER.format(shared=shared), NetParameter), Phase.TRAIN, seed=0)
        param = prototxt.loads(f'base_lr: 0.01 lr_policy: "fixed" weight_decay: 0.1 {text(kind)}', SolverParameter)
        run = solver.Solver(param, net, lambda draw: inputs, keep_gradients=keep)
        run.step(3)
        found.append([*net.parameters(), *run.history])
        assert net.layers["fc6"].take_gradient is None
    assert {*places} == ({0} if shared else {0, 256, 512})
    assert len(run.updates.sole_users) == (0 if shared else 2)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
