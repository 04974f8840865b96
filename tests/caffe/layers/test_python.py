"""Python layers: pycaffe's interface, and gradients through autograd."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.blob import Blob, BlobVec
from reproduction.caffe.layers.python import Python, UserLayer, find_python_class
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase


class Times(UserLayer):
    """Multiplies by the number in its param_str."""

    def setup(self, bottom, top):
        self.factor = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.propagate_down = propagate_down
        bottom[0].diff[...] = self.factor * top[0].diff


class Learned(UserLayer):
    """Multiplies by a parameter."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 3

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff
        self.blobs[0].diff[0] += (bottom[0].data * top[0].diff).sum()


CLASSES = {("tests", "Times"): Times, "tests.Learned": Learned}


def net_of(layers, classes=CLASSES, phase=Phase.TEST, **rest):
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }' + layers
    return Net(prototxt.loads(text, NetParameter), phase, python_layers=classes, **rest)


def python(name, layer, bottom="x", top="y", param_str="10"):
    ends = f'bottom: "{bottom}" ' * bool(bottom) + f'top: "{top}"' * bool(top)
    return (
        f'layer {{ name: "{name}" type: "Python" {ends} '
        f'python_param {{ module: "tests" layer: "{layer}" param_str: "{param_str}" }} }}\n'
    )


def one(kind, *shapes, tops=("t",), bottoms=None, param_str="", phase=Phase.TEST):
    """A layer of this class by itself."""
    spec = LayerParameter(
        name="me",
        type="Python",
        bottom=bottoms or [f"b{i}" for i in range(len(shapes))],
        top=list(tops),
        phase=phase,
        python_param={"module": "tests", "layer": "Kind", "param_str": param_str},
    )
    return Python(spec, shapes, None, {"Kind": kind})


# ---- running


def test_forward_and_backward_go_through_numpy():
    net = net_of(python("one", "Times") + python("two", "Times", "y", "z", "-2"))
    x = torch.randn(2, 3, requires_grad=True)
    top = net({"x": x})["z"]
    torch.testing.assert_close(top, -20 * x)
    top.backward(torch.ones(2, 3))
    assert torch.equal(x.grad, torch.full((2, 3), -20.0))


def test_sizes_may_change_at_every_forward():
    net = net_of(python("one", "Times"))
    for shape in [(2, 3), (5, 1), (1, 2)]:
        assert net({"x": torch.ones(shape)})["y"].shape == shape


def test_what_one_forward_gave_another_does_not_overwrite():
    layer = one(Times, (2,), param_str="2")
    x = torch.ones(2, requires_grad=True)
    first = layer(x)[0]
    first.sum().backward()
    second = layer(5 * x)[0]
    assert (first.tolist(), second.tolist()) == ([2, 2], [10, 10])


def test_in_place_bottom_and_top_are_one_blob():
    class AddOne(UserLayer):
        def setup(self, bottom, top):
            assert bottom[0] is top[0]

        def reshape(self, bottom, top):
            pass

        def forward(self, bottom, top):
            top[0].data[...] += 1

        def backward(self, top, propagate_down, bottom):
            assert np.array_equal(bottom[0].data, [2, 3])
            bottom[0].diff[...] *= 7

    layer = one(AddOne, (2,), tops=["b0"])
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (top,) = layer(x)
    top.backward(torch.tensor([1.0, 2.0]))
    assert (x.tolist(), top.tolist(), x.grad.tolist()) == ([1, 2], [2, 3], [7, 14])


def test_several_bottoms_and_tops_have_their_own_gradients():
    class Both(UserLayer):
        def setup(self, bottom, top):
            assert not top[1].data.any()

        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].shape)
            top[1].reshape(1)

        def forward(self, bottom, top):
            top[0].data[...] = bottom[0].data * bottom[1].data
            top[1].data[0] = bottom[1].data.sum()

        def backward(self, top, propagate_down, bottom):
            self.asked = propagate_down
            assert np.array_equal(top[0].data, bottom[0].data * bottom[1].data)
            if propagate_down[0]:
                bottom[0].diff[...] = top[0].diff * bottom[1].data
            bottom[1].diff[...] = top[0].diff * bottom[0].data + top[1].diff

    layer = one(Both, (2,), (2,), tops=["t0", "t1"])
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    sum(top.sum() for top in layer(a, b)).backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([3, 4], [2, 3])
    b.grad.zero_()
    layer(a.detach(), b)[1].sum().backward()
    assert layer.user.asked == [False, True]
    assert b.grad.tolist() == [1, 1]


def test_a_gradient_that_backward_leaves_alone_is_zero():
    class Stop(Times):
        def backward(self, top, propagate_down, bottom):
            pass

    layer = one(Stop, (2,), param_str="2")
    x = torch.ones(2, requires_grad=True)
    layer(x)[0].sum().backward()
    assert x.grad.tolist() == [0, 0]


def test_a_source_makes_its_tops_from_nothing_and_keeps_them():
    class Constant(UserLayer):
        def setup(self, bottom, top):
            assert bottom == []
            top[0].reshape(2, 2)
            top[0].data[...] = self.phase

        def reshape(self, bottom, top):
            pass

        def forward(self, bottom, top):
            pass

    for phase in Phase:
        (top,) = one(Constant, phase=phase)()
        assert top.tolist() == [[int(phase)] * 2] * 2
        assert not top.requires_grad


def test_a_layer_without_tops_only_looks():
    seen = []

    class Look(UserLayer):
        def setup(self, bottom, top):
            pass

        def reshape(self, bottom, top):
            pass

        def forward(self, bottom, top):
            seen.append(bottom[0].data.sum())

    net = net_of(python("look", "Look", top=""), {"Look": Look})
    net({"x": torch.ones(2, 3)})
    assert seen == [6]


def test_double_precision_reaches_the_arrays():
    layer = one(Times, (2,), param_str="2").double()
    x = torch.tensor([1 + 2**-40, 2], dtype=torch.float64, requires_grad=True)
    (top,) = layer(x)
    assert top.tolist() == [2 * (1 + 2**-40), 4]
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], (x,))


# ---- parameters


def test_parameters_are_the_nets():
    net = net_of(python("one", "Learned"))
    (weight,) = net.params["one"]
    assert weight.tolist() == [3]
    assert list(net.state_dict()) == ["one.weight"]
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    for _ in range(2):
        net({"x": x})["y"].sum().backward()
    assert weight.grad.tolist() == [42]
    weight.data.fill_(5)
    assert torch.equal(net({"x": x})["y"], 5 * x)


def test_parameters_are_live_and_shared_with_another_net():
    net, other = net_of(python("one", "Learned")), net_of(python("one", "Learned"))
    other.share_with(net)
    net.params["one"][0].data.fill_(7)
    x = torch.ones(2, 3)
    assert torch.equal(other({"x": x})["y"], 7 * x)
    blob = other.layers["one"].user.blobs[0]
    blob.data[0] = 9
    assert net.params["one"][0].tolist() == [9]


def test_the_net_and_its_layer_agree_after_copying_weights():
    net, other = net_of(python("one", "Learned")), net_of(python("one", "Learned"))
    net.params["one"][0].data.fill_(-1)
    assert other.copy_from(net.to_proto()).copied == ["one"]
    assert torch.equal(other({"x": torch.ones(2, 3)})["y"], torch.full((2, 3), -1.0))


# ---- which class


def test_classes_are_found_by_module_and_layer_or_by_a_function():
    for known in (
        {("m", "L"): Times},
        {"m.L": Times},
        {"L": Times},
        lambda module, layer: {"m": {"L": Times}}[module][layer],
    ):
        assert find_python_class(known, "m", "L") is Times


@pytest.mark.parametrize("known", [None, {}, {"Other": Times}])
def test_a_class_that_nobody_handed_over_is_an_error(known):
    with pytest.raises(NetError) as error:
        find_python_class(known, "voc_layers", "VOCSegDataLayer")
    assert str(error.value) == (
        "the Python class 'voc_layers.VOCSegDataLayer' is not known. Pass python_layers={('voc_layers', "
        "'VOCSegDataLayer'): VOCSegDataLayer}; nothing is imported because a file names it."
    )


def test_a_function_that_fails_to_find_the_class_is_an_error():
    def find(module, layer):
        raise ImportError("No module named 'm'.")

    with pytest.raises(NetError) as error:
        find_python_class(find, "m", "L")
    assert str(error.value) == "the Python class 'm.L' was not found: ImportError: No module named 'm'."
    assert isinstance(error.value.__cause__, ImportError)


def test_a_class_need_not_derive_from_ours():
    class Plain:
        blobs: BlobVec  # which the net gives it

        def setup(self, bottom, top):
            self.blobs.add_blob(2)

        reshape, forward, backward = Times.reshape, Times.forward, Times.backward
        factor = 4

    layer = one(Plain, (2,))
    assert layer(torch.ones(2))[0].tolist() == [4, 4]
    assert len(layer.blobs) == 1


# ---- errors


def test_errors_of_the_callers_code_name_the_layer_and_the_reason():
    with pytest.raises(NetError) as error:
        net_of("\n\n" + python("bad", "Times", param_str="ten"))
    assert str(error.value) == (
        "layer 'bad' (Python), line 3: setup() of Times raised ValueError: could not convert string to float: 'ten'."
    )
    assert isinstance(error.value.__cause__, ValueError)


def test_the_cause_of_an_error_is_kept():
    class Broken(Times):
        def forward(self, bottom, top):
            raise DataError("no such image", path="a.jpg")

        def backward(self, top, propagate_down, bottom):
            raise KeyError

    layer = one(Broken, (2,), param_str="1")
    with pytest.raises(NetError) as error:
        layer(torch.ones(2))
    assert str(error.value) == "forward() of Broken raised DataError: a.jpg: no such image."
    assert isinstance(error.value.__cause__, DataError)


def test_an_error_in_backward_says_where():
    class Broken(Times):
        def backward(self, top, propagate_down, bottom):
            raise RuntimeError("two\nlines")

    layer = one(Broken, (2,), param_str="1")
    top = layer(torch.ones(2, requires_grad=True))[0].sum()
    with pytest.raises(NetError) as error:
        top.backward()
    assert str(error.value) == "layer 'me' (Python): backward() of Broken raised RuntimeError: two lines."


def test_a_missing_method_and_a_failing_constructor_are_errors():
    class NoBackward:
        setup, reshape, forward, factor = Times.reshape, Times.reshape, Times.forward, 1

    class Fussy:
        def __init__(self):
            """Take nothing, though the message is given."""

    top = one(NoBackward, (2,))(torch.ones(2, requires_grad=True))[0].sum()
    with pytest.raises(NetError, match=r"raised AttributeError: 'NoBackward' object has no attribute 'backward'\.$"):
        top.backward()
    with pytest.raises(NetError, match=r"^Fussy cannot be created: TypeError: "):
        one(Fussy, (2,))


# ---- Blob


def test_a_blob_keeps_its_memory_while_it_fits():
    blob = Blob(2, 3)
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.diff[...] = 1
    blob.reshape(4)
    assert blob.data.tolist() == [0, 1, 2, 3]
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    blob.reshape(7)
    assert not blob.data.any()
    assert not blob.diff.any()


def test_a_blob_has_pycaffes_sizes():
    blob = Blob(2, 3)
    assert blob.shape == (2, 3)
    assert (blob.count, blob.num, blob.channels, blob.height, blob.width) == (6, 2, 3, 1, 1)
    blob.reshape()
    assert blob.shape == ()
    assert (blob.count, blob.data.shape) == (1, ())
    blob.data[()] = 4
    assert blob.data == 4
    assert blob.data.dtype == np.float32
    with pytest.raises(AttributeError):
        blob.data = np.zeros(3)  # type: ignore[misc] # as is tested
    with pytest.raises(NetError, match=r"^a blob cannot have negative sizes; got \(2, -1\)\.$"):
        blob.reshape(2, -1)
    with pytest.raises(NetError, match="at most 4 axes"):
        _ = Blob(1, 1, 1, 1, 1).num


def test_a_vector_of_blobs_grows():
    blobs = BlobVec()
    blobs.add_blob(2, 3)
    blobs.add_blob()
    assert [blob.shape for blob in blobs] == [(2, 3), ()]
