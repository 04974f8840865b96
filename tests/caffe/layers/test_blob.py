"""Blobs: arrays that keep their memory while they are referenced, and results stored without a copy."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.blob import Blob

CPU = torch.device("cpu")


def test_a_result_is_taken_over_without_a_copy():
    blob, result = Blob(2, 3), torch.randn(2, 3)
    blob.put(result)
    assert blob.values().data_ptr() == result.data_ptr()
    blob.data[0, 0] = 7
    assert result[0, 0] == 7


def test_an_array_that_is_held_shows_the_next_result():
    blob = Blob(2, 3)
    held, row = blob.data, blob.data[1]
    del held
    blob.put(torch.ones(2, 3))  # the view alone holds the place
    assert row.tolist() == [1, 1, 1]
    row[...] = 5
    assert blob.data.tolist() == [[1, 1, 1], [5, 5, 5]]
    assert np.shares_memory(row, blob.data)


def test_the_same_holds_of_gradients():
    blob = Blob(2)
    held = blob.diff
    blob.put_gradient(torch.tensor([1.0, 2.0]))
    blob.add_gradient(torch.tensor([1.0, 1.0]))
    assert held.tolist() == [2, 3]
    blob.clear_gradient()
    assert held.tolist() == [0, 0]


def test_a_gradient_that_nobody_holds_is_taken_over_and_added_to():
    blob, first = Blob(2), torch.tensor([1.0, 2.0])
    assert not blob.has_gradient
    blob.add_gradient(first)
    assert blob.gradient().data_ptr() == first.data_ptr()
    blob.add_gradient(torch.tensor([1.0, 1.0]))
    assert blob.diff.tolist() == [2, 3]
    blob.clear_gradient()
    assert not blob.has_gradient
    assert blob.diff.tolist() == [0, 0]


def test_more_values_than_there_is_room_for_get_a_place_of_their_own():
    blob = Blob(2)
    held = blob.data
    blob.put(torch.ones(3))
    assert (held.tolist(), blob.data.tolist()) == ([0, 0], [1, 1, 1])
    held = blob.data
    blob.put(torch.full((2,), 5.0))  # fewer fit, as in Caffe
    assert (held.tolist(), blob.data.tolist()) == ([5, 5, 1], [5, 5])


def test_values_in_another_order_in_memory_are_laid_out_when_looked_at():
    blob, result = Blob(), torch.randn(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    blob.put(result)
    assert blob.values().is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(blob.data, result.numpy())
    assert blob.data.flags.c_contiguous
    blob.reshape(6, 4)
    assert np.array_equal(blob.data, result.numpy().reshape(6, 4))


def test_blobs_that_share_see_each_others_writing():
    one, other = Blob(2, 3), Blob()
    other.share(one, diff=True)
    other.reshape(6)
    other.data[0], other.diff[5] = 1, 2
    assert (one.data[0, 0], one.diff[1, 2]) == (1, 2)
    one.put(torch.full((2, 3), 4.0))
    one.put_gradient(torch.full((2, 3), 3.0))
    assert (other.data.tolist(), other.diff.tolist()) == ([4] * 6, [3] * 6)


def test_room_takes_no_memory_until_it_is_looked_at():
    blob = Blob(1 << 10, 1 << 20)  # 4 GiB
    blob.put(torch.zeros(1))
    assert blob.count == 1


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2, -1), "a blob cannot have negative sizes; got (2, -1)."),
        (((2, 3),), "the sizes of a blob must be integers, one for each argument; got ((2, 3),)."),
    ],
)
def test_sizes_that_are_none_are_refused(shape, text):
    with pytest.raises(NetError) as raised:
        Blob().reshape(*shape)
    assert str(raised.value) == text


def test_a_blob_is_no_larger_than_caffes():
    blob = Blob(2, 3)
    for shape in ((2**31,), (65536, 65536), (1,) * 33):
        with pytest.raises(NetError, match=r"^a blob has (more values than Caffe supports|too many axes); got"):
            blob.reshape(*shape)
    with pytest.raises(NetError, match="the sizes of a blob must be integers"):
        blob.reshape(float("inf"))
    assert blob.shape == (2, 3)
