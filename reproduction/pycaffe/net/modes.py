"""What pycaffe sets for the whole process: the device, the seed and the order of additions."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache

import torch

from reproduction.caffe import devices
from reproduction.caffe.layers import LAYERS, UNSUPPORTED
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.vectors import StringVec

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


@lru_cache(maxsize=1)
def adds_as_caffe() -> bool:
    """Say whether nets with a loss add in the order of Caffe's BLAS: where the CPU can, unless CAFFE_ORDER=0.

    The digits of a gradient hang on the side of a kink to which a rounding falls, and a training goes on from there;
    in Caffe's order both are Caffe's, at Caffe's speed. Nets without a loss only ever go forward, and differ from
    Caffe by rounding alone in torch's faster order.
    """
    return os.environ.get("CAFFE_ORDER") != "0" and blas.adds_in_order()


def set_random_seed(seed: int) -> None:
    """Let fillers and dropout draw the same numbers again. They are torch's, not Caffe's."""
    torch.manual_seed(int(seed))


def layer_type_list() -> StringVec:
    """List the types of layers that Caffe knows; Data and WindowData are among them, and say why they cannot run."""
    return StringVec.of(sorted([*LAYERS, *UNSUPPORTED]))
