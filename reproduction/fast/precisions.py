"""The precisions and the engines of compiled nets, and which precisions a device supports.

torch is imported when it is needed, so that command-line programs list them without it.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: What each precision computes, the most exact first; ``plain`` is the net that is not compiled.
DESCRIPTIONS = {
    "plain": "float32, layer by layer",
    "exact": "float32, compiled, the same but for rounding",
    "winograd": "float32, compiled, within 1e-4 of plain, on the CPU",
    "tf32": "tf32, compiled, within 1e-2 of plain, on CUDA",
    "bf16": "bfloat16, compiled, within 3e-2 of plain",
}
PRECISIONS = tuple(DESCRIPTIONS)[1:]

#: What computes a compiled net on the CPU; see ``compiler.compile``. ``auto`` measures the others.
ENGINES = ("auto", "torch", "onnxruntime", "openvino")


def supported_precision(precision: str, device_type: str) -> str:
    """Return ``precision`` if the device supports it, otherwise the next more exact one that it supports.

    Args:
        precision: One of ``PRECISIONS``.
        device_type: ``cpu`` or ``cuda``.
    """
    supported = {"exact", "tf32", "bf16"} if device_type == "cuda" else {"exact", "winograd"}
    if device_type == "cpu" and multiplies_bf16():
        supported.add("bf16")
    return next(p for p in reversed(PRECISIONS[: PRECISIONS.index(precision) + 1]) if p in supported)


def set_cudnn_flags(device: torch.device, precision: str, *, tune: bool) -> AbstractContextManager[None]:
    """Return a context manager that sets cuDNN's flags for a precision; it does nothing on the CPU.

    Args:
        device: The device to compute on.
        precision: One of ``PRECISIONS``.
        tune: Whether cuDNN measures its algorithms and uses the fastest. This takes time, and the last digits of the
            results may change.
    """
    import torch

    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=tune, deterministic=not tune, allow_tf32=precision == "tf32"
    )


def multiplies_bf16() -> bool:
    """Return whether this CPU has instructions that multiply bfloat16; False if torch cannot report it.

    On other CPUs torch supports bfloat16, too, but it is slower there than single precision.
    """
    import torch

    if not _convolves_bf16():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True  # on other architectures torch reports support only for CPUs with such instructions
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


def _convolves_bf16() -> bool:
    """Return whether torch convolves bfloat16 without converting it; False if torch cannot report it."""
    import torch

    found = torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")  # type: ignore[no-untyped-call]
    if not found or not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
