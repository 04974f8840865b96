"""pycaffe's Net: a program can read and write every blob and its gradient.

The layers of a ``reproduction.caffe`` net compute; ``layer_runner`` runs them one by one on the blobs.

Source: BVLC/caffe@9b89154 python/caffe/pycaffe.py, python/caffe/_caffe.cpp, src/caffe/net.cpp L530-L1000.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from reproduction.caffe import fillers
from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.formats import caffemodel, hdf5, prototxt
from reproduction.caffe.formats import weights as weight_files
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.blob import Blob
from reproduction.caffe.layers.data import MemoryData
from reproduction.caffe.layers.pycaffe_vectors import LayerVec
from reproduction.caffe.net.copy_weights import CopyReport
from reproduction.caffe.net.net import Net as CoreNet
from reproduction.caffe.schema import NetParameter, NetState, Phase
from reproduction.caffe.typing import Array
from reproduction.pycaffe.net import caffe_log, layer_runner, settings
from reproduction.pycaffe.net.errors import CaffeError, check_file, original_error_types
from reproduction.pycaffe.net.net_properties import NetProperties

Arrays = dict[str, Array]
Callback = Callable[[int], object]


class Net(NetProperties):
    """A net with pycaffe's interface.

    Call it as ``Net(file, phase)``, ``Net(file, phase, level=, stages=, weights=)``, or with the deprecated signature
    ``Net(file, weights, phase)``. The modules of Python layers are imported and their code runs.

    Args:
        network_file: The prototxt.
        phase: ``caffe.TRAIN`` or ``caffe.TEST``. In the deprecated signature, the file of weights.
        level: The level for include and exclude rules; replaces the level of the file's ``state``. In the deprecated
            signature, the phase.
        stages: Stages for include and exclude rules, added to those of the file's ``state``.
        weights: A file of weights in any supported format, or None.
        inputs: Shapes by blob name. The program fills these blobs, and they replace the layers that would read them
            from files, such as Data. Caffe has no such argument.

    Attributes:
        module: The ``torch.nn.Module`` that computes, a ``reproduction.caffe.net.net.Net``; both nets share the memory
            of their parameters.
        layers: The layers in order, including input and split layers. For a Python layer it is the instance of the
            class in the program's own module.

    Raises:
        CaffeError: If a file cannot be opened.
        ReproductionError: If Caffe would reject the net; the error names the layer and the reason. An error that a
            Python layer raises can be caught as its original type.
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
        dialect: str = "",
    ):
        if isinstance(phase, (str, os.PathLike)):
            weights, phase, level = phase, level, 0
        for path in (network_file, weights):
            if path is not None:
                check_file(path)
        if phase not in tuple(Phase):
            raise NetError("the phase is neither caffe.TRAIN nor caffe.TEST", got=phase, want="0 or 1")
        state = NetState(phase=Phase(phase), level=level, stage=list(stages or ()))
        trained = None if weights is None else weight_files.read(weights).net
        net_param = prototxt.load_net(network_file, dialect=dialect, weights=trained)[0]
        if weights is None or trained is None:
            self._build(net_param, state, inputs=inputs)
            return
        with fillers.postpone() as fillings:
            self._build(net_param, state, inputs=inputs)
        _log_ignored(self.module.copy_from(trained, weights, fillings=fillings))

    @classmethod
    def from_message(cls, net_param: NetParameter, seed: int | None, inputs: Mapping[str, Shape] | None) -> Net:
        """Build a net from a ``NetParameter``, the ``state`` of which sets the phase, level and stages.

        Args:
            net_param: The net's message.
            seed: The seed of fillers and dropout; None uses torch's global generator.
            inputs: Shapes by name of the blobs that the program fills, as in ``Net``; None if there are none.
        """
        net = cls.__new__(cls)
        net._build(net_param, None, seed=seed, inputs=inputs)
        return net

    def _build(self, net_param: NetParameter, state: NetState | None, **options: Any) -> None:
        self._blobs_by_name: OrderedDict[str, Blob] = OrderedDict()
        with original_error_types():
            self.module = CoreNet(
                net_param, state, python_layers=layer_runner.find_class, pycaffe_blobs=self._blobs_by_name, **options
            )
            self.module.add_as_blas(bool(self.module.loss_weights) and settings.uses_blas_order())
            self._runners = layer_runner.create_runners(self.module, self._blobs_by_name)
        self.layers = LayerVec.from_items(runner.pycaffe_layer for runner in self._runners)
        self._callbacks: dict[str, list[Callback]] = {
            f"{when}_{way}": [] for when in ("before", "after") for way in ("forward", "backward")
        }

    # ---- running

    def forward(
        self, blobs: list[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays:
        """Run the forward pass.

        Args:
            blobs: Names of blobs to return in addition to the outputs.
            start: The first layer to run, on the current values of its bottoms; by default the first of the net.
            end: The last layer to run, whose tops are returned instead of the outputs; by default the last of the net.
            kwargs: The values of the input blobs: either all inputs or none.

        Returns:
            The blobs' own arrays by name, not copies.

        Raises:
            NetError: If there is no such layer or blob, the inputs do not fit, or a layer rejects its bottoms.
        """
        first = 0 if start is None else self._layer_index(start)
        last = len(self._runners) - 1 if end is None else self._layer_index(end)
        wanted = dict.fromkeys([*(self.outputs if end is None else self.top_names[end]), *(blobs or [])])
        self._check_blobs(wanted)
        self._set_blobs(kwargs, self.inputs, "data")
        self._forward(first, last)
        return {name: self._blobs_by_name[name].data for name in wanted}

    def backward(
        self, diffs: list[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays:
        """Run the backward pass, from the gradients in the tops' blobs to those of the bottoms and parameters.

        A loss starts with its loss weight as gradient. The gradients of blobs are overwritten; those of parameters
        accumulate.

        Args:
            diffs: Names of blobs whose gradients to return in addition to those of the inputs.
            start: The first layer to run backward; by default the last of the net.
            end: The last layer to run backward, whose bottoms' gradients are returned instead of the inputs'; by
                default the first of the net.
            kwargs: The gradients of the output blobs: either all outputs or none.

        Returns:
            The gradients by blob name: the blobs' own arrays, not copies.

        Raises:
            NetError: If there is no such layer or blob, the gradients do not fit, or a layer whose gradient depends on
                a forward pass has had none.
        """
        first = len(self._runners) - 1 if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        wanted = dict.fromkeys([*(self.inputs if end is None else self.bottom_names[end]), *(diffs or [])])
        self._check_blobs(wanted)
        self._set_blobs(kwargs, self.outputs, "diff")
        self._backward(first, last)
        return {name: self._blobs_by_name[name].diff for name in wanted}

    def _forward(self, start: int, end: int) -> float:
        """Run layers ``start`` to ``end``, inclusive, and return the sum of their weighted losses."""
        device = settings.device()
        self._move_to(device)
        loss = 0.0
        with original_error_types():
            for runner in self._runners[start : end + 1]:
                runner.discard_record()
            for index in range(start, end + 1):
                self._run_callbacks("before_forward", index)
                loss += self._runners[index].forward(device)
                self._run_callbacks("after_forward", index)
        return loss

    def _backward(self, start: int, end: int) -> None:
        device = settings.device()
        self._move_to(device)
        with original_error_types():
            for index in range(start, end - 1, -1):
                self._run_callbacks("before_backward", index)
                self._runners[index].backward(device)
                self._run_callbacks("after_backward", index)

    def reshape(self) -> None:
        """Reshape all blobs to fit the current shapes of the inputs, without running the net.

        Raises:
            NetError: If a layer cannot take the shapes of its bottoms.
        """
        with original_error_types():
            for runner in self._runners:
                runner.reshape()

    def forward_all(self, blobs: list[str] | None = None, **kwargs: Any) -> Arrays:
        """Run any number of samples in batches of the net's size.

        Args:
            blobs: Names of blobs to return in addition to the outputs.
            kwargs: The samples of each input blob, along the first axis.

        Returns:
            The outputs of all samples by name, as new arrays.

        Raises:
            NetError: If there are no samples, or ``forward`` raises it.
        """
        count = _count_samples(kwargs)
        outs = [_copy(self.forward(blobs=blobs, **batch)) for batch in self._batch(kwargs)]
        return _join_samples([*self.outputs, *(blobs or [])], outs, count)

    def forward_backward_all(
        self, blobs: list[str] | None = None, diffs: list[str] | None = None, **kwargs: Any
    ) -> tuple[Arrays, Arrays]:
        """Run any number of samples forward and backward, in batches of the net's size.

        Args:
            blobs: Names of blobs to return in addition to the outputs.
            diffs: Names of blobs whose gradients to return in addition to those of the inputs.
            kwargs: The samples of each input blob and, optionally, the gradients of each output blob.

        Returns:
            The outputs and the gradients of all samples, by name, as new arrays.

        Raises:
            NetError: If there are no samples, or ``forward`` or ``backward`` raises it.
        """
        count = _count_samples(kwargs)
        outs, backs = [], []
        inputs = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        gradients = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        nothing: dict[str, Any] = {}
        for batch, top_gradients in zip_longest(inputs, gradients, fillvalue=nothing):
            outs.append(_copy(self.forward(blobs=blobs, **batch)))
            backs.append(_copy(self.backward(diffs=diffs, **top_gradients)))
        names, sources = [*self.outputs, *(blobs or [])], [*self.inputs, *(diffs or [])]
        return _join_samples(names, outs, count), _join_samples(sources, backs, count)

    def _batch(self, samples: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield batches of the first blob's batch size; the last batch is padded with zeros."""
        size = next(iter(self._blobs_by_name.values())).sizes[0]
        for begin in range(0, _count_samples(samples) if samples else 0, size):
            batch = {name: np.asarray(values[begin : begin + size]) for name, values in samples.items()}
            yield {
                name: np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
                for name, part in batch.items()
            }

    def _set_blobs(self, values: Mapping[str, Any], names: Sequence[str], kind: str) -> None:
        """Set the data of all inputs or the diff of all outputs, or nothing if there are no values."""
        if not values:
            return
        what = "input" if kind == "data" else "output"
        if set(values) != set(names):
            raise NetError(f"these are not the {what}s of the net", got=sorted(values), want=sorted(names))
        for name, value in values.items():
            blob = self._blobs_by_name[name]
            try:
                array = np.asarray(value, np.float32)
            except (TypeError, ValueError) as error:
                raise NetError(f"{what} {name!r} is not an array of numbers: {error}") from None
            # As in Caffe, every axis but the first may broadcast.
            if array.shape[:1] != blob.sizes[:1] or not _broadcasts(array.shape, blob.sizes):
                remedy = f"Call blobs[{name!r}].reshape{array.shape} first." if kind == "data" else ""
                raise NetError(f"{what} {name!r} has another shape", got=array.shape, want=blob.sizes, remedy=remedy)
            getattr(blob, kind)[...] = array

    def _move_to(self, device: Any) -> None:
        for runner in self._runners:
            runner.move_to(device)

    # ---- callbacks

    def before_forward(self, callback: Callback) -> None:
        """Register a function that is called before the forward pass of each layer, with the layer's index."""
        self._callbacks["before_forward"].append(callback)

    def after_forward(self, callback: Callback) -> None:
        """Register a function that is called after the forward pass of each layer, with the layer's index."""
        self._callbacks["after_forward"].append(callback)

    def before_backward(self, callback: Callback) -> None:
        """Register a function that is called before the backward pass of each layer, with the layer's index."""
        self._callbacks["before_backward"].append(callback)

    def after_backward(self, callback: Callback) -> None:
        """Register a function that is called after the backward pass of each layer, with the layer's index."""
        self._callbacks["after_backward"].append(callback)

    # ---- weights

    def copy_from(self, source: StrPath | Net) -> None:
        """Copy weights by layer name, from a file in any supported format or from another net.

        Layers that only the source has are logged and ignored.

        Args:
            source: The file or the net that has the weights.

        Raises:
            ReproductionError: If the file cannot be opened or read, or its weights do not fit. The net is unchanged.
        """
        if isinstance(source, Net):
            _log_ignored(self.module.copy_from(source.module.to_proto()))
        else:
            check_file(source)
            _log_ignored(self.module.copy_from(weight_files.read(source).net, source))

    def share_with(self, other: Net) -> None:
        """Share the parameters of another net: layers of the same name then use the same memory.

        Args:
            other: The net whose parameters are used; it does not change.

        Raises:
            ReproductionError: If the parameters have different shapes.
        """
        for name in self.module.share_with(other.module).copied:
            for mine, theirs in zip(self.params[name], other.params[name], strict=True):
                mine.share(theirs)

    def save(self, filename: StrPath) -> None:
        """Write the net and its weights as a caffemodel.

        Raises:
            ReproductionError: If the file cannot be written.
        """
        caffemodel.dump(self.module.to_proto(), filename)

    def save_hdf5(self, filename: StrPath) -> None:
        """Write the weights to an HDF5 file, in Caffe's format.

        Raises:
            ReproductionError: If the file cannot be written.
        """
        hdf5.dump(self.module.to_proto(), filename)

    def load_hdf5(self, filename: StrPath) -> None:
        """Copy weights by layer name from an HDF5 file; the same as ``copy_from``, as in pycaffe."""
        self.copy_from(filename)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for runner in self._runners:
            for blob in runner.blobs:
                blob.clear_gradient()

    def set_input_arrays(self, data: Array, labels: Array) -> None:
        """Set the samples of the MemoryData layer, which must be the net's first layer.

        Args:
            data: Samples (N, C, H, W), float32; N is a multiple of the batch size.
            labels: One label for each sample, float32.

        Raises:
            CaffeError: If the first layer is not a MemoryData layer, or the arrays do not fit.
        """
        first = self._runners[0].layer
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

    def _run_callbacks(self, when: str, index: int) -> None:
        for callback in self._callbacks[when]:
            callback(index)


def _log_ignored(report: CopyReport) -> None:
    for name in report.ignored:
        caffe_log.log(f"Ignoring source layer {name}")


def _count_samples(samples: Mapping[str, Any]) -> int:
    if not samples:
        raise NetError("there are no samples", remedy="Pass an array for each input, or call forward() for one batch.")
    return len(next(iter(samples.values())))


def _broadcasts(shape: Shape, target: Shape) -> bool:
    """Return whether an array of this shape broadcasts to the shape ``target``."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _copy(arrays: Arrays) -> Arrays:
    """Return copies of the blobs' own arrays, which the next pass overwrites."""
    return {name: array.copy() for name, array in arrays.items()}


def _join_samples(names: Sequence[str], batches: Sequence[Arrays], count: int) -> Arrays:
    """Return arrays of the first ``count`` samples of all batches by name; those after them pad the last batch."""
    return {name: np.asarray([sample for batch in batches for sample in batch[name]])[:count] for name in names}
