"""A report of scores as one self-contained HTML file, for screen and print.

The templates are in ``templates/``. Scripts, styles and images are embedded, so that the file opens from disk without a
network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from reproduction.caffe.errors import StrPath, printable
from reproduction.caffe.formats import files
from reproduction.fast import precisions
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.images import palette
from reproduction.fcn.scoring.score import METRICS, TITLES
from reproduction.report import gallery, markdown, reference
from reproduction.report.gallery import Gallery, Media, RenderedImage
from reproduction.report.record import LabelScores, NetResult, ScoreReport
from reproduction.report.reference import COLUMNS, Reference

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_NUMBERED_CLASSES = 24  # with more classes, the cells of the confusion matrix have no room for numbers
MISTAKES_SHOWN = 12  # number of confusions to list, those with the largest share

PICTURE_KINDS = {
    "best": ("Best", "The highest mean IU over the classes of their truth."),
    "worst": ("Worst", "The lowest."),
    "sample": ("Sample", f"Drawn from the others with seed {gallery.SAMPLING_SEED}, in the same order for every net."),
}


@dataclass(frozen=True)
class ClassBar:
    """A bar of a bar chart: the IU of one class of a net.

    Attributes:
        name: the name of the class.
        colour: its colour in label maps, in CSS notation.
        iu: the intersection over union, 0 to 1; None if the class occurs neither in the truth nor in the prediction.
        rank: the rank of the class by IU, 1 for the highest.
        others: the IU of the same class in other nets, by net name.
    """

    name: str
    colour: str
    iu: float | None
    rank: int
    others: Mapping[str, float]


@dataclass(frozen=True)
class ConfusionRow:
    """A row of the confusion matrix: the pixels of one true class, by predicted class.

    Attributes:
        name: the name of the true class.
        total: the number of pixels of this class.
        counts: the number of these pixels that were predicted as each class, in the order of the classes.
    """

    name: str
    total: int
    counts: list[int]


@dataclass(frozen=True)
class Mistake:
    """A confusion of two classes: the pixels of one true class that were predicted as another.

    Attributes:
        truth: the name of the true class.
        predicted: the name of the predicted class.
        pixels: the number of these pixels.
        share: their fraction of all pixels of the true class, 0 to 1.
    """

    truth: str
    predicted: str
    pixels: int
    share: float


@dataclass(frozen=True)
class Panel:
    """The section of a page about one net and one label top (``label``; SIFT Flow has ``sem`` and ``geo``).

    Attributes:
        id: the HTML id of the section.
        name: the name of the net, followed by the label top if there are several.
        net: the result of the net.
        measured: its scores on this label top.
        bars: the IU of each class.
        rows: the rows of the confusion matrix.
        mistakes: the confusions with the largest ``share``, in descending order.
        pictures: the images to show, by the keys of ``PICTURE_KINDS``: ``best``, ``worst``, ``sample``; empty if there
            are none.
    """

    id: str
    name: str
    net: NetResult
    measured: LabelScores
    bars: list[ClassBar]
    rows: list[ConfusionRow]
    mistakes: list[Mistake]
    pictures: dict[str, list[RenderedImage]] = field(default_factory=dict)

    @property
    def furthest(self) -> tuple[str, float] | None:
        """The (metric, difference in points) farthest outside its tolerance; None if all metrics are within it."""
        return max(self.measured.mismatches(), key=lambda entry: abs(entry[1]), default=None)


def format_page(report: ScoreReport, galleries: Mapping[str, Gallery] | None = None) -> str:
    """Format a report of scores as an HTML page.

    Args:
        report: the results.
        galleries: the images, true labels and predictions of each net, by net name; other nets are shown without
            images.

    Raises:
        DataError: If an image is missing or broken.
    """
    media = Media()
    galleries = galleries or {}
    # The colours depend on the data set only, so any gallery has the right ones.
    colours = next((each.colours for each in galleries.values()), palette.voc_colours()).tolist()
    panels = [_make_panel(report, net, measured, colours) for net, measured in report.scored]
    for panel in panels:
        if images := galleries.get(panel.net.net):
            top = panel.measured.label
            for kind, scores in gallery.choose_images(panel.measured.images).items():
                panel.pictures[kind] = [
                    gallery.render_image(images, panel.net.net, top, score, media) for score in scores
                ]
    sources = _list_references(report)
    best = max(panels, key=lambda panel: panel.measured.mean_iu or 0.0, default=None)
    return render_template(
        "scores.html",
        report=report,
        title=SPECS[report.set].title if report.set in SPECS else report.set,
        panels=panels,
        best=best,
        glance=_render_glance(panels, galleries, best, media),
        media=media.urls,
        columns=markdown.list_columns(report),
        sources=sources,
        numbers={(row.column, row.source): number for number, row in enumerate(sources, 1)},
        verdicts=list(markdown.format_verdicts(report)),
        knows=SPECS[report.set].knows if report.set in SPECS else "",
        kinds=PICTURE_KINDS,
        precision=precisions.DESCRIPTIONS.get(report.precision),
        dense=MAX_NUMBERED_CLASSES,
        error_colours={label: css_color(colour) for label, colour in gallery.ERROR_COLOURS.items()},
        void_colour=css_color(colours[255]),
    )


def _render_glance(
    panels: Sequence[Panel], galleries: Mapping[str, Gallery], best: Panel | None, media: Media
) -> dict[str, RenderedImage]:
    """Render the predictions of all nets for one image, which the page shows before any number in detail.

    The image is the first of the sample of the net with the highest mean IU, or its best one if there is no sample.

    Returns:
        The image by name of the net; empty if the report has no images.
    """
    shown = [image for kind in ("sample", "best") for image in (best.pictures.get(kind, []) if best else [])]
    glance = {}
    for panel in panels:
        images = {score.id: score for score in panel.measured.images}
        if shown and panel.net.net in galleries and shown[0].score.id in images:
            source, top, score = galleries[panel.net.net], panel.measured.label, images[shown[0].score.id]
            if best is not None and top == best.measured.label:
                glance[panel.name] = gallery.render_image(source, panel.net.net, top, score, media)
    return glance


def write_page(report: ScoreReport, path: StrPath, galleries: Mapping[str, Gallery] | None = None) -> None:
    """Format a report as an HTML page and write it to a file atomically.

    Args:
        report: the results.
        path: the file to write.
        galleries: the images, true labels and predictions of each net, by net name; None for none.

    Raises:
        ReproductionError: If the file cannot be written, or an image is missing or broken.
    """
    files.write_text(path, format_page(report, galleries))


def render_template(template: str, **values: Any) -> str:
    """Render a Jinja template of the folder ``templates/`` to HTML.

    Args:
        template: the file name of the template.
        values: the variables of the template.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """Return the Jinja environment, with autoescape; a missing variable raises an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("reproduction.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escape_control,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates = resources.files("reproduction.report").joinpath("templates")
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = Markup(templates.joinpath(name).read_text(encoding="utf-8"))
    environment.globals.update(METRICS=METRICS, TITLES=TITLES, COLUMNS=COLUMNS)
    environment.filters.update(
        percent=format_percent,
        points=format_delta,
        tolerance=reference.format_points,
        rgb=css_color,
        bold=_format_bold,
        lines=_escape_lines,
    )
    return environment


def format_percent(value: float | None, decimals: int = 2) -> str:
    """Format a fraction as percent without the percent sign, e.g. 0.655 as ``65.50``; None as an en dash."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.{decimals}f}"


def format_delta(delta: float, decimals: int = 2) -> str:
    """Format a difference in points with its sign, e.g. ``+0.01``, using U+2212 for minus; zero has no sign."""
    return markdown.format_signed(delta, decimals).replace("-", "\N{MINUS SIGN}")


def css_color(colour: Sequence[int]) -> str:
    """Format R, G, B values from 0 to 255 as a CSS colour, ``#rrggbb``."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def _escape_control(value: object) -> object:
    """Escape control characters and line breaks in text; return markup and other types unchanged."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value)


def _escape_lines(text: str) -> str:
    """Escape text of several lines, preserving the line breaks."""
    from markupsafe import Markup, escape

    return Markup("\n").join(escape(printable(line)) for line in text.splitlines())


def _format_bold(text: str) -> str:
    """Convert Markdown's ``**bold**`` to HTML and escape the rest."""
    from markupsafe import Markup, escape

    parts = [
        Markup("<strong>{}</strong>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(printable(text).split("**"))
    ]
    return Markup().join(parts)


def make_bars(
    names: Sequence[str],
    class_iu: Sequence[float | None],
    others: Mapping[str, Sequence[float | None]],
    colours: Sequence[Sequence[int]],
) -> list[ClassBar]:
    """Return a bar for each class, in the order of the labels.

    Args:
        names: the names of the classes.
        class_iu: the IU of each class.
        others: the IU of each class in other nets, by net name.
        colours: the R, G, B values of each label, from 0 to 255.
    """
    order = sorted(range(len(names)), key=lambda k: -(iu if (iu := class_iu[k]) is not None else -1.0))
    return [
        ClassBar(
            name=name,
            colour=css_color(colours[k]),
            iu=class_iu[k],
            rank=order.index(k) + 1,
            others={other: iu for other, theirs in others.items() if (iu := theirs[k]) is not None},
        )
        for k, name in enumerate(names)
    ]


def _make_panel(report: ScoreReport, net: NetResult, measured: LabelScores, colours: Sequence[list[int]]) -> Panel:
    several, names = len(net.measured) > 1, list(measured.class_iu)
    others = {
        other.net: [theirs.class_iu.get(name) for name in names]
        for other, theirs in report.scored
        if other is not net and theirs.label == measured.label
    }
    return Panel(
        id=re.sub(r"[^\w.-]", "-", f"{net.net}-{measured.label}" if several else net.net),
        name=net.title(measured),
        net=net,
        measured=measured,
        bars=make_bars(names, list(measured.class_iu.values()), others, colours),
        rows=confusion_rows(measured),
        mistakes=_find_mistakes(measured),
    )


def confusion_rows(measured: LabelScores) -> list[ConfusionRow]:
    """Return the rows of a net's confusion matrix, each with the name of its true class."""
    return [
        ConfusionRow(name, sum(counts), list(counts))
        for name, counts in zip(measured.class_iu, measured.confusion, strict=True)
    ]


def _find_mistakes(measured: LabelScores) -> list[Mistake]:
    names = list(measured.class_iu)
    mistakes = [
        Mistake(line.name, names[column], count, count / line.total)
        for row, line in enumerate(confusion_rows(measured))
        for column, count in enumerate(line.counts)
        if count and column != row
    ]
    return sorted(mistakes, key=lambda mistake: -mistake.share)[:MISTAKES_SHOWN]


def _list_references(report: ScoreReport) -> list[Reference]:
    """Return the references of all scores, each (column, source) once, in the order of ``COLUMNS``."""
    ordered = sorted(report.references, key=lambda each: list(COLUMNS).index(each.column))
    return list({(each.column, each.source): each for each in ordered}.values())
