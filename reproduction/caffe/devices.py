"""Selection of the device that nets run on, with the torch settings under which it computes as Caffe does."""

from __future__ import annotations

import torch

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError


def select_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; on CUDA, disable TF32 and select deterministic cuDNN algorithms for the process.

    Issues a warning if the device is untested; see ``tested_devices``.

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
