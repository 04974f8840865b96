"""Kernels for parts of layers, compared with the layers."""

import platform

import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.formats import prototxt
from reproduction.caffe.geometry import Window
from reproduction.caffe.layers.lrn import LRN
from reproduction.caffe.layers.pooling import max_pool
from reproduction.caffe.schema import LayerParameter
from reproduction.fast import deconvolution, kernels, precisions
from reproduction.fast.buffers import BufferPool
from reproduction.fast.regions import PixelRange, Region
from tests.golden import seeded
from tests.helpers.parity import relative

BUFFERS = BufferPool(torch.float32, torch.device("cpu"))


def bilinear(channels, size, group=1):
    shape = (channels, channels // group, size, size)
    return torch.from_numpy(seeded.make_weight("up", 0, shape, bilinear=True))


@pytest.mark.parametrize("group", [1, 5])
@pytest.mark.parametrize(("size", "stride", "pad"), [(4, 2, 0), (16, 8, 3), (3, 3, 1)])
def test_upsampling_by_two_products_is_the_deconvolution(group, size, stride, pad):
    weight, bias, x = bilinear(5, size, group), torch.randn(5), torch.randn(2, 5, 9, 7)
    want = F.conv_transpose2d(x, weight, bias, stride, pad, groups=group)
    top = Region(PixelRange(1, want.shape[2] - 2), PixelRange(2, want.shape[3]))
    bottom = Region(PixelRange(0, 9), PixelRange(0, 7))
    window = Window(size, stride, pad)
    factors = deconvolution.factor_kernel(weight, group)
    assert factors is not None
    up = deconvolution.Upsampling(factors, (window, window), bottom, top, bias)
    (got,) = up([x], None, BUFFERS)
    assert relative(got.numpy(), want[:, :, 1:-2, 2:].numpy()) < 1e-6


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w[0, 1].fill_(0.1),  # mixes channels
        lambda w: w[1, 1].mul_(2),  # one channel is not like the others
        lambda w: w[:, :, 0, 0].add_(torch.eye(3)),  # not separable
        lambda w: w.zero_(),
        lambda w: w[0, 0, 0, 0].fill_(float("nan")),
    ],
)
def test_only_separable_kernels_that_are_equal_for_all_channels_are_factored(spoil):
    weight = bilinear(3, 4)
    assert deconvolution.factor_kernel(weight, 1) is not None
    spoil(weight)
    assert deconvolution.factor_kernel(weight, 1) is None
    assert deconvolution.factor_kernel(torch.ones(4, 6, 4, 4), 1) is None


@pytest.mark.parametrize(("group", "window"), [(1, Window(3)), (2, Window(5, 2)), (1, Window(3, 1, 0, 2))])
def test_torch_convolution_computes_the_same_in_bands_and_memory_formats(monkeypatch, group, window):
    weight, bias, x = torch.randn(8, 6 // group, *[window.kernel] * 2), torch.randn(8), torch.randn(2, 6, 15, 18)
    made = kernels.TorchConvolution(weight, bias, [window] * 2, group, relu=True, dtype=torch.float32)
    want = F.conv2d(x, weight, bias, window.stride, 0, window.dilation, group).relu()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        held = F.pad(x, (1, 2, 3, 4)).contiguous(memory_format=memory_format)
        (got,) = made([held[:, :, 3:-4, 1:-2]], None, BUFFERS)
        assert relative(got.numpy(), want.numpy()) < 2e-6
        for values in (1, 3 * 2 * 8 * want.shape[3], 1 << 20):  # one row at a time, three, all
            monkeypatch.setattr(kernels, "BAND_VALUES", values)
            room = torch.full_like(want, 7.0)
            assert made([held[:, :, 3:-4, 1:-2]], room, BUFFERS)[0] is room
            assert relative(room.numpy(), want.numpy()) < 2e-6


@pytest.mark.parametrize(("group", "window"), [(1, Window(3, 2, 1)), (5, Window(2, 2)), (1, Window(3, 1, 0, 2))])
def test_deconvolution_in_channels_last_format_is_that_of_torch(group, window):
    weight, bias, x = torch.randn(5, 10 // group, *[window.kernel] * 2), torch.randn(10), torch.randn(2, 5, 9, 7)
    options = (window.stride, window.pad, 0, group, window.dilation)
    want = F.conv_transpose2d(x, weight, bias, *options)
    room = torch.empty_like(want)
    for out in (None, room):
        (got,) = deconvolution.TorchDeconvolution(weight, bias, [window] * 2, group)([x], out, BUFFERS)
        assert relative(got.numpy(), want.numpy()) < 2e-6
    assert got is room


def test_a_matrix_convolution_in_bfloat16_is_exact_to_its_eight_bits():
    weight, bias, x = torch.randn(512, 6, 3, 3), torch.randn(512), torch.randn(1, 6, 15, 18)
    made = kernels.MatrixConvolution(weight, bias, [Window(3)] * 2, relu=True, dtype=torch.bfloat16)
    (got,) = made([x], None, BUFFERS)
    assert got.dtype is torch.bfloat16
    assert relative(got.float().numpy(), F.conv2d(x, weight, bias).relu().numpy()) < 2e-2


@pytest.mark.parametrize("at_a_time", [1, 1 << 20])
@pytest.mark.parametrize("outputs", [10, 96])
@pytest.mark.parametrize("windows", [[Window(1)] * 2, [Window(3), Window(2, 2)], [Window(2, 1, 0, 3), Window(3, 3)]])
def test_matrix_convolution_computes_the_same_as_torch(monkeypatch, at_a_time, outputs, windows):
    monkeypatch.setattr(kernels, "_IM2COL_VALUES", at_a_time)  # values: one row of outputs, or all
    monkeypatch.setattr(kernels, "_LEAST_OUTPUTS", 16)
    weight, bias = torch.randn(outputs, 6, *(window.kernel for window in windows)), torch.randn(outputs)
    x = torch.randn(2, 6, 15, 18)
    for bias_too, relu in [(bias, True), (None, False)]:
        made = kernels.MatrixConvolution(weight, bias_too, windows, relu=relu, dtype=torch.float32)
        assert made.weight.shape[0] == (6 if outputs == 96 else 1)
        stride, dilation = ([getattr(window, name) for window in windows] for name in ("stride", "dilation"))
        want = F.conv2d(x, weight, bias_too, stride, 0, dilation)
        want = want.relu() if relu else want
        for memory_format in (torch.contiguous_format, torch.channels_last):
            held = F.pad(x, (1, 2, 3, 4)).contiguous(memory_format=memory_format)
            (got,) = made([held[:, :, 3:-4, 1:-2]], None, BUFFERS)
            assert relative(got.numpy(), want.numpy()) < 2e-6
            room = torch.full_like(want, 7.0)
            assert made([x], room, BUFFERS)[0] is room
            assert relative(room.numpy(), want.numpy()) < 2e-6


@pytest.mark.parametrize(
    ("machine", "supported", "processor", "want"),
    [
        ("x86_64", True, {"_is_amx_tile_supported"}, True),
        ("AMD64", True, {"_is_avx512_bf16_supported"}, True),
        ("x86_64", True, set(), False),  # AVX-512 alone: torch would convert back and forth
        ("x86_64", False, {"_is_amx_tile_supported"}, False),
        ("aarch64", True, set(), True),
    ],
)
def test_bf16_is_supported_by_processors_that_multiply_bfloat16(monkeypatch, machine, supported, processor, want):
    monkeypatch.setattr(precisions, "_convolves_bf16", lambda: supported)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in processor, raising=False)
    assert precisions.multiplies_bf16() == want


@pytest.mark.parametrize("size", [(7, 10), (8, 9), (2, 2)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 1)])
def test_pooling_in_bands_computes_the_same_as_torch(monkeypatch, size, kernel, stride):
    x = torch.randn(2, 5, *size)
    if min(size) < kernel:
        x = F.pad(x, (0, 1, 0, 1))
    want = F.max_pool2d(x, kernel, stride, ceil_mode=True)
    regions = (Region(*(PixelRange(0, length) for length in blob.shape[2:])) for blob in (x, want))
    pool = kernels.MaxPool((Window(kernel, stride),) * 2, *regions)
    for values in (1, 2 * 2 * 5 * want.shape[3], 1 << 20):  # one row at a time, two, all
        monkeypatch.setattr(kernels, "BAND_VALUES", values)
        room = torch.full_like(want, float("nan"))
        assert pool([x], room, BUFFERS)[0] is room
        assert torch.equal(room, want)
    assert torch.equal(pool([x], None, BUFFERS)[0], want)


@pytest.mark.parametrize("top", [(0, 10), (0, 4), (2, 4), (1, 10)])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (2, 1, 1), (5, 3, 2)])
def test_pooling_with_padding_computes_regions_of_the_whole(kernel, stride, pad, top):
    x, windows = torch.randn(2, 5, 11, 10), (Window(kernel, stride, pad),) * 2
    want, _ = max_pool(x, windows)
    whole, blob = (Region(*(PixelRange(0, length) for length in each.shape[2:])) for each in (want, x))
    part = Region(PixelRange(*top), PixelRange(*top)) & whole
    read = part.read_by(windows) & blob
    rows, columns = read.slices_in(blob)
    found = kernels.MaxPool(windows, read, part)([x[:, :, rows, columns]], None, BUFFERS)[0]
    rows, columns = part.slices_in(whole)
    assert torch.equal(found, want[:, :, rows, columns])


@pytest.mark.parametrize(("size", "beta"), [(3, 0.75), (5, 0.5), (9, 0.75)])
def test_normalization_over_channels_is_that_of_the_layer(size, beta):
    text = f"local_size: {size} alpha: 0.3 beta: {beta} k: 2"
    text = f'type: "LRN" name: "norm" bottom: "x" top: "norm" lrn_param {{ {text} }}'
    x = torch.randn(2, 7, 5, 6)
    layer = LRN(prototxt.loads(text, LayerParameter), [tuple(x.shape)], None)
    form = layer.compiled_form([tuple(x.shape)])
    found = kernels.ChannelNormalization(form)([x.to(memory_format=torch.channels_last)], None, BUFFERS)[0]
    assert relative(found.numpy(), layer(x)[0].numpy()) < 1e-6
