"""Line charts of losses and scores over the iterations of several stages, as SVG in the colours of the page.

A stage is one net of a training, such as voc-fcn32s before voc-fcn16s. matplotlib draws in placeholder colours, which
are replaced by CSS variables: the same SVG fits light and dark themes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from reproduction.caffe.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = 4  # number of curve colours
BINS = 400  # approximate maximum number of points of a curve

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_SIZES = {"wide": (1120.0, 330.0, 13.0), "narrow": (358.0, 280.0, 12.0)}  # width, height, font, in pixels
_MARGINS = (52.0, 14.0, 26.0, 34.0)  # left, right, top, bottom, in pixels
_BELOW = 5.0  # a logarithmic axis extends at most this factor below the lowest mean
_LETTER = 0.58  # mean width of a letter, as a fraction of the font size

# Unique placeholder colours, which ``_finish`` replaces by the page's CSS variables.
_COLOURS = {
    "#010203": "var(--ink)",
    "#040506": "var(--soft)",
    "#070809": "var(--line)",
    **{f"#0a0b{number:02x}": f"var(--curve{number})" for number in range(1, CURVES + 1)},
}
_INK, _SOFT, _GRID, *_CURVE = _COLOURS


@dataclass(frozen=True)
class Curve:
    """The points of one curve of a chart.

    Attributes:
        name: the name in the legend.
        x: the iteration of each point, counted over all stages, in ascending order.
        y: the value of each point.
        band: the lowest and the highest values around each point, drawn as a shaded area; None draws none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class StageSpan:
    """The part of the axis of iterations that one stage takes; iterations are counted over all stages.

    Attributes:
        name: the name of the stage's net.
        start: the number of iterations of all earlier stages.
        end: ``start`` plus the iterations of this stage.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Chart:
    """What a chart shows: curves over a common axis of iterations, divided into stages.

    Attributes:
        title: the title.
        lines: the curves, at most ``CURVES`` of them.
        spans: the stages, in their order.
        percent: True if the values are fractions to display as percent, on an axis from 0 to 100.
        log: True if the axis of values is logarithmic.
    """

    title: str
    lines: Sequence[Curve]
    spans: Sequence[StageSpan]
    percent: bool = False
    log: bool = False


@dataclass(frozen=True)
class RenderedChart:
    """A chart drawn as SVG, with what a page needs to show it.

    Attributes:
        title: the title.
        svgs: the SVG text for screens of each width, by the keys ``wide`` and ``narrow``.
        data: the names, colours and values of the curves, and the axis limits, from which the page's script shows the
            values under the pointer; JSON types.
    """

    title: str
    svgs: dict[str, str]
    data: dict[str, Any]


def average_bins(x: Sequence[int], y: Sequence[float], size: int) -> Curve:
    """Return a curve whose points are the means of ``size`` consecutive values each, with their range as its band.

    Args:
        x: the iteration of each value.
        y: the values.
        size: the number of values in each mean; 1 leaves the values unchanged, without a band.
    """
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    means = [sum(y[part]) / len(y[part]) for part in parts]
    band = ([min(y[part]) for part in parts], [max(y[part]) for part in parts]) if size > 1 else None
    return Curve("", [x[part][len(x[part]) // 2] for part in parts], means, band)


def join_curves(name: str, parts: Sequence[Curve]) -> Curve:
    """Return one curve with the points, and the bands, of several curves in their order.

    Args:
        name: the name of the new curve in the legend.
        parts: the curves, such as the losses of successive stages.
    """
    bands = [part.band for part in parts if part.band]
    band = ([low for lows, _ in bands for low in lows], [high for _, highs in bands for high in highs])
    return Curve(
        name, [x for part in parts for x in part.x], [y for part in parts for y in part.y], (bands and band) or None
    )


def render_chart(chart: Chart) -> RenderedChart:
    """Draw a chart as SVG in two sizes, for wide and for narrow screens."""
    chart = replace(
        chart,
        title=printable(chart.title),
        lines=[replace(line, name=printable(line.name)) for line in chart.lines],
        spans=[replace(span, name=printable(span.name)) for span in chart.spans],
    )
    x = (0.0, float(max(chart.spans[-1].end, 1)))
    y = _limits(chart)
    svgs, frames = {}, {}
    for name, (width, height, font) in _SIZES.items():
        left, right, top, bottom = _MARGINS
        frames[name] = {"left": left, "right": width - right, "top": top, "bottom": height - bottom}
        svgs[name] = _finish(_plot(chart, x, y, width, height, font), chart, name)
    lines = [
        {
            "name": line.name,
            "colour": f"--curve{number}",
            "x": list(line.x),
            "y": [float(f"{value:.6g}") for value in line.y],
            "text": [f"{100 * value:.2f}" if chart.percent else f"{value:.4g}" for value in line.y],
        }
        for number, line in enumerate(chart.lines, 1)
    ]
    stages = [{"name": span.name, "start": span.start} for span in chart.spans]
    data = {"x": x, "y": y, "log": chart.log, "frames": frames, "stages": stages, "lines": lines}
    return RenderedChart(chart.title, svgs, data)


def _limits(chart: Chart) -> tuple[float, float]:
    if chart.percent:
        return 0.0, 1.0
    values = [value for line in chart.lines for values in (line.y, *(line.band or ())) for value in values]
    low, high = min(values), max(values)
    if chart.log:  # else single values near 0 would take up most of the axis
        return max(low, min(min(line.y) for line in chart.lines) / _BELOW) / 1.15, high * 1.15
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _plot(
    chart: Chart, x: tuple[float, float], y: tuple[float, float], width: float, height: float, font: float
) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    # Names may contain $ and \, which are not formulas.
    names: Any = {"text.parse_math": False, "text.usetex": False}
    settings = {"svg.fonttype": "none", "svg.hashsalt": f"{chart.title} {width}", "font.size": font, **names}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser renders the text in its own fonts
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        left, right, top, bottom = _MARGINS
        place = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        axes = figure.add_axes(place, facecolor="none")
        axes.set(xlim=x, ylim=y, yscale="log" if chart.log else "linear")
        for line, colour in zip(chart.lines, _CURVE, strict=False):
            if line.band:
                axes.fill_between(line.x, *line.band, color=colour, alpha=0.18, linewidth=0)
            few = len(line.x) <= 60
            axes.plot(
                line.x, line.y, color=colour, linewidth=2, marker="o" if few else "", markersize=4, clip_on=not few
            )
        _stages(axes, chart.spans, (width - left - right) / (x[1] - x[0]), font)
        _ticks(axes, chart, y, few=width < 500)
        file = io.BytesIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return file.getvalue()


def _stages(axes: Axes, spans: Sequence[StageSpan], pixels: float, font: float) -> None:
    """Draw a line between stages and label each with its name, or with its number if the name does not fit."""
    for number, span in enumerate(spans, 1):
        if number > 1:
            axes.axvline(span.start, color=_SOFT, linewidth=1, linestyle=(0, (2, 3)))
        name = f"{number} {span.name}" if len(spans) > 1 else span.name
        fits = _LETTER * font * len(name) < (span.end - span.start) * pixels
        middle = (span.start + span.end) / 2
        axes.text(
            middle, 1.025, name if fits else str(number), color=_SOFT, ha="center",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _ticks(axes: Axes, chart: Chart, y: tuple[float, float], *, few: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(4 if few else 9, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ratio = y[1] / y[0] if chart.log else 0.0
    steps = (1, 2, 5) if ratio < 500 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps) if ratio > 8 else MaxNLocator(5))
    axes.yaxis.set_minor_locator(NullLocator())
    shown = (lambda value, _: f"{100 * value:.0f} %") if chart.percent else (lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(FuncFormatter(shown))
    axes.grid(axis="y", color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6, labelcolor=_SOFT)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_SOFT)


def _finish(svg: bytes, chart: Chart, name: str) -> str:
    """Adapt matplotlib's SVG for inlining: CSS colours, no fixed size, no metadata, no unused ids, an aria-label."""
    for prefix, space in (("", _SVG), ("xlink", _XLINK)):
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.fromstring(svg)
    text = svg.decode()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}metadata":
                parent.remove(child)
        if f"#{parent.get('id')}" not in text:
            parent.attrib.pop("id", None)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    ends = ", ".join(
        f"{line.name} {100 * line.y[-1]:.1f} %" if chart.percent else f"{line.name} {line.y[-1]:.4g}"
        for line in chart.lines
    )
    root.attrib.update({"class": name, "data-frame": name, "role": "img"})
    root.set(
        "aria-label",
        f"{chart.title} over the iterations of {', '.join(span.name for span in chart.spans)}; at the end: {ends}",
    )
    drawing = ElementTree.tostring(root, encoding="unicode")
    for drawn, colour in _COLOURS.items():
        drawing = drawing.replace(drawn, colour)
    return drawing
