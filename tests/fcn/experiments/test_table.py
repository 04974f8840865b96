"""The table of the paper's experiments: each entry names rows that exist, here and in the paper."""

from dataclasses import replace

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.experiments import runs, table
from reproduction.fcn.experiments.runs import Measured, Settings
from reproduction.fcn.experiments.table import EXPERIMENTS
from reproduction.fcn.train import jobs
from reproduction.report import experiments

TRAINED = [experiment for experiment in EXPERIMENTS.values() if experiment.trials]


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_an_entry_is_complete(experiment):
    assert bool(experiment.trials) != bool(experiment.compute), "it either trains or computes"
    assert "2015" in experiment.says or "2016" in experiment.says or "README" in experiment.says
    assert experiment.claims
    labels = {label for claim in experiment.claims for label in (claim.first, claim.second)}.union(experiment.trials)
    assert not experiment.printed or all(map(experiment.find_printed, labels)), "the paper has no such row"
    assert set(experiment.columns) <= set(experiments.COLUMNS)
    for claim in experiment.claims:
        assert claim.relation in ("below", "no better")
        assert claim.column in experiment.columns
        assert not experiment.trials or {claim.first, claim.second} <= set(experiment.trials)


def test_variants_of_one_name_are_one_training():
    """Else the second one would find the folder of the first."""
    variants = [trial.variant for experiment in TRAINED for trial in experiment.trials.values()]
    variants += [need for variant in variants for need in variant.needs]
    named = {}
    for variant in variants:
        assert named.setdefault((variant.net, variant.suffix), variant) is variant


def test_mini_voc_has_fewer_updates_and_steps_in_proportion(tmp_path):
    settings = Settings("mini", tmp_path, tmp_path / "out")
    recipe = runs.find_recipe(table.FIXED, settings)
    assert recipe.name == "mini-fcn32s-fixed"
    assert recipe.solver_param.max_iter == table.FIXED.iterations
    assert list(recipe.solver_param.stepvalue) == [table.FIXED.iterations * 3 // 4, table.FIXED.iterations * 11 // 12]
    assert runs.find_recipe(table.FIXED, replace(settings, iterations=12)).solver_param.max_iter == 12
    assert runs.find_recipe(table.FIXED, replace(settings, set_name="voc")).solver_param.max_iter == 100_000


def test_a_variant_starts_from_the_one_that_it_needs_in_the_folder_of_its_seed(tmp_path):
    settings = Settings("mini", tmp_path, tmp_path / "out")
    job = runs.find_job(EXPERIMENTS["skips"].trials["FCN-2s"].variant, settings, seed=3)
    assert list(jobs.collect_jobs([job])) == ["seed3/mini-fcn4s", "seed3/mini-fcn2s"]
    assert job.files["mini-fcn4s"] == job.parents["mini-fcn4s"].weights_path(settings.out)
    assert job.parents["mini-fcn4s"].files["mini-fcn8s"].name == "mini-fcn8s.caffemodel", "the one in weights/"


def test_a_training_without_a_seed_has_no_folder_of_the_seed(tmp_path):
    settings = Settings("mini", tmp_path, tmp_path / "out")
    init = tmp_path / "mine.caffemodel"
    job = runs.make_job(runs.find_recipe(table.FIXED, settings), settings, init=[init])
    assert job.weights_path(settings.out) == tmp_path / "out/mini-fcn32s-fixed/mini-fcn32s-fixed.caffemodel"
    assert list(job.files.values()) == [init]


def test_a_wrong_name_gets_a_hint():
    assert [each.name for each in table.find_experiments(["masks", "fixed", "masks"])] == ["masks", "fixed"]
    assert len(table.find_experiments([])) == len(EXPERIMENTS)
    with pytest.raises(ReproductionError, match=r"there is no experiment 'mask'\. Did you mean"):
        table.find_experiments(["mask"])


def result(*rows, seeds=(1,)):
    return experiments.Result("fixed", 300, list(seeds), None, "2026-11-28", {"torch": "2"}, list(rows))


def rows(*pairs):
    return [
        Measured(label, {"mean_iu": values}) for label, values in zip(EXPERIMENTS["fixed"].trials, pairs, strict=True)
    ]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([0.10], [0.15], "-5.00: as in the paper"),
        ([0.20], [0.15], "+5.00: not as in the paper"),
        ([0.10, 0.12], [0.15, 0.17], "-5.00 ± 0.00: as in the paper"),
        ([0.10, 0.20], [0.15, 0.17], "-1.00 ± 5.66: within the spread"),
    ],
)
def test_a_claim_is_judged_by_the_spread_over_seeds(first, second, verdict):
    (sentence,) = experiments.format_verdicts(EXPERIMENTS["fixed"], result(*rows(first, second)))
    assert sentence == f"score layer alone against all layers, mean IU: {verdict}."


@pytest.mark.parametrize(("gain", "verdict"), [(-0.02, "as in the paper"), (0.02, "not as in the paper")])
def test_no_gain_is_what_the_paper_found(gain, verdict):
    measured = [Measured("balanced", {"mean_iu": [0.3 + gain]}), Measured("not balanced", {"mean_iu": [0.3]})]
    (sentence,) = experiments.format_verdicts(EXPERIMENTS["balance"], replace(result(*measured), name="balance"))
    assert sentence.endswith(f": {verdict}.")


def test_a_cost_is_compared_by_its_ratio():
    measured = [
        Measured("the image", {"products_an_output_millions": [10.0], "an_output_ms": [0.5]}),
        Measured("a window", {"products_an_output_millions": [160.0], "an_output_ms": [5.0]}),
    ]
    sentences = experiments.format_verdicts(EXPERIMENTS["windows"], replace(result(*measured), name="windows"))
    assert sentences[0] == ("the image against a window, million products an output: 16.0 times less: as in the paper.")


def test_results_are_written_with_the_papers_numbers_and_read_again(tmp_path):
    found = {"fixed": result(*rows([0.1, 0.2], [0.3, 0.4]), seeds=(1, 2))}
    texts = experiments.write_results(found, "mini", tmp_path)
    assert "| score layer alone |" in texts["experiments.md"]
    line = next(line for line in texts["experiments.md"].splitlines() if line.startswith("| score layer alone"))
    assert [cell.strip() for cell in line.split("|")][4:9] == ["", "59.7", "15.00 ± 7.07", "45.4", ""]
    assert "300 updates, seeds 1, 2; measured 2026-11-28." in texts["experiments.md"]
    assert "15.00 ± 7.07" in texts["experiments.html"]
    assert experiments.load_results(tmp_path / "experiments.json") == found
    assert experiments.load_results(tmp_path / "nothing.json") == {}
    (tmp_path / "experiments.json").write_text('{"format": 1, "set": 3}')
    with pytest.raises(ReproductionError, match="these are not the results of experiments"):
        experiments.load_results(tmp_path / "experiments.json")
