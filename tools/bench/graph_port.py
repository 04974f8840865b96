"""Any net of ``prototxt/`` in plain modules of ``torch.nn``: the baseline of the benchmark's training steps.

The modules are those that one would write by hand, such as ``nn.BatchNorm2d`` for BatchNorm and Scale, and autograd
joins them. Only the list of layers and their weights come from the prototxt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import ours
from bench.contenders import Step, Task
from reproduction.caffe.geometry import conv_windows, pool_windows
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import ParamSpec, PoolMethod


class Port(nn.Module):
    """The layers of a net as modules of torch, with its weights.

    Args:
        net: The net to port, built for phase TRAIN.

    Raises:
        KeyError: If no module stands for a type of layer.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.nodes = [node for node in net.graph.nodes if not node.is_slot]
        self.parts = nn.ModuleDict()
        statistics: list[Tensor] = []
        for node in self.nodes:
            if node.type not in _MODULES and node.type != "BatchNorm":
                continue
            layer = net.layer_at(node)
            assert layer is not None
            if node.type == "BatchNorm":
                statistics, stored = layer.blobs, layer.layer_param.batch_norm_param.use_global_stats
                continue  # a module of torch does what this layer and the layer Scale after it do
            part = _MODULES[node.type](node.layer_param, net.blob_shapes[node.bottoms[0]])
            for parameter, blob in zip(part.parameters(), layer.blobs, strict=True):
                parameter.data.copy_(blob.detach())
                parameter.requires_grad_(blob.requires_grad)
            if isinstance(part, nn.BatchNorm2d):
                mean, variance, factor = statistics
                part.running_mean, part.running_var = mean / factor, variance / factor
                part.train(not stored)
            self.parts[str(node.index)] = part

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, (), of images (N, C, H, W) and their labels (N, 1, H, W)."""
        values = dict(zip(("data", "label"), (images, labels), strict=True))
        for node in self.nodes:
            bottoms = [values.pop(name) for name in node.bottoms]
            if str(node.index) in self.parts:
                top = self.parts[str(node.index)](*bottoms)
            else:
                top = _FUNCTIONS[node.type](node.layer_param, bottoms)
            values.update(dict.fromkeys(node.tops, top))
        return values["loss"]


def _convolution(kind: type[nn.Conv2d | nn.ConvTranspose2d]) -> Callable[..., nn.Module]:
    def build(layer_param: Any, bottom: Sequence[int]) -> nn.Module:
        param = layer_param.convolution_param
        windows = conv_windows(param, 2)
        kernel, stride, padding, dilation = (
            tuple(getattr(window, name) for window in windows) for name in ("kernel", "stride", "pad", "dilation")
        )
        options = {"dilation": dilation, "groups": param.group, "bias": param.bias_term}
        return kind(bottom[1], param.num_output, kernel, stride, padding, **options)

    return build


def _pooling(layer_param: Any, bottom: Sequence[int]) -> nn.Module:
    param = layer_param.pooling_param
    kind = nn.MaxPool2d if param.pool is PoolMethod.MAX else nn.AvgPool2d
    window, _ = pool_windows(param, *bottom[2:])
    return kind(window.kernel, window.stride, window.pad, ceil_mode=True)


def _lrn(layer_param: Any, bottom: Sequence[int]) -> nn.Module:
    param = layer_param.lrn_param
    return nn.LocalResponseNorm(param.local_size, param.alpha, param.beta, param.k)


def _crop(layer_param: Any, bottoms: list[Tensor]) -> Tensor:
    x, like = bottoms
    offset = (layer_param.crop_param.offset or [0])[0]
    return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


def _loss(layer_param: Any, bottoms: list[Tensor]) -> Tensor:
    param, (scores, labels) = layer_param.loss_param, bottoms
    reduction = "mean" if param.normalize or not param.has("normalize") else "sum"
    return F.cross_entropy(scores, labels[:, 0].long(), ignore_index=param.ignore_label, reduction=reduction)


_MODULES: dict[str, Callable[..., nn.Module]] = {
    "Convolution": _convolution(nn.Conv2d),
    "Deconvolution": _convolution(nn.ConvTranspose2d),
    "ReLU": lambda layer_param, bottom: nn.ReLU(inplace=True),
    "Pooling": _pooling,
    "LRN": _lrn,
    "Dropout": lambda layer_param, bottom: nn.Dropout(layer_param.dropout_param.dropout_ratio),
    "Scale": lambda layer_param, bottom: nn.BatchNorm2d(bottom[1]),
}
_FUNCTIONS: dict[str, Callable[[Any, list[Tensor]], Tensor]] = {
    "BatchNorm": lambda layer_param, bottoms: bottoms[0],
    "Split": lambda layer_param, bottoms: bottoms[0],
    "Eltwise": lambda layer_param, bottoms: bottoms[0] + bottoms[1],
    "Concat": lambda layer_param, bottoms: torch.cat(bottoms, 1),
    "Crop": _crop,
    "SoftmaxWithLoss": _loss,
}


def training(task: Task, *, channels_last: bool = False) -> Step:
    """Return a training step by SGD, with the solver's rate, momentum and weight decay."""
    solver = ours.build_solver(task)
    param, inputs = solver.param, ours.training_inputs(task, solver.net)
    port = Port(solver.net)
    if channels_last:
        port.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub of Module.to lacks it
    groups: list[dict[str, Any]] = []
    for parameter, spec in zip(port.parameters(), _specs(port, solver.net), strict=True):
        if parameter.requires_grad:
            rate, decay = param.base_lr * spec.lr_mult, param.weight_decay * spec.decay_mult
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    optimizer = torch.optim.SGD(groups, momentum=param.momentum)
    del solver
    images, labels = (torch.from_numpy(inputs[name]).to(task.device) for name in ("data", "label"))
    if channels_last:
        images = images.to(memory_format=torch.channels_last)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = port(images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach().cpu()

    return step


def _specs(port: Port, net: Net) -> list[ParamSpec]:
    """Return the ``param`` message of each parameter of the port."""
    specs = net.param_specs
    return [spec for node in port.nodes if str(node.index) in port.parts for spec in specs.get(node.name, ())]
