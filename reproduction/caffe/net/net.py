"""A Caffe net as an ``nn.Module``.

``net({"data": images})`` returns the net's outputs by blob name; ``net(..., blobs=["score"])`` runs only the layers
that those blobs need. The image size may change at every call. Autograd computes the gradients; where Caffe defines
a gradient differently, the layer implements Caffe's definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from reproduction.caffe import fillers
from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.formats import prototxt, weights
from reproduction.caffe.geometry import Shape, check_shapes
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.blob import Blob
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.layers.data import BaseDataLayer
from reproduction.caffe.layers.python import Python, PythonLayers
from reproduction.caffe.layers.quick import borders
from reproduction.caffe.net import graph, overwriting, summary
from reproduction.caffe.net.copy_weights import CopyReport, copy_blobs, share_blobs, to_blob
from reproduction.caffe.net.graph import Graph, Node, locate_errors
from reproduction.caffe.net.inputs import Given, Values, describe, missing_input, parse_inputs, wrong_axes
from reproduction.caffe.net.processes import Generator, limit_threads_after_fork
from reproduction.caffe.net.shared_params import share_params
from reproduction.caffe.schema import NetParameter, NetState, ParamSpec, Phase


class Net(nn.Module):
    """A Caffe net.

    Parameters are named ``<layer>.weight``, ``<layer>.bias``, ``<layer>.2`` ... in ``state_dict()``. A parameter whose
    ``lr_mult`` is 0 has ``requires_grad=False``, as in Caffe, unless the prototxt sets ``force_backward``.

    Args:
        net_param: The net message, upgraded to the current format (``prototxt.load_net`` does this).
        state: TRAIN or TEST, or a NetState with a level and stages for the include and exclude rules. Phase and level
            override those of the prototxt's ``state``, and stages are added to it; None uses it unchanged. ``train()``
            and ``eval()`` switch dropout and batch statistics later.
        inputs: Shapes of the blobs that the caller feeds, by name. In later calls only the number of channels must
            match. Optional for Input layers. A data layer whose tops are all listed here reads no files.
        python_layers: Classes of Python layers by ``layer`` name or by ``(module, layer)``, or a function that maps
            these two names to a class. A module that is named in a prototxt is never imported automatically.
        seed: Seed of the fillers and of dropout; None uses torch's global generator.
        blas_order: Whether to add in the order of Caffe's BLAS: slower, and equal to Caffe bit for bit on the CPU.
        pycaffe_blobs: A mapping to which one Blob per top is added, by name. Python layers read and write these blobs,
            and so may a caller that runs one layer at a time with ``run``. None if that is not needed.

    Attributes:
        graph: The layers as nodes, in order, with the names of their bottoms and tops.
        blob_shapes: Shapes of all blobs, as computed when the net was built, by name.
        loss_weights: Loss weights by name of the top, for the tops that have one.
        param_specs: The ``param`` messages of the parameters, by layer name.

    Raises:
        NetError: If Caffe would reject the net; the error names the layer and its line.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp.
    """

    def __init__(
        self,
        net_param: NetParameter,
        state: NetState | Phase | None = Phase.TEST,
        *,
        inputs: Mapping[str, Shape] | None = None,
        python_layers: PythonLayers | None = None,
        seed: int | None = None,
        blas_order: bool = False,
        pycaffe_blobs: MutableMapping[str, Blob] | None = None,
    ):
        super().__init__()
        self.graph: Graph = graph.build_graph(net_param, state, fed=inputs)
        self.blob_shapes: dict[str, Shape] = {}
        self.loss_weights: dict[str, float] = {}
        self.param_specs: dict[str, list[ParamSpec]] = {}
        self._layers: dict[int, Layer] = {}  # by index of the node
        self._seen: dict[int, list[Shape]] = {}  # the shapes of the bottoms of each layer in its last run
        self._python_layers, self._pycaffe_blobs, self._seed = python_layers, pycaffe_blobs, seed
        self._generator: torch.Generator | None = None if seed is None else Generator().manual_seed(seed)
        for node in self.graph.nodes:
            with locate_errors(node):
                self._append(node, inputs or {})
            if pycaffe_blobs is not None:
                for top in node.tops:
                    pycaffe_blobs.setdefault(top, Blob()).reshape(*self.blob_shapes[top])
        unknown = set(inputs or {}) - set(self.inputs)
        if unknown:
            raise NetError("the net has no such inputs", got=sorted(unknown), want=f"some of {self.inputs}")
        self._learnable = share_params(self._layers.values(), self.param_specs)
        for blob, spec in self.learnable:
            blob.requires_grad_(self.graph.force_backward or spec.lr_mult != 0)
        self._allow_in_place()
        self.train(self.graph.state.phase is Phase.TRAIN)
        for layer in self._layers.values():
            layer.train(layer.layer_param.phase is Phase.TRAIN)  # a layer's `phase` may differ from the net's
        self.add_as_blas(blas_order)
        overwriting.warn_of_overwriting(self.graph, list(map(self.layer_at, self.graph.nodes)), self.loss_weights)

    # ---- building

    def _append(self, node: Node, inputs: Mapping[str, Shape]) -> None:
        """Build a layer, or declare the shapes of an input slot."""
        if node.is_slot and all(top in inputs for top in node.tops):
            self.blob_shapes.update(zip(node.tops, check_shapes(tuple(inputs[top]) for top in node.tops), strict=True))
            return
        bottoms = [self.blob_shapes[bottom] for bottom in node.bottoms]
        with graph.advise_feeding(node):
            layer = self._make(node, bottoms)
            self.blob_shapes.update(zip(node.tops, check_shapes(layer.shapes(list(bottoms))), strict=True))
        if node.is_slot:
            self.blob_shapes.update({top: tuple(inputs[top]) for top in node.tops if top in inputs})
            return
        self.loss_weights.update(graph.find_loss_weights(node, layer))
        # Straight into _modules: add_module refuses names that nn.Module uses itself, such as a layer called "train".
        self._modules[node.name if node.name not in self._modules else f"{node.name}#{len(self._layers)}"] = layer
        self._layers[node.index] = layer

    def _make(self, node: Node, bottoms: list[Shape]) -> Layer:
        kind = find_class(node.layer_param)
        layer_param = node.layer_param.copy()
        layer_param.top = list(node.tops)
        if not issubclass(kind, Python):
            return kind(layer_param, bottoms, self._generator)
        if self._python_layers is None and not node.bottoms:
            raise NetError("Caffe learns these shapes from data", remedy=graph.how_to_feed(node.layer_param))
        return kind(layer_param, bottoms, self._generator, self._python_layers, self._pycaffe_blobs)

    def _allow_in_place(self) -> None:
        # A layer may overwrite its bottom if the backward of the layer before does not read that blob.
        free: set[str] = set()
        for node in self.graph.nodes:
            if node.is_slot:
                continue
            layer = self._layers[node.index]
            layer.inplace = layer.can_overwrite and node.tops[:1] == node.bottoms[:1] and node.bottoms[0] in free
            free.difference_update(node.tops)
            if layer.top_is_free:
                free.update(node.tops)

    def add_as_blas(self, blas_order: bool) -> None:
        """Set whether to add in the order of Caffe's BLAS, as the argument ``blas_order`` of the class does."""
        for layer in self._layers.values():
            layer.in_blas_order = blas_order

    # ---- running

    def forward(self, *inputs: Given, blobs: Iterable[str] | None = None, **named: Values) -> dict[str, Tensor]:
        """Run the net; ``net({"data": x})``, ``net(x)`` and ``net(data=x)`` are equivalent.

        Args:
            inputs: A mapping from names of inputs to values, ``(N, C, H, W)`` for images, optionally followed by
                ``blobs``; or one tensor per input, in the order of ``Net.inputs``. Values are moved to the net's
                device and dtype.
            named: More inputs, by name.
            blobs: Names of the blobs to return; only the layers that they need are run. None runs every layer and
                returns the net's outputs. As in Caffe, a blob that is overwritten in place has its last values.

        Returns:
            The requested blobs by name.

        Raises:
            NetError: If an input is missing or does not fit the net, or if the net has no such blob.
        """
        found, blobs = parse_inputs(self.inputs, inputs, named, blobs)
        wanted = list(self.graph.outputs if blobs is None else blobs)
        nodes = self.graph.nodes if blobs is None else self.graph.find_needed(wanted)
        fed = self.feed(found, self.graph.find_inputs(nodes, wanted))
        keep = set(wanted)
        # Repeated rows and columns of blobs are computed once; requested blobs are expanded at the end.
        values = {name: x if name in keep else borders.as_repeated(x) for name, x in fed.items()}
        for node in nodes:
            if node.is_slot:
                continue
            bottoms = [values[name] if name in keep else values.pop(name) for name in node.bottoms]
            values.update(zip(node.tops, self._run_layer(node, bottoms), strict=True))
        return {name: borders.expand(values[name]) for name in wanted}

    def run(self, node: Node, bottoms: list[Tensor]) -> tuple[Tensor, ...]:
        """Run one layer and return its tops; ``node`` is one of ``graph.nodes``, but not an input slot.

        Raises:
            NetError: If the bottoms do not fit the layer.
        """
        limit_threads_after_fork()
        return tuple(map(borders.expand, self._run_layer(node, bottoms)))

    def _run_layer(self, node: Node, bottoms: Sequence[borders.AnyBlob]) -> tuple[borders.AnyBlob, ...]:
        """Run one layer; the shapes of its bottoms are checked only if they changed since its last run."""
        layer, shapes = self._layers[node.index], [tuple(bottom.shape) for bottom in bottoms]
        with locate_errors(node):
            if torch.compiler.is_exporting():  # comparing symbolic sizes with numbers would specialize them
                layer.shapes(list(shapes))
            elif shapes != self._seen.get(node.index):
                check_shapes(layer.shapes(list(shapes)))
                self._seen[node.index] = shapes
            through = zip(bottoms, node.propagate, strict=True)
            return layer.run(*(x if gradient else x.detach() for x, gradient in through))

    def layer_at(self, node: Node) -> Layer | None:
        """Return the layer that a node of ``graph`` stands for; None for an input slot, whose tops the caller feeds."""
        return None if node.is_slot else self._layers[node.index]

    def feed(self, inputs: Mapping[str, Values], needed: Sequence[str]) -> dict[str, Tensor]:
        """Return inputs, checked, on the net's device and in its dtype.

        Args:
            inputs: Values by name of the input.
            needed: Names of the inputs to return, such as ``graph.find_inputs`` finds.

        Raises:
            NetError: If an input is missing, is not numeric or has the wrong number of axes.
        """
        limit_threads_after_fork()
        missing = [name for name in needed if name not in inputs]
        if missing:
            raise missing_input(missing[0], inputs, self.graph.inputs)
        like = self._any_parameter
        return {name: self._as_input(name, inputs[name], like) for name in needed}

    def _as_input(self, name: str, value: Values, like: Tensor) -> Tensor:
        try:
            tensor = torch.as_tensor(value).to(like)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(value, Tensor):
                raise
            want = "a tensor or an array of numbers"
            raise NetError(f"input {name!r} has no values", got=describe(value), want=want) from error
        declared = self.blob_shapes[name]
        if tensor.dim() != len(declared):
            raise wrong_axes(name, value, declared)
        if self.graph.force_backward and torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        return tensor

    def loss(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses in ``blobs``, each times its ``loss_weight``, as Caffe's Forward does.

        Raises:
            NetError: If ``blobs`` contains no loss.
        """
        parts = [weight * blobs[name].sum() for name, weight in self.loss_weights.items() if name in blobs]
        if not parts:
            raise NetError("no loss among these blobs", got=sorted(blobs), want=sorted(self.loss_weights))
        return torch.stack(parts).sum()

    @property
    def device(self) -> torch.device:
        """Device of the parameters; the CPU for a net without parameters."""
        return self._any_parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters; float32 for a net without parameters."""
        return self._any_parameter.dtype

    @property
    def _any_parameter(self) -> Tensor:
        for layer in self._layers.values():  # each call asks for it, and parameters() goes through all modules
            if layer.blob_names:
                return layer.blobs[0]
        return torch.empty(0, dtype=torch.float32, device="cpu")

    # ---- inspecting

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs that the caller feeds."""
        return list(self.graph.inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads."""
        return list(self.graph.outputs)

    @property
    def layers(self) -> dict[str, Layer]:
        """Layers by name, in order, without those that the caller feeds; if layers share a name, the first one."""
        found: dict[str, Layer] = {}
        for layer in self._layers.values():
            found.setdefault(layer.layer_param.name, layer)
        return found

    @property
    def params(self) -> dict[str, list[Tensor]]:
        """Parameter blobs by layer name, in Caffe's order; layers without parameters are omitted."""
        return {name: layer.blobs for name, layer in self.layers.items() if layer.blob_names}

    def summary(self) -> str:
        """Return a table of the layers: type, tops, shapes, number of parameters, ``lr_mult`` and ``decay_mult``."""
        return summary.format_text(self)

    def _repr_html_(self) -> str:
        """Return a table of the layers for notebooks: type, bottoms and tops, shapes, parameters and ``lr_mult``."""
        return summary.format_html(self)

    @property
    def learnable(self) -> list[tuple[nn.Parameter, ParamSpec]]:
        """The parameters in Caffe's order, each with its ``param`` message; shared parameters appear once."""
        return [(getattr(layer, name), spec) for layer, name, spec in self._learnable]

    def reseed(self, draw: int) -> None:
        """Set the random state and the data position for the forward pass with number ``draw``, from 0.

        The random numbers then depend only on the net's seed and on ``draw``; a net without a seed continues to use
        torch's global generator. The position of Python layers does not change, since Caffe defines no way to set it.
        """
        for layer in self._layers.values():
            if isinstance(layer, BaseDataLayer):
                layer.seek(draw)
        if self._seed is None:
            return
        if self._generator is None or self._generator.device != self.device:
            self._generator = Generator(self.device)
            for layer in self._layers.values():
                layer.generator = self._generator
        mixed = np.random.SeedSequence((self._seed, draw)).generate_state(1, np.uint64)
        self._generator.manual_seed(int(mixed[0]) >> 1)

    # ---- weights

    def copy_from(
        self,
        source: NetParameter,
        path: StrPath = "",
        *,
        exact: bool = False,
        fillings: Sequence[Callable[[], None]] = (),
    ) -> CopyReport:
        """Copy weights by layer name, as Caffe's CopyTrainedLayersFrom does.

        Args:
            source: A net whose layers contain blobs, upgraded to the current format.
            path: The file that the weights came from, for error messages.
            exact: Require weights for exactly the layers of the net: none missing, none extra.
            fillings: The fillings of the net's parameters, if it was built within ``fillers.postpone``; they run first,
                except in phase TEST if ``source`` has all parameters.

        Returns:
            The names of the layers that were copied, ignored and left unchanged.

        Raises:
            WeightsError: If a layer of the same name has a different number of blobs or different shapes, if no layer
                matches, or if ``exact`` is not satisfied. The net is then unchanged.
        """
        params = {name: layer.blobs for name, layer in self.layers.items()}
        if fillings:
            given = {id(blob) for layer in source.layer if layer.blobs for blob in params.get(layer.name, ())}
            if self.training or any(id(blob) not in given for blob in self.parameters()):
                for fill in fillings:
                    fill()
        return copy_blobs(source, params, path, exact=exact)

    def share_with(self, other: Net) -> CopyReport:
        """Use the memory of another net's parameters in this net, for all layers that have the same name.

        Raises:
            WeightsError: If a layer of the same name has a different number of blobs or different shapes.
        """
        mine = {name: layer.blobs for name, layer in self.layers.items()}
        return share_blobs({name: layer.blobs for name, layer in other.layers.items()}, mine)

    def to_proto(self, *, diff: bool = False, blobs: bool = True) -> NetParameter:
        """Return the net as the message that Caffe writes to a caffemodel: every layer with its blobs.

        Args:
            diff: Include the gradients, as ``snapshot_diff`` does.
            blobs: Include the blobs.

        Returns:
            A message whose weights are views of the parameters if these are on the CPU, and copies otherwise.
        """
        net = NetParameter(name=self.graph.name)
        for node in self.graph.nodes:
            layer = self.layer_at(node)
            layer_param = (layer.layer_param if layer else node.layer_param).copy()
            layer_param.top = list(node.layer_param.top)
            layer_param.clear("blobs")
            layer_param.blobs.extend(to_blob(blob, diff=diff) for blob in (layer.blobs if layer and blobs else ()))
            net.layer.append(layer_param)
        return net


def load(
    prototxt_path: StrPath,
    weights_path: StrPath | None = None,
    state: NetState | Phase | None = Phase.TEST,
    *,
    inputs: Mapping[str, Shape] | None = None,
    python_layers: PythonLayers | None = None,
    legacy_crop: bool = False,
    dialect: str = "",
) -> Net:
    """Build a net from a prototxt and load its weights, if ``weights_path`` is given.

    Args:
        prototxt_path: Path of the prototxt.
        weights_path: Path of the weights; None leaves the parameters as the fillers set them.
        state: TRAIN or TEST, or a NetState with a level and stages; see ``Net``.
        inputs: Shapes of the blobs that the caller feeds, by name; see ``Net``.
        python_layers: Classes of Python layers by name, or a function that returns them; see ``Net``.
        legacy_crop: Whether Crop layers without an offset get the one that the Caffe of 2015 derived.
        dialect: The fork of Caffe that the net is for, such as ``"pspnet"``, if nothing in net or weights shows it.

    Raises:
        ReproductionError: If a file cannot be parsed, or if Caffe would reject the net or its weights.
    """
    trained = weights.read(weights_path).net if weights_path is not None else None
    net_param, _ = prototxt.load_net(prototxt_path, legacy_crop=legacy_crop, dialect=dialect, weights=trained)
    if trained is None:
        return Net(net_param, state, inputs=inputs, python_layers=python_layers)
    with fillers.postpone() as fillings:
        net = Net(net_param, state, inputs=inputs, python_layers=python_layers)
    net.copy_from(trained, weights_path or "", fillings=fillings)
    return net
