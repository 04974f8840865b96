"""pycaffe's Net: a net whose every blob, and its gradient, is in the caller's hand.

It runs the layers of a ``reproduction.caffe`` net one by one, from blobs into blobs; what a layer computes, forward and
backward, is theirs.

Source: BVLC/caffe@9b89154 python/caffe/pycaffe.py, python/caffe/_caffe.cpp, src/caffe/net.cpp L530-L1000.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.formats import caffemodel, hdf5, prototxt, weights
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.blob import Array, Blob
from reproduction.caffe.layers.data import MemoryData
from reproduction.caffe.layers.vectors import LayerVec
from reproduction.caffe.net.net import Net as CoreNet
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.pycaffe.net import live, logs, modes
from reproduction.pycaffe.net.errors import CaffeError, as_raised, check_file
from reproduction.pycaffe.net.names import Names

Arrays = dict[str, Array]
Callback = Callable[[int], object]


class Net(Names):
    """A net as pycaffe has it.

    ``Net(file, phase)``, ``Net(file, phase, level=, stages=, weights=)``, or as it once was ``Net(file, weights,
    phase)``. The classes of Python layers are imported, since a program that names them here wants them run.

    Args:
        network_file: the prototxt.
        phase: ``caffe.TRAIN`` or ``caffe.TEST``; or, with the phase after it, the file of weights.
        level: the level that include and exclude rules see; it replaces that of the file's ``state``.
        stages: added to the stages of the file's ``state``.
        weights: a file of weights, of any format.
        inputs: shapes of blobs that the program fills, in place of the layers that would read them from files, such as
            Data; Caffe has no such argument.

    Attributes:
        module: the net that computes, a ``torch.nn.Module`` with the same parameters.
        layers: the layers in order, input and split layers among them; of a Python layer, the caller's own object.

    Raises:
        ReproductionError: what Caffe would refuse, with the layer and the reason; a CaffeError where a file cannot be
            opened. Of what a Python layer raises, the same type.
    """

    def __init__(
        self,
        network_file: StrPath,
        phase: int | StrPath,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: StrPath | None = None,
        *,
        inputs: Mapping[str, Shape] | None = None,
    ):
        if isinstance(phase, (str, os.PathLike)):
            weights, phase, level = phase, level, 0
        for path in (network_file, weights):
            if path is not None:
                check_file(path)
        if phase not in tuple(Phase):
            raise NetError("the phase is neither caffe.TRAIN nor caffe.TEST", got=phase, want="0 or 1")
        self._build(prototxt.load_net(network_file)[0], Phase(phase), level, stages or (), inputs=inputs)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def of(cls, net: NetParameter, seed: int | None = None, inputs: Mapping[str, Shape] | None = None) -> Net:
        """Make one of a message, in the state that it names; ``seed`` is that of fillers and dropout."""
        made = cls.__new__(cls)
        made._build(net, None, seed=seed, inputs=inputs)
        return made

    def _build(
        self,
        net: NetParameter,
        phase: Phase | None,
        level: int = 0,
        stages: Iterable[str] = (),
        seed: int | None = None,
        inputs: Mapping[str, Shape] | None = None,
    ) -> None:
        self._blobs_by_name: OrderedDict[str, Blob] = OrderedDict()
        with as_raised():
            self.module = CoreNet(
                net,
                phase,
                level=level,
                stages=stages,
                inputs=inputs,
                python_layers=live.find_class,
                seed=seed,
                live=self._blobs_by_name,
            )
            self.module.add_as_blas(bool(self.module.loss_weights) and modes.adds_as_caffe())
            self._run = live.layers_of(self.module, self._blobs_by_name)
        self.layers = LayerVec.of(layer.face for layer in self._run)
        self._callbacks: dict[str, list[Callback]] = {
            f"{when}_{way}": [] for when in ("before", "after") for way in ("forward", "backward")
        }

    # ---- running

    def forward(
        self, blobs: list[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays:
        """Run the layers.

        Args:
            blobs: blobs to return besides the outputs.
            start: the layer to begin with, from the blobs as they are.
            end: the last layer to run; its tops are returned in place of the outputs.
            kwargs: values of the input blobs, all or none.

        Returns:
            The live arrays by name.

        Raises:
            NetError: no such layer or blob, inputs that do not fit, or what the layers refuse.
        """
        first = 0 if start is None else self._layer_index(start)
        last = len(self._run) - 1 if end is None else self._layer_index(end)
        wanted = dict.fromkeys([*(self.outputs if end is None else self.top_names[end]), *(blobs or [])])
        self._check_blobs(wanted)
        self._fill(kwargs, self.inputs, "data")
        self._forward(first, last)
        return {name: self._blobs_by_name[name].data for name in wanted}

    def backward(
        self, diffs: list[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays:
        """Run the layers backward, from the gradients of the tops as they are; those of losses are their weights.

        The gradients of blobs are written, those of parameters added to what is there.

        Args:
            diffs: blobs whose gradients to return besides the inputs'.
            start: the layer to begin with.
            end: the last layer to run; its bottoms' gradients are returned in place of the inputs'.
            kwargs: gradients of the output blobs, all or none.

        Returns:
            The live arrays by name.

        Raises:
            NetError: as ``forward``; a layer without a forward whose gradient needs one.
        """
        first = len(self._run) - 1 if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        wanted = dict.fromkeys([*(self.inputs if end is None else self.bottom_names[end]), *(diffs or [])])
        self._check_blobs(wanted)
        self._fill(kwargs, self.outputs, "diff")
        self._backward(first, last)
        return {name: self._blobs_by_name[name].diff for name in wanted}

    def _forward(self, start: int, end: int) -> float:
        """Run layers ``start`` to ``end`` and return their loss."""
        device = modes.device()
        self._use(device)
        loss = 0.0
        with as_raised():
            for layer in self._run[start : end + 1]:
                layer.forget()
            for index in range(start, end + 1):
                self._call("before_forward", index)
                loss += self._run[index].forward(device)
                self._call("after_forward", index)
        return loss

    def _backward(self, start: int, end: int) -> None:
        device = modes.device()
        self._use(device)
        with as_raised():
            for index in range(start, end - 1, -1):
                self._call("before_backward", index)
                self._run[index].backward(device)
                self._call("after_backward", index)

    def reshape(self) -> None:
        """Bring all blobs to the shapes that follow from those of the inputs.

        Raises:
            NetError: a layer that these do not fit.
        """
        with as_raised():
            for layer in self._run:
                layer.reshape()

    def forward_all(self, blobs: list[str] | None = None, **kwargs: Any) -> Arrays:
        """Run any number of samples in batches of the net's size; see ``forward``.

        Returns:
            The outputs of all samples by name, as new arrays.
        """
        found: dict[str, list[Array]] = {name: [] for name in {*self.outputs, *(blobs or [])}}
        for batch in self._batch(kwargs):
            for name, array in self.forward(blobs=blobs, **batch).items():
                found[name].extend(array.copy())
        return _packed(found, len(next(iter(kwargs.values()))))

    def forward_backward_all(
        self, blobs: list[str] | None = None, diffs: list[str] | None = None, **kwargs: Any
    ) -> tuple[Arrays, Arrays]:
        """Run any number of samples forward and backward in batches; see ``forward`` and ``backward``."""
        outs: dict[str, list[Array]] = {name: [] for name in {*self.outputs, *(blobs or [])}}
        backs: dict[str, list[Array]] = {name: [] for name in {*self.inputs, *(diffs or [])}}
        given = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        wanted = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        nothing: dict[str, Any] = {}
        for batch, gradients in zip_longest(given, wanted, fillvalue=nothing):
            for name, array in self.forward(blobs=blobs, **batch).items():
                outs[name].extend(array.copy())
            for name, array in self.backward(diffs=diffs, **gradients).items():
                backs[name].extend(array.copy())
        count = len(next(iter(kwargs.values())))
        return _packed(outs, count), _packed(backs, count)

    def _batch(self, blobs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Cut arrays into batches of the first blob's size, the last one filled up with zeros."""
        if not blobs:
            return
        size = next(iter(self._blobs_by_name.values())).sizes[0]
        for begin in range(0, len(next(iter(blobs.values()))), size):
            batch = {name: np.asarray(values[begin : begin + size]) for name, values in blobs.items()}
            yield {
                name: np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
                for name, part in batch.items()
            }

    def _fill(self, values: Mapping[str, Any], names: Sequence[str], kind: str) -> None:
        if not values:
            return
        what = "input" if kind == "data" else "output"
        if set(values) != set(names):
            raise NetError(f"the {what}s named are not those of the net", got=sorted(values), want=sorted(names))
        for name, given in values.items():
            blob = self._blobs_by_name[name]
            try:
                array = np.asarray(given, np.float32)
            except (TypeError, ValueError) as error:
                raise NetError(f"{what} {name!r} is not an array of numbers: {error}") from None
            # As in Caffe a value for each axis but the first may be spread over it.
            if array.shape[:1] != blob.sizes[:1] or not _spreads(array.shape, blob.sizes):
                remedy = f"Call blobs[{name!r}].reshape{array.shape} first." if kind == "data" else ""
                raise NetError(f"{what} {name!r} has another shape", got=array.shape, want=blob.sizes, remedy=remedy)
            getattr(blob, kind)[...] = array

    def _use(self, device: Any) -> None:
        for layer in self._run:
            layer.use(device)

    # ---- callbacks

    def before_forward(self, run: Callback) -> None:
        """Have ``run`` called with the layer's number before each layer's forward."""
        self._callbacks["before_forward"].append(run)

    def after_forward(self, run: Callback) -> None:
        """Have ``run`` called with the layer's number after each layer's forward."""
        self._callbacks["after_forward"].append(run)

    def before_backward(self, run: Callback) -> None:
        """Have ``run`` called with the layer's number before each layer's backward."""
        self._callbacks["before_backward"].append(run)

    def after_backward(self, run: Callback) -> None:
        """Have ``run`` called with the layer's number after each layer's backward."""
        self._callbacks["after_backward"].append(run)

    # ---- weights

    def copy_from(self, source: StrPath | Net) -> None:
        """Copy weights by layer name, from a file of any format or from another net.

        Raises:
            ReproductionError: the file cannot be opened or read, or its weights do not fit; the net is as it was.
        """
        if isinstance(source, Net):
            report = self.module.copy_from(source.module.to_proto())
        else:
            check_file(source)
            report = self.module.copy_from(weights.read(source).net, source)
        for name in report.ignored:
            logs.log(f"Ignoring source layer {name}")

    def share_with(self, other: Net) -> None:
        """Use the parameters of another net, in its memory, for all layers of the same name.

        Raises:
            ReproductionError: they have other shapes.
        """
        for name in self.module.share_with(other.module).copied:
            for mine, theirs in zip(self.params[name], other.params[name], strict=True):
                mine.share(theirs)

    def save(self, filename: StrPath) -> None:
        """Write a caffemodel.

        Raises:
            ReproductionError: it cannot be written.
        """
        caffemodel.dump(self.module.to_proto(), filename)

    def save_hdf5(self, filename: StrPath) -> None:
        """Write the weights as HDF5, as ``save``."""
        hdf5.dump(self.module.to_proto(), filename)

    def load_hdf5(self, filename: StrPath) -> None:
        """Copy weights from an HDF5 file, as ``copy_from``."""
        self.copy_from(filename)

    def clear_param_diffs(self) -> None:
        """Make the gradients of all parameters zero."""
        for layer in self._run:
            for blob in layer.blobs:
                blob.clear_gradient()

    def set_input_arrays(self, data: Array, labels: Array) -> None:
        """Hand a MemoryData layer, the first of the net, its samples.

        Args:
            data: (n, C, H, W), n a multiple of the batch size.
            labels: n numbers.

        Raises:
            CaffeError: there is no such layer, or the arrays do not fit.
        """
        first = self._run[0].layer
        if not isinstance(first, MemoryData):
            raise CaffeError("set_input_arrays is for nets whose first layer is a MemoryData layer")
        for name, array in (("data", data), ("labels", labels)):
            if array.dtype != np.float32:
                raise CaffeError(f"{name} must be float32", got=array.dtype)
        try:
            first.reset(data, labels)
        except NetError as error:
            raise CaffeError(error.problem, place=error.place, got=error.got, want=error.want) from None

    _set_input_arrays = set_input_arrays

    def _call(self, when: str, index: int) -> None:
        for run in self._callbacks[when]:
            run(index)


def _spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    """Say whether an array of a shape can be assigned to one of another."""
    try:
        return np.broadcast_shapes(shape, over) == over
    except ValueError:
        return False


def _packed(found: Mapping[str, list[Array]], count: int) -> Arrays:
    """Make arrays of lists, without what filled up the last batch."""
    return {name: np.asarray(arrays)[:count] for name, arrays in found.items()}
