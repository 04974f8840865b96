"""Gaussian filters of points with positions in a few dimensions, by the permutohedral lattice of Adams et al., 2010.

The lattice approximates the filter: values are distributed to the vertices of the simplex that surrounds each point,
blurred along the axes of the lattice, and interpolated back. Which simplex surrounds a point is decided in single
precision, in the order of CRF-RNN's code, because a point on a boundary may move to another one by a rounding error.

Source: torrvision/caffe@fcd05e8 src/caffe/util/modified_permutohedral.cpp L108-L289 (lattice), L444-L650 (filter).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.typing import Float32, Int64

_LANES = 4  # points that the original code computes together; it adds points at the origin up to a multiple of them
_GREATEST_KEY = 32000  # coordinates of vertices are 16-bit integers there


class PermutohedralLattice:
    """The lattice around N points in d dimensions, which filters values at these points.

    Args:
        features: The positions, (N, d), in standard deviations of the filter.

    Raises:
        NetError: If the positions are not finite, or too far apart for the lattice.
    """

    def __init__(self, features: npt.ArrayLike):
        positions = np.asarray(features, np.float32)
        points, self.dimensions = positions.shape
        if not np.isfinite(positions).all():
            raise NetError("the positions of a lattice must be finite numbers")
        # Caffe: The points at the origin that fill the last group of four add vertices there, through which values
        # are blurred (modified_permutohedral.cpp L160-L164).
        filled = np.zeros((-(-points // _LANES) * _LANES, self.dimensions), np.float32)
        filled[:points] = positions
        corners, rank, weights = _find_simplices(filled)
        codes, strides = _code_vertices(corners, rank)
        order = np.argsort(codes, axis=None, kind="stable")
        ranked = codes.ravel()[order]
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        vertices = ranked[starts]
        index = np.empty(codes.size, np.int64)
        index[order] = np.repeat(np.arange(len(vertices)), np.diff(np.append(starts, codes.size)))
        kept = order < points * (self.dimensions + 1)
        entries = np.concatenate([[0], np.cumsum(kept)])
        self._vertices = torch.from_numpy(index.reshape(codes.shape)[:points])
        self._weights = torch.from_numpy(weights[:points])
        self._splat_points = torch.from_numpy(order[kept] // (self.dimensions + 1))
        self._splat_weights = torch.from_numpy(weights.ravel()[order[kept]])
        self._splat_starts = torch.from_numpy(entries[starts])
        self._neighbors = torch.from_numpy(_find_neighbors(vertices, strides))

    @property
    def size(self) -> int:
        """The number of vertices."""
        return self._neighbors.shape[-1]

    def to(self, like: Tensor) -> PermutohedralLattice:
        """Return a copy of the lattice with the device and dtype of a tensor."""
        twin = copy.copy(self)
        for name in ("_vertices", "_splat_points", "_splat_starts", "_neighbors"):
            setattr(twin, name, getattr(self, name).to(like.device))
        for name in ("_weights", "_splat_weights"):
            setattr(twin, name, getattr(self, name).to(like))
        return twin

    def filter(self, values: Tensor) -> Tensor:
        """Return the filtered values, with a gradient. They are not divided by the sum of the filter's weights.

        Args:
            values: One row for each point, (N, C).

        Returns:
            The filtered values, (N, C).
        """
        result: Tensor = _Filter.apply(values, self)  # type: ignore[no-untyped-call]
        return result

    @torch.no_grad()
    def compute(self, values: Tensor, *, backwards: bool = False) -> Tensor:
        """Return the filtered values without a gradient.

        Args:
            values: One row for each point, (N, C).
            backwards: Whether to blur along the axes in reverse order, which is the transpose of the filter.
        """
        found = F.embedding_bag(
            self._splat_points, values, self._splat_starts, mode="sum", per_sample_weights=self._splat_weights
        )
        axes = range(self.dimensions + 1)
        # One row more, of zeros, stands for neighbors that are not in the lattice.
        old, new = (F.pad(found, (0, 0, 0, 1)) for _ in range(2))
        other = torch.empty_like(found)
        for axis in reversed(axes) if backwards else axes:
            before, after = self._neighbors[axis]
            blurred = torch.index_select(old, 0, before, out=new[:-1])
            blurred.add_(torch.index_select(old, 0, after, out=other)).mul_(0.5).add_(old[:-1])
            old, new = new, old
        found = old[:-1]
        gain = 1 / (1 + 2**-self.dimensions)
        return F.embedding_bag(self._vertices, found, mode="sum", per_sample_weights=self._weights * gain)


class _Filter(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: PermutohedralLattice) -> Tensor:
        ctx.lattice = lattice
        return lattice.compute(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.lattice.compute(gradient.contiguous(), backwards=True), None


def _find_simplices(positions: Float32) -> tuple[Float32, Float32, Float32]:
    """Find the simplex around each point.

    Args:
        positions: The positions, (N, d).

    Returns:
        For each point, the nearest vertex whose coordinates are multiples of d + 1, the rank of each coordinate's
        distance from it, and the weight of each of the d + 1 vertices; all (N, d + 1).
    """
    count, d = positions.shape
    spread = float(np.float32(math.sqrt(2 / 3) * (d + 1)))
    elevated = np.empty((count, d + 1), np.float32)
    total = np.zeros(count, np.float32)
    for j in range(d, 0, -1):
        scaled = positions[:, j - 1] * np.float32(1 / math.sqrt((j + 1) * j) * spread)
        elevated[:, j] = total - np.float32(j) * scaled
        total += scaled
    elevated[:, 0] = total

    share, whole = np.float32(1) / np.float32(d + 1), np.float32(d + 1)
    rounded = np.rint(share * elevated)
    corner = rounded * whole
    distance = elevated - corner
    rank = np.zeros_like(elevated)
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = distance[:, i] < distance[:, j]
            rank[:, i] += less
            rank[:, j] += ~less
    rank += rounded.sum(1, keepdims=True)  # back to the plane, where the coordinates add up to 0
    shift = whole * (rank < 0) - whole * (rank >= whole)
    rank += shift
    corner += shift

    steps = np.empty_like(elevated)
    np.put_along_axis(steps, d - rank.astype(np.int64), (elevated - corner) * share, axis=1)
    weights = np.zeros((count, d + 2), np.float32)
    weights[:, :-1] += steps
    weights[:, 1:] -= steps
    weights[:, 0] += 1 + weights[:, d + 1]
    return corner, rank, weights[:, :-1].copy()


def _code_vertices(corner: Float32, rank: Float32) -> tuple[Int64, list[int]]:
    """Return a number for each vertex of each simplex, (N, d + 1), equal for equal vertices.

    The second result is the difference of the numbers of two vertices that differ by 1 in a coordinate. It exists for
    the first d coordinates, which determine the last.
    """
    d = corner.shape[1] - 1
    if corner.size and np.abs(corner).max() > _GREATEST_KEY:
        raise NetError(
            "the points are too far apart for the lattice",
            got=f"coordinates up to {np.abs(corner).max():.0f}",
            want=f"at most {_GREATEST_KEY}",
            remedy="Use larger theta_alpha, theta_beta and theta_gamma.",
        )
    base, place = corner[:, :d].astype(np.int64), rank[:, :d].astype(np.int64)
    margin = 2 * (d + 1)  # by which vertices and their neighbors differ from the corner
    low = base.min(0) - margin
    sizes = [int(size) for size in base.max(0) + margin + 1 - low]
    if math.prod(sizes) >= 1 << 63:
        raise NetError(
            "the lattice has too many places",
            got=" x ".join(map(str, sizes)),
            want="less than 2^63",
            remedy="Use larger theta_alpha and theta_beta.",
        )
    strides = [math.prod(sizes[i + 1 :]) for i in range(d)]
    codes = np.empty((len(base), d + 1), np.int64)
    first = ((base - low) * strides).sum(1)
    for remainder in range(d + 1):
        wraps = (place > d - remainder) @ np.array(strides, np.int64)
        codes[:, remainder] = first + remainder * sum(strides) - (d + 1) * wraps
    return codes, strides


def _find_neighbors(vertices: Int64, strides: list[int]) -> Int64:
    """Return the indices of the two neighbors of each vertex along each axis, (d + 1, 2, M).

    Args:
        vertices: The numbers of the M vertices, ascending.
        strides: The second result of ``_code_vertices``.

    Returns:
        The indices; M for a neighbor that is not in the lattice.
    """
    found = np.empty((len(strides) + 1, 2, len(vertices)), np.int64)
    for axis, stride in enumerate([*strides, 0]):
        step = (len(strides) + 1) * stride - sum(strides)
        for side, sign in enumerate((1, -1)):
            wanted = vertices + sign * step
            index = np.minimum(np.searchsorted(vertices, wanted), len(vertices) - 1)
            found[axis, side] = np.where(vertices[index] == wanted, index, len(vertices))
    return found
