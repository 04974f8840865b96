"""Checks of labels and of old shapes."""

import itertools

import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.bottom_checks import class_index, legacy_shape


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
