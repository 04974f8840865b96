"""The contenders of this project."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.contenders import Step, Task
from reproduction.caffe import devices
from reproduction.caffe.formats import prototxt, weights
from reproduction.caffe.net import net as nets
from reproduction.caffe.training import solver
from reproduction.fast import compiler, engines


def uncompiled(task: Task) -> Step:
    """Return a step of the uncompiled net, which computes the prototxt's layers in order."""
    return _step(task, _load(task))


def compiled(task: Task, precision: str) -> Step:
    """Return a step of the compiled net, whose large weights are freed."""
    return _step(task, compiler.compile(_load(task), precision, discard=True))


def measured(task: Task, precision: str) -> Step:
    """Return a step of the compiled net by the engine that is the fastest, which is chosen here."""
    step = _step(task, compiler.compile(_load(task), precision, engine="auto"))
    for _ in range(engines.CALLS + 1):
        step()
    return step


def _load(task: Task) -> nets.Net:
    torch.set_num_threads(task.threads)
    return nets.load(task.deploy, task.weights).to(devices.select_device(task.device)).eval()


def _step(task: Task, net: nets.Net | compiler.CompiledNet) -> Step:
    images = torch.from_numpy(task.images()).to(task.device)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        scores = net({task.input: images}, blobs=[task.output])[task.output]
        if task.device == "cuda":
            torch.cuda.synchronize()
        return scores

    return step


def build_solver(task: Task) -> solver.Solver:
    """Return a solver with the settings that the net was published with, but one image for an update."""
    torch.set_num_threads(task.threads)
    param = prototxt.load_solver(f"{task.folder}/solver.prototxt")
    param.clear("snapshot")
    param.iter_size = 1
    shape = (task.batch, task.channels, task.height, task.width)
    made = solver.build_solver(
        param,
        base=task.folder,
        inputs={"data": shape, "label": (task.batch, 1, *shape[2:])},
        device=task.device,
        tests=False,
    )
    made.net.copy_from(weights.read(task.weights).net, task.weights)
    return made


def training_inputs(task: Task, net: nets.Net) -> dict[str, np.ndarray[Any, Any]]:
    """Return seeded images, (N, 3, H, W), and their labels, (N, 1, H, W), some of them void."""
    return {"data": task.images(), "label": task.labels(net.blob_shapes["score"][1])}


def training(task: Task) -> Step:
    """Return a step of the solver."""
    made = build_solver(task)
    inputs = training_inputs(task, made.net)
    made.feed = lambda _: inputs

    def step() -> np.ndarray[Any, Any]:
        return np.asarray(made.step())

    return step
