"""Settings of the whole process, as in pycaffe: the device, the random seed, the order of summation, and parallelism.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L50-L75, L327-L372, L395-L416.
"""

from __future__ import annotations

import os
import warnings
from functools import lru_cache

import torch

from reproduction.caffe import devices
from reproduction.caffe.layers import LAYERS, UNSUPPORTED
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.pycaffe_vectors import StringVec
from reproduction.pycaffe.net.errors import CaffeError

#: The names of Caffe's interface.
__all__ = [
    "NCCL", "has_nccl", "layer_type_list", "set_device", "set_mode_cpu", "set_mode_gpu", "set_multiprocess",
    "set_random_seed", "set_solver_count", "set_solver_rank", "solver_count", "solver_rank",
]  # fmt: skip

_CPU = torch.device("cpu")


class _State:
    """The device of nets, the number of the GPU, and whether the warning about missing CUDA was issued."""

    device = _CPU
    gpu = 0
    warned = False


def device() -> torch.device:
    """Return the device that all nets of the process compute on, as set by ``set_mode_cpu`` or ``set_mode_gpu``."""
    return _State.device


def set_mode_cpu() -> None:
    """Compute all nets of this process on the CPU from now on."""
    _State.device = _CPU


def set_mode_gpu() -> None:
    """Compute all nets of this process on the GPU that ``set_device`` selects; by default GPU 0.

    Without CUDA, nets compute on the CPU, and the first call issues a RuntimeWarning.

    Raises:
        ReproductionError: If CUDA is available but this device is not.
    """
    if torch.cuda.is_available():
        _State.device = devices.select_device(f"cuda:{_State.gpu}")
    elif not _State.warned:
        _State.warned = True
        warnings.warn("torch finds no CUDA device; nets compute on the CPU", RuntimeWarning, stacklevel=3)


def set_device(device_id: int) -> None:
    """Select the GPU for ``set_mode_gpu`` by its number; in GPU mode, switch to it at once.

    Without CUDA, issue the warning of ``set_mode_gpu``.

    Raises:
        ReproductionError: If the mode is GPU and this device is not available.
    """
    _State.gpu = int(device_id)
    if _State.device != _CPU or not torch.cuda.is_available():
        set_mode_gpu()


@lru_cache(maxsize=1)
def uses_blas_order() -> bool:
    """Return whether nets with a loss add numbers in the order of Caffe's BLAS, so that sums equal Caffe's bit by bit.

    They do so if the CPU allows it, unless the environment sets ``CAFFE_ORDER=0``. A rounding difference can move a
    value across the kink of a ReLU or a max pooling, which changes gradients and then the whole training. In Caffe's
    order, gradients and trainings equal Caffe's, at Caffe's speed. Nets without a loss only run forward; they use
    torch's order, which is faster and differs from Caffe by rounding only.
    """
    return os.environ.get("CAFFE_ORDER") != "0" and blas.adds_in_order()


def set_random_seed(seed: int) -> None:
    """Seed the random numbers of fillers and dropout, which are those of torch, not Caffe's."""
    torch.manual_seed(int(seed))


def layer_type_list() -> StringVec:
    """Return the sorted names of Caffe's layer types.

    They include Data and WindowData, which this project cannot run: a net with one of them raises an error with the
    reason, unless its ``inputs`` replace the layer.
    """
    return StringVec.from_items(sorted([*LAYERS, *UNSUPPORTED]))


def has_nccl() -> bool:
    """Return False: this interface does not use NCCL."""
    return False


class NCCL:
    """A replacement for pycaffe's class NCCL, which connects the solvers of several processes; it cannot be created.

    Raises:
        CaffeError: Always, since this interface trains with one process.
    """

    def __init__(self, solver: object, uid: object):
        _check_single_process(2, 1)


def solver_count() -> int:
    """Return the number of training processes, always 1."""
    return 1


def set_solver_count(count: int) -> None:
    """Accept the number of training processes if it is 1, the only one that is supported.

    Raises:
        CaffeError: If it is any other number.
    """
    _check_single_process(count, 1)


def solver_rank() -> int:
    """Return the rank of this process, always 0."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Accept the rank of this process among the training processes if it is 0, since there is only one process.

    Raises:
        CaffeError: If it is any other number.
    """
    _check_single_process(rank, 0)


def set_multiprocess(enabled: bool) -> None:
    """Accept that a training does not use several processes.

    Raises:
        CaffeError: If ``enabled`` is true.
    """
    _check_single_process(enabled, False)


def _check_single_process(got: int, want: int) -> None:
    if got != want:
        remedy = "Use fcn train, which trains with several."
        raise CaffeError("this interface trains with one process", got=got, want=want, remedy=remedy)
