"""The devices that nets run on, and what torch must be told so that they compute there as Caffe does."""

from __future__ import annotations

import torch

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError


def use(name: str | torch.device) -> torch.device:
    """Look up a device, and set torch to compute there in single precision and, where it can, the same at every run.

    Warns of a device that was not tested, see ``tested``.

    Raises:
        ReproductionError: there is no such device, or this torch cannot use it.
    """
    tested_devices.warn_of(str(name))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ReproductionError(f"device {str(name)!r} cannot be used ({reason})", remedy="Use cpu, or cuda.") from None
    if device.type == "cuda":
        # Caffe: Caffe multiplies in full single precision. torch allows cuDNN to round the factors of convolutions to
        # 10 bits (TF32), which is switched off here.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        # A run that goes on from a snapshot must be one that never stopped.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return device
