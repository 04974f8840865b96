"""The contenders of the benchmark and their task. To add one, add an entry to one of the tables below.

A contender is a function that takes a task and returns a step. The function does everything that is done once (reading,
converting, packing weights), the step everything that is done for each image. Each contender runs in a separate
process, which imports the function's module only when it prepares, so that the time and memory of loading are measured
for this contender alone.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# A step runs once, synchronously, and returns the scores, (N, classes, H, W), or in training the loss, ().
Step = Callable[[], "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Task:
    """The net and the images that a contender runs.

    Attributes:
        net: The net, a folder name of ``prototxt/``.
        folder: The folder of the net's prototxts.
        weights: Path of its caffemodel.
        onnx: Path of the same net as ONNX, exported by torch from the plain port, for any height and width.
        ncnn: Path of the same net as ncnn's .param, a template for any height and width; its .bin has the same name.
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
        """Return seeded images, (N, 3, H, W) float32 in BGR minus the mean; every contender gets the same."""
        import numpy as np

        from tests.golden import seeded

        found = [seeded.inputs(["data"], self.height, self.width, 1, i)["data"] for i in range(self.batch)]
        return np.concatenate(found)

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
    ours: bool = False
    loads: bool = False
    reads: str = ""
    precision: str = "float32"
    devices: tuple[str, ...] = ("cpu",)

    @property
    def missing(self) -> list[str]:
        """The needed modules that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def prepare(self, task: Task) -> Step:
        """Import the function's module and return the step of a task."""
        module, _, name = self.function.partition(".")
        step: Step = getattr(importlib.import_module(f"bench.{module}"), name)(task, **self.options)
        return step


REFERENCE = "our Net"  # errors are relative to its scores
BASELINE = "PyTorch"  # ratios of time are relative to it

_BOTH = ("cpu", "cuda")

#: Contenders in a forward pass, in the order of the table.
FORWARD: tuple[Contender, ...] = (
    Contender(REFERENCE, "ours.uncompiled", ours=True, loads=True, devices=_BOTH),
    Contender("our exact", "ours.compiled", {"precision": "exact"}, ours=True, loads=True, devices=_BOTH),
    Contender("our winograd", "ours.compiled", {"precision": "winograd"}, ours=True, loads=True),
    Contender(
        "our tf32", "ours.compiled", {"precision": "tf32"}, ours=True, loads=True, precision="tf32", devices=("cuda",)
    ),
    Contender(
        "our bf16", "ours.compiled", {"precision": "bf16"}, ours=True, loads=True, precision="bf16", devices=_BOTH
    ),
    Contender(BASELINE, "pytorch_port.inference", devices=_BOTH),
    Contender("PyTorch channels_last", "pytorch_port.inference", {"channels_last": True}, devices=_BOTH),
    Contender("OpenCV dnn", "runtimes.opencv", needs=("cv2",), loads=True),
    Contender("onnxruntime", "runtimes.onnxruntime", needs=("onnxruntime", "onnx"), reads="onnx"),
    Contender("OpenVINO", "runtimes.openvino", needs=("openvino", "onnx"), reads="onnx"),
    Contender(
        "OpenVINO bf16", "runtimes.openvino", {"precision": "bf16"}, needs=("openvino", "onnx"), reads="onnx",
        precision="bf16",
    ),
    Contender("ncnn", "runtimes.ncnn", needs=("ncnn",), reads="ncnn"),
)  # fmt: skip

#: Contenders in a training step.
TRAIN: tuple[Contender, ...] = (
    Contender("our Solver", "ours.training", ours=True, devices=_BOTH),
    Contender(BASELINE, "pytorch_port.training", devices=_BOTH),
)
