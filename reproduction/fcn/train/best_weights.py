"""The weights of the highest mean IU of all validations of a training, kept next to the last ones.

``NAME-best.caffemodel`` is in the training's folder. Which validation it belongs to follows from the log; the model
card, if there is one, states it too, and names this file as the weights to use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from reproduction.caffe.errors import WeightsError
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.fcn.segment import card
from reproduction.fcn.segment.card import Card
from reproduction.fcn.train.log_file import Validation


def best_path(folder: Path) -> Path:
    """Return the path of the best weights in the folder of a training, which has the net's name."""
    return folder / f"{folder.name}-best.caffemodel"


def main_mean_iu(validation: Validation) -> float | None:
    """Return the mean IU of a validation for the first kind of labels, 0 to 1; None if there is none."""
    return next((metrics.mean_iu for metrics in validation.scores.values()), None)


def find_best(validations: Iterable[Validation]) -> Validation | None:
    """Return the validation of the highest mean IU, the first of equal ones; None if none has dense labels."""
    best, highest = None, -1.0
    for validation in validations:
        mean_iu = main_mean_iu(validation)
        if mean_iu is not None and mean_iu > highest:
            best, highest = validation, mean_iu
    return best


class BestWeights:
    """The writer of the best weights of a training.

    Args:
        folder: the training's folder.
        validations: the validations before, of a resumed training.
    """

    def __init__(self, folder: Path, validations: Iterable[Validation] = ()):
        self.folder, self.best = folder, find_best(validations)

    def update(self, validation: Validation, net: Net) -> bool:
        """Write the weights if the validation has a higher mean IU than all before; return whether it has.

        The weights are written before the card that names them, each atomically.

        Raises:
            ReproductionError: If a file cannot be written.
        """
        if find_best([self.best, validation] if self.best else [validation]) is not validation:
            return False
        self.best = validation
        caffemodel.dump(net.to_proto(), best_path(self.folder))
        path = self.folder / card.CARD_FILE
        if path.is_file():
            card.write_card(name_best(card.load_card(path), self.folder, describe(validation)), path)
        return True


def describe(validation: Validation) -> str:
    """Describe a validation, such as ``mean IU 63.21 % after 4,000 iterations``."""
    mean_iu = main_mean_iu(validation)
    assert mean_iu is not None
    return f"mean IU {100 * mean_iu:.2f} % after {validation.iteration:,} iterations"


def name_best(record: Card, folder: Path, description: str) -> Card:
    """Return a copy of a card that names the best weights in a folder, with a description of their validation."""
    source = {**record.source, card.BEST_KEY: description}
    return replace(record, weights=best_path(folder).name, source=source)


def keep_naming_best(record: Card, folder: Path) -> Card:
    """Return a card for a folder, which names the best weights if the card in the folder does and they are there.

    Raises:
        DataError: If the card in the folder is broken.
    """
    path = folder / card.CARD_FILE
    before = card.load_card(path) if path.is_file() and best_path(folder).is_file() else None
    if before is None or card.BEST_KEY not in before.source:
        return record
    return name_best(record, folder, before.source[card.BEST_KEY])


def delete_best(folder: Path) -> None:
    """Delete the best weights of a training that starts again.

    Raises:
        WeightsError: If the file cannot be deleted.
    """
    try:
        best_path(folder).unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"the file cannot be deleted ({error.strerror})", path=best_path(folder)) from None
