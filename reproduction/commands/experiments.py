"""Run the paper's experiments, and print their figures next to the paper's.

    fcn experiments                              list them
    fcn experiments fixed masks                  run two of them on Mini-VOC, whose images are drawn
    fcn experiments all --seeds 3                run all, with three seeds for each training
    fcn experiments voc patches --device cuda    on VOC, if its data and the weights of VGG16 are there

On Mini-VOC each training takes a minute or two; on other data sets it has as many updates as that of the published net.
Results are printed, and added to those in reports/SET/experiments.json, .md and .html. Trainings are stored in
runs/experiments; a run that was stopped continues there, and what is trained is not trained again.

Each experiment compares rows of its table, and says whether the paper's finding shows: a difference counts if it is
larger than its standard deviation over the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from reproduction.commands.bars import Bars, say_above
from reproduction.commands.parsers import ALL, make_parser
from reproduction.commands.start import versions
from reproduction.commands.terminal import say
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.experiments import table
from reproduction.fcn.experiments.runs import Settings
from reproduction.fcn.experiments.table import Experiment
from reproduction.fcn.fetch import local_files
from reproduction.report import experiments, tables
from reproduction.report.experiments import Result


def main(arguments: Sequence[str] | None = None) -> None:
    """List the experiments, or run some and write their results."""
    args = make_parser("experiments").parse_args(arguments)
    sets = [name for name in args.names if name in SPECS] or ["mini"]
    names = [name for name in args.names if name not in SPECS]
    recorded = local_files.find_weights_path(sets[0]) / experiments.FILE
    if not args.names:
        results = experiments.load_results(recorded)
        say(*experiments.list_experiments(results), "", "`fcn experiments NAME` runs one, `fcn experiments all` all.")
        return
    chosen = table.find_experiments([] if ALL in names else names)
    folder = recorded.parent if args.record else args.report / sets[0]
    results = experiments.load_results(folder / experiments.FILE)
    with Bars() as bars:
        settings = Settings(
            sets[0], args.data, args.out / sets[0], args.weights, range(1, args.seeds + 1), args.iterations, args.limit,
            args.device, progress=bars, note=say_above,
        )  # fmt: skip
        for experiment in chosen:
            results[experiment.name] = measure(experiment, settings)
            texts = experiments.write_results(results, sets[0], folder, record_only=args.record)
    found = [experiments.make_table(experiment, results[experiment.name]) for experiment in chosen]
    say(*tables.format_page(found).split("\n"), str(folder / next(reversed(texts))))


def measure(experiment: Experiment, settings: Settings) -> Result:
    """Run an experiment and return its result.

    Raises:
        ReproductionError: If data or weights are missing or broken.
    """
    rows = experiment.run(settings)
    iterations = experiment.find_iterations(settings)
    return Result(
        experiment.name, iterations, list(settings.seeds) if experiment.trials else [], settings.limit,
        date.today().isoformat(), versions(), rows,
    )  # fmt: skip
