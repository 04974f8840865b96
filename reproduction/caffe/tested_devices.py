"""Record of the devices that this project was tested on.

``tools/exactness.py --device cuda`` compares all nets with Caffe on a CUDA device and then writes ``RECORD``. Until
that file exists, the tools' help, the README and a warning say ``untested on CUDA``.
"""

from __future__ import annotations

from pathlib import Path

from reproduction.caffe.errors import ReproductionError, warn

RECORD = Path(__file__).with_name("tested_on_cuda.json")
UNTESTED = "untested on CUDA"


def untested_note(device: str = "cuda") -> str:
    """Return ``untested on CUDA`` for a CUDA device if no test is recorded, else an empty string.

    Args:
        device: the name of the device, such as ``cpu`` or ``cuda:1``.
    """
    return UNTESTED if device.partition(":")[0] == "cuda" and not RECORD.is_file() else ""


def warn_if_untested(device: str) -> None:
    """Issue a warning if ``device`` is a CUDA device and no test on CUDA is recorded.

    Args:
        device: the name of the device, such as ``cpu`` or ``cuda:1``.
    """
    if said := untested_note(device):
        warn(
            ReproductionError(
                f"{said}: no run on device {device!r} is recorded", remedy="Compare with the CPU's results."
            )
        )
