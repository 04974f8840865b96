"""Shared buffers: no part is lent twice at a time, and no more memory is used than needed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from reproduction.fast.memory import Memory

CPU = torch.device("cpu")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=60))
def test_what_is_lent_is_lent_once(steps):
    memory, lent = Memory(torch.float32, CPU), []
    for number, (take, size) in enumerate(steps):
        if take or not lent:
            tensor = memory.take(size)
            tensor.fill_(number)
            lent.append((tensor, number))
        else:
            tensor, kept = lent.pop(size % len(lent))
            assert (tensor == kept).all(), "nobody else wrote there"
            memory.give(tensor)
        assert len(memory._lent) == len(lent)
    for tensor, kept in lent:
        assert tensor.data_ptr() % 64 == 0
        assert (tensor == kept).all()
        memory.give(tensor)
    assert all(room.size == len(room.block) for room in memory._free), "parts are put together again"


def test_parts_of_a_block_serve_what_is_smaller():
    memory = Memory(torch.float32, CPU)
    memory.give(memory.take(1000))
    parts = [memory.take(400), memory.take(2, 100), memory.take(300)]
    assert memory.held == 1008
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1


def test_a_block_that_is_too_small_makes_way():
    memory = Memory(torch.bfloat16, CPU)
    memory.give(memory.take(1000))
    assert memory.take(5000).shape == (5000,)
    assert memory.held == 5024
    memory.clear()
    assert memory.held == 0


def test_images_have_their_channels_side_by_side():
    image = Memory(torch.float32, CPU).image(2, 3, 4, 5)
    assert image.shape == (2, 3, 4, 5)
    assert image.is_contiguous(memory_format=torch.channels_last)
