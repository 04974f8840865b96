"""Selection of the device that nets run on, with the torch settings under which it computes as Caffe does."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError


def select_device(name: str | torch.device) -> torch.device:
    """Return the torch device of this name, and prepare torch to compute on it as Caffe does.

    On CUDA, this disables TF32 and selects deterministic cuDNN algorithms, for the whole process. A warning is issued
    if no test on such a device is recorded; see ``tested_devices``.

    Args:
        name: a device of torch, such as ``cpu`` or ``cuda:1``.

    Raises:
        ReproductionError: If there is no such device, or this build of torch cannot use it.
    """
    tested_devices.warn_if_untested(str(name))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ReproductionError(f"device {str(name)!r} cannot be used ({reason})", remedy="Use cpu, or cuda.") from None
    if device.type == "cuda":
        # Caffe: products are computed in full single precision. By default torch lets cuDNN round the inputs of
        # convolutions to a mantissa of 10 bits (TF32); this package disables that.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        # A run that resumes from a snapshot must give the same bits as a run without interruption.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return device


def describe_processor() -> str:
    """Return the CPU's name, if the system reports it, and the instruction set that torch uses, such as ``AVX2``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def describe_device(device: torch.device) -> str:
    """Return a line about a device: its name in torch, and the GPU's name, or the CPU's and the number of threads."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {describe_processor()}, {torch.get_num_threads()} threads"
