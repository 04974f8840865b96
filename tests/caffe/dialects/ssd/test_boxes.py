"""The arithmetic of SSD's boxes."""

import numpy as np
import pytest

from reproduction.caffe.dialects.ssd import boxes
from reproduction.caffe.dialects.ssd.messages import CodeType
from reproduction.caffe.errors import NetError


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-0.1, 0.8, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.05, 0.4, (count, 2))], 1).astype(np.float32)


def test_overlaps_are_intersection_over_union():
    a = np.array([[0, 0, 2, 2], [5, 5, 6, 6], [3, 3, 2, 2]], np.float32)  # the last has its corners swapped
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2]], np.float32)
    np.testing.assert_allclose(boxes.compute_overlaps(a, b), [[1 / 7, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(boxes.compute_areas(a), [4, 1, 0])


def test_in_pixels_both_ends_count():
    a, b = (np.array([box], np.float32) for box in ([0, 0, 9, 9], [5, 0, 14, 9]))
    np.testing.assert_allclose(boxes.compute_overlaps(a, b, 1), [[50 / 150]])
    assert boxes.compute_areas(a, 1) == 100


@pytest.mark.parametrize("code_type", CodeType)
def test_decoding_undoes_encoding(code_type):
    priors, true = random_boxes(7), random_boxes(7, 1)
    variances = np.broadcast_to(np.float32([0.1, 0.2, 0.3, 0.4]), (7, 4))
    for factors in (variances, None):
        codes = boxes.encode(true, priors, factors, code_type)
        np.testing.assert_allclose(boxes.decode(codes, priors, factors, code_type), true, atol=1e-6)


def test_codes_are_relative_to_the_prior():
    prior, box = np.float32([[0, 0, 2, 4]]), np.float32([[1, 1, 5, 3]])
    assert boxes.encode(box, prior, None, CodeType.CORNER).tolist() == [[1, 1, 3, -1]]
    assert boxes.encode(box, prior, None, CodeType.CORNER_SIZE).tolist() == [[0.5, 0.25, 1.5, -0.25]]
    center = [(3 - 1) / 2, (2 - 2) / 4, np.log(4 / 2), np.log(2 / 4)]
    np.testing.assert_allclose(boxes.encode(box, prior, None, CodeType.CENTER_SIZE), [center])


def test_empty_boxes_have_no_code():
    good, empty = np.float32([[0, 0, 1, 1]]), np.float32([[0, 0, 0, 1]])
    with pytest.raises(NetError, match="a prior box is empty"):
        boxes.decode(good, empty, None, CodeType.CENTER_SIZE)
    with pytest.raises(NetError, match="a true box is empty"):
        boxes.encode(empty, good, None, CodeType.CENTER_SIZE)
    assert boxes.encode(empty, empty, None, CodeType.CORNER).tolist() == [[0] * 4]


def test_scores_are_sorted_by_value_and_then_by_place():
    scores = np.float32([0.5, 0.9, 0.5, 0.1, 0.9])
    assert boxes.sort_scores(scores, None, -1).tolist() == [1, 4, 0, 2, 3]
    assert boxes.sort_scores(scores, 0.1, 3).tolist() == [1, 4, 0]
    assert boxes.sort_scores(scores, 0.9, -1).tolist() == []
    assert boxes.sort_scores(scores, None, 0).tolist() == []


def suppress_slowly(candidates, threshold, eta):
    kept, limit = [], np.float32(threshold)
    for i in range(len(candidates)):
        if all(boxes.compute_overlaps(candidates[[i]], candidates[[j]]) <= limit for j in kept):
            kept.append(i)
            if eta < 1 and limit > 0.5:
                limit *= np.float32(eta)
    return kept


@pytest.mark.parametrize(("threshold", "eta"), [(0.3, 1), (0.9, 0.97), (0.9, 0.5), (0, 1), (2, 1)])
def test_suppression_compares_each_box_with_all_kept_ones(threshold, eta, monkeypatch):
    candidates = random_boxes(60)
    want = suppress_slowly(candidates, threshold, eta)
    assert len(want) > 1
    assert boxes.suppress(candidates, threshold, eta).tolist() == want
    monkeypatch.setattr(boxes, "_BLOCK", 7)  # many blocks give the same
    assert boxes.suppress(candidates, threshold, eta).tolist() == want
    assert boxes.suppress(candidates[:0], threshold, eta).tolist() == []
