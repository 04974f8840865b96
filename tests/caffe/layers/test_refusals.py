"""What Caffe refuses in layers of small families is an error; their gradients are the derivatives."""

import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.helpers.single_layer import single


def randomise(layer):
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


@pytest.mark.parametrize(
    ("text", "bottoms"),
    [
        ('type: "InnerProduct" inner_product_param { num_output: 3 }', [(2, 3, 2)]),
        (
            'type: "InnerProduct" inner_product_param { num_output: 3 axis: 2 transpose: true bias_term: false }',
            [(2, 3, 2)],
        ),
        ('type: "Eltwise" eltwise_param { operation: PROD }', [(2, 3)] * 3),
        ('type: "Eltwise" eltwise_param { coeff: 2 coeff: -0.5 }', [(2, 3)] * 2),
        ('type: "Eltwise" eltwise_param { operation: MAX }', [(2, 3)] * 3),
        ('type: "Reduction" reduction_param { operation: SUMSQ axis: 1 coeff: 0.3 }', [(2, 3, 2)]),
        ('type: "Reduction" reduction_param { operation: MEAN coeff: 0.3 }', [(2, 3, 2)]),
        ('type: "Softmax" softmax_param { axis: -2 }', [(2, 3, 2)]),
    ],
)
def test_gradients_are_the_derivatives(text, bottoms):
    layer = randomise(single(text, *bottoms)).double()
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in bottoms]
    assert torch.autograd.gradcheck(lambda *x: layer(*x[: len(bottoms)])[0], (*leaves, *layer.blobs))


PRODUCT, ELTWISE = 'type: "InnerProduct" inner_product_param { %s }', 'type: "Eltwise" eltwise_param { %s }'


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        (PRODUCT % "axis: 1", [(1, 3)], "num_output must be positive; got 0."),
        (PRODUCT % "num_output: 2 axis: 2", [(1, 3)], "there is no such axis; got 2, want -2 to 1."),
        ('type: "Embed" embed_param { num_output: 2 }', [(1,)],
         "input_dim must be positive; got 0."),
        (ELTWISE % "", [(1, 3)], "wrong number of bottoms; got 1, want at least 2."),
        (ELTWISE % "", [(1, 3), (3, 1)], "bottom 1 differs in shape from bottom 0; got (3, 1), want (1, 3)."),
        (ELTWISE % "coeff: 1", [(1, 3)] * 2, "coeff must be given once for each bottom; got 1, want 2."),
        (ELTWISE % "operation: PROD coeff: 1 coeff: 1", [(1, 3)] * 2, "coeff is for operation SUM; got PROD."),
        ('type: "Reduction" reduction_param { axis: -3 }', [(1, 3)], "there is no such axis; got -3, want -2 to 1."),
        ('type: "Softmax" softmax_param { axis: 2 }', [(1, 3)], "there is no such axis; got 2, want -2 to 1."),
        ('type: "ArgMax" argmax_param { top_k: 4 }', [(1, 3)], "top_k is out of range; got 4, want 1..3."),
        ('type: "ArgMax" argmax_param { top_k: 0 axis: 0 }', [(2, 3)], "top_k is out of range; got 0, want 1..2."),
        ('type: "ArgMax"', [()], "the bottom has no axes; got ()."),
        ('type: "Accuracy"', [(2, 3, 4), (2, 3)],
         ("the number of labels must match the number of predictions; got labels (2, 3) for predictions (2, 3, 4), "
         "want 8 labels, one for each position outside axis 1.")),
        ('type: "Accuracy" accuracy_param { top_k: 4 }', [(2, 3), (2,)],
         "top_k is more than there are classes; got 4, want at most 3."),
        ('type: "LRN" lrn_param { local_size: 4 }', [(1, 3, 4, 4)], "local_size must be odd; got 4."),
        ('type: "LRN"', [(3, 4)], "the bottom must have 4 axes (N, C, H, W); got (3, 4)."),
        ('type: "Crop" crop_param { offset: 2 }', [(1, 3, 5, 5), (1, 3, 4, 3)],
         "the crop is past the end of axis 2; got offset 2 + size 4, want at most 5."),
        ('type: "Crop" crop_param { offset: 2 offset: 1 offset: 1 }', [(1, 3, 5, 5), (1, 3, 1, 1)],
         "offset must be given once, or once for each axis cut; got 3, want 1 or 2."),
        ('type: "Crop"', [(1, 3, 5, 5), (5, 5)],
         "bottom 1 must have as many axes as bottom 0; got (5, 5), want 4 axes."),
        ('type: "Crop" crop_param { axis: 4 }', [(1, 3, 5, 5), (1, 3, 5, 5)],
         "there is no such axis; got 4, want -4 to 3."),
        ('type: "Crop"', [(1, 3, 5, 5)], "wrong number of bottoms; got 1, want 2."),
        ('type: "Split" bottom: "a" top: "b" top: "a"', [(1, 3)],
         "Split layers cannot work in place; got top 'a' for both."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error
