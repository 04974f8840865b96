"""The four metrics, compared with fractions computed by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reproduction.caffe.errors import DataError
from reproduction.fcn.scoring.score import compute_scores, confusion_matrix, merge

# Class 0: 4 pixels, 3 right; class 1: 2 pixels, 1 right; class 2: 2 pixels, both right; 2 pixels are void.
LABEL = np.array([[0, 0, 0, 0, 255], [1, 1, 2, 2, 255]], np.uint8)
PREDICTION = np.array([[0, 0, 0, 1, 0], [1, 2, 2, 2, 2]], np.uint8)
COUNTS = np.array([[3, 1, 0], [0, 1, 1], [0, 0, 2]])


def close(value, fraction):
    return value == pytest.approx(float(fraction), rel=1e-15)


def test_confusion_counts_truth_by_row_and_prediction_by_column():
    counts = confusion_matrix(LABEL, PREDICTION, 3)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, COUNTS)


def test_the_four_metrics_are_the_papers():
    result = compute_scores(COUNTS)
    ious = [Fraction(3, 4), Fraction(1, 3), Fraction(2, 3)]
    assert close(result.pixel_acc, Fraction(6, 8))
    assert close(result.mean_acc, (Fraction(3, 4) + Fraction(1, 2) + 1) / 3)
    assert close(result.mean_iu, sum(ious) / 3)
    assert close(result.fw_iu, (4 * ious[0] + 2 * ious[1] + 2 * ious[2]) / 8)
    assert all(close(iu, want) for iu, want in zip(result.class_iu, ious, strict=True))
    assert result.confusion is COUNTS


# Class 1 is absent from the truth and predicted once; class 3 is absent and never predicted.
ABSENT = np.array([[4, 1, 1, 0], [0, 0, 0, 0], [1, 0, 3, 0], [0, 0, 0, 0]])


def test_an_absent_class_is_left_out_of_the_mean_and_still_costs_its_pixels():
    result = compute_scores(ABSENT)
    ious = [Fraction(4, 7), Fraction(3, 5)]
    assert close(result.mean_iu, sum(ious) / 2)
    assert close(result.mean_acc, (Fraction(4, 6) + Fraction(3, 4)) / 2)
    assert close(result.fw_iu, (6 * ious[0] + 4 * ious[1]) / 10)
    assert result.class_iu[1] == 0
    assert np.isnan(result.class_iu[3])


def test_the_published_mean_counts_an_absent_class_that_is_predicted_as_0():
    published = compute_scores(ABSENT, absent="published")
    assert close(published.mean_iu, (Fraction(4, 7) + Fraction(3, 5)) / 3)
    ours = compute_scores(ABSENT)
    assert (published.mean_acc, published.pixel_acc, published.fw_iu) == (ours.mean_acc, ours.pixel_acc, ours.fw_iu)
    assert published != ours
    assert ours == compute_scores(ABSENT.copy())
    assert ours != "scores"


def test_nothing_predicted_but_one_class_has_the_signature_of_a_dead_net():
    # All background: mean accuracy 1/21, mean IU = pixel accuracy / 21.
    counts = np.zeros((21, 21), np.int64)
    counts[:, 0] = [733, *range(1, 21)]
    result = compute_scores(counts)
    assert close(result.mean_acc, Fraction(1, 21))
    assert close(result.mean_iu, Fraction(733, int(counts.sum())) / 21)


labels = arrays.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 254, 255]))
predictions = arrays.arrays(np.int64, (6, 7), elements=st.integers(0, 3))


@given(labels, predictions)
def test_confusion_is_what_counting_pixel_by_pixel_gives(label, prediction):
    want = np.zeros((4, 4), int)
    for truth, guess in zip(label.flat, prediction.flat, strict=True):
        if truth < 4:
            want[truth, guess] += 1
    np.testing.assert_array_equal(confusion_matrix(label, prediction, 4), want)


@given(labels, predictions, st.integers(1, 5))
def test_parts_add_up_to_the_whole(label, prediction, at):
    parts = [confusion_matrix(label[:at], prediction[:at], 4), confusion_matrix(label[at:], prediction[at:], 4)]
    np.testing.assert_array_equal(merge(parts), confusion_matrix(label, prediction, 4))


def test_counts_stay_exact_beyond_single_and_double_precision():
    big = np.array([[2**53, 1], [0, 2**53]])
    assert merge([big, np.eye(2, dtype=np.int64)])[0, 0] == 2**53 + 1


def test_mistakes_are_one_line():
    with pytest.raises(DataError) as error:
        confusion_matrix(LABEL, PREDICTION[:1], 3)
    assert str(error.value) == "label and prediction differ in shape; got (1, 5), want (2, 5)."
    with pytest.raises(DataError) as error:
        confusion_matrix(LABEL, PREDICTION + 5, 3)
    assert str(error.value) == "a prediction is not a class; got 5 to 7, want 0 to 2."
    with pytest.raises(DataError) as error:
        compute_scores(np.zeros((3, 3), np.int64))
    assert str(error.value) == "no pixel has a class; there is nothing to score. Every label is void, 255."
    with pytest.raises(DataError) as error:
        merge([np.zeros((2, 2), np.int64), np.zeros((3, 3), np.int64)])
    assert str(error.value) == "confusions of one size are needed; got [(2, 2), (3, 3)]."
