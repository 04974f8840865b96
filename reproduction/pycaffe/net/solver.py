"""pycaffe's solvers: those of ``reproduction.caffe``, on nets whose blobs a program can read and write.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L315-L345, L520-L575; src/caffe/solver.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from reproduction.caffe.errors import ReproductionError, StrPath, did_you_mean
from reproduction.caffe.formats import prototxt
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.blob import Blob
from reproduction.caffe.layers.pycaffe_vectors import NetVec
from reproduction.caffe.schema import SolverParameter
from reproduction.caffe.training import solver, solver_nets
from reproduction.caffe.training.events import Evaluated, Event
from reproduction.pycaffe.net import caffe_log
from reproduction.pycaffe.net.errors import CaffeError, check_file, original_error_types
from reproduction.pycaffe.net.net import Net

#: The names of Caffe's interface that its package has; its module ``_caffe`` has ``Solver`` too.
__all__ = [
    "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "NesterovSolver", "RMSPropSolver", "SGDSolver", "get_solver",
]  # fmt: skip

Callback = Callable[[], object]


class _BlobSolver(solver.Solver):
    """A solver whose forward and backward passes run through pycaffe's nets."""

    def __init__(self, param: SolverParameter, pycaffe_net: Net, pycaffe_test_nets: Iterable[Net]):
        self.pycaffe_net, self.pycaffe_test_nets = pycaffe_net, list(pycaffe_test_nets)
        self.callbacks: list[tuple[Callback, Callback]] = []
        modules = [net.module for net in self.pycaffe_test_nets]
        super().__init__(param, pycaffe_net.module, test_nets=modules, keep_gradients=True)
        for net in self.pycaffe_test_nets:
            net.share_with(pycaffe_net)

    def accumulate(self) -> None:
        """Compute the gradients for one update of the weights, and call the registered callbacks before and after."""
        for on_start, _ in self.callbacks:
            on_start()
        super().accumulate()
        for _, on_gradients_ready in self.callbacks:
            on_gradients_ready()
        self._take_gradients()

    def _learned_blobs(self) -> list[tuple[torch.nn.Parameter, Blob]]:
        owners = {id(p): blob for p, blob in self.pycaffe_net.parameters()}
        return [(p, owners[id(p)]) for p, _ in self.updates.learned]

    def _take_gradients(self) -> None:
        """Set each parameter's ``grad`` to its blob's gradient, or to None if the blob has none."""
        for p, blob in self._learned_blobs():
            p.grad = blob.gradient(p.device).reshape(p.shape) if blob.has_gradient else None

    def _clear(self) -> None:
        self.pycaffe_net.clear_param_diffs()

    def _forward(self, draw: int) -> Tensor:
        self.net.reseed(draw)
        loss = self.pycaffe_net._forward(0, len(self.pycaffe_net.layers) - 1)
        self.sample_losses.append(loss)
        self._outputs = self.pycaffe_net.output_values()
        return torch.tensor(loss)

    def _backward(self, loss: Tensor) -> None:
        self.pycaffe_net._backward(len(self.pycaffe_net.layers) - 1, 0)

    def update(self) -> None:
        """Update the weights from the gradients in the parameters' blobs.

        As in Caffe, the blobs then contain the values that were subtracted from the weights in place of the gradients.
        """
        self._take_gradients()
        super().update()
        for p, blob in self._learned_blobs():
            blob.put(p.detach())
            if p.grad is not None:
                blob.put_gradient(p.grad)
            p.grad = None

    def _evaluate(self, index: int, draw: int) -> tuple[dict[str, Tensor], float]:
        net = self.pycaffe_test_nets[index]
        net.module.reseed(draw)
        loss = net._forward(0, len(net.layers) - 1)
        return net.output_values(), loss


class Solver:
    """A solver with pycaffe's interface: trains a net by one update rule. Each subclass is an update rule.

    Args:
        filename: The solver's prototxt. Relative paths in it are relative to the working directory.
        inputs: Shapes by name of the blobs that the program fills before each step; see ``Net``.

    Attributes:
        type: The update rule, by its name in a solver's prototxt, such as "SGD".
        net: The training net.
        test_nets: The test nets, which share the weights of the training net.
        param: The ``SolverParameter``; a program may set its fields, such as ``param.base_lr``.

    Raises:
        CaffeError: If the file cannot be opened, or the class has no update rule.
        ReproductionError: If Caffe would reject the solver or its nets.
    """

    type: ClassVar[str] = ""

    def __init__(self, filename: StrPath, *, inputs: Mapping[str, Shape] | None = None):
        if not self.type:
            raise CaffeError("the class Solver has no update rule", remedy="Use get_solver().")
        check_file(filename)
        param = prototxt.load_solver(filename)
        param.type = self.type
        # Without random_seed, Caffe takes a seed from the clock. This project uses 0, so that runs repeat.
        seed = max(param.random_seed, 0)
        self.param = param
        self.net = Net.from_message(solver_nets.load_train_net(param, "."), seed, inputs)
        self.test_nets = NetVec.from_items(
            Net.from_message(net_param, seed, inputs) for net_param in solver_nets.load_test_nets(param, ".")
        )
        notes = solver_nets.load_weights(param, ".", [net.module for net in (self.net, *self.test_nets)])
        self._solver = _BlobSolver(param, self.net, self.test_nets)
        for note in [*notes, *self._solver.notes]:
            caffe_log.log(note)

    @property
    def iter(self) -> int:
        """The number of updates so far."""
        return self._solver.iter

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._solver.lr

    def step(self, iters: int) -> None:
        """Run ``iters`` updates of the weights, with the tests and snapshots that are due in these iterations.

        Raises:
            LossError: If a loss is not finite; the weights keep their values from before the update.
            NetError: If ``Net.forward`` or ``Net.backward`` raises it.
        """
        with original_error_types():
            for event in self._solver.run(iters):
                self._log(event)

    def solve(self, resume_file: StrPath | None = None) -> None:
        """Train until iteration ``max_iter`` of the solver's prototxt.

        Args:
            resume_file: A solver state to resume from, or None.

        Raises:
            ReproductionError: If ``max_iter`` is not set, or ``step`` or ``restore`` raises it.
        """
        if resume_file is not None:
            check_file(resume_file)
        with original_error_types():
            for event in self._solver.solve(resume_file):
                self._log(event)
        caffe_log.log("Optimization Done.")

    def restore(self, filename: StrPath) -> None:
        """Load a solver state written by Caffe or by this project, with its weights, so that training resumes there.

        Raises:
            ReproductionError: If the file cannot be opened, is not a solver state, or belongs to a different net.
        """
        check_file(filename)
        self._solver.restore(filename)

    def snapshot(self) -> None:
        """Write the weights and the solver state to two files, whose names begin with ``snapshot_prefix``.

        Raises:
            ReproductionError: If the files cannot be written.
        """
        self._solver.snapshot()

    def apply_update(self) -> None:
        """Update the weights from the current gradients in the parameters' blobs; ``iter`` does not change."""
        self._solver.update()

    def add_callback(self, on_start: Callback, on_gradients_ready: Callback) -> None:
        """Register two functions that are called without arguments in each update.

        Args:
            on_start: Called before the first forward pass of the update.
            on_gradients_ready: Called after the last backward pass, before the weights change.
        """
        self._solver.callbacks.append((on_start, on_gradients_ready))

    def share_weights(self, net: Net) -> None:
        """Share the training net's weights with another net, which then always has the current ones.

        Args:
            net: The other net; layers of the same name share their parameters.
        """
        net.share_with(self.net)

    def _log(self, event: Event) -> None:
        net = self.test_nets[event.net] if isinstance(event, Evaluated) else self.net
        caffe_log.log_event(event, net.blob_loss_weights)


class SGDSolver(Solver):
    """A solver that uses stochastic gradient descent with momentum."""

    type = "SGD"


class NesterovSolver(SGDSolver):
    """A solver that uses Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """A solver that uses AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """A solver that uses RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """A solver that uses AdaDelta."""

    type = "AdaDelta"


class AdamSolver(SGDSolver):
    """A solver that uses Adam."""

    type = "Adam"


SOLVERS: dict[str, type[SGDSolver]] = {
    kind.type: kind for kind in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
}


def get_solver(filename: StrPath) -> Any:
    """Return a solver for a prototxt, of the class for the ``type`` that the prototxt sets.

    Raises:
        ReproductionError: If there is no such type, or ``Solver`` raises it.
    """
    check_file(filename)
    kind = prototxt.load_solver(filename).type
    if kind not in SOLVERS:
        raise ReproductionError(
            f"unknown solver type {kind!r}", place=str(filename), remedy=did_you_mean(kind, SOLVERS)
        )
    return SOLVERS[kind](filename)
