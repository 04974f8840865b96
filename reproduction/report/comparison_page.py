"""The page of a comparison of nets: scores and costs, images side by side, classes, and what each net was given."""

from __future__ import annotations

import random
from collections.abc import Mapping

from reproduction.caffe.errors import StrPath
from reproduction.caffe.formats import files
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.images import palette
from reproduction.report import gallery, page
from reproduction.report.comparison import ComparedNet, Comparison
from reproduction.report.gallery import Gallery, Media, RenderedImage

IMAGES = 5  # that the page shows


def write_page(comparison: Comparison, galleries: Mapping[str, Gallery], path: StrPath) -> None:
    """Write a comparison as one self-contained HTML page, atomically.

    Args:
        comparison: the comparison.
        galleries: the predictions of the first seed, by net name; nets without are shown without images.
        path: the file to write.

    Raises:
        ReproductionError: If the file cannot be written, or an image is missing or broken.
    """
    media = Media()
    images = _render_images(comparison, galleries, media)
    ranked = sorted((net for net in comparison.nets if net.runs), key=lambda net: -net.mean_iu)
    colours = palette.voc_colours().tolist()
    classes = list(ranked[0].class_iu()) if ranked else []
    text = page.render_template(
        "comparison.html",
        comparison=comparison,
        ranked=ranked,
        top=max((max(net.mean_ius) for net in ranked), default=1.0),
        classes=[(name, page.css_color(colours[number])) for number, name in enumerate(classes)],
        images=images,
        media=media.urls,
        spread=max((max(net.mean_ius) - min(net.mean_ius) for net in ranked), default=0.0),
        schedule=_describe_schedule(comparison.iterations),
    )
    files.write_text(path, text)


def _describe_schedule(iterations: int) -> str:
    fields = mini_voc.adam_fields(iterations)
    steps = " and ".join(map(str, fields["stepvalue"]))
    return f"{fields['type']}; the rate is multiplied by {fields['gamma']:g} after {steps} of {iterations} updates"


def _render_images(
    comparison: Comparison, galleries: Mapping[str, Gallery], media: Media
) -> list[list[tuple[ComparedNet, RenderedImage]]]:
    """Return for each image that the page shows the predictions of all nets, in the order of the comparison."""
    shown = [net for net in comparison.nets if net.net in galleries and net.runs]
    if not shown:
        return []
    scores = {net.net: {image.id: image for image in net.runs[0].scores.images} for net in shown}
    ids = sorted(set.intersection(*(set(each) for each in scores.values())))
    random.Random(gallery.SAMPLING_SEED).shuffle(ids)
    top = shown[0].runs[0].scores.label
    return [
        [
            (net, gallery.render_image(galleries[net.net], net.net, top, scores[net.net][image_id], media))
            for net in shown
        ]
        for image_id in ids[:IMAGES]
    ]
