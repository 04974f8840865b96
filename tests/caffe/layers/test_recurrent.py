"""LSTMUnit, LSTM and RNN: steps, states, and the net that Caffe unrolls them to."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter
from tests.helpers.single_layer import single

UNITS = 3


def recurrent(kind, *shapes, states=0):
    tops = " ".join(f'top: "t{i}"' for i in range(1 + states))
    exposed = "true" if states else "false"
    layer = single(f'type: "{kind}" {tops} recurrent_param {{ num_output: {UNITS} expose_hidden: {exposed} }}', *shapes)
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_unit_computes_one_step():
    rng = np.random.default_rng(0)
    cell, gates, cont = rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 2, 12)), np.array([[0.0, 1.0]])
    layer = single('type: "LSTMUnit" top: "c" top: "h"', (1, 2, 3), (1, 2, 12), (1, 2)).double()
    i, f, o, g = np.split(gates, 4, -1)
    want = cont[..., None] * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    new, output = layer(*(torch.tensor(x) for x in (cell, gates, cont)))
    np.testing.assert_allclose(new.numpy(), want)
    np.testing.assert_allclose(output.numpy(), sigmoid(o) * np.tanh(want))


def unrolled(kind, steps, static):
    """Caffe's own construction, as a prototxt: one layer of each kind for every step, sharing parameters by name."""
    wide, prefix = (4 * UNITS, "c") if kind == "LSTM" else (UNITS, "h")

    def product(name, bottom, top, weight, axis=2, bias="", outputs=wide):
        biased = str(bool(bias)).lower()
        params = "".join(f'param {{ name: "{p}" }} ' for p in (weight, bias) if p)
        return (
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {params} '
            f"inner_product_param {{ num_output: {outputs} axis: {axis} bias_term: {biased} }} }}\n"
        )

    def simple(type_, bottoms, tops, rest=""):
        ends = "".join(f'bottom: "{b}" ' for b in bottoms) + "".join(f'top: "{t}" ' for t in tops)
        return f'layer {{ name: "{tops[0]}" type: "{type_}" {ends} {rest} }}\n'

    text = product("x_transform", "x", "wx", f"W_x{prefix}", bias=f"b_{prefix}")
    if static:
        text += product("s_transform", "static", "ws", f"W_x{prefix}_static", axis=1)
        text += simple("Reshape", ["ws"], ["wss"], "reshape_param { shape { dim: 1 } num_axes: 0 }")
    for blob, parts in (("cont", "cont_"), ("wx", "x_")):
        text += simple("Slice", [blob], [f"{parts}{t}" for t in range(steps)], "slice_param { axis: 0 }")
    for t in range(steps):
        text += simple("Scale", [f"h_{t}", f"cont_{t}"], [f"kept_{t}"], "scale_param { axis: 0 }")
        text += product(f"hidden_{t}", f"kept_{t}", f"wh_{t}", f"W_h{prefix}")
        text += simple("Eltwise", [f"wh_{t}", f"x_{t}", *["wss"] * static], [f"in_{t}"])
        if kind == "LSTM":
            text += simple("LSTMUnit", [f"c_{t}", f"in_{t}", f"cont_{t}"], [f"c_{t + 1}", f"h_{t + 1}"])
        else:
            text += simple("TanH", [f"in_{t}"], [f"h_{t + 1}"])
            text += product(f"out_{t}", f"h_{t + 1}", f"wo_{t}", "W_ho", bias="b_o", outputs=UNITS)
            text += simple("TanH", [f"wo_{t}"], [f"o_{t}"])
    outputs = [f"h_{t + 1}" if kind == "LSTM" else f"o_{t}" for t in range(steps)]
    return text + simple("Concat", outputs, ["out"], "concat_param { axis: 0 }")


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("kind", "states"), [("LSTM", 2), ("RNN", 1)])
def test_the_loop_is_the_net_that_caffe_unrolls(kind, states, static):
    steps, streams = 3, 2
    shapes = {"x": (steps, streams, 2, 2), "cont": (steps, streams)} | ({"static": (streams, 5)} if static else {})
    starts = {f"{name}_0": (1, streams, UNITS) for name in "hc"[:states]}
    layer = recurrent(kind, *shapes.values(), *starts.values(), states=states)
    message = prototxt.loads(unrolled(kind, steps, static), NetParameter)
    for name, shape in reversed((shapes | starts).items()):
        source = LayerParameter(name=name, type="Input", top=[name], input_param={"shape": [{"dim": list(shape)}]})
        message.layer.insert(0, source)
    net = Net(message)
    own = list(net.parameters())
    assert [tuple(p.shape) for p in own] == [tuple(blob.shape) for blob in layer.blobs]
    with torch.no_grad():
        for mine, blob in zip(own, layer.blobs, strict=True):
            mine.copy_(blob)
    values = {name: torch.randn(shape) for name, shape in (shapes | starts).items()}
    values["cont"] = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    leaves = [name for name in ("x", "static") if name in values]
    for name in leaves:
        values[name].requires_grad_()
    (want, got) = (net(values)["out"], layer(*values.values())[0])
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(want)
    theirs = torch.autograd.grad(want, [*(values[name] for name in leaves), *own], weight)
    ours = torch.autograd.grad(got, [*(values[name] for name in leaves), *layer.blobs], weight)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "states"), [("LSTM", 2), ("RNN", 1)])
def test_the_state_stays_from_one_forward_to_the_next_until_it_is_reset(kind, states):
    layer = recurrent(kind, (4, 2, 3), (4, 2))
    x, cont = torch.randn(8, 2, 3), torch.ones(8, 2)
    halves = [layer(x[:4], cont[:4])[0], layer(x[4:], cont[4:])[0]]
    layer.reset()
    assert torch.equal(layer(x[:4], cont[:4])[0], halves[0])
    assert not torch.equal(halves[0], halves[1])
    exposed = recurrent(kind, (4, 2, 3), (4, 2), *[(1, 2, UNITS)] * states, states=states)
    exposed.load_state_dict(layer.state_dict())
    state = [torch.zeros(1, 2, UNITS)] * states
    for i in range(2):
        top, *state = exposed(x[4 * i : 4 * i + 4], cont[:4], *state)
        torch.testing.assert_close(top, halves[i])


def test_a_sequence_that_begins_forgets_all_before_it():
    layer = recurrent("LSTM", (2, 1, 3), (2, 1))
    x = torch.randn(2, 1, 3)
    first = layer(x, torch.tensor([[0.0], [1.0]]))[0]
    again = layer(x, torch.tensor([[0.0], [1.0]]))[0]
    assert torch.equal(first, again)
    assert not torch.equal(layer(x, torch.ones(2, 1))[0], first)


def test_no_gradient_flows_from_one_forward_to_another_or_through_exposed_states():
    layer = recurrent("LSTM", (2, 1, 3), (2, 1))
    x = torch.randn(2, 1, 3, requires_grad=True)
    layer(x, torch.ones(2, 1))
    later = torch.randn(2, 1, 3, requires_grad=True)
    layer(later, torch.ones(2, 1))[0].sum().backward()
    assert x.grad is None
    assert later.grad.any()
    exposed = recurrent("LSTM", (2, 1, 3), (2, 1), (1, 1, UNITS), (1, 1, UNITS), states=2)
    states = [torch.randn(1, 1, UNITS, requires_grad=True) for _ in range(2)]
    tops = exposed(later, torch.ones(2, 1), *states)
    assert [top.requires_grad for top in tops] == [True, False, False]
    tops[0].sum().backward()
    assert all(state.grad is None for state in states)


def test_another_number_of_streams_begins_anew():
    layer = recurrent("RNN", (2, 1, 3), (2, 1))
    layer(torch.randn(2, 1, 3), torch.ones(2, 1))
    x = torch.randn(2, 2, 3)
    assert layer.shapes([(2, 2, 3), (2, 2)]) == [(2, 2, UNITS)]
    top = layer(x, torch.ones(2, 2))[0]
    layer.reset()
    assert torch.equal(layer(x, torch.ones(2, 2))[0], top)


@pytest.mark.parametrize(("kind", "states"), [("LSTM", 2), ("RNN", 1)])
def test_gradients_are_the_derivatives(kind, states):
    shapes = [(2, 2, 2), (2, 2), (2, 3), *[(1, 2, UNITS)] * states]
    layer = recurrent(kind, *shapes, states=states).double()
    x, static, *rest = (torch.randn(shape, dtype=torch.float64) for shape in (shapes[0], *shapes[2:]))
    cont = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    leaves = (x.requires_grad_(), static.requires_grad_(), *layer.blobs)
    assert torch.autograd.gradcheck(lambda x, static, *_: layer(x, cont, static, *rest)[0], leaves)


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "LSTM"', [(2, 1, 3), (2, 1)], "num_output must be positive; got 0."),
        ('type: "LSTM" recurrent_param { num_output: 2 }', [(2, 1), (2, 1)],
         "the bottoms must be a sequence and its cont; got (2, 1) and (2, 1), want (T, N, ...) and (T, N)."),
        ('type: "RNN" recurrent_param { num_output: 2 }', [(2, 1, 3), (2, 2)],
         "the bottoms must be a sequence and its cont; got (2, 1, 3) and (2, 2), want (T, N, ...) and (T, N)."),
        ('type: "RNN" recurrent_param { num_output: 2 }', [(2, 1, 3), (2, 1), (1,)],
         "the static input must have a vector for each stream; got (1,), want (1, ...)."),
        ('type: "LSTM" recurrent_param { num_output: 2 expose_hidden: true }', [(2, 1, 3), (2, 1)],
         "wrong number of bottoms or tops; got 2 and 1, want 4 (with a static input, 5) and 3."),
        ('type: "RNN" recurrent_param { num_output: 2 } top: "a" top: "b"', [(2, 1, 3), (2, 1)],
         "wrong number of bottoms or tops; got 2 and 2, want 2 (with a static input, 3) and 1."),
        ('type: "RNN" recurrent_param { num_output: 2 expose_hidden: true } top: "a" top: "b"',
         [(2, 1, 3), (2, 1), (1, 2, 2)], "an exposed state has the wrong shape; got (1, 2, 2), want (1, 1, 2)."),
        ('type: "LSTMUnit" top: "c" top: "h"', [(1, 2, 3), (1, 2, 9), (1, 2)],
         ("the bottoms must be cell, gates and cont of one step; got (1, 2, 3), (1, 2, 9), (1, 2), "
          "want (1, N, D), (1, N, 4 D), (1, N).")),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error


def test_steps_and_inputs_keep_their_number():
    layer = recurrent("LSTM", (2, 1, 3), (2, 1))
    with pytest.raises(NetError, match=r"^the number of time steps changed; got 3, want 2\.$"):
        layer.shapes([(3, 1, 3), (3, 1)])
    with pytest.raises(NetError, match=r"^the inputs do not fit the weights; got \[4\], want \[3\]"):
        layer.shapes([(2, 1, 4), (2, 1)])
