"""ROIPooling and PSROIPooling equal loops over the pixels of each bin, and OpenCV."""

import math

import cv2
import numpy as np
import pytest
import torch

from reproduction.caffe.dialects.rfcn.psroi_pooling import PSROIPooling, PSROIPoolingParameter
from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import LayerParameter
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import single

LEAST = -float(np.finfo(np.float32).max)


def round_half_away(x):
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def draw_rois(images, height, width, count, seed=0):
    """Return RoIs that lie inside, reach outside, lie outside, are empty, and end before they start."""
    rng = np.random.RandomState(seed)
    corners = rng.uniform(-0.4, 1.4, (count, 4)) * [width, height, width, height]
    corners[count // 2 :: 3] = np.round(corners[count // 2 :: 3] * 2) / 2  # halves, which are rounded away from zero
    rois = np.column_stack([rng.randint(0, images, count), corners]).astype(np.float32)
    rois[1, 3:] = rois[1, 1:3] - 20
    rois[2, 1:] = [width * 3, height * 3, width * 4, height * 4]
    return rois


def bin_edges(start, end, bins, pixels):
    size = np.float32(max(end - start + 1, 1)) / np.float32(bins)
    for index in range(bins):
        first = int(np.floor(np.float32(index) * size)) + start
        last = int(np.ceil(np.float32(index + 1) * size)) + start
        yield min(max(first, 0), pixels), min(max(last, 0), pixels)


def pool_by_loops(features, rois, tall, wide, scale):
    """Return the top of ROIPooling, and the position of each maximum, or -1."""
    top = np.zeros((len(rois), features.shape[1], tall, wide), np.float32)
    best = np.full(top.shape, -1)
    for r, roi in enumerate(rois):
        x1, y1, x2, y2 = (round_half_away(each) for each in roi[1:] * np.float32(scale))
        for i, (above, below) in enumerate(bin_edges(y1, y2, tall, features.shape[2])):
            for j, (left, right) in enumerate(bin_edges(x1, x2, wide, features.shape[3])):
                if below <= above or right <= left:
                    continue
                for c, plane in enumerate(features[int(roi[0])]):
                    top[r, c, i, j] = LEAST
                    for y in range(above, below):
                        for x in range(left, right):
                            if plane[y, x] > top[r, c, i, j]:
                                top[r, c, i, j], best[r, c, i, j] = plane[y, x], y * features.shape[3] + x
    return top, best


def roi_layer(features, rois, *, tall=3, wide=4, scale=0.5):
    text = f'type: "ROIPooling" roi_pooling_param {{ pooled_h: {tall} pooled_w: {wide} spatial_scale: {scale} }}'
    return single(text, features.shape, rois.shape)


@pytest.mark.parametrize(("tall", "wide", "scale"), [(7, 7, 0.5), (3, 4, 0.5), (6, 5, 0.25), (1, 2, 1)])
def test_roi_pooling_equals_a_loop_over_the_pixels_of_each_bin(tall, wide, scale):
    features = np.random.RandomState(1).randint(0, 9, (2, 3, 8, 9)).astype(np.float32) - 4  # with equal values
    features[0, 0, 2:4], features[1, 2, :, 3] = np.nan, -np.inf
    rois = draw_rois(2, 8 / scale, 9 / scale, 24)
    layer = roi_layer(features, rois, tall=tall, wide=wide, scale=scale)
    x = torch.from_numpy(features).requires_grad_()
    (top,) = layer(x, torch.from_numpy(rois))
    want, best = pool_by_loops(features, rois, tall, wide, scale)
    np.testing.assert_array_equal(top.detach(), want)
    with torch.no_grad():
        np.testing.assert_array_equal(layer(x, torch.from_numpy(rois[:, :, None, None]))[0], want)

    diffs = np.random.RandomState(2).randint(-8, 9, top.shape).astype(np.float32)
    top.backward(torch.from_numpy(diffs))
    gradient = np.zeros_like(features).reshape(2, 3, -1)
    for r, c, i, j in np.argwhere(best >= 0):
        x1, y1, x2, y2 = (round_half_away(each) for each in rois[r, 1:] * np.float32(scale))
        if x2 >= x1 and y2 >= y1:  # of a RoI that ends before it starts, nothing is learned
            gradient[int(rois[r, 0]), c, best[r, c, i, j]] += diffs[r, c, i, j]
    np.testing.assert_array_equal(x.grad, gradient.reshape(features.shape))


def test_a_pixel_that_only_rounding_puts_into_a_bin_gets_no_gradient():
    # Seven bins of 57 / 7 pixels: in single precision they end above 57, so that the last one reads a pixel more.
    assert np.float32(7) * (np.float32(57) / np.float32(7)) > 57
    features = torch.zeros(1, 1, 1, 60)
    features[..., 57] = 1
    features.requires_grad_()
    rois = torch.tensor([[0.0, 0, 0, 56, 0]])
    (top,) = roi_layer(features, rois, tall=1, wide=7, scale=1)(features, rois)
    assert top.flatten().tolist() == [0] * 6 + [1]
    top.sum().backward()
    assert features.grad[..., 57] == 0
    assert features.grad.sum() == 6


def test_roi_pooling_equals_onnx_runtimes():
    features, rois = torch.randn(2, 5, 8, 9), torch.from_numpy(draw_rois(2, 16, 18, 40))
    (got,), (want,) = run_onnx(roi_layer(features, rois, tall=7, wide=7), [features, rois])
    np.testing.assert_array_equal(got, want)


PSROI = 'type: "PSROIPooling" psroi_pooling_param { spatial_scale: %s output_dim: %d group_size: %d }'


def pool_positions_by_loops(features, rois, dim, size, scale):
    top = np.zeros((len(rois), dim, size, size))
    scale = np.float32(scale)
    for r, roi in enumerate(rois):
        starts = [np.float32(round_half_away(each)) * scale for each in roi[1:3]]
        ends = [np.float32(round_half_away(each) + 1) * scale for each in roi[3:]]
        width, height = (
            np.float32(max(float(np.float32(end - start)), 0.1)) / np.float32(size)
            for start, end in zip(starts, ends, strict=True)
        )
        for i in range(size):
            above = int(min(max(np.floor(np.float32(i) * height + starts[1]), 0), features.shape[2]))
            below = int(min(max(np.ceil(np.float32(i + 1) * height + starts[1]), 0), features.shape[2]))
            for j in range(size):
                left = int(min(max(np.floor(np.float32(j) * width + starts[0]), 0), features.shape[3]))
                right = int(min(max(np.ceil(np.float32(j + 1) * width + starts[0]), 0), features.shape[3]))
                for c in range(dim if below > above and right > left else 0):
                    plane = features[int(roi[0]), (c * size + i) * size + j]
                    top[r, c, i, j] = plane[above:below, left:right].mean(dtype=np.float64)
    return top


@pytest.mark.parametrize(("dim", "size", "scale"), [(2, 3, 0.0625), (4, 2, 0.5), (5, 1, 0.25)])
def test_psroi_pooling_equals_a_loop_over_the_bins(dim, size, scale):
    features = np.random.RandomState(1).randn(2, dim * size**2, 8, 9).astype(np.float32)
    rois = draw_rois(2, 8 / scale, 9 / scale, 24)
    layer = single(PSROI % (scale, dim, size), features.shape, rois.shape)
    (top,) = layer(torch.from_numpy(features), torch.from_numpy(rois))
    np.testing.assert_allclose(top, pool_positions_by_loops(features, rois, dim, size, scale), rtol=1e-6, atol=1e-6)
    double = torch.from_numpy(features).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, torch.from_numpy(rois).double())[0], double, fast_mode=True)


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ('type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }', 4),
        ('type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 }', 18),
    ],
)
def test_pooling_of_regions_equals_opencvs(text, channels):
    features = np.random.RandomState(3).randn(1, channels, 9, 12).astype(np.float32)
    rois = np.abs(draw_rois(1, 36, 48, 12)[3:]) % 30
    rois[:, 0], rois[:, 3:] = 0, rois[:, 3:] + rois[:, 1:3]
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {size}" for size in x.shape)
        + " } } }\n"
        for name, x in (("x", features), ("rois", rois))
    )
    text = inputs + f'layer {{ name: "p" {text} bottom: "x" bottom: "rois" top: "p" }}'
    peer = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    peer.setInput(features, "x")
    peer.setInput(rois, "rois")
    body = text[text.index('type: "', text.index('name: "p"')) : -2]
    (top,) = single(body, features.shape, rois.shape)(torch.from_numpy(features), torch.from_numpy(rois))
    np.testing.assert_allclose(top, peer.forward("p"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        (
            'type: "ROIPooling" roi_pooling_param { pooled_h: 7 }',
            [(1, 2, 8, 9), (3, 5)],
            "pooled_h and pooled_w must be positive; got 7 and 0.",
        ),
        (PSROI % (1, 0, 3), [(1, 18, 8, 9), (3, 5)], "output_dim must be positive; got 0."),
    ],
)
def test_a_wrong_setting_is_an_error(text, shapes, message):
    with pytest.raises(NetError) as error:
        single(text, *shapes)
    assert str(error.value) == message


def test_a_required_field_must_be_set_in_a_message_too():
    layer_param = LayerParameter(name="p", type="PSROIPooling", bottom=["x", "rois"], top=["p"])
    param = PSROIPoolingParameter(output_dim=2, group_size=3)
    layer_param.field("psroi_pooling_param").__set__(layer_param, param)
    with pytest.raises(NetError, match=r"^psroi_pooling_param\.spatial_scale is missing\.$"):
        PSROIPooling(layer_param, [(1, 18, 8, 9), (3, 5)])


def test_rois_that_do_not_fit_are_an_error():
    layer = single(PSROI % (1, 2, 3), (1, 18, 8, 9), (3, 5))
    with pytest.raises(NetError, match=r"^the channels must be output_dim \* .*; got 17, want 18\.$"):
        layer.shapes([(1, 17, 8, 9), (3, 5)])
    with pytest.raises(NetError, match=r"^each RoI is .*; got \(3, 4\), want \(R, 5\)\.$"):
        layer.shapes([(1, 18, 8, 9), (3, 4)])
    with pytest.raises(NetError, match=r"^a RoI lies in an image that is not there; got 1, want 0\.\.0\.$"):
        layer(torch.zeros(1, 18, 8, 9), torch.tensor([[0.0, 0, 0, 5, 5], [1, 0, 0, 5, 5]]))


def test_no_rois_give_an_empty_top():
    features = torch.zeros(1, 18, 8, 9)
    assert single(PSROI % (1, 2, 3), (1, 18, 8, 9), (3, 5)).run(features, torch.zeros(0, 5))[0].shape == (0, 2, 3, 3)
    assert roi_layer(features, torch.zeros(3, 5)).run(features, torch.zeros(0, 5))[0].shape == (0, 18, 3, 4)
