"""The contenders of tools/bench.py and their task. To add one, add an entry to one of the tables below.

A contender is a function that takes a task and returns a step. The function does everything that is done once (reading,
converting, packing weights), the step everything that is done for each image. Each contender runs in a separate process
and imports its packages inside its function, so that the time and memory of loading are measured for it alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
        prepare: Returns the step of a task.
        needs: Modules that must be installed.
        ours: Whether it is part of this project.
        loads: Whether it reads caffemodels itself.
        reads: The file that it reads besides prototxt and caffemodel: ``onnx``, ``ncnn`` or empty.
        precision: The precision of its products; its time is compared with peers of the same precision.
        devices: The devices that it runs on.
    """

    name: str
    prepare: Callable[[Task], Step]
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


def _plain(task: Task) -> Step:
    from peers import plain

    return plain.forward(task, channels_last=False)


def _plain_channels_last(task: Task) -> Step:
    from peers import plain

    return plain.forward(task, channels_last=True)


def _opencv(task: Task) -> Step:
    from peers import runtimes

    return runtimes.opencv(task)


def _onnxruntime(task: Task) -> Step:
    from peers import runtimes

    return runtimes.onnxruntime(task)


def _openvino(task: Task) -> Step:
    from peers import runtimes

    return runtimes.openvino(task, "f32")


def _openvino_bf16(task: Task) -> Step:
    from peers import runtimes

    return runtimes.openvino(task, "bf16")


def _ncnn(task: Task) -> Step:
    from peers import runtimes

    return runtimes.ncnn(task)


def _net(task: Task) -> Step:
    from peers import ours

    return ours.net(task)


def _exact(task: Task) -> Step:
    from peers import ours

    return ours.fast(task, "exact")


def _winograd(task: Task) -> Step:
    from peers import ours

    return ours.fast(task, "winograd")


def _tf32(task: Task) -> Step:
    from peers import ours

    return ours.fast(task, "tf32")


def _bf16(task: Task) -> Step:
    from peers import ours

    return ours.fast(task, "bf16")


def _plain_training(task: Task) -> Step:
    from peers import plain

    return plain.training(task)


def _solver(task: Task) -> Step:
    from peers import ours

    return ours.training(task)


REFERENCE = "our Net"  # errors are relative to its scores
BASELINE = "PyTorch"  # ratios of time are relative to it

#: Contenders in a forward pass, in the order of the table.
FORWARD: tuple[Contender, ...] = (
    Contender(REFERENCE, _net, ours=True, loads=True, devices=("cpu", "cuda")),
    Contender("our exact", _exact, ours=True, loads=True, devices=("cpu", "cuda")),
    Contender("our winograd", _winograd, ours=True, loads=True, devices=("cpu",)),
    Contender("our tf32", _tf32, ours=True, loads=True, precision="tf32", devices=("cuda",)),
    Contender("our bf16", _bf16, ours=True, loads=True, precision="bf16", devices=("cpu", "cuda")),
    Contender(BASELINE, _plain, devices=("cpu", "cuda")),
    Contender("PyTorch channels_last", _plain_channels_last, devices=("cpu", "cuda")),
    Contender("OpenCV dnn", _opencv, needs=("cv2",), loads=True),
    Contender("onnxruntime", _onnxruntime, needs=("onnxruntime", "onnx"), reads="onnx"),
    Contender("OpenVINO", _openvino, needs=("openvino", "onnx"), reads="onnx"),
    Contender("OpenVINO bf16", _openvino_bf16, needs=("openvino", "onnx"), reads="onnx", precision="bf16"),
    Contender("ncnn", _ncnn, needs=("ncnn",), reads="ncnn"),
)

#: Contenders in a training step.
TRAIN: tuple[Contender, ...] = (
    Contender("our Solver", _solver, ours=True, devices=("cpu", "cuda")),
    Contender(BASELINE, _plain_training, devices=("cpu", "cuda")),
)
