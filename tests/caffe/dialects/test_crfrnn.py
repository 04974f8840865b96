"""CRF-RNN's mean field inference and its lattice, where no recorded case covers them."""

import numpy as np
import pytest
import torch

from reproduction.caffe.dialects.crfrnn.permutohedral import PermutohedralLattice
from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Message
from tests.helpers.single_layer import single

Message.import_late_fields()

FIELDS = "num_iterations: 3 theta_alpha: 9 theta_beta: 8 theta_gamma: 3"
LAYER = 'type: "MultiStageMeanfield" multi_stage_meanfield_param { %s }'


def bottoms(images=1, classes=3, height=5, width=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shape = (images, classes, height, width)
    unary, first = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    return unary, first, torch.rand(images, 3, height, width, generator=generator, dtype=dtype) * 255 - 128


def test_the_lattice_is_close_to_a_gaussian_filter():
    rows, columns = np.mgrid[:40, :40].reshape(2, -1)
    lattice = PermutohedralLattice(np.stack([columns, rows], 1) / 3)
    values = torch.rand(1600, 2, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1600, 1)
    distance = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    kernel = torch.from_numpy(np.exp(-distance / 18)).float()
    got = lattice.filter(values) / lattice.filter(ones)
    want = kernel @ values / kernel.sum(1, keepdim=True)
    inner = (rows > 8) & (rows < 32) & (columns > 8) & (columns < 32)
    assert (got - want)[inner].abs().max() < 0.03
    assert (values - 0.5)[inner].abs().max() > 0.4


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_the_gradient_of_the_filter_is_its_transpose(dimensions):
    generator = torch.Generator().manual_seed(dimensions)
    lattice = PermutohedralLattice(torch.rand(30, dimensions, generator=generator) * 4)
    lattice = lattice.to(torch.empty(0, dtype=torch.float64))
    values, others = (torch.randn(30, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    values.requires_grad_()
    (lattice.filter(values) * others).sum().backward()
    assert torch.allclose((values.grad * values).sum(), (lattice.filter(values) * others).sum())
    assert torch.autograd.gradcheck(lattice.filter, values)


def test_points_that_fill_a_group_of_four_add_vertices_at_the_origin():
    far = np.full((4, 2), 50, np.float32)
    assert PermutohedralLattice(far[:3]).size > PermutohedralLattice(far).size


def test_points_too_far_apart_are_an_error():
    with pytest.raises(NetError, match=r"^the points are too far apart for the lattice; got coordinates up to"):
        PermutohedralLattice([[0.0, 0.0], [1e5, 0.0]])
    with pytest.raises(NetError, match=r"^the positions of a lattice must be finite numbers"):
        PermutohedralLattice([[0.0, np.nan]])


def test_the_gradient_of_mean_field_inference_is_the_derivative():
    unary, first, image = bottoms(height=3, width=4, dtype=torch.float64)
    layer = single(LAYER % FIELDS, *(tuple(x.shape) for x in (unary, first, image))).double()
    for blob in layer.blobs:
        torch.nn.init.normal_(blob, std=0.5, generator=torch.Generator().manual_seed(1))
    inputs = (unary.requires_grad_(), first.requires_grad_(), *layer.blobs)
    assert torch.autograd.gradcheck(lambda unary, first, *_: layer(unary, first, image)[0], inputs, fast_mode=True)


def test_every_image_of_a_batch_is_computed_and_the_size_may_change():
    unary, first, image = bottoms(images=2)
    layer = single(LAYER % FIELDS, *(tuple(x.shape) for x in (unary, first, image)))
    (both,) = layer(unary, first, image)
    for i in range(2):
        torch.testing.assert_close(layer(unary[i : i + 1], first[i : i + 1], image[i : i + 1])[0], both[i : i + 1])
    assert layer(*bottoms(height=4, width=3))[0].shape == (1, 3, 4, 3)


def test_the_first_weights_are_those_of_either_branch():
    shapes = [(1, 3, 2, 2), (1, 3, 2, 2), (1, 3, 2, 2)]
    texts = 'spatial_filter_weights_str: "1 2 3 4 " bilateral_filter_weights_str: "5.5 6 7"'
    spatial, bilateral, compatibility = (blob[0, 0] for blob in single(LAYER % f"{FIELDS} {texts}", *shapes).blobs)
    assert torch.equal(spatial, torch.diag(torch.tensor([1.0, 2, 3])))
    assert torch.equal(bilateral, torch.diag(torch.tensor([5.5, 6, 7])))
    assert torch.equal(compatibility, -torch.eye(3))
    numbers = single(LAYER % f"{FIELDS} spatial_filter_weight: 3 bilateral_filter_weight: 5", *shapes)
    assert [blob[0, 0, 2, 2].item() for blob in numbers.blobs] == [3, 5, -1]


@pytest.mark.parametrize(
    ("fields", "shapes", "error"),
    [
        (FIELDS.replace("3", "1", 1), None, "num_iterations must be greater than 1; got 1."),
        (FIELDS.replace("8", "0"), None, "theta_beta must be positive; got 0.0."),
        (
            FIELDS + ' spatial_filter_weights_str: "1 2"',
            None,
            ("spatial_filter_weights_str must have a number for each class; got '1 2', want 3 numbers."),
        ),
        (
            FIELDS,
            [(1, 3, 2, 2), (1, 3, 2, 2), (1, 1, 2, 2)],
            (
                "unary scores, first scores and image do not fit "
                "together; got (1, 3, 2, 2), (1, 3, 2, 2) and (1, 1, 2, 2), want (N, C, H, W) twice and (N, 3, H, W)."
            ),
        ),
    ],
)
def test_what_the_fork_refuses_is_an_error(fields, shapes, error):
    with pytest.raises(NetError) as raised:
        single(LAYER % fields, *(shapes or [(1, 3, 2, 2)] * 3))
    assert str(raised.value) == error
