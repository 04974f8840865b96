"""What a net costs for an image: time, as in the paper's Table 1, and products."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean, median
from typing import TypeVar

import torch
from torch import Tensor

from reproduction.caffe.net import net_info
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.caffe.typing import Progress
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.nets import registry

T = TypeVar("T")


def measure_forward_time(
    record: NetRecord, size: tuple[int, int] = (500, 500), trials: int = 5, device: str = "cpu"
) -> float:
    """Return the mean seconds of a forward pass of a net with weights from its fillers, after one untimed pass.

    Args:
        record: The net.
        size: Height and width of the image, which is random.
        trials: The number of timed passes.
        device: The device to run on: ``cpu``, ``cuda``, ``cuda:1``.
    """
    net = _build(registry.load_net(record.name), size).to(device)
    inputs = _draw_inputs(net, torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(trials + 1):
            start = time.perf_counter()
            net(inputs)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return fmean(seconds[1:])


def count_products(net_param: NetParameter, size: tuple[int, int]) -> int:
    """Return how many times a forward pass of a net multiplies an input by a weight, for one image.

    Args:
        net_param: The net, with an Input layer.
        size: Height and width of the image.
    """
    with torch.device("meta"):  # weights without memory
        return net_info.count_products(_build(net_param, size))


def _build(net_param: NetParameter, size: tuple[int, int]) -> Net:
    declared = Net(net_param, Phase.TEST)
    shapes = {blob: (*declared.blob_shapes[blob][:2], *size) for blob in declared.inputs}
    return Net(net_param, Phase.TEST, inputs=shapes, seed=0)


def _draw_inputs(net: Net, generator: torch.Generator) -> dict[str, Tensor]:
    return {blob: torch.randn(net.blob_shapes[blob], generator=generator).to(net.device) for blob in net.inputs}


def measure_in_turns(
    nets: Mapping[str, NetParameter], sizes: Mapping[str, tuple[int, int]], rounds: int
) -> dict[str, float]:
    """Return the median CPU seconds of a forward pass of several nets, with one thread and one image.

    The nets run in turns, so that a machine that other programs slow down slows all of them down.

    Args:
        nets: The nets by name, each with an Input layer; their weights are those of their fillers.
        sizes: Height and width of the image by net name; it is random.
        rounds: How many times each net is timed, after one untimed pass.
    """
    generator = torch.Generator().manual_seed(0)
    passes = {}
    for name, net_param in nets.items():
        net = _build(net_param, sizes[name])
        passes[name] = partial(net, _draw_inputs(net, generator))
    return time_in_turns(passes, rounds)


def time_in_turns(
    passes: Mapping[T, Callable[[], object]], rounds: int, progress: Progress = lambda done, total: None
) -> dict[T, float]:
    """Return the median CPU seconds of a call of several functions, which are called in turns, with one thread.

    Args:
        passes: The functions by any keys, such as the passes of nets by name.
        rounds: How many times each is timed, after one untimed call.
        progress: Called with the number of rounds done, that of the untimed calls included, and their total.
    """
    seconds: dict[T, list[float]] = {key: [] for key in passes}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for done in range(rounds + 1):
                for key, run in passes.items():
                    start = time.process_time()
                    run()
                    seconds[key].append(time.process_time() - start)
                progress(done + 1, rounds + 1)
    finally:
        torch.set_num_threads(threads)
    return {key: median(found[1:]) for key, found in seconds.items()}
