"""Bit-exact results of Caffe's CPU build: sums in the order of its BLAS, and functions of its C library.

In single precision, every addition is rounded, so that another order of a sum changes its last bits. The difference is
negligible, except near a discontinuity of a gradient (a ReLU at 0, a tie in max pooling), where the gradient may take
another path. With the order of this module, results and gradients equal Caffe's bit for bit on CPUs whose matrix
product adds one product after the other; ``adds_in_order`` checks that. It takes as long as Caffe, and works only on
the CPU.

Source: OpenBLAS 0.3.21 on x86-64 with AVX-512 and two threads, driver/level3/level3_thread.c, interface/gemv.c,
kernel/x86_64/{sgemm_small_kernel_permit_skylakex,sgemv_n_4,sgemv_t_4}.c; glibc 2.36.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.typing import Float32

_BLOCK = 320  # number of products that OpenBLAS sums before it adds the sum to the result
_SMALL = 100**3  # number of multiplications up to which it uses the kernels for small matrices
_ROW = 4096  # number of values of a row that it sums before it adds the sum to the result
_NARROW = 8  # length of a row up to which it has a kernel for each length
_SHORT = 16384  # number of columns up to which it adds few rows one after the other
# The coefficients of the third, second and first power of x in 2 ** (x / 32).
_EXP = ("0x1.c6af84b912394p-20", "0x1.ebfce50fac4f3p-13", "0x1.62e42ff0c52d6p-6")


# ---- products of matrices


def blocks(depth: int) -> Iterator[slice]:
    """Yield the ranges of a sum of ``depth`` products that OpenBLAS adds up separately, one after the other."""
    start = 0
    while start < depth:
        rest = depth - start
        if rest >= 2 * _BLOCK:
            size = _BLOCK
        elif rest > _BLOCK:
            size = (rest + 1) // 2
        else:
            size = rest
        yield slice(start, start + size)
        start += size


def product(a: Float32, b: Float32, total: Float32 | None = None) -> Float32:
    """Compute a matrix product in the order of Caffe's BLAS.

    Args:
        a: The left matrix, (M, K), contiguous or the transpose of a contiguous one.
        b: The right matrix, (K, N), contiguous or the transpose of a contiguous one; the order depends on which.
        total: A matrix (M, N) to which the product is added in place, or None.

    Returns:
        ``total``, or the product if it is None.
    """
    (rows, depth), columns = a.shape, b.shape[1]
    turned = b.strides[0] < b.strides[1]
    small = rows * columns * depth <= _SMALL and not (turned and (rows * columns > 1200 or depth < 32))
    # numpy's BLAS has the same kernels and selects them by the sizes. The operands are padded so that it never uses
    # those for vectors and, for the blocks of a large product, not those for small matrices either.
    least = 2 if small else _SMALL // (rows * min(_BLOCK // 2, depth)) + 1
    if rows == 1:
        a = np.concatenate([a, a])
    if columns < least:
        b = np.pad(b.T, ((0, least - columns), (0, 0))).T if turned else np.pad(b, ((0, 0), (0, least - columns)))
    for cut in [slice(depth)] if small else blocks(depth):
        part = (a[:, cut] @ b[cut])[:rows, :columns]
        if total is None:
            total = part
        else:
            total += part
    assert total is not None, "there is nothing to add up"
    return total


# ---- sums of rows, columns and vectors


def row_sums(a: Float32, total: Float32, factor: float = 1) -> None:
    """Add ``factor`` times the sum of each row of ``a`` (M, K) to ``total`` (M,) in place.

    The order is that of Caffe's BLAS with two threads, except perhaps for rows of 6 or 7 values.
    """
    single = np.float32(factor)
    for thread in _threads(len(a), a.size):
        rows, sums = a[thread], total[thread]
        if len(rows) and a.shape[1] <= _NARROW:
            sums += _narrow_sums(rows, single)
            continue
        # OpenBLAS processes four rows at a time, then two, then one; its kernel for two rows has narrower vectors.
        pair = slice(len(rows) // 4 * 4, len(rows) // 4 * 4 + len(rows) % 4 // 2 * 2)
        for some, lanes, fused in ((slice(pair.start), 8, False), (pair, 4, True), (slice(pair.stop, None), 8, True)):
            if len(rows[some]):
                _add_rows(rows[some], sums[some], lanes, single, fused=fused)


def _threads(count: int, size: int) -> tuple[slice, slice]:
    """Split ``count`` sums of ``size`` values in total as OpenBLAS distributes them to two threads."""
    half = max(4, -(-count // 2)) if size >= 2304 * 4 else count
    return slice(half), slice(half, None)


def _add_rows(a: Float32, total: Float32, lanes: int, factor: np.float32, *, fused: bool) -> None:
    """Add ``factor`` times the sum of each row to ``total``, ``_ROW`` values at a time, with ``lanes`` partial sums."""
    whole = a.shape[1] // 4 * 4
    for start in range(0, whole, _ROW):
        part = a[:, start : min(start + _ROW, whole)]
        head = part.shape[1] % lanes
        first = np.pad(part[:, :head], ((0, 0), (0, -head % lanes)))
        sums = np.add.reduce(np.concatenate([first, part[:, head:]], 1).reshape(len(a), -1, lanes), 1)
        four = sums[:, :4] + sums[:, 4:] if lanes == 8 else sums
        found = (four[:, 0] + four[:, 1]) + (four[:, 2] + four[:, 3])
        total[:] = _fused_multiply_add(found, factor, total) if fused else total + found * factor
    rest = a[:, whole:].T
    if len(rest) == 1:
        total[:] = _fused_multiply_add(rest[0], factor, total)
    elif len(rest):
        found = _fused_multiply_add(rest[0], factor, rest[1] * factor)
        total += found if len(rest) == 2 else _fused_multiply_add(rest[2], factor, found)


def _narrow_sums(a: Float32, factor: np.float32) -> Float32:
    """Return ``factor`` times the sum of each row of at most 8 values, by numpy's BLAS, which has the same kernels.

    OpenBLAS multiplies by the factor before the sum in some rows and after it in others; numpy's product has no factor.
    """
    count, width = a.shape
    ones = np.ones(width, np.float32)
    if count == 1:
        before = after = a[:, 0] * factor
        for column in a.T[1:]:
            before = after = _fused_multiply_add(column, factor, before)
    else:
        before, after = a @ (ones * factor), (a @ ones) * factor
    in_four = np.arange(count) < count // 4 * 4
    first = {2: in_four | True, 3: in_four, 4: in_four, 8: in_four | True}.get(width, ~in_four)
    return np.where(first, before, after)


def column_sums(a: Float32, total: Float32) -> None:
    """Add the sum of each column of ``a`` (M, K) to ``total`` (K,) in place.

    The order is that of Caffe's BLAS with two threads; ``a`` must be contiguous.
    """
    for thread in _threads(a.shape[1], a.size):
        part, sums = a[:, thread], total[thread]
        if part.shape[1] <= _SHORT and len(a) <= 48 and len(a) != 4:
            sums += _sum_in_turn(part)
            continue
        edge = part.shape[1] % 4
        for start in range(0, part.shape[1] - edge, _ROW):
            stop = min(start + _ROW, part.shape[1] - edge)
            wide = start + (stop - start) % 16
            _add_columns(part[:, start:wide], sums[start:wide], chains=2)
            _add_columns(part[:, wide:stop], sums[wide:stop], chains=1)
        if edge:
            _add_edge(part[:, -edge:], sums[-edge:], paired=edge == a.shape[1])


def _add_columns(a: Float32, total: Float32, chains: int) -> None:
    """Add the rows in groups of eight, then four, two and one; groups of 8 and 4 in ``chains`` partial sums."""
    start = 0
    while start < len(a):
        step = next(step for step in (8, 4, 2, 1) if step <= len(a) - start)
        group = a[start : start + step]
        total += (
            _sum_in_turn(group[::2]) + _sum_in_turn(group[1::2]) if chains == 2 and step > 2 else _sum_in_turn(group)
        )
        start += step


def _add_edge(a: Float32, total: Float32, *, paired: bool) -> None:
    """Add the last one to three columns; if there are no others (``paired``), groups of rows are summed first."""
    found = np.zeros(a.shape[1], np.float32)
    whole = len(a) // 4 * 4 if paired else 0
    step = 4 if a.shape[1] == 1 else 2
    for start in range(0, whole, step):
        found += _sum_in_turn(a[start : start + step])
    for row in a[whole:]:
        found += row
    total += found


def _sum_in_turn(rows: Float32) -> Float32:
    """Return the sum of the rows, added one after the other."""
    total: Float32 = rows[0].copy()
    for row in rows[1:]:
        total += row
    return total


def take_total(totals: dict[int, Tensor], index: int, shape: Sequence[int]) -> Tensor:
    """Remove the gradient of a parameter from ``totals`` and return a copy of it, to which a backward pass adds.

    Args:
        totals: Gradients of earlier backward passes, by index of the parameter (see ``Layer``).
        index: Index of the parameter.
        shape: Shape of the zeros that are returned if there is no such gradient.
    """
    total = totals.pop(index, None)
    return torch.zeros(tuple(shape)) if total is None else total.clone(memory_format=torch.contiguous_format)


def vector_sum(values: Float32) -> np.float32:
    """Return the sum of a vector, added in the order in which Caffe's BLAS computes its dot product with ones."""
    whole = len(values) // 32 * 32
    wide = len(values) // 64 * 64
    sums = np.add.reduce(values[:wide].reshape(-1, 4, 2, 8), 0)
    four = sums[:, 0] + sums[:, 1]
    if wide < whole:
        four = four + values[wide:whole].reshape(4, 8)
    eight = _sum_in_turn(four)
    half = eight[:4] + eight[4:]
    found = (half[0] + half[1]) + (half[2] + half[3])
    return np.float32(float(sum(map(float, values[whole:]))) + float(found))


def _fused_multiply_add(a: Float32, b: Any, c: Float32) -> Float32:
    """Return ``a * b + c`` with a single rounding, like a fused multiply-add."""
    found: Float32 = (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)
    return found


# ---- functions


def exp(x: Tensor) -> Tensor:
    """Return the exponential of float32 numbers, bit for bit as in glibc 2.27 and later.

    Source: glibc 2.36 sysdeps/ieee754/flt-32/e_expf.c.
    """
    # exp(x) = 2 ** (whole / 32) * 2 ** (rest / 32), where the second factor is a cubic polynomial in `rest`.
    scaled = x.double() * (32 / math.log(2))
    whole = scaled.round()
    rest = scaled.sub_(whole)
    c, b, a = (float.fromhex(value) for value in _EXP)
    powers = (c * rest + b).mul_(rest * rest) + (a * rest + 1)
    return powers.mul_(torch.exp2(whole.div_(32))).float()


def power(x: Tensor, exponent: float) -> Tensor:
    """Return a power of float32 numbers as computed by ``powf`` of the C library.

    numpy calls ``powf`` for scalars. For arrays, numpy and torch use faster code, whose last bits differ.
    """
    single = np.float32(exponent)
    found = np.fromiter((value**single for value in x.detach().numpy().ravel()), np.float32, x.numel())
    return torch.from_numpy(found.reshape(x.shape))


def softmax(scores: Tensor, axis: int) -> Tensor:
    """Return the softmax along ``axis``, where the sum over the classes has the order of Caffe's BLAS."""
    powers = exp(scores - scores.amax(axis, keepdim=True))
    axis %= powers.dim()
    images = powers.reshape(math.prod(powers.shape[:axis]), powers.shape[axis], -1).contiguous()
    totals = torch.zeros(images.shape[0], images.shape[2])
    for image, total in zip(images.numpy(), totals.numpy(), strict=True):
        column_sums(image, total)
    shape = (*powers.shape[:axis], 1, *powers.shape[axis + 1 :])
    return powers / totals.reshape(shape)


def applies_to(in_blas_order: bool, x: Tensor) -> bool:
    """Return whether to use the functions of this module for ``x``.

    Args:
        in_blas_order: Whether results must equal Caffe's bit for bit; if not, this function returns False.
        x: The bottom of a layer. This module requires a float32 tensor on the CPU.
    """
    return in_blas_order and x.device.type == "cpu" and x.dtype == torch.float32


def adds_in_order() -> bool:
    """Return whether numpy's matrix product adds one product after the other with a single rounding each.

    It does in the wheels of numpy on x86-64 with AVX-512, like Caffe's OpenBLAS.
    """
    rng = np.random.RandomState(0)
    a, b = rng.randn(64, _BLOCK).astype(np.float32), rng.randn(_BLOCK, 512).astype(np.float32)
    total = np.zeros((64, 512), np.float32)
    for k in range(_BLOCK):
        total = (total + a[:, k, None].astype(np.float64) * b[k]).astype(np.float32)
    return bool(np.array_equal(total, a @ b))
