"""Regions of an axis, compared with counting single pixels."""

from hypothesis import given
from hypothesis import strategies as st

from reproduction.caffe.geometry import Window
from reproduction.fast.regions import NOTHING, Span, inside, reached, read_by, whole

windows = st.builds(Window, st.integers(1, 7), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
spans = st.builds(lambda start, size: Span(start, start + size), st.integers(-6, 20), st.integers(0, 9))


def seen(window, place):
    first = place * window.stride - window.pad
    return range(first, first + window.extent)


@given(windows, spans, st.integers(1, 30))
def test_what_sees_a_part_and_what_sees_nothing_else_are_counted(window, span, count):
    pixels = set(range(span.start, span.stop))
    touching = [place for place in range(count) if pixels and _between(seen(window, place), span)]
    within = [place for place in range(count) if set(seen(window, place)) <= pixels]
    assert list(range(count))[_slice(reached(window, span, count))] == touching
    assert list(range(count))[_slice(inside(window, span, count))] == within


@given(windows, spans)
def test_a_part_reads_what_its_windows_see(window, span):
    pixels = [pixel for place in range(span.start, span.stop) for pixel in seen(window, place)]
    found = read_by(window, span)
    assert found == (Span(min(pixels), max(pixels) + 1) if pixels else NOTHING)


@given(spans, spans)
def test_spans_meet_join_and_hold_each_other_as_sets_do(a, b):
    first, second = set(range(a.start, a.stop)), set(range(b.start, b.stop))
    assert set(range((a & b).start, (a & b).stop)) == first & second
    assert set(range((a | b).start, (a | b).stop)) >= first | second
    assert (a in b) == (first <= second)
    assert whole(4).size == 4


def _between(window, span):
    """A window with holes counts as if it had none: more is computed than must be, never less."""
    return window.start < span.stop and span.start < window.stop


def _slice(span):
    return slice(span.start, max(span.start, span.stop)) if span.size else slice(0, 0)
