"""The overhead of evaluating a data set over its forward passes.

Reading, counting and writing run in other threads during the forward passes, so the overhead should be small.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.contenders import Task
from reproduction.caffe.net import net as nets
from reproduction.fast import compiler
from reproduction.fcn.datasets.voc import VOC
from reproduction.fcn.images import palette
from reproduction.fcn.scoring import evaluate

# The frequent sizes of VOC's images, (H, W) in pixels, with their share in percent; the others have one side of 500 and
# one from 300 to 499.
_SIZES = {(375, 500): 50, (500, 375): 14, (333, 500): 12, (500, 333): 5}


class _TimedNet:
    """A net that records the seconds of each forward pass."""

    def __init__(self, net: compiler.CompiledNet):
        self.net = net
        self.seconds: list[float] = []

    def __call__(self, inputs: Mapping[str, Tensor], blobs: Iterable[str] | None = None) -> dict[str, Tensor]:
        start = time.perf_counter()
        found = self.net(inputs, blobs)
        self.seconds.append(time.perf_counter() - start)
        return found

    def state_dict(self) -> dict[str, Tensor]:
        return self.net.state_dict()


def time_evaluation(task: Task, count: int, precision: str, folder: str) -> dict[str, Any]:
    """Evaluate a net on images of VOC's sizes as fcn evaluate does, and write its predictions.

    Args:
        task: The net; the task's height, width and batch are ignored.
        count: The number of images.
        precision: The precision of the compiled net.
        folder: The folder for images and predictions.
    """
    torch.set_num_threads(task.threads)
    root = Path(folder)
    built = nets.load(task.deploy, task.weights).eval()
    ids = write_voc_tree(root / "VOCdevkit" / "VOC2011", count, built.blob_shapes["score"][1])
    net = _TimedNet(compiler.compile(built, precision, discard=True))
    start = time.perf_counter()
    evaluate.evaluate(net, VOC("val", root), out_dir=root / "predictions", state=root / "state.jsonl", force=True)
    seconds = time.perf_counter() - start
    return {
        "images": len(ids),
        "seconds": seconds,
        "forward_seconds": sum(net.seconds),
        "overhead": seconds / sum(net.seconds) - 1,
        "seconds_per_image": seconds / len(ids),
    }


def write_voc_tree(tree: Path, count: int, classes: int) -> list[str]:
    """Write ``count`` seeded images and label maps as a VOC tree, the same in each call; return their names."""
    rng = np.random.default_rng(1)
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tree / part).mkdir(parents=True, exist_ok=True)
    ids = [f"2011_{number:06d}" for number in range(count)]
    for image_id in ids:
        size = _draw_size(rng)
        coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        picture.save(tree / "JPEGImages" / f"{image_id}.jpg", quality=90)
        regions = rng.choice(np.array([0, 0, 0, 1, classes - 1, 255], np.uint8), (6, 6))
        labels = Image.fromarray(regions).resize(size[::-1], Image.Resampling.NEAREST)
        palette.write_png(np.asarray(labels), tree / "SegmentationClass" / f"{image_id}.png")
    (tree / "ImageSets" / "Segmentation" / "val.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    (tree / "classes.txt").write_text("".join(f"class{number}\n" for number in range(classes)))
    return ids


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw height and width."""
    drawn = int(rng.integers(100))
    for size, share in _SIZES.items():
        if drawn < share:
            return size
        drawn -= share
    other = int(rng.integers(300, 500))
    return (other, 500) if rng.integers(2) else (500, other)
