"""Type aliases that all rooms share: NumPy arrays by the type of their elements, and callbacks that report progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
UInt32 = npt.NDArray[np.uint32]
Int64 = npt.NDArray[np.int64]
Integer = npt.NDArray[np.integer]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating]
Floats = Float32 | Float64  # the two that the files of Caffe hold

Progress = Callable[[int, int | None], object]  # called with the units done so far and their total, None if unknown
