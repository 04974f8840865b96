"""Convolution with repeated rows and columns computed once: the same values and gradients for less work."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.caffe.formats import prototxt
from reproduction.caffe.geometry import Window, conv_size
from reproduction.caffe.layers.quick import borders
from reproduction.caffe.layers.quick.borders import RepeatedBlob
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

DEEP = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 31 dim: 40 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
        convolution_param { num_output: 6 kernel_size: 3 pad: 60 weight_filler { type: "msra" } } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "c2" type: "Convolution" bottom: "c1" top: "c2"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "r2" type: "ReLU" bottom: "c2" top: "c2" relu_param { negative_slope: 0.1 } }
layer { name: "p2" type: "Pooling" bottom: "c2" top: "p2" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "c3" type: "Convolution" bottom: "p2" top: "c3"
        convolution_param { num_output: 5 kernel_h: 5 kernel_w: 3 stride: 2 pad_h: 2 pad_w: 9 dilation: 2
                            weight_filler { type: "msra" } } }
layer { name: "p3" type: "Pooling" bottom: "c3" top: "p3" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "score" type: "Convolution" bottom: "p3" top: "score"
        convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "skip" type: "Convolution" bottom: "p2" top: "skip"
        convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "msra" } } }
"""


def deep() -> Net:
    message = prototxt.loads(DEEP.replace("dilation: 2", "dilation: 2 dilation: 1"), NetParameter)
    return Net(message, seed=3).double()


def run(net: Net, image, blobs=None):
    tops = net({"data": image}, blobs)
    slopes = torch.Generator().manual_seed(1)
    total = sum((top * torch.randn(top.shape, generator=slopes, dtype=top.dtype)).sum() for top in tops.values())
    return tops, torch.autograd.grad(total, list(net.parameters()))


@pytest.fixture
def image():
    return torch.randn(1, 3, 31, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def areas(monkeypatch):
    """The places that windows were slid over, and those that there are."""
    found = []
    slide_windows = borders.slide_windows

    def watched(x, windows, sizes, operate):
        top = slide_windows(x, windows, sizes, operate)
        kept = top.kept if isinstance(top, RepeatedBlob) else top
        found.append((kept.shape[2] * kept.shape[3], sizes[0] * sizes[1]))
        return top

    for module in ("convolution", "pooling"):
        monkeypatch.setattr(f"reproduction.caffe.layers.{module}.slide_windows", watched)
    return found


def test_a_net_computes_less_and_gets_the_same(image, areas, monkeypatch):
    net = deep()
    tops, slopes = run(net, image)
    assert areas[0] < (37 * 46, 149 * 158), "of the padding little is computed"
    assert areas[1][0] < 0.2 * areas[1][1]
    monkeypatch.setattr(borders, "as_repeated", lambda x: x)
    want, want_slopes = run(net, image)
    for got, expected in zip([*tops.values(), *slopes], [*want.values(), *want_slopes], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_blobs_on_the_way_are_whole(image, monkeypatch):
    net = deep()
    names = ["c1", "c2", "p2", "c3", "p3", "score", "skip"]
    tops, _ = run(net, image, names)
    monkeypatch.setattr(borders, "as_repeated", lambda x: x)
    want, _ = run(net, image, names)
    for name in names:
        assert isinstance(tops[name], torch.Tensor)
        torch.testing.assert_close(tops[name], want[name], rtol=1e-12, atol=1e-12)


def test_a_hook_sees_all_of_a_blob(image):
    net, seen = deep(), []
    net.layers["c2"].register_forward_hook(lambda layer, bottoms, tops: seen.append((bottoms[0], tops[0])))
    want = net({"data": image}, ["c2"])["c2"]
    (bottom, top), *_ = seen
    assert bottom.shape == (1, 6, 149, 158)
    assert top.shape == want.shape


def test_the_order_of_caffes_blas_is_that_of_all_places(image, areas):
    net = deep().float()
    net.add_as_blas(True)
    net({"data": image})
    assert all(kept == all_of_them for kept, all_of_them in areas)


WINDOWS = st.builds(Window, st.integers(1, 4), st.integers(1, 3), st.integers(0, 30), st.integers(1, 2))
COUNTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


@settings(deadline=None)
@given(COUNTS, COUNTS, WINDOWS, WINDOWS)
def test_any_windows_over_any_repeats(tall, wide, down, across):
    sizes = [sum(tall), sum(wide)]
    windows = [down, across]
    if any(size + 2 * window.pad < window.extent for size, window in zip(sizes, windows, strict=True)):
        return
    draw = torch.Generator().manual_seed(0)
    kept = torch.randn(1, 2, len(tall), len(wide), generator=draw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, down.kernel, across.kernel, generator=draw, dtype=torch.float64, requires_grad=True)

    def convolve(x, windows):
        stride, pad, dilation = ([getattr(w, name) for w in windows] for name in ("stride", "pad", "dilation"))
        return torch.conv2d(x, weight, None, stride, pad, dilation)

    x = RepeatedBlob(kept, (tuple(tall), tuple(wide)))
    tops = tuple(conv_size(size, window) for size, window in zip(sizes, windows, strict=True))
    got = borders.expand(borders.slide_windows(x, windows, tops, convolve))
    rows, columns = torch.tensor(tall), torch.tensor(wide)
    whole = kept.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    want = convolve(whole, windows)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    slope = torch.randn(want.shape, generator=draw, dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad(got, [kept, weight], slope),
        torch.autograd.grad(want, [kept, weight], slope),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)
