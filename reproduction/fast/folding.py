"""Fold layers into the convolution before them, which computes them in the same pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.fast.convolution import ConvolutionOp
from reproduction.fast.ops import AffineOp, Op


def fold(ops: Sequence[Op], wanted: Iterable[str]) -> list[Op]:
    """Fold normalizations, sums and ReLUs into the convolutions whose tops they read.

    Layers that multiply and add per channel, such as BatchNorm with stored statistics and Scale, change the weights
    and the bias of the convolution; a sum with an earlier blob and a ReLU are computed by its kernel. Such layers that
    follow no convolution are merged with each other. A layer is folded only if nothing else reads the blob between the
    two, which is then not computed.

    Args:
        ops: The ops of the complete net, in order.
        wanted: Names of the requested blobs, with version: ``conv1#2`` is ``conv1`` after a change in place.

    Returns:
        The ops in order; folded ones are in ``ConvolutionOp.folded`` and ``AffineOp.folded`` of others.
    """
    readers: dict[str, list[int]] = {name: [-1] for name in wanted}
    for position, op in enumerate(ops):
        for bottom in op.bottoms:
            readers.setdefault(bottom, []).append(position)
    computed = {top: position for position, op in enumerate(ops) for top in op.tops}
    gone, folded = set[int](), list[Op]()
    for position, op in enumerate(ops):
        if position in gone:
            continue
        end = op
        while isinstance(end, ConvolutionOp | AffineOp) and len(follows := readers.get(end.tops[0], [])) == 1:
            follower = None if follows[0] < 0 else ops[follows[0]]
            others = [name for name in follower.bottoms if name != end.tops[0]] if follower else []
            if follower is None or any(computed.get(name, -1) >= position for name in others):
                break
            more = _fold_one(end, follower)
            if more is None:
                break
            gone.add(follows[0])
            computed[more.tops[0]] = position
            end = more
        folded.append(end)
    return folded


def _fold_one(op: ConvolutionOp | AffineOp, follower: Op) -> ConvolutionOp | AffineOp | None:
    """Return ``op`` with the layer of another op folded into it, or None if that is not possible."""
    form = follower.form
    if not isinstance(form, PointwiseForm) or len(follower.tops) != 1 or op.relu:
        return None
    if form.is_relu or (form.is_affine and len(op.bottoms) == 1):
        return op.extend(follower)
    is_sum = form.is_sum and len(set(follower.bottoms)) == len(follower.bottoms) == 2
    return op.extend(follower) if is_sum and isinstance(op, ConvolutionOp) and len(op.bottoms) == 1 else None
