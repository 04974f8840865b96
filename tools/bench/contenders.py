"""The contenders of the benchmark and their task. To add one, add an entry to one of the tables below.

A contender is a function that takes a task and returns a step. The function does everything that is done once (reading,
converting, packing weights), the step everything that is done for each image. Each contender runs in a separate
process, which imports the function's module only when it prepares, so that the time and memory of loading are measured
for this contender alone.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

# A step runs once, synchronously, and returns the scores, (N, classes, H, W), or in training the loss, (). On a GPU the
# scores are a tensor that stays there.
Step = Callable[[], "np.ndarray[Any, Any] | torch.Tensor"]


@dataclass(frozen=True)
class Task:
    """The net and the images that a contender runs.

    Attributes:
        net: The net, a folder name of ``prototxt/`` or a net of ``bench.nets``.
        folder: The folder of the net's prototxts.
        weights: Path of its caffemodel.
        onnx: Path of the same net as ONNX; FCNs have a free height and width.
        ncnn: Path of the same net as ncnn's .param, a template for any height and width; its .bin has the same name.
        input: The name of the net's input.
        output: The name of the blob to compute.
        channels: Number of channels of the images.
        height: Height of the images, pixels.
        width: Width of the images, pixels.
        batch: Number of images in a batch.
        threads: Number of CPU threads.
        device: ``cpu`` or ``cuda``.
    """

    net: str
    folder: str
    weights: str
    onnx: str
    ncnn: str
    input: str
    output: str
    channels: int
    height: int
    width: int
    batch: int = 1
    threads: int = 1
    device: str = "cpu"

    @property
    def deploy(self) -> str:
        """Path of the net's deploy.prototxt, without labels and losses."""
        return str(Path(self.folder) / "deploy.prototxt")

    @property
    def stride(self) -> int:
        """Pixels between predictions before the last upsampling: the number in the net's name."""
        return int("".join(c for c in self.net.split("-")[1] if c.isdigit()))

    def images(self) -> np.ndarray[Any, Any]:
        """Return seeded images, (N, C, H, W) float32 in BGR minus the mean; every contender gets the same."""
        import numpy as np

        from tests.golden import seeded

        found = [seeded.inputs(["data"], self.height, self.width, 1, i)["data"] for i in range(self.batch)]
        return np.ascontiguousarray(np.concatenate(found)[:, : self.channels])

    def labels(self, classes: int) -> np.ndarray[Any, Any]:
        """Return seeded labels, (N, 1, H, W) float32, some of them void."""
        import numpy as np

        from tests.golden import seeded

        found = [seeded.inputs(["label"], self.height, self.width, classes, i)["label"] for i in range(self.batch)]
        return np.concatenate(found)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Contender:
    """One way to run a net.

    Attributes:
        name: The name of its row.
        function: Module in ``bench`` and name of the function that takes a task and returns its step.
        options: Keyword arguments of the function.
        needs: Modules that must be installed.
        nets: Regular expression of the names of the nets that it is measured on, unless it is named with --only.
        ours: Whether it is part of this project.
        loads: Whether it reads caffemodels itself.
        reads: The file that it reads besides prototxt and caffemodel: ``onnx``, ``ncnn`` or empty.
        precision: The precision of its products; its time is compared with peers of the same precision.
        devices: The devices that it runs on.
    """

    name: str
    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    nets: str = ".*"
    ours: bool = False
    loads: bool = False
    reads: str = ""
    precision: str = "float32"
    devices: tuple[str, ...] = ("cpu",)

    @property
    def missing(self) -> list[str]:
        """The needed modules that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def load_function(self) -> Callable[[Task], Step]:
        """Import the function's module and what it needs; return the function that prepares a task."""
        for needed in self.needs:
            importlib.import_module(needed)
        module, _, name = self.function.partition(".")
        return functools.partial(getattr(importlib.import_module(f"bench.{module}"), name), **self.options)


REFERENCE = "our Net"  # errors are relative to its scores
BASELINE = "PyTorch"  # ratios of time are relative to it

_BOTH = ("cpu", "cuda")
_VGG_FCNS = r"[a-z]+-fcn(8|16|32)s"  # the nets that are also measured in other precisions, and that the port computes

#: Contenders in a forward pass, in the order of the table.
FORWARD: tuple[Contender, ...] = (
    Contender(REFERENCE, "ours.uncompiled", ours=True, loads=True, devices=_BOTH),
    Contender("our exact", "ours.compiled", {"precision": "exact"}, ours=True, loads=True, devices=_BOTH),
    Contender("our winograd", "ours.compiled", {"precision": "winograd"}, nets=_VGG_FCNS, ours=True, loads=True),
    Contender(
        "our fast", "ours.measured", {"precision": "exact"}, needs=("openvino", "onnxruntime", "onnx"), ours=True,
        loads=True,
    ),
    Contender(
        "our tf32", "ours.compiled", {"precision": "tf32"}, ours=True, loads=True, precision="tf32", devices=("cuda",)
    ),
    Contender(
        "our bf16", "ours.compiled", {"precision": "bf16"}, nets=_VGG_FCNS, ours=True, loads=True, precision="bf16",
        devices=_BOTH,
    ),
    Contender(
        "our fast bf16", "ours.measured", {"precision": "bf16"}, needs=("openvino", "onnx"), nets=_VGG_FCNS, ours=True,
        loads=True, precision="bf16",
    ),
    Contender(BASELINE, "pytorch_port.inference", nets=_VGG_FCNS, devices=_BOTH),
    Contender(
        "PyTorch channels_last", "pytorch_port.inference", {"channels_last": True}, nets=_VGG_FCNS, devices=_BOTH
    ),
    Contender(
        "PyTorch compiled", "pytorch_port.inference", {"channels_last": True, "compiled": True}, needs=("triton",),
        nets=_VGG_FCNS, devices=("cuda",),
    ),
    Contender("OpenCV dnn", "runtimes.opencv", needs=("cv2",), loads=True),
    Contender("onnxruntime", "runtimes.onnxruntime", needs=("onnxruntime", "onnx"), reads="onnx"),
    Contender("OpenVINO", "runtimes.openvino", needs=("openvino", "onnx"), reads="onnx"),
    Contender(
        "OpenVINO bf16", "runtimes.openvino", {"precision": "bf16"}, needs=("openvino", "onnx"), nets=_VGG_FCNS,
        reads="onnx", precision="bf16",
    ),
    Contender("ncnn", "runtimes.ncnn", needs=("ncnn",), reads="ncnn"),
    Contender(
        "ncnn bf16", "runtimes.ncnn", {"precision": "bf16"}, needs=("ncnn",), nets=_VGG_FCNS, reads="ncnn",
        precision="bf16",
    ),
)  # fmt: skip

#: Contenders in a training step.
TRAIN: tuple[Contender, ...] = (
    Contender("our Solver", "ours.training", ours=True, devices=_BOTH),
    Contender(BASELINE, "graph_port.training", devices=_BOTH),
    Contender("PyTorch channels_last", "graph_port.training", {"channels_last": True}, devices=_BOTH),
)
