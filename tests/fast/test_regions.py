"""Regions of an axis, compared with counting single pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reproduction.caffe.geometry import Window
from reproduction.fast.regions import PixelRange, Region

windows = st.builds(Window, st.integers(1, 7), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
spans = st.builds(lambda start, size: PixelRange(start, start + size), st.integers(-6, 20), st.integers(0, 9))


def pixels_of(window, place):
    first = place * window.stride - window.pad
    return range(first, first + window.extent)


@given(windows, spans, st.integers(1, 30))
def test_outputs_reached_and_inside_equal_those_found_one_by_one(window, span, count):
    pixels = set(range(span.start, span.stop))
    touching = [place for place in range(count) if pixels and _between(pixels_of(window, place), span)]
    within = [place for place in range(count) if set(pixels_of(window, place)) <= pixels]
    assert list(range(count))[_slice(span.outputs_reached(window, count))] == touching
    assert list(range(count))[_slice(span.outputs_inside(window, count))] == within


@given(windows, spans)
def test_outputs_read_the_pixels_of_their_windows(window, span):
    pixels = [pixel for place in range(span.start, span.stop) for pixel in pixels_of(window, place)]
    found = span.read_by(window)
    assert found == (PixelRange(min(pixels), max(pixels) + 1) if pixels else PixelRange(0, 0))


@given(spans, spans)
def test_ranges_intersect_join_and_contain_each_other_as_sets_do(a, b):
    first, second = set(range(a.start, a.stop)), set(range(b.start, b.stop))
    assert set(range((a & b).start, (a & b).stop)) == first & second
    assert set(range((a | b).start, (a | b).stop)) >= first | second
    assert (a in b) == (first <= second)


def _between(window, span):
    """A window with holes counts as if it had none: more is computed than must be, never less."""
    return window.start < span.stop and span.start < window.stop


def _slice(span):
    return slice(span.start, max(span.start, span.stop)) if span.size else slice(0, 0)


@given(spans, spans, spans, spans)
def test_a_region_is_divided_into_strips_around_another(top, left, rows, columns):
    outer, inner = Region(top, left), Region(top & rows, left & columns)
    if not inner.pixels:
        return
    counts = np.zeros((40, 40), int)
    for part in (inner, *outer.strips_around(inner)):
        counts[part.slices_in(Region(PixelRange(-6, 34), PixelRange(-6, 34)))] += 1
    assert counts.sum() == outer.pixels
    assert counts.max() == 1
