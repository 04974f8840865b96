"""Caffe's solver: forward, backward, normalize, regularize and update, in Caffe's order.

The caller passes a function from a draw's number to the net's inputs. Random numbers depend only on the seed and the
draw, so that a run resumed from a snapshot is identical to an uninterrupted one.
Source: BVLC/caffe@9b89154 src/caffe/solver.cpp, src/caffe/solvers/sgd_solver.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from reproduction.caffe import devices
from reproduction.caffe.errors import NetError, ReproductionError, StrPath
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.python import Python, PythonLayers
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import SolverParameter
from reproduction.caffe.training import snapshot, solver_nets, update_rules
from reproduction.caffe.training.accumulation import Accumulation, find_sole_users
from reproduction.caffe.training.apply_update import Updates
from reproduction.caffe.training.events import Evaluated, Event, FinalLoss, LossError, Saved, Step
from reproduction.caffe.training.parallel import Ranks
from reproduction.caffe.training.signals import Action
from reproduction.caffe.typing import Array

Inputs = Mapping[str, Tensor | Array]
Feed = Callable[[int], Inputs]


class Solver:
    """Caffe's solver, which trains a net.

    Args:
        param: The solver's settings, upgraded; the fields that name nets are ignored.
        net: The net to train, built for phase TRAIN, on its device.
        feed: Function that returns the inputs of a sample by its number, the draw: iteration times ``iter_size``, plus
            the index of the sample. None if the net's data layers read them.
        test_nets: One net for each ``test_iter``; they share the weights of ``net``.
        test_feeds: The ``feed`` of each test net; missing ones are None. Test number t, from 0, uses the draws from
            ``t * test_iter`` on.
        keep_gradients: Whether to store the update in the parameters' ``grad`` after each step, as Caffe's diff does.
            It needs as much memory as the weights; ``snapshot_diff`` has the same effect.
        ranks: The processes that train together; each builds a solver with the same arguments.

    Attributes:
        iter: The number of updates made.
        current_step: How many times a step or multistep schedule has multiplied the learning rate by ``gamma``.
        loss: The loss of the last iteration, the mean over ``iter_size`` samples.
        sample_losses: The losses of the last iteration, one per sample.
        smoothed_loss: The mean loss over the last ``average_loss`` iterations.
        action: Called after each update and before each test forward; returns the ``Action`` to take.
        stopped: Whether ``action`` ended the last run.
        notes: Sentences about settings without effect, and about the weights that were loaded.

    Raises:
        ReproductionError: If Caffe would reject a setting.
    """

    def __init__(
        self,
        param: SolverParameter,
        net: Net,
        feed: Feed | None = None,
        *,
        test_nets: Sequence[Net] = (),
        test_feeds: Sequence[Feed | None] = (),
        keep_gradients: bool = False,
        ranks: Ranks | None = None,
    ):
        self.param, self.net, self.feed, self.test_nets = param, net, feed, list(test_nets)
        self.test_feeds: list[Feed | None] = [*test_feeds, *[None] * (len(test_nets) - len(test_feeds))]
        self.ranks = ranks or Ranks()
        self._check()
        self._accumulation = Accumulation(net)
        keep, users = keep_gradients or param.snapshot_diff, find_sole_users(net)
        self.updates = Updates(param, net.learnable, keep=keep, sole_users=users)
        self.iter = self.current_step = 0
        self.loss, self.smoothed_loss = math.nan, 0.0
        self.sample_losses: list[float] = []
        self.action: Callable[[], Action] = lambda: Action.NONE
        self.stopped = False
        self.notes = solver_nets.describe_unread_fields(param)
        # Upstream bug, fixed: After a resume from a snapshot, Caffe's data layers start from the beginning of their
        # data. Here all but Python layers continue where the snapshot was taken.
        self.notes += [
            f"layer {name!r} (Python) restarts its data when a run is resumed." for name in self._own_sources
        ]
        self._losses: list[float] = []
        self._start = 0
        self._outputs: dict[str, Tensor] = {}
        # The blobs that a forward changes, such as the statistics of BatchNorm; `_undo` restores them.
        self._changing = [blob for layer in net.layers.values() if layer.changes_blobs for blob in layer.blobs]
        self.ranks.broadcast(net.parameters())
        for test_net in self.test_nets:
            test_net.share_with(net)

    def _check(self) -> None:
        param = self.param
        update_rules.learning_rate(param, 0, 0)  # raises an error if the schedule is invalid
        for name, least in (("iter_size", 1), ("average_loss", 1)):
            if getattr(param, name) < least:
                raise ReproductionError(f"{name} is too small", place="solver", got=getattr(param, name), want=least)
        if self.ranks.size > param.iter_size:
            raise ReproductionError(
                f"iter_size {param.iter_size} cannot be split over {self.ranks.size} processes",
                place="solver",
                remedy="Raise iter_size, or start fewer.",
            )
        for name in self._own_sources if self.ranks.size > 1 else ():
            raise NetError("processes cannot share the data of a Python layer", layer=name, remedy="Feed its tops.")
        if param.snapshot and self.ranks.is_first:
            snapshot.prepare(param)

    @property
    def _own_sources(self) -> list[str]:
        """Names of the Python layers without bottoms; they load data, and cannot seek to a given draw."""
        layers = self.net.layers.items()
        return [name for name, layer in layers if isinstance(layer, Python) and not layer.layer_param.bottom]

    @property
    def lr(self) -> float:
        """The learning rate of the next update, before ``lr_mult``."""
        return update_rules.learning_rate(self.param, self.iter, self.current_step)[0]

    @property
    def history(self) -> list[Tensor]:
        """History blobs of the update rule, in Caffe's order: every parameter's first blob, then the second blobs."""
        return self.updates.history

    # ---- running

    def solve(self, resume: StrPath | None = None) -> Iterator[Event]:
        """Train until ``max_iter`` or until ``action`` returns STOP, and yield an event for each thing that happens.

        A training ends with a snapshot, unless ``snapshot_after_train`` is false, then a last loss and a last test.

        Args:
            resume: Path of a solver state to resume from.

        Raises:
            LossError: If a loss or, at a snapshot, a weight is not finite.
            ReproductionError: If ``max_iter`` or ``snapshot_prefix`` is not set, or if ``restore`` fails.

        Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L280-L325 (Solve).
        """
        param = self.param
        if not param.has("max_iter"):
            raise ReproductionError("max_iter is not set", place="solver", remedy="Set it to the number of updates.")
        if param.snapshot_after_train and self.ranks.is_first:
            snapshot.prepare(param)
        if resume is not None:
            self.restore(resume)
        yield from self.run(param.max_iter - self.iter)
        if param.snapshot_after_train and (not param.snapshot or self.iter % param.snapshot):
            yield self._save()
        if self.stopped:
            return
        if param.display and self.iter % param.display == 0:
            with torch.no_grad():
                self._forward(self.iter * param.iter_size)
            self.loss = self.sample_losses[-1]
            self._smooth()
            yield FinalLoss(self.iter, self.loss, self.smoothed_loss, self._outputs)
        if param.test_interval and self.iter % param.test_interval == 0:
            yield from self.test_all()

    def run(self, iterations: int) -> Iterator[Event]:
        """Make ``iterations`` updates, with the tests and snapshots that are due, and yield an event for each.

        Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L195-L278 (Step).
        """
        param = self.param
        self._start, self._losses, self.smoothed_loss, self.stopped = self.iter, [], 0.0, False
        stop = self.iter + iterations
        while self.iter < stop:
            is_due = param.test_interval and self.iter % param.test_interval == 0
            if is_due and (self.iter or param.test_initialization):
                yield from self.test_all()
                if self.stopped:
                    return
            yield self._iterate()
            action = self._asked()
            if (param.snapshot and self.iter % param.snapshot == 0) or action is Action.SNAPSHOT:
                yield self._save()
            if action is Action.STOP:
                self.stopped = True
                return

    def step(self, iterations: int = 1) -> float:
        """Make ``iterations`` updates as ``run`` does, without returning events, and return the last loss."""
        for _ in self.run(iterations):
            pass
        return self.loss

    def _iterate(self) -> Step:
        param, lr, iteration = self.param, self.lr, self.iter
        displayed = bool(param.display) and iteration % param.display == 0
        norms = None
        at_once = param.iter_size == 1 and param.clip_gradients < 0 and not self.updates.keep
        if at_once and not (displayed and param.debug_info):
            with self.updates.in_backward(lr, iteration):
                self.accumulate()
            self._advance()
        else:
            self.accumulate()
            if displayed and param.debug_info:
                norms = self.updates.norms(self.net.params)
            self.apply_update()
        return Step(iteration, self.loss, lr, self.smoothed_loss, displayed, norms, self._outputs)

    def accumulate(self) -> None:
        """Run ``iter_size`` samples forward and backward, and accumulate their gradients in the parameters' ``grad``.

        Raises:
            LossError: If a loss is not finite; gradients and BatchNorm statistics are then reset.
        """
        size = self.param.iter_size
        self._clear()
        before = [blob.clone() for blob in self._changing]
        self.sample_losses = []
        for place in self.ranks.share(size):
            loss = self._forward(self.iter * size + place)
            if not math.isfinite(self.sample_losses[-1]):
                break
            self._backward(loss)
            del loss
        self.sample_losses = self.ranks.gather(self.sample_losses, size)
        for place, value in enumerate(self.sample_losses):
            if not math.isfinite(value):
                self._undo(before)
                raise LossError(
                    f"the loss is {value}", iteration=self.iter, draw=self.iter * size + place,
                    remedy="The learning rate is too high for this loss, or the weights or the sample are broken.",
                )  # fmt: skip
        if not self.ranks.is_last:
            self._accumulation.clear()
        self.ranks.all_reduce_gradients([p for p, _ in self.updates.learned if p.requires_grad])
        self.loss = sum(self.sample_losses) / size
        self._smooth()

    def _undo(self, before: list[Tensor]) -> None:
        with torch.no_grad():
            for blob, value in zip(self._changing, before, strict=True):
                blob.copy_(value)
        self._clear()

    # Subclasses that run the nets in another way override these: clear, forward, backward, update, evaluate.

    def _clear(self) -> None:
        for p, _ in self.updates.learned:
            p.grad = None

    def _forward(self, draw: int) -> Tensor:
        self.net.reseed(draw)
        with self._accumulation:
            blobs = self.net(self.feed(draw) if self.feed else None)
        loss = self.net.loss(blobs)
        self.sample_losses.append(float(loss.detach()))
        self._outputs = {name: blob.detach() for name, blob in blobs.items()}
        return loss

    def _backward(self, loss: Tensor) -> None:
        self._accumulation.clear()
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Update the weights from the gradients; unlike ``apply_update``, do not increment ``iter``."""
        self.updates.apply_all(self.lr, self.iter)

    def _evaluate(self, index: int, draw: int) -> tuple[Mapping[str, Tensor], float]:
        """Run a test net; return its outputs, and its loss (0 unless ``test_compute_loss`` is set)."""
        net, feed = self.test_nets[index], self.test_feeds[index]
        net.reseed(draw)
        with torch.inference_mode():
            blobs = net(feed(draw) if feed else None)
            return blobs, float(net.loss(blobs)) if self.param.test_compute_loss else 0.0

    def apply_update(self) -> None:
        """Update the weights from the accumulated gradients, and increment ``iter``."""
        self.update()
        self._advance()

    def _advance(self) -> None:
        self.current_step = update_rules.learning_rate(self.param, self.iter, self.current_step)[1]
        self.iter += 1

    def _smooth(self) -> None:
        """Add the last loss to the running mean ``smoothed_loss``.

        Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L497-L509.
        """
        window = self.param.average_loss
        if len(self._losses) < window:
            self._losses.append(self.loss)
            size = len(self._losses)
            self.smoothed_loss = (self.smoothed_loss * (size - 1) + self.loss) / size
        else:
            place = (self.iter - self._start) % window
            self.smoothed_loss += (self.loss - self._losses[place]) / window
            self._losses[place] = self.loss

    def _asked(self) -> Action:
        return Action(self.ranks.all_reduce_max(self.action()))

    # ---- testing

    def test_all(self) -> Iterator[Event]:
        """Run all test nets and yield an event for each; ``action`` may request snapshots, or a stop."""
        for index in range(len(self.test_nets)):
            yield from self._test(index)
            if self.stopped:
                return

    def _test(self, index: int) -> Iterator[Event]:
        param = self.param
        count = param.test_iter[index]
        self.test_nets[index].share_with(self.net)
        number = self.iter // param.test_interval - (not param.test_initialization)
        loss = 0.0
        sums: dict[str, Tensor] = {}
        for draw in range(number * count, (number + 1) * count):
            while (action := self._asked()) is not Action.NONE:
                if action is Action.SNAPSHOT:
                    yield self._save()
                else:
                    self.stopped = True
            if self.stopped:
                return
            blobs, value = self._evaluate(index, draw)
            loss += value
            for name, blob in blobs.items():
                if name in sums and sums[name].shape != blob.shape:
                    raise ReproductionError(
                        f"output {name!r} cannot be averaged, since its size changes from sample to sample",
                        place=f"test net {index}", got=tuple(blob.shape), want=tuple(sums[name].shape),
                    )  # fmt: skip
                sums[name] = sums[name] + blob if name in sums else blob
        outputs = {name: total / count for name, total in sums.items()}
        yield Evaluated(self.iter, index, loss / count if param.test_compute_loss else None, outputs)

    # ---- snapshots

    def snapshot(self) -> tuple[str, str]:
        """Write the weights and the state to ``snapshot_prefix``, in the first process only; return the two paths.

        Raises:
            LossError: If a weight is not finite.
            ReproductionError: If a file cannot be written; earlier snapshots are then unchanged.
        """
        for layer, blobs in self.net.params.items():
            if not all(bool(blob.isfinite().all()) for blob in blobs):
                raise LossError(
                    f"the weights of layer {layer!r} are not finite, so no snapshot is written",
                    iteration=self.iter,
                    draw=None,
                    remedy="Resume from the last snapshot with a lower learning rate.",
                )
        if self.ranks.is_first:
            message = self.net.to_proto(diff=self.param.snapshot_diff)
            snapshot.save(self.param, message, self.iter, self.current_step, self.history)
        return snapshot.paths(self.param, self.iter)

    def _save(self) -> Saved:
        return Saved(self.iter, *self.snapshot())

    def restore(self, path: StrPath) -> None:
        """Resume from a state that this class or Caffe wrote; the solver does not change if an error is raised.

        Raises:
            CaffemodelError: If the file is damaged or not a solver state.
            WeightsError: If the state belongs to another net or solver type, or if its model does not exist.
            ReproductionError: If the state is beyond ``max_iter``.
            OSError: If the file cannot be opened.
        """
        state = snapshot.load(path, self.history)
        if self.param.has("max_iter") and state.iter > self.param.max_iter:
            raise ReproductionError(
                f"max_iter {self.param.max_iter} is below iteration {state.iter} of this state",
                place=str(path),
                remedy="Raise max_iter, or resume from an earlier snapshot.",
            )
        if state.model is not None:
            self.net.copy_from(state.model, state.model_path, exact=True)
        self.updates.take_history(state.history)
        self.iter, self.current_step = state.iter, state.current_step


def build_solver(
    param: SolverParameter,
    *,
    base: StrPath = ".",
    feed: Feed | None = None,
    test_feeds: Sequence[Feed | None] = (),
    inputs: Mapping[str, Shape] | None = None,
    python_layers: PythonLayers | None = None,
    device: str | torch.device = "cpu",
    tests: bool = True,
    resume: StrPath | None = None,
    blas_order: bool = False,
    keep_gradients: bool = False,
    ranks: Ranks | None = None,
) -> Solver:
    """Build a solver and the nets that it names; load the weights that it names, or resume from a state.

    Args:
        param: The solver's settings, upgraded.
        base: The folder that relative paths of nets and weights refer to, but not ``snapshot_prefix``.
        feed: Function that returns the inputs of a sample by its number; see ``Solver``.
        test_feeds: The ``feed`` of each test net.
        inputs: Shapes of the blobs that the caller feeds, by name; see ``Net``.
        python_layers: Classes of Python layers by name, or a function that returns them; see ``Net``.
        device: The device to train and test on.
        tests: Whether to build the test nets; without them, tests are skipped.
        resume: Path of a state to resume from; as in Caffe's tool, ``weights`` are then not loaded.
        blas_order: Whether to add in the order of Caffe's BLAS, bit for bit as Caffe does on the CPU.
        keep_gradients: Whether to store the update in the parameters' ``grad`` after each step.
        ranks: The processes that train together; None for this one alone.

    Raises:
        ReproductionError: If the settings, nets, weights or state are invalid or do not fit each other.
        OSError: If a file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L36-L193, tools/caffe.cpp L222-L237.
    """
    # Upstream bug, fixed: Without random_seed, Caffe takes a seed from the clock (solver.cpp L44). Here the seed is 0.
    seed, place = max(param.random_seed, 0), devices.select_device(device)

    messages = [solver_nets.load_train_net(param, base), *(solver_nets.load_test_nets(param, base) if tests else ())]
    net, *test_nets = (
        Net(message, None, inputs=inputs, python_layers=python_layers, seed=seed, blas_order=blas_order).to(place)
        for message in messages
    )
    reports = [] if resume is not None else solver_nets.load_weights(param, base, [net, *test_nets])
    solver = Solver(
        param, net, feed, test_nets=test_nets, test_feeds=test_feeds, keep_gradients=keep_gradients, ranks=ranks
    )
    solver.notes += reports
    if resume is not None:
        solver.restore(resume)
    return solver
