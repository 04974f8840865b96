"""The published numbers of these nets, as printed, with their sources.

Scores are in percent, as printed; the names of other figures state the unit, as ``forward_ms``. ``verified`` is False
for a number that could not be compared with the text of its paper; reports mark such numbers.

Editions: the CVPR paper exists as arXiv 1411.4038v2 and as the authors' edition of the camera ready, which agree except
for PASCAL-Context; the PAMI paper is arXiv 1605.06211, whose nets are the published caffemodels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reproduction.fcn.scoring.score import METRICS


@dataclass(frozen=True)
class PublishedNumber:
    """One number, as a publication prints it.

    Args:
        value: the number as printed; percent for scores.
        verified: True if it was read in the source itself or in a text that quotes it.
    """

    value: float
    verified: bool


@dataclass(frozen=True)
class PublishedRow:
    """One row of a table in a publication: the numbers printed for one net or method.

    Args:
        edition: the publication, one of the constants of this module, such as ``CVPR`` and ``PAMI``.
        table: the table or section in which the row is, such as ``table 2``.
        name: the name of the row, as printed.
        measured_on: the data that were scored, or the conditions of the measurement, as text.
        figures: the printed numbers by column, such as ``mean_iu`` or ``forward_ms``.
        source: the text in which the numbers were read: the publication, or one that quotes it.
        net: the name of the published net that the row is about; empty if it is about none.
    """

    edition: str
    table: str
    name: str
    measured_on: str
    figures: Mapping[str, PublishedNumber]
    source: str
    net: str = ""

    def __getitem__(self, column: str) -> float:
        """Return the number in a column as printed, e.g. ``row["mean_iu"]``; percent for scores."""
        return self.figures[column].value

    @property
    def verified(self) -> bool:
        """True if every number of the row was read in its source itself or in a text that quotes it."""
        return all(figure.verified for figure in self.figures.values())


CVPR = "CVPR 2015"
ARXIV = "CVPR 2015 (arXiv v2)"
AUTHOR = "CVPR 2015 (authors' edition)"
PAMI = "PAMI 2016"
README = "published README"
REPOSITORY = "published repository"
RESCORED = "re-scored elsewhere"

_BOTH = "arXiv 1411.4038v2 and the authors' edition of the camera ready"
_UNREAD = "arXiv 1605.06211; not compared with its text"
_REPO = "shelhamer/fcn.berkeleyvision.org@1305c73"
_ALL = ("all",)

Cells = Iterable[float | None]


def _make_rows(
    edition: str,
    table: str,
    measured_on: str,
    source: str,
    columns: Collection[str],
    rows: Mapping[str, Cells],
    *,
    nets: Mapping[str, str] | None = None,
    unverified: Collection[str] = (),
) -> tuple[PublishedRow, ...]:
    published_rows = []
    for name, cells in rows.items():
        figures = {
            column: PublishedNumber(value, unverified is not _ALL and column not in unverified)
            for column, value in zip(columns, cells, strict=True)
            if value is not None
        }
        published_rows.append(
            PublishedRow(
                edition, table, name, measured_on, MappingProxyType(figures), source, (nets or {}).get(name, "")
            )
        )
    return tuple(published_rows)


_736 = "736 images of VOC 2011 val (seg11valid)"
_VOC = {"FCN-32s": "voc-fcn32s", "FCN-16s": "voc-fcn16s", "FCN-8s": "voc-fcn8s", "FCN-8s at-once": "voc-fcn8s-atonce"}
_NYUD = {
    "FCN-32s RGB": "nyud-fcn32s-color",
    "FCN-32s RGBD": "nyud-fcn32s-color-d",
    "FCN-32s HHA": "nyud-fcn32s-hha",
    "FCN-32s RGB-HHA": "nyud-fcn32s-color-hha",
}
_SIFT = {"FCN-32s": "siftflow-fcn32s", "FCN-16s": "siftflow-fcn16s", "FCN-8s": "siftflow-fcn8s"}
_CONTEXT = {"FCN-32s": "pascalcontext-fcn32s", "FCN-16s": "pascalcontext-fcn16s", "FCN-8s": "pascalcontext-fcn8s"}

_CVPR = (
    *_make_rows(
        CVPR, "table 1", "VOC 2011 val, 500 x 500, Tesla K40c, mean of 20 runs; trained on 1,112 images", _BOTH,
        ("mean_iu", "forward_ms", "conv_layers", "parameters_millions", "receptive_field_px", "max_stride_px"),
        {
            "FCN-AlexNet": (39.8, 50, 8, 57, 355, 32),
            "FCN-VGG16": (56.0, 210, 16, 134, 404, 32),
            "FCN-GoogLeNet": (42.5, 59, 22, 6, 907, 32),
        },
    ),
    *_make_rows(CVPR, "text", "VOC 2011 train", _BOTH, ("images", "least_epochs"), {"training": (1112, 175)}),
    *_make_rows(CVPR, "text", _736 + "; trained on SBD's 8,498 images", _BOTH, ("mean_iu",), {"FCN-VGG16": (59.4,)}),
    *_make_rows(
        CVPR, "text", _736 + "; trained on SBD's 8,498 images", "the authors' edition of the camera ready",
        ("mean_iu",), {"FCN-AlexNet": (48.0,)}, nets={"FCN-AlexNet": "voc-fcn-alexnet"},
    ),
    *_make_rows(
        CVPR, "text", "ILSVRC, the authors' own training", _BOTH, ("top1", "top5"), {"GoogLeNet": (68.5, 88.4)}
    ),
    *_make_rows(
        CVPR, "table 2", _736, _BOTH, METRICS,
        {
            "FCN-32s-fixed": (83.0, 59.7, 45.4, 72.0),
            "FCN-32s": (89.1, 73.3, 59.4, 81.4),
            "FCN-16s": (90.0, 75.7, 62.4, 83.0),
            "FCN-8s": (90.3, 75.9, 62.7, 83.2),
        },
        nets=_VOC,
    ),
    *_make_rows(
        CVPR, "table 3", "VOC test", _BOTH, ("mean_iu_2011", "mean_iu_2012", "inference_s"),
        {"R-CNN": (47.9, None, None), "SDS": (52.6, 51.6, 50), "FCN-8s": (62.7, 62.2, 0.175)},
    ),
    *_make_rows(
        CVPR, "text", "inference, against SDS", _BOTH, ("speedup_convnet", "speedup_overall"), {"FCN-8s": (114, 286)}
    ),
    *_make_rows(
        CVPR, "table 4", "NYUDv2, 654 test images, 40 classes; trained on 795", _BOTH, METRICS,
        {
            "Gupta et al.": (60.3, None, 28.6, 47.0),
            "FCN-32s RGB": (60.0, 42.2, 29.2, 43.9),
            "FCN-32s RGBD": (61.5, 42.4, 30.5, 45.5),
            "FCN-32s HHA": (57.1, 35.2, 24.2, 40.4),
            "FCN-32s RGB-HHA": (64.3, 44.9, 32.8, 48.0),
            "FCN-16s RGB-HHA": (65.4, 46.1, 34.0, 49.5),
        },
        nets=_NYUD,
    ),
    *_make_rows(
        CVPR, "table 5", "SIFT Flow, 200 test images, classes present there; trained on 2,488", _BOTH,
        (*METRICS, "geo_pixel_acc"),
        {
            "Liu et al.": (76.7, None, None, None, None),
            "Tighe et al. [33]": (None, None, None, None, 90.8),
            "Tighe et al. [34] 1": (75.6, 41.1, None, None, None),
            "Tighe et al. [34] 2": (78.6, 39.2, None, None, None),
            "Farabet et al. 1": (72.3, 50.8, None, None, None),
            "Farabet et al. 2": (78.5, 29.6, None, None, None),
            "Pinheiro et al.": (77.7, 29.8, None, None, None),
            "FCN-16s": (85.2, 51.7, 39.5, 76.1, 94.3),
        },
        nets=_SIFT,
    ),
    *_make_rows(
        AUTHOR, "appendix B", "PASCAL-Context val, 59 classes", "the authors' edition of the camera ready", METRICS,
        {
            "FCN-32s": (65.4, 47.2, 35.1, 50.3),
            "FCN-16s": (66.8, 49.6, 37.6, 52.3),
            "FCN-8s": (67.0, 50.7, 37.8, 52.5),
        },
        nets=_CONTEXT,
    ),
    *_make_rows(
        ARXIV, "appendix B", "PASCAL-Context val, 59 classes", "arXiv 1411.4038v2", METRICS,
        {
            "O2P": (None, None, 18.1, None),
            "CFM": (None, None, 31.5, None),
            "FCN-32s": (63.8, 42.7, 31.8, 48.3),
            "FCN-16s": (65.7, 46.2, 34.8, 50.7),
            "FCN-8s": (65.9, 46.5, 35.1, 51.0),
        },
        nets=_CONTEXT,
    ),
    *_make_rows(
        ARXIV, "appendix B", "PASCAL-Context val, 33 classes", "arXiv 1411.4038v2", METRICS,
        {
            "O2P": (None, None, 29.2, None),
            "CFM": (None, None, 46.1, None),
            "FCN-32s": (69.8, 65.1, 50.4, 54.9),
            "FCN-16s": (71.8, 68.0, 53.4, 57.5),
            "FCN-8s": (71.8, 67.6, 53.5, 57.7),
        },
    ),
    *_make_rows(
        CVPR, "upper bounds", "labels of a subset of VOC 2011 val, shrunk and enlarged again", _BOTH, ("mean_iu",),
        {"128": (50.9,), "64": (73.3,), "32": (86.1,), "16": (92.8,), "8": (96.4,), "4": (98.5,)},
    ),
    *_make_rows(
        CVPR, "section 3.1", "AlexNet", "arXiv 1411.4038v2",
        ("forward_ms", "forward_single_ms", "backward_ms", "output_px"),
        {"classifier, 227 x 227": (1.2, 5.4, 2.4, None), "FCN, 500 x 500": (22, None, 37, 10)},
    ),
    *_make_rows(
        CVPR, "text", "stochastic gradient descent", _BOTH,
        ("batch", "learning_rate", "momentum", "weight_decay", "bias_lr_mult"),
        # The learning rate of GoogLeNet is printed 5^-5, the decay "5^-4 or 2^-4".
        {
            "FCN-AlexNet": (20, 1e-3, 0.9, 5e-4, 2),
            "FCN-VGG16": (20, 1e-4, 0.9, 5e-4, 2),
            "FCN-GoogLeNet": (20, 5e-5, 0.9, 5e-4, 2),
            "the other decay": (None, None, None, 2e-4, None),
        },
    ),
    *_make_rows(
        CVPR, "text", "training on one Tesla K40c", _BOTH, ("days", "lr_divisor"),
        {"FCN-32s": (3, None), "FCN-16s": (1, 100), "FCN-8s": (1, None)},
    ),
    *_make_rows(
        CVPR, "text", "mean IU of the whole net's fine-tuning = 100", _BOTH, ("percent",),
        {"fine-tuning of the classifier alone": (70,)},
    ),
    *_make_rows(CVPR, "text", "augmentation, no noticeable gain", _BOTH, ("pixels",), {"jitter": (32,)}),
    *_make_rows(CVPR, "text", "class balance", _BOTH, ("percent",), {"background": (75,)}),
)  # fmt: skip

_PAMI = (
    *_make_rows(
        PAMI, "VOC 2011 val", _736, "row quoted by the GitHub blog on this paper", METRICS,
        {"FCN-32s": (90.5, 76.5, 63.6, 83.5)}, nets=_VOC,
    ),
    *_make_rows(
        PAMI, "VOC 2011 val", _736,
        f"pixel accuracy and mean IU: AntonioConsiglio/SemSeg fcn_vgg16/README; the rest: {_UNREAD}", METRICS,
        {"FCN-16s": (91.0, 78.1, 65.0, 84.3), "FCN-8s": (91.2, 77.6, 65.5, 84.5)},
        nets=_VOC, unverified=("mean_acc", "fw_iu"),
    ),
    *_make_rows(
        PAMI, "VOC 2011 val", _736, f"mean IU: {_REPO} README.md; the rest: {_UNREAD}", METRICS,
        {"FCN-8s at-once": (91.1, 78.5, 65.4, 84.4)},
        nets=_VOC, unverified=("pixel_acc", "mean_acc", "fw_iu"),
    ),
    *_make_rows(
        PAMI, "VOC 2011 val", _736, _UNREAD, METRICS,
        {
            "FCN-32s fixed": (82.9, 64.6, 46.6, 72.3),
            "FCN-pool5": (87.4, 60.5, 50.0, 78.5),
            "FCN-pool4": (78.7, 31.7, 22.4, 67.0),
            "FCN-pool3": (70.9, 13.7, 9.2, 57.6),
        },
        nets=_VOC, unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "optimisation", f"FCN-32s, {_736}", _UNREAD, (*METRICS, "batch", "momentum"),
        {
            "FCN-accum": (86.0, 66.5, 51.9, 76.5, 20, 0.9),
            "FCN-online": (89.3, 76.2, 60.7, 81.8, 1, 0.9),
            "FCN-heavy": (90.5, 76.5, 63.6, 83.5, 1, 0.99),
        },
        unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "table 1", "500 x 500", _UNREAD, ("forward_ms",),
        {"FCN-AlexNet": (16,), "FCN-VGG16": (100,), "FCN-GoogLeNet": (20,)}, unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "VOC test", "VOC 2012 test", "its abstract, and the published README",
        ("mean_iu",), {"FCN-8s": (67.2,)},
    ),
    *_make_rows(
        PAMI, "VOC test", "VOC 2011 test", _UNREAD, ("mean_iu", "inference_ms"), {"FCN-8s": (67.5, 100)},
        unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "abstract", "VOC 2012 test", "its abstract", ("inference_s", "relative_gain_percent"),
        {"FCN-8s": (0.1, 30)},
    ),
    *_make_rows(
        PAMI, "text", "mean IU of the whole net's fine-tuning = 100", "notes on the paper", ("percent",),
        {"fine-tuning of the last layer alone": (73,)},
    ),
    # Momentum and batch that go together: p^(1/k) = p'^(1/k'). The paper rounds 0.9^(1/20) to 0.99; it is 0.9947.
    *_make_rows(PAMI, "text", "0.9 with a batch of 20", "notes on the paper", ("momentum",), {"batch of 1": (0.99,)}),
    *_make_rows(
        PAMI, "NYUDv2", "NYUDv2, 654 test images, 40 classes", _UNREAD, METRICS,
        {
            "FCN-32s RGB": (61.8, 44.7, 31.6, 46.0),
            "FCN-32s RGBD": (62.1, 44.8, 31.7, 46.3),
            "FCN-32s HHA": (58.3, 35.7, 25.2, 41.7),
        },
        nets=_NYUD, unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "NYUDv2", "NYUDv2, 654 test images, 40 classes",
        f"mean accuracy (44): Open Code Papers; the rest: {_UNREAD}", METRICS,
        {"FCN-32s RGB-HHA": (65.3, 44.0, 33.3, 48.6)}, nets=_NYUD, unverified=("pixel_acc", "mean_iu", "fw_iu"),
    ),
    *_make_rows(
        PAMI, "SIFT Flow", "SIFT Flow, 200 test images, classes present there", _UNREAD, (*METRICS, "geo_pixel_acc"),
        {"FCN-8s": (85.9, 53.9, 41.2, 77.2, 94.6)}, nets=_SIFT, unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "PASCAL-Context", "PASCAL-Context val, 59 classes", _UNREAD, METRICS,
        {
            "CFM": (None, None, 34.4, None),
            "FCN-32s": (65.5, 49.1, 36.7, 50.9),
            "FCN-16s": (66.9, 51.3, 38.4, 52.3),
            "FCN-8s": (67.5, 52.3, 39.1, 53.0),
        },
        nets=_CONTEXT, unverified=_ALL,
    ),
    *_make_rows(
        PAMI, "mask cues", "VOC 2011 val, background left out", "speakerdeck.com/kfujita/introai, which quotes table 8",
        ("mean_iu",),
        {
            "Reference": (84.8,), "Reference-FG": (81.0,), "Reference-BG": (19.8,),
            "FG-only": (76.1,), "BG-only": (37.8,), "Shape": (29.1,),
        },
    ),
)  # fmt: skip

_SOLVER = ("base_lr", "momentum", "weight_decay", "iter_size", "max_iter", "test_iter", "rounds", "steps_a_round")
_SOLVERS = {
    "voc-fcn32s": (1e-10, 0.99, 5e-4, 1, 100_000, 736, 25, 4000),
    "voc-fcn16s": (1e-12, 0.99, 5e-4, 1, 100_000, 736, 25, 4000),
    "voc-fcn8s": (1e-14, 0.99, 5e-4, 1, 100_000, 736, 25, 4000),
    "voc-fcn8s-atonce": (1e-10, 0.99, 5e-4, 1, 300_000, 736, 75, 4000),
    "voc-fcn-alexnet": (1e-4, 0.9, 5e-4, 20, 100_000, 736, 25, 4000),
    "nyud-fcn32s-color": (1e-10, 0.99, 5e-4, 1, 300_000, 654, 50, 2000),
    "nyud-fcn32s-color-d": (1e-10, 0.99, 5e-4, 1, 300_000, 654, 50, 2000),
    "nyud-fcn32s-hha": (1e-10, 0.99, 5e-4, 1, 300_000, 654, 50, 2000),
    "nyud-fcn32s-color-hha": (1e-12, 0.99, 5e-4, 1, 300_000, 654, 50, 2000),
    "siftflow-fcn32s": (1e-10, 0.99, 5e-4, 1, 300_000, 200, 50, 2000),
    "siftflow-fcn16s": (1e-12, 0.99, 5e-4, 1, 300_000, 200, 50, 2000),
    "siftflow-fcn8s": (1e-12, 0.99, 5e-4, 1, 300_000, 200, 50, 2000),
    "pascalcontext-fcn32s": (1e-10, 0.99, 5e-4, 1, 300_000, 5105, 50, 8000),
    "pascalcontext-fcn16s": (1e-12, 0.99, 5e-4, 1, 300_000, 5105, 50, 8000),
    "pascalcontext-fcn8s": (1e-14, 0.99, 5e-4, 1, 300_000, 5105, 50, 8000),
}

_ELSEWHERE = (
    *_make_rows(
        README, "PASCAL VOC models", _736, f"{_REPO} README.md", ("mean_iu", "mean_iu_test_2012"),
        {
            "voc-fcn32s": (63.6, None),
            "voc-fcn16s": (65.0, None),
            "voc-fcn8s": (65.5, 67.2),
            "voc-fcn8s-atonce": (65.4, None),
            "voc-fcn-alexnet": (48.0, None),
        },
        nets={name: name for name in _SOLVERS},
    ),
    *_make_rows(
        REPOSITORY, "solver.prototxt, solve.py", "training", _REPO, _SOLVER, _SOLVERS,
        nets={name: name for name in _SOLVERS},
    ),
    *_make_rows(
        REPOSITORY, "net.py", "crop offsets", _REPO, ("score_px", "score_pool4_px", "score_pool3_px"),
        {"FCN-32s": (19, None, None), "FCN-16s": (27, 5, None), "FCN-8s": (31, 5, 9), "FCN-AlexNet": (18, None, None)},
    ),
    *_make_rows(
        REPOSITORY, "net.py", "FCN-8s at-once", _REPO, ("factor",), {"scale_pool4": (0.01,), "scale_pool3": (0.0001,)}
    ),
    *_make_rows(REPOSITORY, "net.py", "color-hha, Eltwise SUM", _REPO, ("coeff",), {"color": (0.5,), "hha": (0.5,)}),
    *_make_rows(
        RESCORED, "README", f"{_736}, its files of 2012; the published caffemodels in Chainer",
        "wkentaro/fcn README.md", METRICS,
        {
            "FCN-32s": (90.4810, 76.4824, 63.6261, 83.4580),
            "FCN-16s": (90.9971, 78.0710, 65.0050, 84.2614),
            "FCN-8s": (91.2212, 77.6146, 65.5126, 84.5445),
            "FCN-8s at-once": (91.1288, 78.4979, 65.3998, 84.4326),
        },
        nets=_VOC,
    ),
    # That README swaps the headings of its last two columns; here they are corrected.
    *_make_rows(
        RESCORED, "README", f"{_736}; the caffemodels of CVPR 2015 in MatConvNet", "vlfeat/matconvnet-fcn README.md",
        ("mean_iu", "pixel_acc", "mean_acc"),
        {"FCN-32s": (59.43, 89.12, 73.28), "FCN-16s": (62.35, 90.02, 75.74), "FCN-8s": (62.69, 90.33, 75.86)},
    ),
    *_make_rows(
        RESCORED, "table of VOC results", f"{_736}; the published caffemodel in PyTorch", "NVlabs/pacnet README.md",
        ("mean_iu", "mean_iu_test_2012"), {"FCN-8s": (65.51, 67.20)}, nets=_VOC,
    ),
    *_make_rows(
        RESCORED, "model zoo", "PASCAL-Context val, 59 classes; the caffemodels of 2015",
        "gists fcn-32s-pascalcontext and fcn-8s-pascalcontext", ("mean_iu",), {"FCN-32s": (35.1,), "FCN-8s": (37.8,)},
    ),
)  # fmt: skip

ROWS: tuple[PublishedRow, ...] = _PAMI + _CVPR + _ELSEWHERE
"""Every row, the newest edition of a number first."""


def find_rows(net_name: str, *editions: str) -> tuple[PublishedRow, ...]:
    """Return the rows with a mean IU of a published net, in the order of ``ROWS``, which starts with the PAMI paper.

    Args:
        net_name: the name of the net, such as ``voc-fcn8s``.
        editions: the publications to include, constants of this module such as ``PAMI``; all if there are none.
    """
    return tuple(
        row
        for row in ROWS
        if row.net == net_name and "mean_iu" in row.figures and (not editions or row.edition in editions)
    )


def find_paper_row(net_name: str) -> PublishedRow | None:
    """Return the paper's row for a net: of PAMI, whose nets are those published, else of the CVPR paper, else None."""
    return next(iter(find_rows(net_name, PAMI, CVPR, AUTHOR)), None)


def find_readme_row(net_name: str) -> PublishedRow | None:
    """Return the row with a net's scores in the README that was published with the weights, or None."""
    return next(iter(find_rows(net_name, README)), None)


def find_rescored_row(net_name: str) -> PublishedRow | None:
    """Return the row with scores of a net's published caffemodel that others measured, or None."""
    return next(iter(find_rows(net_name, RESCORED)), None)


def find_caveat(row: PublishedRow) -> str:
    """Return why the scores in a row may not be those of a net's published weights; empty if they should be.

    The published weights are those of the PAMI paper. An older number belongs to other weights, unless the README that
    was published with the weights repeats it.
    """
    claim = find_readme_row(row.net)
    older = row.edition != PAMI and (claim is None or claim["mean_iu"] != row.figures["mean_iu"].value)
    unread = "" if row.verified else "not checked against the paper's text"
    return "; ".join(filter(None, (f"of other weights, those of {row.edition}" if older else "", unread)))
