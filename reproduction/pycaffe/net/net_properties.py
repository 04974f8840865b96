"""The read-only part of a pycaffe Net: its layers, blobs and parameters, by name and by index.

Source: BVLC/caffe@9b89154 python/caffe/pycaffe.py L24-L84, L272-L326.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from torch import Tensor

from reproduction.caffe.errors import NetError, did_you_mean
from reproduction.caffe.layers.blob import Blob, BlobVec
from reproduction.caffe.layers.pycaffe_vectors import DtypeVec, IntVec, LayerVec, StringVec
from reproduction.caffe.net.net import Net
from reproduction.pycaffe.net import settings
from reproduction.pycaffe.net.layer_runner import LayerRunner


class NetProperties:
    """The base class of pycaffe's ``Net`` that looks up its layers, blobs and parameters, by name and by index.

    Attributes:
        module: The ``torch.nn.Module`` that computes, a ``reproduction.caffe.net.net.Net``.
        layers: The layers in order. For a Python layer it is the instance of the class in the program's own module.
    """

    module: Net
    layers: LayerVec
    _runners: list[LayerRunner]
    _blobs_by_name: OrderedDict[str, Blob]

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name, in the order of the net."""
        return self._blobs_by_name

    @cached_property
    def params(self) -> OrderedDict[str, BlobVec]:
        """The parameter blobs of each layer by its name.

        For example, ``params["conv1"][0]`` is the blob of the weights and ``params["conv1"][1]`` that of the bias.
        Layers without parameters are left out.
        """
        return OrderedDict((runner.node.name, runner.blobs) for runner in self._runners if runner.blobs)

    @cached_property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """The layers by name, the same objects as in ``layers``."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @cached_property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """The loss weight of each blob by name; 0 for a blob that is not a loss."""
        return OrderedDict((name, self.module.loss_weights.get(name, 0.0)) for name in self._blobs_by_name)

    @cached_property
    def inputs(self) -> list[str]:
        """Names of the blobs that the program fills, such as the tops of Input layers."""
        return self.module.inputs

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads, which ``forward`` returns."""
        named = {top for runner in self._runners for top in runner.node.layer_param.top}
        return [name for name in self.module.outputs if name in named]

    @cached_property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The list of the names of a layer's tops, by layer name."""
        return OrderedDict((runner.node.name, list(runner.node.tops)) for runner in self._runners)

    @cached_property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The list of the names of a layer's bottoms, by layer name."""
        return OrderedDict((runner.node.name, list(runner.node.bottoms)) for runner in self._runners)

    @property
    def _blob_names(self) -> StringVec:
        return StringVec.from_items(self._blobs_by_name)

    @property
    def _blobs(self) -> BlobVec:
        return BlobVec.from_items(self._blobs_by_name.values())

    @property
    def _blob_loss_weights(self) -> DtypeVec:
        return DtypeVec.from_items(self.blob_loss_weights.values())

    @cached_property
    def _layer_names(self) -> StringVec:
        return StringVec.from_items(runner.node.name for runner in self._runners)

    @property
    def _inputs(self) -> IntVec:
        return self._find_ids(self.inputs)

    @property
    def _outputs(self) -> IntVec:
        return self._find_ids(self.outputs)

    def _top_ids(self, layer: int) -> IntVec:
        return self._find_ids(self._runners[layer].node.tops)

    def _bottom_ids(self, layer: int) -> IntVec:
        return self._find_ids(self._runners[layer].node.bottoms)

    def _find_ids(self, names: Iterable[str]) -> IntVec:
        number = {name: i for i, name in enumerate(self._blobs_by_name)}
        return IntVec.from_items(number[name] for name in names)

    def output_values(self) -> dict[str, Tensor]:
        """Return the current values of the output blobs by name, as tensors on the device that nets compute on."""
        return {name: self._blobs_by_name[name].values(settings.device()) for name in self.outputs}

    def parameters(self) -> Iterator[tuple[Tensor, Blob]]:
        """Yield pairs: a parameter of the torch module, and the blob by which the program reads and writes it."""
        for runner in self._runners:
            if runner.layer is not None:
                yield from zip(runner.layer.blobs, runner.blobs, strict=True)

    def _layer_index(self, name: str) -> int:
        for index, known in enumerate(self._layer_names):
            if known == name:
                return index
        raise NetError(f"the net has no layer {name!r}", remedy=did_you_mean(name, self._layer_names))

    def _check_blobs(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._blobs_by_name:
                raise NetError(f"the net has no blob {name!r}", remedy=did_you_mean(name, self._blobs_by_name))
