"""Sums in the order of Caffe's BLAS: the length of the blocks, and that the sums are correct."""

import numpy as np
import pytest
import torch

from reproduction.caffe.layers.exact import blas


def randn(*shape):
    return np.random.RandomState(3).randn(*shape).astype(np.float32)


@pytest.mark.parametrize(
    ("depth", "sizes"),
    [
        (27, [27]),
        (320, [320]),
        (321, [161, 160]),
        (576, [288, 288]),
        (640, [320, 320]),
        (1152, [320, 320, 256, 256]),
        (4608, [320] * 13 + [224, 224]),
    ],
)
def test_a_sum_is_cut_as_openblas_cuts_it(depth, sizes):
    cuts = list(blas.blocks(depth))
    assert [cut.stop - cut.start for cut in cuts] == sizes
    assert cuts[-1].stop == depth


def one_by_one(a, b):
    """Add product after product, with one rounding each."""
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total = (total + a[:, k, None].astype(np.float64) * b[k]).astype(np.float32)
    return total


@pytest.mark.skipif(not blas.adds_in_order(), reason="numpy's BLAS adds in Caffe's order with AVX-512 alone")
@pytest.mark.parametrize("turned", [False, True], ids=["", "a turned"])
def test_a_large_product_adds_block_by_block_and_a_small_one_straight_through(turned):
    for columns in (32, 200):
        a, b = randn(30, 900), randn(900, columns)
        if turned:
            a = np.asfortranarray(a)
        cuts = [slice(0, 900)] if columns == 32 else blas.blocks(900)
        want = sum(one_by_one(a[:, cut], b[cut]) for cut in cuts)
        assert np.array_equal(blas.product(a, b), want)


@pytest.mark.skipif(not blas.adds_in_order(), reason="numpy's BLAS adds in Caffe's order with AVX-512 alone")
def test_a_product_with_a_narrow_turned_matrix_adds_block_by_block_too():
    a, b = randn(4, 40000), np.asfortranarray(randn(40000, 27))  # the weights of a narrow first layer
    want = sum(one_by_one(a[:, cut], b[cut]) for cut in blas.blocks(40000))
    assert np.array_equal(blas.product(a, b), want)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(1, 700, 9), (9, 700, 1), (1, 700, 1), (40, 30, 50), (1, 1, 1), (3, 5000, 200)])
def test_a_product_is_the_product_whatever_its_shape(shape, turned):
    rows, depth, columns = shape
    a, b = randn(rows, depth), randn(depth, columns)
    want = a.astype(np.float64) @ b
    if turned:
        b = np.asfortranarray(b)
    np.testing.assert_allclose(blas.product(a, b), want, rtol=1e-5, atol=1e-4)
    total = np.ones((rows, columns), np.float32)
    assert blas.product(a, b, total) is total
    np.testing.assert_allclose(total, want + 1, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (4, 7), (21, 6), (21, 5003), (7, 8192), (64, 300)])
def test_rows_add_up(shape):
    a, total = randn(*shape), np.ones(shape[0], np.float32)
    blas.row_sums(a, total)
    np.testing.assert_allclose(total, 1 + a.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-4)


def test_a_row_adds_up_in_eight_sums_side_by_side_and_two_rows_in_four():
    big = np.float32(2**24)  # to which 1 can not be added
    row = np.zeros(48, np.float32)
    row[[0, 8, 16]] = big, 1, 1  # one after the other in the first of eight sums
    row[[4, 12]] = 1, 1  # in the fifth, which is added later
    total = np.zeros(6, np.float32)
    blas.row_sums(np.tile(row, (6, 1)), total)
    assert total.tolist() == [big + 2] * 4 + [big] * 2


@pytest.mark.parametrize("width", [*range(1, 12), 33, 4099])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 13])
def test_rows_add_up_times_a_factor(count, width):
    a, total = randn(count, width), np.ones(count, np.float32)
    blas.row_sums(a, total, 0.3)
    np.testing.assert_allclose(total, 1 + 0.3 * a.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 9, 48, 49, 63])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 13, 30, 4100, 40000])
def test_columns_add_up(rows, columns):
    a, total = randn(rows, columns), np.ones(columns, np.float32)
    blas.column_sums(a, total)
    np.testing.assert_allclose(total, 1 + a.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-4)


def test_a_few_rows_are_added_straight_through_and_four_in_two_chains():
    big = np.float32(2**24)  # to which 1 can not be added
    for rows, want in ((3, big), (4, big + 2), (5, big)):
        column = np.array([big, 1, 1, 1, 0][:rows], np.float32)
        total = np.zeros(4, np.float32)
        blas.column_sums(np.tile(column[:, None], (1, 4)), total)
        assert total.tolist() == [want] * 4


@pytest.mark.parametrize("size", [1, 31, 32, 63, 64, 97, 5000])
def test_a_vector_adds_up(size):
    values = randn(size)
    assert blas.vector_sum(values) == pytest.approx(values.sum(dtype=np.float64), rel=1e-5, abs=1e-5)


def test_exp_is_right_to_its_last_digit_but_for_rounding():
    x = torch.linspace(-80, 0, 4001)
    want = x.double().exp()
    assert float(((blas.exp(x).double() - want).abs() / want).max()) < 0.51 * 2**-23
    assert float(blas.exp(torch.tensor(-1000.0))) == 0


def test_a_power_is_right_to_its_last_digit_but_for_rounding():
    x = torch.linspace(1, 40, 1001).reshape(7, -1)
    want = x.double() ** -0.75
    assert float(((blas.power(x, -0.75).double() - want).abs() / want).max()) < 0.6 * 2**-23


@pytest.mark.parametrize("classes", [1, 21, 48, 49, 60])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_is_the_softmax(classes, axis):
    scores = (30 * torch.randn(2, classes, 3, 5)).transpose(1, axis)
    torch.testing.assert_close(blas.softmax(scores, axis), scores.softmax(axis), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("wanted", "dtype", "device"), [(False, "float32", "cpu"), (True, "float64", "cpu"), (True, "float32", "meta")]
)
def test_only_the_cpu_in_single_precision_is_served(wanted, dtype, device):
    assert not blas.applies_to(wanted, torch.empty(1, dtype=getattr(torch, dtype), device=device))
    assert blas.applies_to(True, torch.empty(1))
