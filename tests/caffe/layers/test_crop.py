"""Crop and Split, in cases that were not recorded from Caffe."""

import torch

from tests.helpers.single_layer import gradient, single


def test_crop_reads_only_the_shape_of_its_second_bottom():
    layer = single('type: "Crop" crop_param { axis: 2 offset: 1 }', (1, 2, 5, 5), (1, 9, 3, 2))
    x, size = torch.rand(1, 2, 5, 5), torch.full((1, 9, 3, 2), torch.nan)
    assert torch.equal(layer(x, size)[0], x[:, :, 1:4, 1:3])
    data_diff, size_diff = gradient(layer, x, size)
    assert data_diff.sum() == 2 * 3 * 2
    assert not size_diff.any()


def test_split_adds_the_gradients_of_its_tops():
    layer = single('type: "Split" top: "a" top: "b" top: "c"', (2, 3))
    x = torch.rand(2, 3, requires_grad=True)
    sum(weight * top.sum() for weight, top in enumerate(layer(x), 1)).backward()
    assert torch.equal(x.grad, torch.full((2, 3), 6.0))
