"""ONNX Runtime computes from the ONNX forms of segmentation layers what the layers compute."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Message
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import single

Message.import_late_fields()

IMAGES = (2, 3, 5, 7)
BN = 'type: "BN" bn_param { %s }'
RESIZE = 'data_format: "%s" output_height: 9 output_width: 4'


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        *(
            (f'type: "Interp" interp_param {{ {fields} }}', [IMAGES])
            for fields in (
                "height: 9 width: 4", "zoom_factor: 3", "shrink_factor: 2", "shrink_factor: 2 zoom_factor: 2",
                "full_zoom_factor: 2", "zoom_factor: 2 pad_beg: -1", "height: 1 width: 1 pad_end: -2",
                "height: 5 width: 7",
            )
        ),
        (BN % "slope_filler { value: 2 } bias_filler { value: 1 } eps: 0.01", [IMAGES]),
        (BN % "slope_filler { value: 2 } bias_filler { value: 1 } frozen: true", [(2, 3)]),
        (BN % "scale_filler { value: 2 } shift_filler { value: 1 } bn_mode: INFERENCE", [IMAGES]),
        (BN % "scale_filler { value: 2 } shift_filler { value: 1 } bn_mode: LEARN", [IMAGES]),
        *(
            (f'type: "ResizeBilinear" resize_bilinear_param {{ {fields} }}', [IMAGES])
            for fields in (
                RESIZE % "NCHW", RESIZE % "NHWC", f"{RESIZE % 'NCHW'} align_corners: true",
                f"{RESIZE % 'NCHW'} half_pixel_centers: true", f"{RESIZE % 'NCHW'} pytorch_half_pixel: true",
                'data_format: "NCHW" scale_height: 2 scale_width: 1.7',
            )
        ),
        (
            ('type: "ResizeBilinear" resize_bilinear_param { data_format: "NCHWD" scale_height: 2 output_width: 3 '
            "output_depth: 9 align_corners: true }"),
            [(1, 2, 3, 4, 5)],
        ),
        *(
            (f'type: "ResizeNearestNeighbor" resize_nearest_neighbor_param {{ {fields} }}', [IMAGES])
            for fields in (
                RESIZE % "NCHW", RESIZE % "NHWC", f"{RESIZE % 'NCHW'} align_corners: true",
                f"{RESIZE % 'NCHW'} half_pixel_centers: true", f"{RESIZE % 'NCHW'} half_pixel_onnx: true",
                'data_format: "NHWC" scale_height: 2 scale_width: 1.7',
            )
        ),
        ('type: "Pad" pad_param { paddings: 1 paddings: 0 paddings: 2 paddings: 1 constant_values: 7 }', [(2, 3)]),
        ('type: "Squeeze" squeeze_param { axis: -1 }', [(2, 3, 1)]),
        ('type: "Squeeze"', [(1, 3, 1)]),
        ('type: "DepthToSpace" depth_to_space_param { block_size: 2 }', [(1, 3, 2, 8)]),
        ('type: "DepthToSpace" depth_to_space_param { block_size: 2 data_format: "NCHW" }', [(1, 8, 3, 2)]),
        ('type: "DepthToSpace" depth_to_space_param { block_size: 2 data_format: "CRD" }', [(1, 8, 3, 2)]),
        ('type: "Add"', [(2, 3, 4), (3, 1)]),
        ('type: "Mul"', [(3, 1), (2, 3, 4)]),
        ('type: "Mul" mul_param { mul_shape: 3 mul_shape: 1 }', [(2, 3, 4)]),
    ],
)  # fmt: skip
def test_a_layer_computes_the_same(text, shapes):
    layer = single(text, *shapes)
    generator = torch.Generator().manual_seed(0)
    for blob in layer.blobs:
        blob.data.uniform_(0.5, 2, generator=generator)
    got, want = run_onnx(layer, [torch.randn(shape, generator=generator) for shape in shapes])
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("fields", ["scale: 2", "scale_h: 2 scale_w: 2 pad_out_w: true", "upsample_h: 6 upsample_w: 7"])
def test_upsample_writes_to_the_same_places(fields):
    size = (6, 8) if fields == "scale: 2" else (6, 7)
    layer = single(f'type: "Upsample" upsample_param {{ {fields} }}', (2, 3, 3, 4), (2, 3, 3, 4))
    generator = torch.Generator().manual_seed(0)
    pooled, mask = torch.nn.functional.max_pool2d(
        torch.randn(2, 3, *size, generator=generator), 2, ceil_mode=True, return_indices=True
    )
    got, want = run_onnx(layer, [pooled, mask.float()])
    np.testing.assert_array_equal(got[0], want[0])


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "Interp" interp_param { zoom_factor: 2 }', [(2, 3)],
         "a bottom without four axes cannot be written as ONNX; got (2, 3)."),
        (f'{BN % "bn_mode: LEARN"} top: "a" top: "b"', [IMAGES],
         "the statistics of the batch cannot be written as ONNX. Remove tops 1 and 2."),
        ('type: "Dropout" dropout_param { sample_weights_test: true }', [IMAGES],
         "dropout in testing cannot be written as ONNX. Remove sample_weights_test from the layer."),
    ],
)  # fmt: skip
def test_what_has_no_operator_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as raised:
        run_onnx(single(text, *shapes), [torch.zeros(shape) for shape in shapes])
    assert str(raised.value) == error
