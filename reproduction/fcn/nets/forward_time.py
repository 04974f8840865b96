"""The time that a published net takes for an image, as in the paper's Table 1."""

from __future__ import annotations

import time
from statistics import fmean

import torch

from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.datasets.spec import CHANNELS
from reproduction.fcn.nets import registry


def measure_forward_time(
    published: NetRecord, size: tuple[int, int] = (500, 500), trials: int = 5, device: str = "cpu"
) -> float:
    """Return the mean seconds of a forward pass of a net with weights from its fillers, after one untimed pass.

    Args:
        published: The net.
        size: Height and width of the image, which is random.
        trials: The number of timed passes.
        device: The device to run on: ``cpu``, ``cuda``, ``cuda:1``.
    """
    shapes = {blob: (1, CHANNELS[kind], *size) for blob, kind in published.inputs.items()}
    net = Net(registry.load_net(published.name), Phase.TEST, inputs=shapes, seed=0).to(device)
    generator = torch.Generator().manual_seed(0)
    inputs = {blob: torch.randn(shape, generator=generator).to(device) for blob, shape in shapes.items()}
    seconds = []
    with torch.inference_mode():
        for _ in range(trials + 1):
            start = time.perf_counter()
            net(inputs)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return fmean(seconds[1:])
