"""FCN-32s, -16s and -8s written by hand in PyTorch: the baseline of the benchmark's forward passes.

The project itself builds nets only from prototxts; this port is only for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.contenders import Step, Task
from reproduction.caffe.formats import weights


class FCN(nn.Module):
    """The trunk of VGG16 and the layers that all three nets share.

    Args:
        classes: Number of classes.
        widths: Channels of the five blocks.
        width: Channels of fc6 and fc7.
    """

    def __init__(self, classes: int, widths: Sequence[int], width: int):
        super().__init__()
        a, b, c, d, e = widths
        self.conv1_1 = nn.Conv2d(3, a, 3, padding=100)
        self.conv1_2 = nn.Conv2d(a, a, 3, padding=1)
        self.conv2_1 = nn.Conv2d(a, b, 3, padding=1)
        self.conv2_2 = nn.Conv2d(b, b, 3, padding=1)
        self.conv3_1 = nn.Conv2d(b, c, 3, padding=1)
        self.conv3_2 = nn.Conv2d(c, c, 3, padding=1)
        self.conv3_3 = nn.Conv2d(c, c, 3, padding=1)
        self.conv4_1 = nn.Conv2d(c, d, 3, padding=1)
        self.conv4_2 = nn.Conv2d(d, d, 3, padding=1)
        self.conv4_3 = nn.Conv2d(d, d, 3, padding=1)
        self.conv5_1 = nn.Conv2d(d, e, 3, padding=1)
        self.conv5_2 = nn.Conv2d(e, e, 3, padding=1)
        self.conv5_3 = nn.Conv2d(e, e, 3, padding=1)
        self.fc6 = nn.Conv2d(e, width, 7)
        self.fc7 = nn.Conv2d(width, width, 1)
        self.score_fr = nn.Conv2d(width, classes, 1)
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.relu = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout()
        self.drop7 = nn.Dropout()

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pool3, pool4 and score_fr of images (N, 3, H, W)."""
        x = self.relu(self.conv1_1(x))
        x = self.pool(self.relu(self.conv1_2(x)))
        x = self.relu(self.conv2_1(x))
        x = self.pool(self.relu(self.conv2_2(x)))
        x = self.relu(self.conv3_1(x))
        x = self.relu(self.conv3_2(x))
        pool3 = self.pool(self.relu(self.conv3_3(x)))
        x = self.relu(self.conv4_1(pool3))
        x = self.relu(self.conv4_2(x))
        pool4 = self.pool(self.relu(self.conv4_3(x)))
        x = self.relu(self.conv5_1(pool4))
        x = self.relu(self.conv5_2(x))
        x = self.pool(self.relu(self.conv5_3(x)))
        x = self.drop6(self.relu(self.fc6(x)))
        x = self.drop7(self.relu(self.fc7(x)))
        return pool3, pool4, self.score_fr(x)


def cropped(x: Tensor, like: Tensor, offset: int) -> Tensor:
    """Return the part of x that has the height and width of another, from ``offset`` on."""
    return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


class FCN32s(FCN):
    """FCN-32s: the scores are upsampled once, by 32."""

    def __init__(self, classes: int, widths: Sequence[int], width: int):
        super().__init__(classes, widths, width)
        self.upscore = nn.ConvTranspose2d(classes, classes, 64, stride=32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, (N, classes, H, W), of images (N, 3, H, W)."""
        _, _, score = self.trunk(x)
        return cropped(self.upscore(score), x, 19)


class FCN16s(FCN):
    """FCN-16s: the scores are added to those of pool4."""

    def __init__(self, classes: int, widths: Sequence[int], width: int):
        super().__init__(classes, widths, width)
        self.score_pool4 = nn.Conv2d(widths[3], classes, 1)
        self.upscore2 = nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=False)
        self.upscore16 = nn.ConvTranspose2d(classes, classes, 32, stride=16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, (N, classes, H, W), of images (N, 3, H, W)."""
        _, pool4, score = self.trunk(x)
        up = self.upscore2(score)
        up = up + cropped(self.score_pool4(pool4), up, 5)
        return cropped(self.upscore16(up), x, 27)


class FCN8s(FCN):
    """FCN-8s: the scores are added to those of pool4 and pool3."""

    def __init__(self, classes: int, widths: Sequence[int], width: int):
        super().__init__(classes, widths, width)
        self.score_pool4 = nn.Conv2d(widths[3], classes, 1)
        self.score_pool3 = nn.Conv2d(widths[2], classes, 1)
        self.upscore2 = nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=False)
        self.upscore_pool4 = nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=False)
        self.upscore8 = nn.ConvTranspose2d(classes, classes, 16, stride=8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, (N, classes, H, W), of images (N, 3, H, W)."""
        pool3, pool4, score = self.trunk(x)
        up = self.upscore2(score)
        up = up + cropped(self.score_pool4(pool4), up, 5)
        up = self.upscore_pool4(up)
        up = up + cropped(self.score_pool3(pool3), up, 9)
        return cropped(self.upscore8(up), x, 31)


PORTS: Mapping[int, type[FCN]] = {32: FCN32s, 16: FCN16s, 8: FCN8s}


def build(task: Task) -> FCN:
    """Build the port of a net; its channels are those of the weights that it loads."""
    arrays = weights.read(task.weights).arrays()
    widths = [len(arrays[f"conv{block}_1.weight"]) for block in range(1, 6)]
    classes, width = arrays["score_fr.weight"].shape[:2]
    port = PORTS[task.stride](classes, widths, width)
    port.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return port.to(task.device)


def inference(task: Task, *, channels_last: bool = False, compiled: bool = False) -> Step:
    """Return a step of inference, eager or by ``torch.compile``."""
    torch.set_num_threads(task.threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    port = build(task).eval()
    port.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub of Module.to lacks it
    images = torch.from_numpy(task.images()).to(task.device, memory_format=layout)
    called = torch.compile(port, mode="max-autotune-no-cudagraphs") if compiled else port

    @torch.inference_mode()
    def step() -> Tensor:
        scores: Tensor = called(images)
        if task.device == "cuda":
            torch.cuda.synchronize()
        return scores

    return step
