"""Reused buffers: no memory is in use twice, and no more memory is used than needed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from reproduction.fast.buffers import BufferPool

CPU = torch.device("cpu")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=60))
def test_no_two_tensors_in_use_overlap(steps):
    pool, in_use = BufferPool(torch.float32, CPU), []
    for number, (take, size) in enumerate(steps):
        if take or not in_use:
            tensor = pool.allocate(size)
            tensor.fill_(number)
            in_use.append((tensor, number))
        else:
            tensor, kept = in_use.pop(size % len(in_use))
            assert (tensor == kept).all(), "no other tensor overwrote it"
            pool.release(tensor)
        assert len(pool._in_use) == len(in_use)
    for tensor, kept in in_use:
        assert tensor.data_ptr() % 64 == 0
        assert (tensor == kept).all()
        pool.release(tensor)
    assert all(free.size == len(free.block) for free in pool._free), "free ranges are merged"


def test_a_released_block_is_divided_among_smaller_tensors():
    pool = BufferPool(torch.float32, CPU)
    pool.release(pool.allocate(1000))
    parts = [pool.allocate(400), pool.allocate(2, 100), pool.allocate(300)]
    assert pool.size == 1008
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1


def test_an_unused_block_that_is_too_small_is_replaced():
    pool = BufferPool(torch.bfloat16, CPU)
    pool.release(pool.allocate(1000))
    assert pool.allocate(5000).shape == (5000,)
    assert pool.size == 5024
    pool.clear()
    assert pool.size == 0


def test_images_are_in_channels_last_format():
    image = BufferPool(torch.float32, CPU).allocate_image(2, 3, 4, 5)
    assert image.shape == (2, 3, 4, 5)
    assert image.is_contiguous(memory_format=torch.channels_last)
