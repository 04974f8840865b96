"""What pycaffe sets for the whole process: the device, the seed, and the place among several processes."""

from __future__ import annotations

import warnings

import torch

from reproduction.caffe import devices
from reproduction.caffe.layers import LAYERS, UNSUPPORTED
from reproduction.pycaffe.errors import CaffeError

_CPU = torch.device("cpu")


class _Modes:
    """The settings: the device of the modes, and whether it was said that there is no CUDA."""

    device = _CPU
    gpu = 0
    warned = False


def device() -> torch.device:
    """Return where nets compute now."""
    return _Modes.device


def set_mode_cpu() -> None:
    """Let nets compute on the CPU."""
    _Modes.device = _CPU


def set_mode_gpu() -> None:
    """Let nets compute on the device of ``set_device``; without CUDA, which is said once, on the CPU.

    Raises:
        ReproductionError: CUDA is there, but not this device.
    """
    if torch.cuda.is_available():
        _Modes.device = devices.use(f"cuda:{_Modes.gpu}")
    elif not _Modes.warned:
        _Modes.warned = True
        warnings.warn("this torch finds no CUDA device; nets compute on the CPU", RuntimeWarning, stacklevel=3)


def set_device(device_id: int) -> None:
    """Choose the device of ``set_mode_gpu`` by its number.

    Raises:
        ReproductionError: as ``set_mode_gpu``.
    """
    _Modes.gpu = int(device_id)
    if _Modes.device != _CPU or not torch.cuda.is_available():
        set_mode_gpu()


def set_random_seed(seed: int) -> None:
    """Let fillers and dropout draw the same numbers again. They are torch's, not Caffe's."""
    torch.manual_seed(int(seed))


def layer_type_list() -> list[str]:
    """List the types of layers that Caffe knows; Data and WindowData are among them, and say why they cannot run."""
    return sorted([*LAYERS, *UNSUPPORTED])


def has_nccl() -> bool:
    """Say that training with several processes is not to be had through this interface."""
    return False


def solver_count() -> int:
    """Return 1, the number of processes that train together."""
    return 1


def set_solver_count(count: int) -> None:
    """Accept 1.

    Raises:
        CaffeError: another number.
    """
    if count != 1:
        raise CaffeError("solvers are not run together here", got=count, want=1, remedy="Use tools/train.py.")


def solver_rank() -> int:
    """Return 0, the place of this process among those that train together."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Accept 0.

    Raises:
        CaffeError: another number.
    """
    if rank != 0:
        raise CaffeError("solvers are not run together here", got=f"rank {rank}", want=0, remedy="Use tools/train.py.")


def set_multiprocess(wanted: bool) -> None:
    """Accept False.

    Raises:
        CaffeError: True.
    """
    if wanted:
        raise CaffeError("solvers are not run together here", remedy="Use tools/train.py.")
