"""The layers that run backward, by Caffe's rules."""

from reproduction import pycaffe as caffe
from tests.helpers.pycaffe_nets import INPUT, LABEL, layer, net

IP = "inner_product_param { num_output: 4 }"
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 } " + IP


def needs(tmp_path, text, phase=caffe.TEST):
    """What each layer's backward has to do, by name: whether it runs, and for which bottoms."""
    made = net(tmp_path, text, phase)
    return {
        runner.node.name: (runner.need.layer, runner.need.bottoms) for runner in made._runners if runner.node.bottoms
    }


def chain(*middle, loss="c"):
    loss = layer("loss", "SoftmaxWithLoss", f"{loss} label", "loss")
    return INPUT + LABEL + "".join(middle) + loss


def test_a_gradient_goes_back_to_the_first_layer_that_learns(tmp_path):
    text = chain(layer("a", "InnerProduct", "x", "a", FROZEN), layer("b", "InnerProduct", "a", "b", IP),
                 layer("c", "TanH", "b", "c"))  # fmt: skip
    assert needs(tmp_path, text) == {
        "a": (False, [False]), "b": (True, [False]), "c": (True, [True]), "loss": (True, [True, False]),
    }  # fmt: skip


def test_force_backward_takes_it_to_the_inputs_but_not_to_labels(tmp_path):
    text = "force_backward: true " + chain(layer("c", "InnerProduct", "x", "c", FROZEN))
    assert needs(tmp_path, text) == {"c": (True, [True]), "loss": (True, [True, False])}


def test_what_no_loss_depends_on_stays(tmp_path):
    text = chain(layer("c", "InnerProduct", "x", "c", IP), layer("d", "InnerProduct", "x", "d", IP))
    assert needs(tmp_path, text)["d"] == (False, [False])


def test_propagate_down_cuts_and_what_is_before_the_cut_stays(tmp_path):
    text = chain(
        layer("a", "InnerProduct", "x", "a", IP), layer("c", "InnerProduct", "a", "c", IP + " propagate_down: false")
    )
    assert needs(tmp_path, text) == {"a": (False, [False]), "c": (True, [False]), "loss": (True, [True, False])}
    text = chain(
        layer("a", "InnerProduct", "x", "a", FROZEN), layer("c", "InnerProduct", "a", "c", IP + " propagate_down: true")
    )
    assert needs(tmp_path, text)["c"] == (True, [True])


def test_without_a_loss_nothing_goes_backward(tmp_path):
    assert needs(tmp_path, INPUT + layer("a", "InnerProduct", "x", "a", IP)) == {"a": (False, [False])}


def test_force_backward_is_stronger_than_propagate_down(tmp_path):
    text = "force_backward: true " + chain(layer("c", "InnerProduct", "x", "c", IP + " propagate_down: false"))
    assert needs(tmp_path, text)["c"] == (True, [True])


def test_each_layer_that_shares_a_parameter_learns_as_its_own_message_says(tmp_path):
    first, second = (f'param {{ name: "w" {mult} }} ' + IP.replace("4", "3") for mult in ("", "lr_mult: 0"))
    text = chain(layer("a", "InnerProduct", "x", "a", first), layer("c", "InnerProduct", "a", "c", second))
    made = net(tmp_path, text)
    assert {runner.node.name: runner.need.params for runner in made._runners if runner.need.params} == {
        "a": [True, True], "c": [False, True],
    }  # fmt: skip
    assert [spec.lr_mult for spec in made.module.param_specs["a"]] == [0, 1]
    assert [spec.lr_mult for spec in made.module.layers["a"].layer_param.param] == [1]  # as it was written
