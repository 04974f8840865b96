"""Layers of Synopsys Caffe, held against TensorFlow's definitions, NumPy and OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Message
from tests.helpers.single_layer import gradient, single

Message.import_late_fields()

BILINEAR = 'type: "ResizeBilinear" resize_bilinear_param { %s }'
NEAREST = 'type: "ResizeNearestNeighbor" resize_nearest_neighbor_param { %s }'
NCHW = 'data_format: "NCHW"'


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("size", [(10, 9), (3, 4), (1, 1), (5, 7)])
@pytest.mark.parametrize("mode", ["half_pixel_centers", "pytorch_half_pixel"])
def test_bilinear_resizing_with_half_pixels_is_that_of_torch(size, mode):
    x = noise(2, 3, 5, 7)
    layer = single(BILINEAR % f"output_height: {size[0]} output_width: {size[1]} {mode}: true {NCHW}", (2, 3, 5, 7))
    (top,) = layer(x)
    want = F.interpolate(x, size, mode="bilinear", align_corners=False)
    if size == (1, 1) and mode == "pytorch_half_pixel":  # a single pixel is the first one of the bottom
        want = x[:, :, :1, :1]
    torch.testing.assert_close(top, want)


def test_bilinear_resizing_with_half_pixels_is_that_of_opencv():
    image = noise(5, 7).numpy()
    fields = f"output_height: 9 output_width: 13 half_pixel_centers: true {NCHW}"
    (top,) = single(BILINEAR % fields, (1, 1, 5, 7))(torch.from_numpy(image)[None, None])
    np.testing.assert_allclose(top[0, 0].numpy(), cv2.resize(image, (13, 9)), rtol=0, atol=1e-5)


def test_bilinear_resizing_of_three_axes_is_linear_along_each():
    x = noise(1, 2, 3, 4, 5)
    fields = 'output_height: 5 output_width: 7 output_depth: 9 align_corners: true data_format: "NCHWD"'
    (top,) = single(BILINEAR % fields, (1, 2, 3, 4, 5))(x)
    torch.testing.assert_close(top, F.interpolate(x, (5, 7, 9), mode="trilinear", align_corners=True))


def test_the_size_of_a_resized_blob_is_rounded_down_and_the_default_order_is_height_width_channels():
    layer = single(BILINEAR % "scale_height: 1.4 output_width: 3", (1, 5, 7, 2))
    assert layer.shapes([(1, 5, 7, 2)]) == [(1, 7, 3, 2)]
    x = noise(1, 5, 7, 2)
    other = single(BILINEAR % f"scale_height: 1.4 output_width: 3 {NCHW}", (1, 2, 5, 7))
    assert torch.equal(layer(x)[0], other(x.movedim(3, 1))[0].movedim(1, 3))


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        ("", lambda i, old, new: np.floor(i * old / new)),
        ("align_corners", lambda i, old, new: np.floor(i * (old - 1) / (new - 1) + 0.5)),
        ("half_pixel_centers", lambda i, old, new: np.floor((i + 0.5) * old / new)),
        ("half_pixel_onnx", lambda i, old, new: np.floor((i + 0.5) * old / new - 0.5)),
    ],
)
@pytest.mark.parametrize("new", [4, 7, 16, 33])
def test_the_nearest_pixel_is_that_of_the_rule(mode, rule, new):
    x = torch.arange(8.0).reshape(1, 1, 1, 8)
    fields = f"output_height: 1 output_width: {new} {NCHW}" + (f" {mode}: true" if mode else "")
    (top,) = single(NEAREST % fields, (1, 1, 1, 8))(x)
    want = rule(np.arange(new), 8, new).clip(0, 7)
    assert top.flatten().tolist() == want.tolist()


def test_pad_is_that_of_numpy_and_passes_gradients():
    x = noise(2, 3, 4)
    layer = single(
        'type: "Pad" pad_param { paddings: 1 paddings: 0 paddings: 2 paddings: 1 paddings: 0 paddings: 3 '
        "constant_values: 7 }",
        (2, 3, 4),
    )
    np.testing.assert_array_equal(layer(x)[0].numpy(), np.pad(x.numpy(), [(1, 0), (2, 1), (0, 3)], constant_values=7))
    assert torch.equal(next(gradient(layer, x)), torch.ones_like(x))


# The examples of TensorFlow's documentation.
IMAGES = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])[None, :, :, None]
PARTS = torch.tensor([[[1.0, 3], [9, 11]], [[2, 4], [10, 12]], [[5, 7], [13, 15]], [[6, 8], [14, 16]]])[..., None]
SPACE = 'type: "SpaceToBatchND" space_to_batch_nd_param { %s }'
BATCH = 'type: "BatchToSpaceND" batch_to_space_nd_param { %s }'


def test_blocks_move_to_the_batch_and_back_as_in_tensorflow():
    zero = "paddings: 0 paddings: 0 paddings: 0 paddings: 0"
    there = single(SPACE % f"block_shape: 2 block_shape: 2 {zero}", (1, 4, 4, 1))
    back = single(BATCH % f"block_shape: 2 block_shape: 2 {zero.replace('paddings', 'crops')}", (4, 2, 2, 1))
    assert torch.equal(there(IMAGES)[0], PARTS)
    assert torch.equal(back(PARTS)[0], IMAGES)


def test_paddings_before_the_blocks_are_crops_after_them():
    x = noise(2, 3, 5, 2)
    there = single(
        SPACE % "block_shape: 2 block_shape: 3 paddings: 1 paddings: 0 paddings: 0 paddings: 1", (2, 3, 5, 2)
    )
    (parts,) = there(x)
    assert parts.shape == there.shapes([(2, 3, 5, 2)])[0] == (12, 2, 2, 2)
    back = single(BATCH % "block_shape: 2 block_shape: 3 crops: 1 crops: 0 crops: 0 crops: 1", tuple(parts.shape))
    assert torch.equal(back(parts)[0], x)


@pytest.mark.parametrize("order", ["NCHW", "DCR", "CRD", "NHWC"])
def test_channels_move_to_blocks_as_in_tensorflow_and_onnx(order):
    x = noise(2, 8, 3, 4)
    (n, c, h, w), last = x.shape, order == "NHWC"
    bottom = x.movedim(1, 3) if last else x
    layer = single(
        f'type: "DepthToSpace" depth_to_space_param {{ block_size: 2 data_format: "{order}" }}', tuple(bottom.shape)
    )
    split = x.reshape(n, c // 4, 2, 2, h, w) if order == "CRD" else x.reshape(n, 2, 2, c // 4, h, w).movedim(3, 1)
    want = split.permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
    assert torch.equal(layer(bottom)[0], want.movedim(1, 3) if last else want)


@pytest.mark.parametrize(
    "shapes",
    [[(2, 3, 4), (2, 3, 4)], [(2, 3, 4), (3, 1)], [(4,), (2, 3, 4)], [(2, 3, 4), ()], [(), (2, 3)], [(2, 1), (1, 3)]],
)
@pytest.mark.parametrize(("kind", "operation"), [("Add", torch.add), ("Mul", torch.mul)])
def test_sums_and_products_broadcast(kind, operation, shapes):
    bottoms = [noise(*shape) for shape in shapes]
    layer = single(f'type: "{kind}"', *shapes)
    want = operation(*bottoms)
    assert layer.shapes(list(shapes)) == [tuple(want.shape)]
    assert torch.equal(layer(*bottoms)[0], want)


def test_a_product_with_one_bottom_has_a_blob():
    layer = single('type: "Mul" mul_param { mul_shape: 3 mul_shape: 1 }', (2, 3, 4))
    assert not layer(noise(2, 3, 4))[0].any()
    layer.blobs[0].data.fill_(2)
    assert torch.equal(layer(noise(2, 3, 4))[0], 2 * noise(2, 3, 4))


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        (
            BILINEAR % "align_corners: true half_pixel_centers: true",
            [(1, 2, 2, 1)],
            "pixels can lie in one way only; got ['align_corners', 'half_pixel_centers'], want at most one of them.",
        ),
        (
            NEAREST % 'data_format: "NCHWD"',
            [(1, 2, 2, 1)],
            "the data format is unknown; got 'NCHWD', want NHWC or NCHW.",
        ),
        (BILINEAR % "output_height: -1", [(1, 2, 2, 1)], "the height of the top must be positive; got -1."),
        (BILINEAR % "output_height: 3", [(1, 2, 2)], "the bottom must have the axes NHWC; got (1, 2, 2)."),
        (
            'type: "Pad" pad_param { paddings: 1 paddings: 1 }',
            [(1, 2)],
            "there must be two paddings for each axis; got 2, want 4.",
        ),
        (
            'type: "Squeeze" squeeze_param { axis: 1 }',
            [(1, 2)],
            "only an axis of size 1 can be removed; got axis 1 of (1, 2).",
        ),
        ('type: "Squeeze" squeeze_param { axis: 2 }', [(1, 2)], "there is no such axis; got 2, want -2 to 1."),
        (
            'type: "Squeeze" bottom: "a" top: "a"',
            [(1, 2)],
            "Squeeze layers cannot work in place; got top 'a' for both.",
        ),
        (SPACE % "block_shape: 2", [(1, 4)], "there must be two paddings for each block; got 0, want 2."),
        (SPACE % "block_shape: 0 paddings: 0 paddings: 0", [(1, 4)], "block_shape must be positive; got [0]."),
        (
            SPACE % "block_shape: 3 paddings: 0 paddings: 1",
            [(1, 4)],
            "blocks do not divide axis 1; got 4 + 1, want a multiple of 3.",
        ),
        (
            SPACE % "block_shape: 3 paddings: 0 paddings: 1",
            [(1,)],
            "the bottom has too few axes for the blocks; got (1,), want at least 2.",
        ),
        (
            BATCH % "block_shape: 3 crops: 0 crops: 0",
            [(4, 4)],
            "blocks do not divide the batch; got 4, want a multiple of 3.",
        ),
        (BATCH % "block_shape: 2 crops: 4 crops: 4", [(4, 4)], "the crops remove all of axis 1; got (4, 4)."),
        (
            'type: "DepthToSpace" depth_to_space_param { block_size: 2 }',
            [(1, 2, 2, 6)],
            "blocks do not divide the channels; got 6, want a multiple of 4.",
        ),
        ('type: "DepthToSpace"', [(1, 2, 2, 6)], "block_size must be positive; got 0."),
        (
            'type: "Mul"',
            [(2, 3), (2, 2)],
            "the bottoms do not broadcast; got (2, 3) and (2, 2), want equal sizes, or 1.",
        ),
        (
            'type: "Add" bottom: "a" bottom: "b" top: "a"',
            [(2,), (2,)],
            "Add layers cannot work in place; got top 'a' for both.",
        ),
    ],
)
def test_what_the_fork_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as raised:
        single(text, *shapes).shapes(list(shapes))
    assert str(raised.value) == error
