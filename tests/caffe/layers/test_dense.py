"""InnerProduct, Embed, Eltwise, Reduction, Softmax, ArgMax and Accuracy, compared with plain loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.bottom_checks import class_index, legacy_shape
from tests.helpers.single_layer import gradient, single

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def randomise(layer):
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


def few_values(shape, seed):
    """Small integers as floats, so that many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


# ---- InnerProduct


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("transpose", ["true", "false"])
def test_inner_product_flattens_from_its_axis_on(axis, transpose):
    shape = (3, 2, 4)
    layer = single(
        f'type: "InnerProduct" inner_product_param {{ num_output: 5 axis: {axis} transpose: {transpose} }}', shape
    )
    randomise(layer)
    weight, bias = (blob.detach().numpy() for blob in layer.blobs)
    inputs = int(np.prod(shape[axis % 3 :]))
    assert weight.shape == ((inputs, 5) if transpose == "true" else (5, inputs))
    x = torch.randn(shape)
    rows = x.numpy().reshape(-1, inputs)
    want = rows @ (weight if transpose == "true" else weight.T) + bias
    top = layer(x)[0]
    assert top.shape == (*shape[: axis % 3], 5)
    np.testing.assert_allclose(top.detach().numpy().reshape(-1, 5), want, rtol=1e-5, atol=1e-5)


def test_inner_product_keeps_its_number_of_inputs():
    layer = single('type: "InnerProduct" inner_product_param { num_output: 2 }', (1, 3, 4))
    assert layer.shapes([(7, 12, 1)]) == [(7, 2)]
    with pytest.raises(NetError) as error:
        layer.shapes([(1, 3, 5)])
    assert str(error.value) == (
        "the axes from 1 on must hold as many values as the weights were made for; got 15 in (1, 3, 5), want 12."
    )


def test_inner_product_fills_weight_and_bias():
    layer = single(
        """type: "InnerProduct" inner_product_param { num_output: 2 weight_filler { type: "constant" value: 3 }
        bias_filler { type: "constant" value: 4 } }""",
        (1, 1),
    )
    assert layer(torch.ones(1, 1))[0].tolist() == [[7, 7]]


# ---- Embed


def test_embed_looks_up_rows_and_adds_the_bias():
    layer = randomise(single('type: "Embed" embed_param { num_output: 3 input_dim: 4 }', (2, 2)))
    weight, bias = layer.blobs
    index = torch.tensor([[0.0, 3.0], [3.0, 1.0]])
    top = layer(index)[0]
    assert torch.equal(top, weight[index.long()] + bias)
    top.sum().backward()
    assert weight.grad[:, 0].tolist() == [1, 1, 0, 2]
    assert bias.grad.tolist() == [4, 4, 4]


def test_embed_refuses_an_index_beyond_its_rows():
    layer = single('type: "Embed" embed_param { num_output: 3 input_dim: 4 }', (3,))
    with pytest.raises(NetError, match=r"^label 4 is out of range; got 2 such of 3, want 0\.\.3\.$"):
        layer(torch.tensor([1.0, 4.0, 5.0]))


# ---- Eltwise


@given(SHAPES, st.integers(2, 4), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_eltwise_max_gives_the_whole_gradient_to_caffes_winner(shape, count, seed):
    bottoms = [few_values(shape, seed + i) for i in range(count)]
    layer = single('type: "Eltwise" eltwise_param { operation: MAX }', *[shape] * count)
    winner = np.where(bottoms[0] > bottoms[1], 0, 1)
    best = np.maximum(bottoms[0], bottoms[1])
    for i in range(2, count):
        winner = np.where(bottoms[i] > best, i, winner)
        best = np.maximum(best, bottoms[i])
    leaves = [torch.tensor(bottom) for bottom in bottoms]
    assert np.array_equal(layer(*leaves)[0].numpy(), best)
    for i, diff in enumerate(gradient(layer, *leaves)):
        assert np.array_equal(diff.numpy(), winner == i)


def test_eltwise_sum_weighs_its_bottoms():
    layer = single('type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 coeff: 0 }', *[(2,)] * 3)
    a, b, c = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]), torch.tensor([5.0, 5.0])
    assert layer(a, b, c)[0].tolist() == [-8, -16]
    assert [diff.tolist() for diff in gradient(layer, a, b, c)] == [[2, 2], [-1, -1], [0, 0]]


def test_eltwise_leaves_its_bottoms_as_they_are():
    for operation in ("SUM", "PROD", "MAX"):
        layer = single(f'type: "Eltwise" eltwise_param {{ operation: {operation} }}', (2,), (2,))
        a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
        layer(a, b)[0].add_(1)
        assert (a.tolist(), b.tolist()) == ([1, 2], [2, 1])


# ---- Reduction


@pytest.mark.parametrize(
    ("operation", "reduce"),
    [
        ("SUM", np.sum),
        ("ASUM", lambda x, axis: abs(x).sum(axis)),
        ("SUMSQ", lambda x, axis: (x * x).sum(axis)),
        ("MEAN", np.mean),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_reduction_reduces_all_axes_from_its_own_on(operation, reduce, axis):
    x = few_values((3, 2, 4), 1)
    layer = single(f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: -2 }}', x.shape)
    want = -2 * reduce(x, axis=tuple(range(axis % 3, 3)))
    np.testing.assert_allclose(layer(torch.tensor(x))[0].numpy(), want, rtol=1e-6)


def test_reduction_of_absolute_values_has_no_gradient_at_zero():
    layer = single('type: "Reduction" reduction_param { operation: ASUM coeff: 3 }', (3,))
    (diff,) = gradient(layer, torch.tensor([-2.0, 0.0, 5.0]))
    assert diff.tolist() == [-3, 0, 3]


# ---- ArgMax


def sorted_pairs(values):
    """Indices of a list from the greatest pair of value and index to the least."""
    return [index for _, index in sorted(((value, i) for i, value in enumerate(values)), reverse=True)]


@given(SHAPES, st.integers(0, 999), st.data())
@settings(max_examples=60, deadline=None)
def test_argmax_along_an_axis_puts_the_later_of_equal_values_first(shape, seed, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    top_k = data.draw(st.integers(1, shape[axis]))
    x = few_values(shape, seed)
    order = np.apply_along_axis(sorted_pairs, axis, x).take(range(top_k), axis)
    for values in (False, True):
        layer = single(
            f'type: "ArgMax" argmax_param {{ axis: {axis} top_k: {top_k} out_max_val: {str(values).lower()} }}', shape
        )
        want = np.take_along_axis(x, order, axis) if values else order
        assert layer.shapes([shape]) == [want.shape]
        assert np.array_equal(layer(torch.tensor(x))[0].numpy(), want)


@given(SHAPES, st.integers(0, 999), st.data())
@settings(max_examples=60, deadline=None)
def test_argmax_without_an_axis_lays_out_indices_and_values(shape, seed, data):
    x = few_values(shape, seed)
    rows = x.reshape(shape[0], -1)
    top_k = data.draw(st.integers(1, rows.shape[1]))
    order = np.array([sorted_pairs(row)[:top_k] for row in rows])
    axes = max(len(shape), 3)
    layer = single(f'type: "ArgMax" argmax_param {{ top_k: {top_k} }}', shape)
    assert np.array_equal(layer(torch.tensor(x))[0].numpy(), order.reshape(shape[0], 1, top_k, *[1] * (axes - 3)))
    layer = single(f'type: "ArgMax" argmax_param {{ top_k: {top_k} out_max_val: true }}', shape)
    both = np.stack([order, np.take_along_axis(rows, order, 1)], 1)
    assert np.array_equal(layer(torch.tensor(x))[0].numpy(), both.reshape(shape[0], 2, top_k, *[1] * (axes - 3)))


# ---- Accuracy


def count_hits(scores, labels, axis, top_k, ignore):
    """Hits and labels by class, one place at a time."""
    classes = scores.shape[axis]
    hits, found = np.zeros(classes), np.zeros(classes)
    rows = np.moveaxis(scores, axis, -1).reshape(-1, classes)
    for row, label in zip(rows, labels.reshape(-1).astype(int), strict=True):
        if label != ignore:
            found[label] += 1
            hits[label] += sum(value >= row[label] for value in row) - 1 < top_k
    return hits, found


@given(SHAPES.filter(lambda s: len(s) > 1), st.integers(0, 999), st.data())
@settings(max_examples=60, deadline=None)
def test_accuracy_counts_ties_as_misses_and_skips_ignored_labels(shape, seed, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    top_k = data.draw(st.integers(1, shape[axis]))
    ignore = data.draw(st.sampled_from([None, 0, 255]))
    rng = np.random.default_rng(seed)
    scores = few_values(shape, seed)
    labels = rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :]).astype(np.float32)
    if ignore == 255:
        labels[rng.random(labels.shape) < 0.5] = 255
    rule = "" if ignore is None else f"ignore_label: {ignore}"
    layer = single(
        f'type: "Accuracy" top: "a" top: "b" accuracy_param {{ axis: {axis} top_k: {top_k} {rule} }}',
        shape,
        labels.shape,
    )
    total, by_class = layer(torch.tensor(scores), torch.tensor(labels))
    hits, found = count_hits(scores, labels, axis, top_k, ignore)
    assert total.item() == pytest.approx(hits.sum() / max(found.sum(), 1))
    np.testing.assert_allclose(by_class.numpy(), hits / np.maximum(found, 1), rtol=1e-6)


def test_accuracy_takes_labels_of_any_type_and_gives_no_gradient():
    layer = single('type: "Accuracy"', (2, 3), (2, 1))
    scores = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], requires_grad=True)
    for kind in (torch.float32, torch.uint8, torch.int64):
        (top,) = layer(scores, torch.tensor([[2], [1]], dtype=kind))
        assert top.tolist() == 0.5
        assert not top.requires_grad


# ---- all of them


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
         "num_output and input_dim must be positive; got 2 and 0."),
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
         "want 8 labels, one for each place off axis 1.")),
        ('type: "Accuracy" accuracy_param { top_k: 4 }', [(2, 3), (2,)],
         "top_k is more than there are classes; got 4, want at most 3."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error


@pytest.mark.parametrize(("label", "said"), [(3, "3"), (-1, "-1"), (40.7, "40")])
def test_a_label_that_is_no_class_is_named_with_the_range(label, said):
    with pytest.raises(NetError) as error:
        class_index(torch.tensor([0, label, 2]), 3, 255)
    assert str(error.value) == f"label {said} is out of range; got 1 such of 3, want 0..2 or 255."


def test_labels_are_cut_to_integers_as_caffe_cuts_them():
    index, ignored = class_index(torch.tensor([1.9, -0.9, 2.0, 255.5]), 3, 255)
    assert index.tolist() == [1, 0, 2, 0]
    assert ignored.tolist() == [False, False, False, True]


def test_old_shapes_are_filled_with_ones_at_the_end():
    for axes in range(5):
        assert legacy_shape(tuple(range(2, 2 + axes))) == tuple(itertools.islice([*range(2, 2 + axes), 1, 1, 1, 1], 4))
    with pytest.raises(NetError, match="at most 4 axes"):
        legacy_shape((1, 2, 3, 4, 5))
