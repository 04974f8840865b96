"""Caffe's log messages, sent to Python's logger ``caffe``.

Nothing is printed until the program configures ``logging`` or calls ``init_log``. ``python -m reproduction.pycaffe``
calls ``init_log``, since Caffe logs to the screen. The environment variable GLOG_minloglevel, which the program may
also set itself, hides messages below that level.

Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L195-L410, src/caffe/solvers/sgd_solver.cpp L101-L111.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from reproduction.caffe.training.events import Evaluated, Event, FinalLoss, Saved, Step

logger = logging.getLogger("caffe")
_SCREEN = "caffe on stderr"
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Set the log level and print the log on stderr.

    Args:
        level: The lowest level to log: 0 for info, 1 for warnings, 2 for errors, 3 for critical errors.
        stderr: Whether to add a handler that prints on stderr; False leaves the output to the program's handlers.
    """
    logger.setLevel(_get_level(level))
    if stderr and all(handler.name != _SCREEN for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.name = _SCREEN
        handler.addFilter(_is_wanted)
        handler.setFormatter(logging.Formatter("%(levelname).1s%(asctime)s %(message)s", "%m%d %H:%M:%S"))
        logger.addHandler(handler)


def _is_wanted(record: logging.LogRecord) -> bool:
    level = os.environ.get("GLOG_minloglevel", "0")  # noqa: SIM112 (its name)
    return not level.isdecimal() or record.levelno >= _get_level(int(level))


def _get_level(level: int) -> int:
    return _LEVELS[min(max(level, 0), len(_LEVELS) - 1)]


def log(text: str) -> None:
    """Log a line at level INFO."""
    logger.info(text)


def log_event(event: Event, weights: Mapping[str, float]) -> None:
    """Log what a solver has done, such as an iteration or a snapshot, in the lines that Caffe writes.

    Args:
        event: What the solver has done.
        weights: The loss weights by blob name, of the net that ran: the test net for ``Evaluated``, else the training
            net.
    """
    if logger.isEnabledFor(logging.INFO):
        for line in format_event(event, weights):
            logger.info(line)


def format_event(event: Event, weights: Mapping[str, float]) -> Iterator[str]:
    """Yield the lines that Caffe logs for what a solver has done, such as ``Iteration 20, loss = 0.5``.

    Args:
        event: What the solver has done. There are no lines for an iteration that is not displayed.
        weights: The loss weights by blob name, of the net that ran: the test net for ``Evaluated``, else the training
            net.
    """
    if isinstance(event, Step) and event.is_displayed:
        yield f"Iteration {event.iteration}, loss = {event.smoothed_loss:g}"
        yield from _format_outputs("Train", event.outputs, weights)
        yield f"Iteration {event.iteration}, lr = {event.lr:g}"
    elif isinstance(event, FinalLoss):
        yield f"Iteration {event.iteration}, loss = {event.smoothed_loss:g}"
    elif isinstance(event, Evaluated):
        yield f"Iteration {event.iteration}, Testing net (#{event.net})"
        if event.loss is not None:
            yield f"Test loss: {event.loss:g}"
        yield from _format_outputs("Test", event.outputs, weights)
    elif isinstance(event, Saved):
        yield f"Snapshotting to {event.weights_path}"
        yield f"Snapshotting solver state to {event.state_path}"


def _format_outputs(phase: str, outputs: Mapping[str, Tensor], weights: Mapping[str, float]) -> Iterator[str]:
    number = 0
    for name, blob in outputs.items():
        weight = weights.get(name, 0.0)
        for value in np.atleast_1d(blob.detach().cpu().numpy()).flat:
            loss = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            yield f"    {phase} net output #{number}: {name} = {value:g}{loss}"
            number += 1
