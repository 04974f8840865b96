"""The history of trainings, loaded from their logs: settings, losses and validations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import SolverParameter
from reproduction.caffe.training.events import Step
from reproduction.fcn.segment import card
from reproduction.fcn.train import best_weights, log_file
from reproduction.fcn.train.log_file import LOG_FILE, Start, Validation
from reproduction.fcn.train.run_folder import PARENT_PREFIX


@dataclass(frozen=True)
class TrainingHistory:
    """The log of one training, as lists of its records.

    Attributes:
        start: the first record of the log: time, device, versions, solver, settings.
        max_iter: the number of iterations that the solver is to make.
        steps: the record of each update.
        validations: the record of each validation.
        resumed: the number of times that the training was resumed.
        colours: the R, G, B values of the classes by label top; empty if the training's folder has no model card.
    """

    start: Start
    max_iter: int
    steps: Sequence[Step]
    validations: Sequence[Validation]
    resumed: int
    colours: Mapping[str, Sequence[tuple[int, int, int]]]

    @property
    def name(self) -> str:
        """The name of the net that is trained."""
        return self.start.stage

    @property
    def done(self) -> int:
        """The number of updates that were made so far."""
        return self.steps[-1].iteration + 1 if self.steps else 0

    @property
    def best(self) -> Validation | None:
        """The validation of the highest mean IU; None if none has dense labels."""
        return best_weights.find_best(self.validations)

    @property
    def parents(self) -> list[str]:
        """The names of the nets whose weights the training started from."""
        return [name.removeprefix(PARENT_PREFIX) for name in self.start.settings if name.startswith(PARENT_PREFIX)]

    @property
    def duration(self) -> timedelta | None:
        """The time from the start to the last validation; None if it is not logged, or if the training was resumed."""
        ended = self.validations[-1].time if self.validations else ""
        if self.resumed or not ended:
            return None
        duration = datetime.fromisoformat(ended) - datetime.fromisoformat(self.start.time)
        return timedelta(seconds=round(duration.total_seconds()))


def find_run_folders(folder: Path) -> list[Path]:
    """Return the folders of the trainings in a folder; the folder itself if it is that of a training.

    Raises:
        DataError: If there is no log in the folder or directly below it.
    """
    if (folder / LOG_FILE).is_file():
        return [folder]
    folders = sorted(path.parent for path in folder.glob(f"*/{LOG_FILE}"))
    if not folders:
        remedy = "fcn train writes it."
        raise DataError("the folder contains no training", path=folder, want=f"NET/{LOG_FILE}", remedy=remedy)
    return folders


def load_history(folder: Path) -> TrainingHistory:
    """Load the log of a training, and the colours of its classes from its model card, if there is one.

    Raises:
        DataError: If the log is missing or invalid, or the card is broken.
    """
    path = folder / LOG_FILE
    start, *records = log_file.read_log(path)
    assert isinstance(start, Start)
    try:
        max_iter = prototxt.loads(start.solver, SolverParameter).max_iter
    except ReproductionError as error:
        raise error.at(str(path)) from None
    model_card = card.load_card(folder / card.CARD_FILE) if (folder / card.CARD_FILE).is_file() else None
    return TrainingHistory(
        start,
        max(0, max_iter),
        steps=[record for record in records if isinstance(record, Step)],
        validations=[record for record in records if isinstance(record, Validation)],
        resumed=sum(type(record) is log_file.Resume for record in records),
        colours={top: label.colours for top, label in model_card.labels.items()} if model_card else {},
    )


def group_chains(histories: Iterable[TrainingHistory]) -> list[list[TrainingHistory]]:
    """Group trainings into chains: a training joins the chain of the nets whose weights it starts from.

    The stages of a chain are in the order of their start times.
    """
    chains: list[list[TrainingHistory]] = []
    for history in sorted(histories, key=lambda history: history.start.time):
        # A stage with parents in several chains merges them.
        merged = [chain for chain in chains if any(earlier.name in history.parents for earlier in chain)]
        others = [chain for chain in chains if chain not in merged]
        chains = [*others, [*(earlier for chain in merged for earlier in chain), history]]
    return chains
