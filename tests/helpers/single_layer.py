"""Single layers from the text of a prototxt."""

from collections.abc import Iterator

import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.caffe.schema.types import has_type


def single(
    text: str, *bottoms: tuple[int, ...], phase: Phase = Phase.TEST, seed: int | None = None, dialect: str = ""
) -> Layer:
    """Build a layer from the text between the braces of ``layer { }``, for bottoms of these shapes.

    If the text names too few bottoms or no top, ``in0``, ``in1`` ... and ``out0`` are added. ``dialect`` is the fork
    that the layer is of, where several have its type.
    """
    spec = prototxt.loads(f"layer {{ {text} }}", NetParameter).layer[0]
    spec.bottom.extend(f"in{i}" for i in range(len(spec.bottom), len(bottoms)))
    if not spec.top:
        spec.top.append("out0")
    spec.phase, spec.dialect = phase, dialect
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    has_type(spec.type)  # which imports the layer types of forks
    return find_class(spec)(spec, bottoms, generator).train(phase == Phase.TRAIN)


def gradient(layer: Layer, *bottoms: torch.Tensor) -> Iterator[torch.Tensor]:
    """Run a layer with a gradient of ones for its first top, and return the gradients of its bottoms."""
    leaves = [bottom.detach().requires_grad_() for bottom in bottoms]
    layer(*leaves)[0].sum().backward()
    return (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)
