"""One layer by itself, from the text of a prototxt."""

from collections.abc import Iterator

import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.schema import NetParameter, Phase


def single(text: str, *bottoms: tuple[int, ...], phase: Phase = Phase.TEST, seed: int | None = None) -> Layer:
    """Build a layer from what stands between the braces of ``layer { }``, for bottoms of these shapes.

    Bottoms ``in0``, ``in1`` ... and a top ``out0`` are named for a text that names none.
    """
    spec = prototxt.loads(f"layer {{ {text} }}", NetParameter).layer[0]
    spec.bottom.extend(f"in{i}" for i in range(len(spec.bottom), len(bottoms)))
    if not spec.top:
        spec.top.append("out0")
    spec.phase = phase
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return LAYERS[spec.type](spec, bottoms, generator).train(phase == Phase.TRAIN)


def gradient(layer: Layer, *bottoms: torch.Tensor) -> Iterator[torch.Tensor]:
    """Run a layer with a gradient of ones for its first top, and yield those of its bottoms."""
    leaves = [bottom.detach().requires_grad_() for bottom in bottoms]
    layer(*leaves)[0].sum().backward()
    return (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)
