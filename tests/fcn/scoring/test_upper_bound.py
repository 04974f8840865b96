"""Upper bounds on mean IU: labels that are downsampled and upsampled again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reproduction.caffe.errors import DataError
from reproduction.fcn import datasets
from reproduction.fcn.images import palette
from reproduction.fcn.scoring import upper_bound
from tests.helpers import dataset_trees

LABELS = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 4))


@given(LABELS, st.sampled_from(sorted(upper_bound.METHODS)))
def test_cells_of_one_pixel_change_nothing(labels, way):
    np.testing.assert_array_equal(upper_bound.coarsen(labels, 1, way), labels)


@given(LABELS, st.sampled_from(sorted(upper_bound.METHODS)), st.sampled_from([2, 3, 8, 128]))
def test_no_class_appears_that_was_not_there(labels, way, factor):
    coarse = upper_bound.coarsen(labels, factor, way)
    assert coarse.shape == labels.shape
    assert coarse.dtype == np.uint8
    assert set(np.unique(coarse)) <= set(np.unique(labels))


def test_nearest_repeats_the_label_in_the_middle_of_each_cell():
    labels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    coarse = upper_bound.coarsen(labels, 3, "nearest")
    expected = np.array([[8, 11, 13], [29, 32, 34]])  # cells at the edge are cut off: their last pixel stands for them
    expected = expected.repeat(3, 0)[:5].repeat(3, 1)[:, :7]
    np.testing.assert_array_equal(coarse, expected)


def test_bilinear_puts_the_border_where_the_shares_of_two_classes_are_equal():
    labels = np.zeros((8, 16), np.uint8)
    labels[:, 6:] = 3
    # Cells of 4: the second is half and half. Between its middle (x = 6) and its neighbours shares change linearly.
    coarse = upper_bound.coarsen(labels, 4, "bilinear")
    assert {tuple(row) for row in coarse.tolist()} == {(0,) * 6 + (3,) * 10}


def test_a_thing_smaller_than_a_cell_is_lost():
    labels = np.zeros((64, 64), np.uint8)
    labels[3:6, 3:6] = 1
    for way in upper_bound.METHODS:
        assert not upper_bound.coarsen(labels, 32, way).any()


def test_pixels_without_a_class_take_that_of_the_nearest():
    labels = np.array([[1, 255, 255, 255, 2], [255] * 5], np.uint8)
    filled = upper_bound.fill_void(labels)
    assert filled[0].tolist()[:2] + filled[0].tolist()[3:] == [1, 1, 2, 2]
    assert 255 not in filled
    whole = np.array([[1, 2]], np.uint8)
    assert upper_bound.fill_void(whole) is whole


@pytest.fixture
def voc(tmp_path):
    ids = ["a", "b", "c"]
    labels = dataset_trees.voc(tmp_path / "VOCdevkit/VOC2012", {"val": ids}, size=(40, 56))
    return datasets.open_split("voc", "val", tmp_path), labels


def test_the_scores_are_those_of_all_images_together(voc):
    dataset, labels = voc
    seen = []
    found = upper_bound.compute_upper_bounds(dataset, "label", factors=[8, 1], progress=lambda *each: seen.append(each))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert all(found[way][1].mean_iu == 1 for way in upper_bound.METHODS)
    right = total = 0
    for truth in labels.values():
        counted = truth != 255
        coarse = upper_bound.coarsen(upper_bound.fill_void(truth), 8, "nearest")
        right += np.sum(coarse[counted] == truth[counted])
        total += counted.sum()
    assert found["nearest"][8].pixel_acc == right / total < 1


def test_a_finer_grid_is_never_worse(voc):
    found = upper_bound.compute_upper_bounds(voc[0], "label", factors=[32, 8, 2], limit=2)
    for scores in found.values():
        assert scores[32].mean_iu < scores[8].mean_iu < scores[2].mean_iu < 1


def test_labels_of_void_alone_have_no_bound(voc):
    dataset, labels = voc
    for image_id, truth in labels.items():
        palette.write_png(np.full_like(truth, 255), dataset.file("label", image_id))
    with pytest.raises(DataError) as error:
        upper_bound.compute_upper_bounds(dataset, "label")
    assert str(error.value) == "voc val: no pixel has a class; there is nothing to score. Every label is void, 255."
