"""Who takes part in tools/bench.py, and what each is asked to do. Adding one is one entry of a table below.

A contender is a function from a task to a step: everything that is done once (reading, converting, packing weights)
belongs to the function, what is done for every image to the step. Each runs in processes of its own, and imports what
it needs inside its function, so that memory and time of loading are its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# A step does the work once, to the end, and gives the scores, (N, classes, H, W); in training, the loss, ().
Step = Callable[[], "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Task:
    """What a contender runs.

    Attributes:
        net: a key of ``prototxt/``.
        folder: of the prototxts of the net.
        weights: its caffemodel.
        onnx: the same net as ONNX, written by torch from the plain port; height and width are free.
        ncnn: the same net as ncnn's .param, a template for any height and width, with its .bin beside it.
        height: of the images, pixels.
        width: of the images, pixels.
        batch: how many images at a time.
        threads: how many to use on the CPU.
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
        """The net for pictures alone."""
        return str(Path(self.folder) / "deploy.prototxt")

    @property
    def stride(self) -> int:
        """Pixels between predictions before the last upsampling: the number in the net's name."""
        return int("".join(c for c in self.net.split("-")[1] if c.isdigit()))

    def images(self) -> np.ndarray[Any, Any]:
        """Make (N, 3, H, W), float32, as the nets of colour want it; the same for every contender."""
        import numpy as np

        from tests.golden import seeded

        found = [seeded.inputs(["data"], self.height, self.width, 1, i)["data"] for i in range(self.batch)]
        return np.concatenate(found)

    def labels(self, classes: int) -> np.ndarray[Any, Any]:
        """Make (N, 1, H, W), float32, with some void."""
        import numpy as np

        from tests.golden import seeded

        found = [seeded.inputs(["label"], self.height, self.width, classes, i)["label"] for i in range(self.batch)]
        return np.concatenate(found)

    def as_dict(self) -> dict[str, Any]:
        """Give the fields for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Contender:
    """One way to run a net.

    Attributes:
        name: of its row.
        prepare: makes the step.
        needs: modules that must be installed.
        ours: whether it is this project's.
        loads: whether it reads caffemodels itself.
        reads: the file that it starts from, besides the prototxt and the caffemodel: ``onnx``, ``ncnn`` or none.
        precision: of its products; times are compared with those of peers of the same.
        devices: where it runs.
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
        """The modules that it needs and that are not installed."""
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


REFERENCE = "our Net"  # what errors are measured against
BASELINE = "PyTorch"  # what ratios of time are measured against

#: Who runs images forward. Of equal standing; the order is that of the table.
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

#: Who makes training steps.
TRAIN: tuple[Contender, ...] = (
    Contender("our Solver", _solver, ours=True, devices=("cpu", "cuda")),
    Contender(BASELINE, _plain_training, devices=("cpu", "cuda")),
)
