"""Curves: their values, and that the page's script and matplotlib place them at the same coordinates."""

import re
from xml.etree import ElementTree

import pytest

from reproduction.report import curves
from reproduction.report.curves import Chart, Curve, StageSpan

SVG = "{http://www.w3.org/2000/svg}"
SPANS = [StageSpan("mini-fcn32s", 0, 60), StageSpan("mini-fcn16s", 60, 100)]
X = [10.0, 40.0, 60.0, 100.0]


@pytest.fixture(scope="module")
def scores():
    lines = [
        Curve(name, X, [level, level + 0.1, level + 0.05, level + 0.2])
        for name, level in zip("abcd", (0.1, 0.3, 0.5, 0.7), strict=True)
    ]
    return curves.render_chart(Chart("Scores", lines, SPANS, percent=True))


def test_means_and_ranges_are_taken_of_so_many_values():
    line = curves.average_bins(range(7), [1.0, 2, 6, 4, 4, 4, 9], 3)
    assert line.y == [3, 4, 9]
    assert line.x == [1, 4, 6]
    assert line.band is not None
    assert [list(edge) for edge in line.band] == [[1, 4, 9], [6, 4, 9]]
    assert curves.average_bins([0, 1], [5.0, 7.0], 1) == Curve("", [0, 1], [5, 7])


def drawn_points(svg, colour):
    """Where the curve of a colour runs, in the drawing's own units."""
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if f"stroke: {colour}" in path.get("style", "") and "stroke-width: 2" in path.get("style", ""):
            return [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path.get("d"))]
    raise AssertionError(f"no curve in {colour}")


@pytest.mark.parametrize("frame", ["wide", "narrow"])
@pytest.mark.parametrize("log", [False, True])
def test_the_script_points_where_the_curve_is(frame, log):
    """The same sum as page.js does it."""
    drawn = curves.render_chart(Chart("Loss", [Curve("loss", X, [8.0, 2.0, 1.0, 0.25])], SPANS, log=log))
    from math import log10

    data, scale = drawn.data, log10 if log else float
    box, line = data["frames"][frame], data["lines"][0]
    low, high = map(scale, data["y"])
    expected = [
        (
            box["left"] + (x - data["x"][0]) / (data["x"][1] - data["x"][0]) * (box["right"] - box["left"]),
            box["bottom"] - (scale(y) - low) / (high - low) * (box["bottom"] - box["top"]),
        )
        for x, y in zip(line["x"], line["y"], strict=True)
    ]
    for mine, theirs in zip(expected, drawn_points(drawn.svgs[frame], "var(--curve1)"), strict=True):
        assert mine == pytest.approx(theirs, abs=0.01)


def test_colours_are_the_pages_own(scores):
    for svg in scores.svgs.values():
        assert {f"var(--curve{number})" for number in range(1, 5)} <= set(re.findall(r"var\(--\w+\)", svg))
        used = set(re.findall(r"#[0-9a-f]{6}", svg)) - set(re.findall(r'"#([^"]+)"', svg))
        assert not used, "no colour is matplotlib's"


def test_a_drawing_has_no_name_that_another_has(scores):
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in scores.svgs.values()]
    assert not set(ids[0]) & set(ids[1])
    assert all(f"#{name}" in svg for svg, names in zip(scores.svgs.values(), ids, strict=True) for name in names)


def test_a_drawing_says_what_it_shows_in_words(scores):
    root = ElementTree.fromstring(scores.svgs["wide"])
    assert root.get("role") == "img"
    assert root.get("aria-label") == (
        "Scores over the iterations of mini-fcn32s, mini-fcn16s; at the end: a 30.0 %, b 50.0 %, c 70.0 %, d 90.0 %"
    )
    assert (root.get("width"), root.get("viewBox")) == (None, "0 0 1120 330")


def test_the_same_curves_give_the_same_drawing(scores):
    again = curves.render_chart(
        Chart(
            "Scores", [Curve(line["name"], line["x"], line["y"]) for line in scores.data["lines"]], SPANS, percent=True
        )
    )
    assert again.svgs == scores.svgs


def test_stages_are_named_or_numbered_where_there_is_no_room():
    spans = [StageSpan("mini-vgg", 0, 10), StageSpan("mini-fcn32s", 10, 300)]
    drawn = curves.render_chart(Chart("Loss", [Curve("loss", [0, 300], [2.0, 1.0])], spans))
    texts = [node.text for node in ElementTree.fromstring(drawn.svgs["narrow"]).iter(f"{SVG}text")]
    assert "2 mini-fcn32s" in texts
    assert "1" in texts
    assert "1 mini-vgg" not in texts


def test_a_range_is_drawn_around_means():
    line = Curve("loss", [0, 50], [2.0, 1.0], ([1.0, 0.5], [3.0, 4.0]))
    drawn = curves.render_chart(Chart("Loss", [line], [StageSpan("n", 0, 100)], log=True))
    assert drawn.data["y"] == (pytest.approx(0.5 / 1.15), pytest.approx(4 * 1.15))
    assert "fill: var(--curve1)" in drawn.svgs["wide"]


def test_single_values_near_zero_do_not_take_the_axis():
    line = Curve("loss", [0, 50], [2.0, 1.0], ([1e-9, 0.5], [3.0, 4.0]))
    drawn = curves.render_chart(Chart("Loss", [line], [StageSpan("n", 0, 100)], log=True))
    assert drawn.data["y"][0] == pytest.approx(1 / 5 / 1.15)


def test_one_value_is_enough():
    drawn = curves.render_chart(Chart("Loss", [Curve("loss", [0], [2.0])], [StageSpan("n", 0, 100)]))
    assert drawn.data["y"] == (1.5, 2.5)
    assert drawn.data["lines"][0]["text"] == ["2"]
