"""What Caffe's CPU build computes, to the last digit: sums in the order of its BLAS, functions as its C library's.

Single precision rounds after every addition, so another order gives other last digits. They are invisible, but a
unit within rounding of a kink (a ReLU at 0, a tie in a pool) may fall on the other side of it, and then a whole
gradient goes another way. In this order results and gradients are Caffe's bit for bit, on CPUs whose kernels add one
product after the other; ``adds_in_order`` says whether they do. It costs what Caffe costs, and runs on the CPU alone.

Source: OpenBLAS 0.3.21 on x86-64 with AVX-512 and two threads, driver/level3/level3_thread.c, interface/gemv.c,
kernel/x86_64/{sgemm_small_kernel_permit_skylakex,sgemv_n_4,sgemv_t_4}.c; glibc 2.36.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BLOCK = 320  # products that OpenBLAS adds up before it adds the sum to the result
_SMALL = 100**3  # multiplications, up to which it takes a product for small
_ROW = 4096  # values of a row that it adds up before it adds the sum to the result
# The coefficients of the third, second and first power of x in 2 ** (x / 32).
_EXP = ("0x1.c6af84b912394p-20", "0x1.ebfce50fac4f3p-13", "0x1.62e42ff0c52d6p-6")

Matrix = npt.NDArray[np.float32]


# ---- products of matrices


def blocks(depth: int) -> Iterator[slice]:
    """Cut the ``depth`` products of a sum as OpenBLAS does; the blocks' sums are added up one after the other."""
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


def product(a: Matrix, b: Matrix, total: Matrix | None = None) -> Matrix:
    """Multiply (M, K) by (K, N) in Caffe's order.

    Args:
        a: as it is in memory, or transposed.
        b: likewise; it matters to the order whether it is transposed.
        total: if given, the product is added to it in place.

    Returns:
        ``total``, or the product.
    """
    (rows, depth), columns = a.shape, b.shape[1]
    turned = b.strides[0] < b.strides[1]
    small = rows * columns * depth <= _SMALL and not (turned and (rows * columns > 1200 or depth < 32))
    # numpy's BLAS has the same kernels for small products. Of a large product, no part may be small, and none may be
    # a vector, for which there are others: zeros fill it up.
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


def row_sums(a: Matrix, total: Matrix) -> None:
    """Add the sum of each row of (M, K) to ``total`` (M,) in Caffe's order, with two threads."""
    half = max(4, -(-len(a) // 2)) if a.size >= 2304 * 4 else len(a)
    for thread in (slice(half), slice(half, None)):
        rows, sums = a[thread], total[thread]
        # OpenBLAS takes four rows at a time, then two, then one; two rows in narrower vectors.
        pair = slice(len(rows) // 4 * 4, len(rows) // 4 * 4 + len(rows) % 4 // 2 * 2)
        for some, lanes in ((slice(pair.start), 8), (pair, 4), (slice(pair.stop, None), 8)):
            if len(rows[some]):
                _add_rows(rows[some], sums[some], lanes)


def _add_rows(a: Matrix, total: Matrix, lanes: int) -> None:
    """Add the sum of each row to ``total``: some sums side by side, then these; a stretch of the row at a time."""
    whole = 0 if 4 < a.shape[1] < 8 else a.shape[1] // 4 * 4
    for start in range(0, whole, _ROW):
        part = a[:, start : min(start + _ROW, whole)]
        head = part.shape[1] % lanes
        first = np.pad(part[:, :head], ((0, 0), (0, -head % lanes)))
        sums = np.add.reduce(np.concatenate([first, part[:, head:]], 1).reshape(len(a), -1, lanes), 1)
        four = sums[:, :4] + sums[:, 4:] if lanes == 8 else sums
        total += (four[:, 0] + four[:, 1]) + (four[:, 2] + four[:, 3])
    if whole < a.shape[1]:
        total += np.add.accumulate(a[:, whole:], 1)[:, -1]


def exp(x: Tensor) -> Tensor:
    """Compute the exponential of single-precision numbers as glibc does since 2.27, last digit included.

    Source: glibc 2.36 sysdeps/ieee754/flt-32/e_expf.c.
    """
    scaled = x.double() * (32 / math.log(2))
    whole = scaled.round()
    rest = scaled.sub_(whole)
    c, b, a = (float.fromhex(value) for value in _EXP)
    powers = (c * rest + b).mul_(rest * rest) + (a * rest + 1)
    return powers.mul_(torch.exp2(whole.div_(32))).float()


def power(x: Tensor, exponent: float) -> Tensor:
    """Compute a power of single-precision numbers with the C library's ``powf``.

    numpy calls it for single numbers; for arrays it has, as torch has, faster code with other last digits.
    """
    single = np.float32(exponent)
    found = np.fromiter((value**single for value in x.detach().numpy().ravel()), np.float32, x.numel())
    return torch.from_numpy(found).reshape(x.shape)


def softmax(scores: Tensor, axis: int) -> Tensor:
    """Compute Caffe's softmax, with the sum over the classes in its order."""
    powers = exp(scores - scores.amax(axis, keepdim=True))
    classes = powers.unbind(axis)
    # OpenBLAS has a kernel of its own for narrow matrices, which goes straight through; the other takes eight at once.
    step = len(classes) if len(classes) <= 48 else 8
    total = torch.zeros_like(classes[0])
    for start in range(0, len(classes), step):
        first, *rest = classes[start : start + step]
        part = first.clone()
        for power in rest:
            part += power
        total += part
    return powers / total.unsqueeze(axis)


def serves(wanted: bool, x: Tensor) -> bool:
    """Say whether to compute so what is ``wanted`` in this order: on the CPU, in single precision."""
    return wanted and x.device.type == "cpu" and x.dtype == torch.float32


def adds_in_order() -> bool:
    """Say whether numpy's matrix product adds one product after the other with one rounding each, as OpenBLAS's does.

    It does in numpy's own builds on x86-64 with AVX-512.
    """
    rng = np.random.RandomState(0)
    a, b = rng.randn(64, _BLOCK).astype(np.float32), rng.randn(_BLOCK, 512).astype(np.float32)
    total = np.zeros((64, 512), np.float32)
    for k in range(_BLOCK):
        total = (total + a[:, k, None].astype(np.float64) * b[k]).astype(np.float32)
    return bool(np.array_equal(total, a @ b))
