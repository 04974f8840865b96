"""ArgMax and Accuracy, compared with plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.single_layer import single

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def few_values(shape, seed):
    """Small integers as floats, so that many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


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
