"""The table of the paper's experiments: what each changes or computes, and what the paper says of it.

``EXPERIMENTS`` is the table. ``runs.run_trials`` runs the entries that train nets; the others have a function that
computes their figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.fcn.experiments import computations, runs
from reproduction.fcn.experiments.runs import Measured, Settings, Trial, Variant
from reproduction.fcn.nets import ablated_nets
from reproduction.fcn.reproduce import paper
from reproduction.fcn.reproduce.paper import CVPR, PAMI, PublishedRow
from reproduction.fcn.scoring.score import METRICS
from reproduction.fcn.train import ablations
from reproduction.fcn.train.augmentation import Augmentation
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.sample_changes import CueMask

#: The learning rate of SGD on Mini-VOC, whose own solver is Adam; other data sets keep that of their nets.
MINI_SGD_RATE = 3e-9
PATCH_SHARE = 0.5


@dataclass(frozen=True)
class Claim:
    """What the paper found, as a comparison of two rows of an experiment.

    Attributes:
        first: the label of a row.
        relation: ``below`` if the first is worse than the second; ``no better`` if it gains nothing over it.
        second: the label of another row.
        column: the figure that is compared.
    """

    first: str
    relation: str
    second: str
    column: str = "mean_iu"


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper.

    Attributes:
        name: the name by which the user selects it.
        title: the heading.
        says: what the paper says, and where.
        differs: how this differs from the paper's experiment; empty if it does not.
        trials: the nets to train and to score, by the label of their row; empty if nothing is trained.
        compute: a function that computes the rows if nothing is trained.
        columns: the figures to show.
        printed: the table of ``paper.ROWS`` that has the rows: its edition, its name, and the names of the rows by
            their labels here, where they differ. None if the paper prints none.
        printed_columns: the columns there, by the column here, where the names differ.
        claims: what the paper found.
    """

    name: str
    title: str
    says: str
    differs: str = ""
    trials: Mapping[str, Trial] = field(default_factory=dict)
    compute: Callable[[Settings], list[Measured]] | None = None
    columns: tuple[str, ...] = METRICS
    printed: tuple[str, str, Mapping[str, str]] | None = None
    printed_columns: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()

    def run(self, settings: Settings) -> list[Measured]:
        """Run the experiment and return the figures of its rows.

        Raises:
            ReproductionError: If data or weights are missing or broken.
        """
        return self.compute(settings) if self.compute else runs.run_trials(self.trials, settings)

    def find_iterations(self, settings: Settings) -> int | None:
        """Return the most updates of its trainings; None if it trains nothing."""
        found = [runs.find_recipe(trial.variant, settings).solver_param.max_iter for trial in self.trials.values()]
        return max(found, default=None)

    def find_printed(self, label: str) -> PublishedRow | None:
        """Return the paper's row for a row of this experiment, or None."""
        edition, table, names = self.printed or ("", "", {})
        wanted = (edition, table, names.get(label, label))
        return next((row for row in paper.ROWS if (row.edition, row.table, row.name) == wanted), None)


def _add(*changes: object) -> Callable[[Recipe, Path], Recipe]:
    """Return a change of a recipe that adds changes of its training samples."""
    return lambda recipe, data: replace(recipe, changes=(*recipe.changes, *changes))  # type: ignore[arg-type]


def _continue(recipe: Recipe, data: Path) -> Recipe:
    """Return a recipe that starts from the net's own weights."""
    return replace(recipe, parents=(recipe.name,), record=None)


def _enlarge_batch(recipe: Recipe, data: Path) -> Recipe:
    """Return a recipe whose updates read as many images as those of patch sampling."""
    return recipe.with_solver(iter_size=recipe.solver_param.iter_size * round(1 / PATCH_SHARE))


def _mask(*masks: CueMask) -> Callable[[Recipe, Path], Recipe]:
    """Return a change of a recipe that masks the training images; on Mini-VOC, from the net's own weights."""

    def change(recipe: Recipe, data: Path) -> Recipe:
        return _add(*masks)(_continue(recipe, data) if recipe.dataset == "mini" else recipe, data)

    return change


def _sgd(batch: int, momentum: float) -> Callable[[Recipe, Path], Recipe]:
    def change(recipe: Recipe, data: Path) -> Recipe:
        if recipe.solver_param.type == "SGD":
            return ablations.set_batch(recipe, batch, momentum, recipe.solver_param.base_lr)
        return ablations.set_batch(ablations.restart_scores(recipe), batch, momentum, MINI_SGD_RATE)

    return change


def _rise(*labels: str, column: str = "mean_iu") -> tuple[Claim, ...]:
    """Return the claims that each of some rows is worse than the next one."""
    return tuple(Claim(first, "below", second, column) for first, second in pairwise(labels))


def _gain_nothing(labels: Sequence[str], *others: str) -> tuple[Claim, ...]:
    """Return the claims that each of some rows gains nothing over each of others."""
    return tuple(Claim(first, "no better", second) for first in labels for second in others)


#: FCN-32s-fixed, of which only the score layer learns.
FIXED = Variant("fixed", change=lambda recipe, data: ablations.fix_all_but_scores(recipe))
_WHOLE = Variant("whole")
_POOLS = {number: Variant("", partial(ablated_nets.score_pool, number=number)) for number in (5, 4, 3)}
_FEW = 200  # updates of the nets that start from trained segmentation nets
_FINER = Variant("", partial(ablated_nets.add_skip, stride=4), iterations=_FEW)
_FINEST = Variant("", partial(ablated_nets.add_skip, stride=2), iterations=_FEW, needs=(_FINER,))
_FG, _BG = CueMask(foreground=True), CueMask(background=True)
_SHAPE = CueMask(foreground=True, background=True)
_ACCUMULATED, _ONLINE, _HEAVY = "accumulated (20 images, 0.9)", "online (1 image, 0.9)", "heavy (1 image, 0.99)"
_REFERENCE = Variant("reference", change=_mask(), iterations=_FEW)
_FG_ONLY = Variant("fg-only", change=_mask(_BG), iterations=_FEW)
_BG_ONLY = Variant("bg-only", change=_mask(_FG), iterations=_FEW)

_LIST = (
    Experiment(
        "fixed",
        "Fine-tuning the score layer alone",
        "Fine-tuning only the last layer yields 70% of the mean IU of fine-tuning all layers (CVPR 2015, section 4.3"
        " and table 2: FCN-32s-fixed), or 73% (PAMI 2016).",
        trials={
            "score layer alone": Trial(FIXED),
            "all layers": Trial(_WHOLE),
        },
        printed=(CVPR, "table 2", {"score layer alone": "FCN-32s-fixed", "all layers": "FCN-32s"}),
        claims=(Claim("score layer alone", "below", "all layers"),),
    ),
    Experiment(
        "pools",
        "One layer alone",
        "Learning only from pool4 gives poor performance (CVPR 2015, section 4.2); pool5, pool4 and pool3 alone are"
        " worse the lower they are (PAMI 2016, table on VOC 2011 val).",
        trials={
            "all layers": Trial(_WHOLE),
            **{f"pool{number}": Trial(variant) for number, variant in _POOLS.items()},
        },
        printed=(PAMI, "VOC 2011 val", {"all layers": "FCN-32s"} | {f"pool{n}": f"FCN-pool{n}" for n in _POOLS}),
        claims=_rise("pool3", "pool4", "pool5", "all layers")[::-1],
    ),
    Experiment(
        "skips",
        "Skips below pool3",
        "Fusing even lower layers than pool3 meets diminishing returns, so that the paper does not continue (CVPR 2015,"
        " section 4.2).",
        differs=f"Each starts from the net before and makes {_FEW} updates; so does FCN-8s, trained on.",
        trials={
            "FCN-8s, trained on": Trial(Variant("longer", "fcn8s", _continue, _FEW)),
            "FCN-4s": Trial(_FINER),
            "FCN-2s": Trial(_FINEST),
        },
        claims=(Claim("FCN-4s", "no better", "FCN-8s, trained on"), Claim("FCN-2s", "no better", "FCN-4s")),
    ),
    Experiment(
        "upsampling",
        "Fixed, learned and nearest upsampling",
        "Deconvolution layers start from bilinear interpolation, and were learned but for the last one (CVPR 2015,"
        " section 4.3); fixing them makes no significant difference (README of the published nets).",
        differs=f"FCN-8s from FCN-16s, {_FEW} updates; learned are all three layers. Nearest repeats"
        " each score, which the paper did not try.",
        trials={
            "learned": Trial(Variant("learned", "fcn8s", lambda r, d: ablations.learn_upsampling(r), _FEW)),
            "fixed": Trial(Variant("whole", "fcn8s", iterations=_FEW)),
            "nearest": Trial(Variant("", ablated_nets.upsample_nearest, iterations=_FEW)),
        },
        claims=_gain_nothing(["learned", "nearest"], "fixed"),
    ),
    Experiment(
        "scores",
        "Zero or random initialization of the score layer",
        "The class scoring layer starts from zeros, since random initialization gave neither better performance nor"
        " faster convergence (CVPR 2015, section 4.3, Optimization).",
        trials={
            "random": Trial(Variant("random", change=lambda r, d: ablations.draw_scores(r))),
            "zero": Trial(_WHOLE),
        },
        claims=(Claim("random", "no better", "zero"),),
    ),
    Experiment(
        "optimization",
        "Momentum and batch size",
        "Momentum p with batches of k images acts as p' with k' if p^(1/k) = p'^(1/k'): 0.9 with 20 images"
        " is like 0.9947 (printed as 0.99) with one. Learning from one image at a time with high momentum gives better"
        " nets in less time (PAMI 2016, table on optimization).",
        differs="All see as many images, so that accumulation makes a twentieth of the updates; SGD at one rate. On"
        " Mini-VOC only the score layer starts from zeros, above the layers of mini-fcn32s, since SGD is slow there.",
        trials={
            _ACCUMULATED: Trial(Variant("accum", change=_sgd(20, 0.9))),
            _ONLINE: Trial(Variant("online", change=_sgd(1, 0.9))),
            _HEAVY: Trial(Variant("heavy", change=_sgd(1, 0.99))),
        },
        printed=(PAMI, "optimisation", {_ACCUMULATED: "FCN-accum", _ONLINE: "FCN-online", _HEAVY: "FCN-heavy"}),
        claims=_rise(_ACCUMULATED, _ONLINE, _HEAVY),
    ),
    Experiment(
        "patches",
        "Patch sampling",
        "Each cell of the final layer is ignored with probability 1 - p, in batches 1 / p times as large. Sampling does"
        " not converge faster than whole images, but takes more time, since more images are read (CVPR 2015, section"
        " 4.3 and figure 5).",
        differs=f"p = {PATCH_SHARE:g}; as many updates. A cell is a square of 32 x 32 pixels. The last net"
        " reads as many images as that of patches, in the same time.",
        trials={
            "patches": Trial(Variant("patches", change=lambda r, d: ablations.sample_patches(r, PATCH_SHARE))),
            "whole images": Trial(_WHOLE),
            "as many whole images": Trial(Variant("pairs", change=_enlarge_batch)),
        },
        claims=_gain_nothing(["patches"], "whole images", "as many whole images"),
    ),
    Experiment(
        "balance",
        "Class balancing",
        "Labels are mildly unbalanced (about 3/4 are background), and class balancing is unnecessary (CVPR 2015,"
        " section 4.3).",
        differs="Each class is weighted by the inverse of its share of the training pixels.",
        trials={
            "balanced": Trial(Variant("balanced", change=ablations.balance_classes)),
            "not balanced": Trial(_WHOLE),
        },
        claims=(Claim("balanced", "no better", "not balanced"),),
    ),
    Experiment(
        "augmentation",
        "Mirroring and jitter",
        "Randomly mirroring the training images and shifting them by up to 32 pixels yielded no noticeable improvement"
        " (CVPR 2015, section 4.3).",
        trials={
            "mirrored": Trial(Variant("mirror", change=_add(Augmentation(jitter=0)))),
            "mirrored and jittered": Trial(Variant("jitter", change=_add(Augmentation()))),
            "neither": Trial(_WHOLE),
        },
        claims=_gain_nothing(["mirrored", "mirrored and jittered"], "neither"),
    ),
    Experiment(
        "masks",
        "Foreground, background and shape",
        "Masking the foreground at inference is catastrophic; masking the background has little effect; a net that was"
        " trained on the background alone recognizes objects that it does not see; one that sees shapes alone is less"
        " accurate than that (PAMI 2016, table 8). Mean IU is over the classes without background.",
        differs="Masked pixels get the mean colour; shapes are one grey on it. On Mini-VOC all nets start from"
        f" mini-fcn32s and make {_FEW} updates.",
        trials={
            "Reference": Trial(_REFERENCE),
            "Reference-FG": Trial(_REFERENCE, _BG),
            "Reference-BG": Trial(_REFERENCE, _FG),
            "FG-only": Trial(_FG_ONLY, _BG),
            "BG-only": Trial(_BG_ONLY, _FG),
            "Shape": Trial(Variant("shape", change=_mask(_SHAPE), iterations=_FEW), _SHAPE),
        },
        columns=("object_iu",),
        printed=(PAMI, "mask cues", {}),
        printed_columns={"object_iu": "mean_iu"},
        claims=(
            Claim("Reference-FG", "below", "Reference", "object_iu"),
            Claim("Reference-BG", "below", "Reference-FG", "object_iu"),
            Claim("Reference-BG", "below", "BG-only", "object_iu"),
            Claim("Reference-BG", "below", "Shape", "object_iu"),
            Claim("BG-only", "below", "FG-only", "object_iu"),
            Claim("Shape", "below", "BG-only", "object_iu"),
        ),
    ),
    Experiment(
        "bounds",
        "Upper bounds by stride",
        "Mean IU of the true labels after downsampling them by a factor and upsampling them again (CVPR 2015, the table"
        " of upper bounds): a stride of 32 need not cost much.",
        differs="The paper does not say how it sampled: nearest takes the label in the middle of a cell, bilinear"
        " interpolates the shares of the classes.",
        compute=computations.bound_by_stride,
        columns=("nearest_iu", "bilinear_iu"),
        printed=(CVPR, "upper bounds", {}),
        printed_columns={"bilinear_iu": "mean_iu"},
        claims=_rise("128", "64", "32", "16", "8", "4", column="bilinear_iu"),
    ),
    Experiment(
        "windows",
        "Sliding windows against one convolution",
        "AlexNet classifies a 227 x 227 window in 1.2 ms; its fully convolutional form computes a 10 x 10 grid of"
        " outputs from a 500 x 500 image in 22 ms, more than 5 times faster than 100 windows (CVPR 2015, section 3.1).",
        differs="CPU time of one thread, windows in batches of 10.",
        compute=computations.compare_windows,
        columns=("outputs", "products_millions", "products_an_output_millions", "forward_ms", "an_output_ms"),
        printed=(CVPR, "section 3.1", {"a window": "classifier, 227 x 227", "the image": "FCN, 500 x 500"}),
        claims=(
            Claim("the image", "below", "a window", "products_an_output_millions"),
            Claim("the image", "below", "a window", "an_output_ms"),
        ),
    ),
    Experiment(
        "stitch",
        "Shift-and-stitch against filter rarefaction",
        "Interlacing the outputs of f^2 shifts of the image gives the same dense output as one pass with stride 1 and"
        " rarefied (dilated) filters (CVPR 2015, section 3.2); neither is used, since skips cost less.",
        differs="Without padding, so that the outputs agree up to the border; CPU time of one thread.",
        compute=computations.compare_dense_outputs,
        columns=("passes", "products_millions", "cpu_s", "difference"),
        claims=tuple(
            Claim(f"stride {f}, filter rarefaction", "below", f"stride {f}, shift-and-stitch", "products_millions")
            for f in (8, 16, 32)
        ),
    ),
)

#: The experiments by name.
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _LIST}


def find_experiments(names: Sequence[str]) -> list[Experiment]:
    """Return the experiments of some names, or all for none.

    Raises:
        ReproductionError: If there is no such experiment; the remedy names the closest match.
    """
    for name in names:
        if name not in EXPERIMENTS:
            remedy = did_you_mean(name, EXPERIMENTS) or f"There are {', '.join(EXPERIMENTS)}."
            raise ReproductionError(f"there is no experiment {name!r}", remedy=remedy)
    return [EXPERIMENTS[name] for name in dict.fromkeys(names)] or list(EXPERIMENTS.values())
