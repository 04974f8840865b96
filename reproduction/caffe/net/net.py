"""A net that runs: the graph's layers as one ``nn.Module``.

``net({"data": images})`` gives the net's outputs by blob name; ``net(..., blobs=["score"])`` computes only what those
blobs need. Any image size, at every call. Gradients are autograd's; Caffe's own definitions are in the layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.formats import prototxt, weights
from reproduction.caffe.geometry import Shape, check_shapes
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.blob import Blob
from reproduction.caffe.layers.data import Source
from reproduction.caffe.layers.python import Python, PythonLayers
from reproduction.caffe.layers.quick import borders
from reproduction.caffe.net import graph, overwriting
from reproduction.caffe.net.copy_weights import CopyReport, copy_blobs, share_blobs, to_blob
from reproduction.caffe.net.graph import Graph, Node, place, placed
from reproduction.caffe.net.inputs import Given, Values, by_name
from reproduction.caffe.net.processes import Generator, settle
from reproduction.caffe.net.step import Step
from reproduction.caffe.schema import DimCheckMode, NetParameter, ParamSpec, Phase


class Net(nn.Module):
    """A Caffe net.

    Parameters are named ``<layer>.weight``, ``<layer>.bias``, ``<layer>.2`` ... in ``state_dict()``. A parameter whose
    ``lr_mult`` is 0 takes no gradient, as in Caffe; ``force_backward`` in the prototxt gives it one.

    Args:
        net: the net, upgraded (``prototxt.load_net`` does so).
        phase: TRAIN or TEST, which replaces that of the net's own ``state``; None takes that state as it is.
            ``train()`` and ``eval()`` switch dropout and batch statistics later on.
        level: the level that include and exclude rules see; it replaces that of the net's own ``state``.
        stages: added to the stages of the net's own ``state``.
        inputs: shapes of the blobs that the caller will feed; only the number of channels has to hold later. Optional
            for Input layers. A data layer of any type whose tops are all here reads no files and transforms nothing.
        python_layers: the classes of Python layers by ``layer`` name or ``(module, layer)``, or a function from those
            two to the class. Nothing is imported because a file says so.
        seed: of the fillers and of dropout; None is torch's own state.
        blas_order: whether sums go in the order of Caffe's BLAS, so that results and gradients are Caffe's bit for bit
            on the CPU; slower. Without it they differ by rounding.
        live: filled with a Blob of each top's shape, by name; Python layers read and write these, so that whoever runs
            the layers one by one with ``run`` has every blob in his hand.

    Raises:
        NetError: what Caffe would refuse, with the layer and its line.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp.
    """

    def __init__(
        self,
        net: NetParameter,
        phase: Phase | None = Phase.TEST,
        *,
        level: int = 0,
        stages: Iterable[str] = (),
        inputs: Mapping[str, Shape] | None = None,
        python_layers: PythonLayers | None = None,
        seed: int | None = None,
        blas_order: bool = False,
        live: MutableMapping[str, Blob] | None = None,
    ):
        super().__init__()
        self.graph: Graph = graph.build(net, phase, level=level, stages=list(stages), fed=inputs)
        self.blob_shapes: dict[str, Shape] = {}
        self.loss_weights: dict[str, float] = {}
        self.param_specs: dict[str, list[ParamSpec]] = {}
        self._steps: dict[int, Step] = {}
        self._learnable: list[tuple[Layer, str, ParamSpec]] = []
        self._python_layers, self._live, self._seed = python_layers, live, seed
        self._generator: torch.Generator | None = None if seed is None else Generator().manual_seed(seed)
        for node in self.graph.nodes:
            with placed(node):
                self._append(node, inputs or {})
            if live is not None:
                for top in node.tops:
                    live.setdefault(top, Blob()).reshape(*self.blob_shapes[top])
        unknown = set(inputs or {}) - set(self.inputs)
        if unknown:
            raise NetError("the net has no such inputs", got=sorted(unknown), want=f"some of {self.inputs}")
        self._learn_and_share()
        self._allow_in_place()
        self.train(self.graph.state.phase is Phase.TRAIN)
        for step in self._steps.values():
            step.layer.train(step.layer.spec.phase is Phase.TRAIN)  # a layer may have a phase of its own
        self.add_as_blas(blas_order)
        overwriting.warn_of(self.graph, list(map(self.layer_at, self.graph.nodes)), self.loss_weights)

    # ---- building

    def _append(self, node: Node, inputs: Mapping[str, Shape]) -> None:
        """Build a layer, or declare the shapes of an input slot."""
        if node.is_slot and all(top in inputs for top in node.tops):
            self.blob_shapes.update(zip(node.tops, check_shapes(tuple(inputs[top]) for top in node.tops), strict=True))
            return
        bottoms = [self.blob_shapes[bottom] for bottom in node.bottoms]
        with graph.loading(node):
            layer = self._make(node, bottoms)
            self.blob_shapes.update(zip(node.tops, check_shapes(layer.shapes(list(bottoms))), strict=True))
        if node.is_slot:
            self.blob_shapes.update({top: tuple(inputs[top]) for top in node.tops if top in inputs})
            return
        self.loss_weights.update(_loss_weights(node, layer))
        # Straight into _modules: add_module refuses names that nn.Module uses itself, such as a layer called "train".
        self._modules[node.name if node.name not in self._modules else f"{node.name}#{len(self._steps)}"] = layer
        self._steps[node.index] = Step(layer)

    def _make(self, node: Node, bottoms: list[Shape]) -> Layer:
        kind = LAYERS[node.type]
        spec = node.spec.copy()
        spec.top = list(node.tops)
        if not issubclass(kind, Python):
            return kind(spec, bottoms, self._generator)
        if self._python_layers is None and not node.bottoms:
            raise NetError("Caffe learns these shapes from data", remedy=graph.how_to_feed(node.spec))
        return kind(spec, bottoms, self._generator, self._python_layers, self._live)

    def _learn_and_share(self) -> None:
        """Set which parameters learn, and let parameters of one name be one."""
        owners: dict[str, tuple[Layer, str, ParamSpec]] = {}
        for step in self._steps.values():
            layer = step.layer
            given = len(layer.spec.param)
            if given > len(layer.blobs):
                raise NetError(
                    "more param blocks than parameter blobs", got=given, want=f"at most {len(layer.blobs)}"
                ).at(place(layer.spec))
            learn = []
            for name, spec in zip(layer.blob_names, layer.param_specs, strict=True):
                if spec.name and spec.name in owners:
                    self._share(layer, name, spec, owners[spec.name])
                    learn.append(owners[spec.name][2])
                    continue
                learn.append(spec.copy())
                self._learnable.append((layer, name, learn[-1]))
                if spec.name:
                    owners[spec.name] = self._learnable[-1]
            if learn:
                self.param_specs.setdefault(layer.spec.name, learn)
        for blob, spec in self.learnable:
            blob.requires_grad_(self.graph.force_backward or spec.lr_mult != 0)

    def _share(self, layer: Layer, name: str, spec: ParamSpec, owner: tuple[Layer, str, ParamSpec]) -> None:
        owner_layer, owner_name, owner_spec = owner
        blob = getattr(owner_layer, owner_name)
        mine = tuple(getattr(layer, name).shape)
        permissive = spec.share_mode is DimCheckMode.PERMISSIVE
        if (np.prod(mine) != blob.numel()) if permissive else (mine != tuple(blob.shape)):
            raise NetError(
                f"cannot share param {spec.name!r} with layer {owner_layer.spec.name!r}",
                got=mine,
                want=f"{'the count of ' if permissive else ''}{tuple(blob.shape)}",
            ).at(place(layer.spec))
        for mult in ("lr_mult", "decay_mult"):
            if spec.has(mult):
                if owner_spec.has(mult) and getattr(owner_spec, mult) != getattr(spec, mult):
                    raise NetError(
                        f"shared param {spec.name!r} has two values of {mult}",
                        got=getattr(spec, mult),
                        want=getattr(owner_spec, mult),
                    ).at(place(layer.spec))
                setattr(owner_spec, mult, getattr(spec, mult))
        del layer._parameters[name]
        if mine == tuple(blob.shape):
            layer.register_parameter(name, blob)
        else:
            layer.reshaped[name] = (owner_layer, owner_name, mine)

    def _allow_in_place(self) -> None:
        free: set[str] = set()
        for node in self.graph.nodes:
            if node.is_slot:
                continue
            layer = self._steps[node.index].layer
            layer.inplace = layer.can_overwrite and node.tops[:1] == node.bottoms[:1] and node.bottoms[0] in free
            free.difference_update(node.tops)
            if layer.top_is_free:
                free.update(node.tops)

    def add_as_blas(self, wanted: bool) -> None:
        """Choose the order of additions anew; see ``blas_order``."""
        for step in self._steps.values():
            step.layer.in_blas_order = wanted

    # ---- running

    def forward(self, *inputs: Given, blobs: Iterable[str] | None = None, **named: Values) -> dict[str, Tensor]:
        """Run the net: ``net({"data": x})``, ``net(x)`` and ``net(data=x)`` are the same.

        Args:
            inputs: the input blobs by name, ``(N, C, H, W)`` for images, which ``blobs`` may follow; or a tensor for
                each input, in the order of ``Net.inputs``. They are moved to the net's device and type.
            named: further inputs by name.
            blobs: names of the blobs wanted; only the layers that they need are run. None is the net's outputs, with
                every layer run. As in Caffe, a blob that a layer overwrote in place has its last values.

        Returns:
            The wanted blobs by name.

        Raises:
            NetError: an input that is missing or does not fit, an unknown blob.
        """
        found, blobs = by_name(self.inputs, inputs, named, blobs)
        wanted = list(self.graph.outputs if blobs is None else blobs)
        nodes = self.graph.nodes if blobs is None else self.graph.needed(wanted)
        fed = self.feed(found, wanted, nodes)
        keep = set(wanted)
        values = {name: x if name in keep else borders.once(x) for name, x in fed.items()}
        for node in nodes:
            if node.is_slot:
                continue
            bottoms = [values[name] if name in keep else values.pop(name) for name in node.bottoms]
            with placed(node):
                values.update(zip(node.tops, self._steps[node.index].run(node, bottoms), strict=True))
        return {name: borders.whole(values[name]) for name in wanted}

    def run(self, node: Node, bottoms: list[Tensor]) -> tuple[Tensor, ...]:
        """Run one layer of the graph, not an input slot, and return its tops.

        Raises:
            NetError: the bottoms do not fit it.
        """
        settle()
        with placed(node):
            return tuple(map(borders.whole, self._steps[node.index].run(node, bottoms)))

    def layer_at(self, node: Node) -> Layer | None:
        """Return the layer of a node; None for an input slot."""
        return None if node.is_slot else self._steps[node.index].layer

    def feed(self, inputs: Mapping[str, Values], wanted: Sequence[str], nodes: Sequence[Node]) -> dict[str, Tensor]:
        """Check the inputs that these layers and blobs need, and move them to the net's device and type.

        Raises:
            NetError: an input that is missing or does not fit.
        """
        settle()
        needed = {bottom for node in nodes for bottom in node.bottoms}.union(wanted)
        missing = [name for name in self.graph.inputs if name in needed and name not in inputs]
        if missing:
            raise NetError(f"input {missing[0]!r} is missing", got=sorted(inputs), want=sorted(self.graph.inputs))
        return {name: self._as_input(name, inputs[name]) for name in self.graph.inputs if name in needed}

    def _as_input(self, name: str, value: Values) -> Tensor:
        try:
            tensor = torch.as_tensor(value).to(self.device, self.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(value, Tensor):
                raise
            want = "a tensor or an array of numbers"
            raise NetError(f"input {name!r} has no values", got=type(value).__name__, want=want) from error
        declared = self.blob_shapes[name]
        if tensor.dim() != len(declared):
            raise NetError(
                f"input {name!r} has {tensor.dim()} axes", got=tuple(tensor.shape), want=f"{len(declared)} axes"
            )
        if self.graph.force_backward and torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        return tensor

    def loss(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """Sum the losses among ``blobs``, each times its loss weight, as Caffe's forward returns it.

        Raises:
            NetError: there is no loss among them.
        """
        parts = [weight * blobs[name].sum() for name, weight in self.loss_weights.items() if name in blobs]
        if not parts:
            raise NetError("no loss among these blobs", got=sorted(blobs), want=sorted(self.loss_weights))
        return torch.stack(parts).sum()

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU for a net without parameters."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type; float32 for a net without parameters."""
        return next((p.dtype for p in self.parameters()), torch.float32)

    # ---- looking

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs that the caller feeds."""
        return self.graph.inputs

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads."""
        return list(self.graph.outputs)

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, in order, without input slots; of layers that share a name, the first."""
        found: dict[str, Layer] = {}
        for step in self._steps.values():
            found.setdefault(step.layer.spec.name, step.layer)
        return found

    @property
    def params(self) -> dict[str, list[Tensor]]:
        """The parameter blobs by layer, in Caffe's order; layers without any are left out."""
        return {name: layer.blobs for name, layer in self.layers.items() if layer.blob_names}

    def summary(self) -> str:
        """Draw a table of the layers: type, tops, their shapes, parameters and how these learn."""
        rows = [("layer", "type", "tops", "shape", "parameters", "lr_mult/decay_mult")]
        for node in self.graph.nodes:
            layer = self.layers.get(node.name)
            blobs = layer.blobs if layer else []
            mults = " ".join(f"{s.lr_mult:g}/{s.decay_mult:g}" for s in self.param_specs.get(node.name, []))
            shape = " ".join("x".join(map(str, self.blob_shapes[top])) for top in node.tops)
            count = sum(blob.numel() for blob in blobs)
            rows.append((node.name, node.type, " ".join(node.tops), shape, f"{count:,}" if count else "", mults))
        total = sum(p.numel() for p in self.parameters())
        rows.append(("total", "", "", "", f"{total:,}", ""))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    @property
    def learnable(self) -> list[tuple[nn.Parameter, ParamSpec]]:
        """The parameters in Caffe's order, shared ones once, each with how it learns."""
        return [(getattr(layer, name), spec) for layer, name, spec in self._learnable]

    def reseed(self, draw: int) -> None:
        """Make the next forward that of a draw: dropout's random numbers, and what layers with data of their own read.

        Random numbers are a function of the net's seed and the draw; a net without a seed keeps drawing from torch's.
        Python layers keep where they are: only their authors know.
        """
        for step in self._steps.values():
            if isinstance(step.layer, Source):
                step.layer.seek(draw)
        if self._seed is None:
            return
        if self._generator is None or self._generator.device != self.device:
            self._generator = Generator(self.device)
            for step in self._steps.values():
                step.layer.generator = self._generator
        mixed = np.random.SeedSequence((self._seed, draw)).generate_state(1, np.uint64)
        self._generator.manual_seed(int(mixed[0]) >> 1)

    # ---- weights

    def copy_from(self, source: NetParameter, path: StrPath = "", *, whole: bool = False) -> CopyReport:
        """Copy weights by layer name, as Caffe's CopyTrainedLayersFrom does.

        Args:
            source: layers with blobs, upgraded.
            path: where they came from, for errors.
            whole: whether they must be the net's, all of them and no others.

        Returns:
            What was copied, what the net has no layer for, and what stayed as it was.

        Raises:
            WeightsError: a layer of the same name has another number of blobs or other shapes, nothing at all fits,
                or ``whole`` is not met; the net is as it was.
        """
        return copy_blobs(source, {name: layer.blobs for name, layer in self.layers.items()}, path, whole=whole)

    def share_with(self, other: Net) -> CopyReport:
        """Use the other net's parameters, in its memory, for all layers of the same name.

        Raises:
            WeightsError: as ``copy_from``.
        """
        mine = {name: layer.blobs for name, layer in self.layers.items()}
        return share_blobs({name: layer.blobs for name, layer in other.layers.items()}, mine)

    def to_proto(self, *, diff: bool = False) -> NetParameter:
        """Write the net as Caffe writes it into a caffemodel: every layer, its message completed, its blobs.

        Args:
            diff: whether the gradients go along, as with ``snapshot_diff``.

        Returns:
            A message whose weights are views of the parameters where these are in the CPU's memory.
        """
        net = NetParameter(name=self.graph.name)
        for node in self.graph.nodes:
            step = self._steps.get(node.index)
            spec = (step.layer.spec if step else node.spec).copy()
            spec.top = list(node.spec.top)
            spec.clear("blobs")
            spec.blobs.extend(to_blob(blob, diff=diff) for blob in (step.layer.blobs if step else ()))
            net.layer.append(spec)
        return net


def _loss_weights(node: Node, layer: Layer) -> dict[str, float]:
    spec = layer.spec
    if layer.is_loss and not spec.loss_weight:
        spec.loss_weight = [1.0]  # Caffe: LossLayer writes the default into its message (loss_layer.cpp L9)
    if spec.loss_weight and len(spec.loss_weight) != len(node.tops):
        raise NetError("loss_weight is for no top or for each", got=len(spec.loss_weight), want=len(node.tops))
    return {top: weight for top, weight in zip(node.tops, spec.loss_weight, strict=False) if weight}


def load(
    net: StrPath,
    model: StrPath | None = None,
    phase: Phase | None = Phase.TEST,
    *,
    level: int = 0,
    stages: Iterable[str] = (),
    inputs: Mapping[str, Shape] | None = None,
    python_layers: PythonLayers | None = None,
    legacy_crop: bool = False,
) -> Net:
    """Build a net from its prototxt and, if given, a file of weights; other arguments: ``Net``, ``prototxt.load_net``.

    Raises:
        ReproductionError: as ``prototxt.load_net``, ``Net``, ``weights.read`` and ``Net.copy_from``.
    """
    message, _ = prototxt.load_net(net, legacy_crop=legacy_crop)
    built = Net(message, phase, level=level, stages=stages, inputs=inputs, python_layers=python_layers)
    if model is not None:
        built.copy_from(weights.read(model).net, model)
    return built
