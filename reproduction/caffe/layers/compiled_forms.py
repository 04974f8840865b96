"""Descriptions of layers that ``reproduction.fast`` can compute faster than their own forward pass.

A layer type returns its description from ``Layer.compiled_form``. It holds in phase TEST. Weights and bias are the
layer's blobs, and ``fast`` decides whether one of its kernels is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.caffe.geometry import Window


@dataclass(frozen=True)
class IdentityForm:
    """Each top equals the first bottom, as for Split and Dropout; nothing is computed."""


@dataclass(frozen=True)
class PointwiseForm:
    """A layer whose top depends at each pixel only on the same pixel of the bottoms.

    Any region of the top can be computed without the rest. At most one of the attributes is True; the convolution
    before the layer can then compute it in the same pass.

    Attributes:
        is_relu: Whether the top is ``max(x, 0)``.
        is_affine: Whether the top is ``factor * x + offset``, with one factor and one offset for each channel that
            depend on nothing but the layer's blobs and parameters.
        is_sum: Whether the top is the sum of the bottoms.
        is_concatenation: Whether the top has the channels of all bottoms, in order.
    """

    is_relu: bool = False
    is_affine: bool = False
    is_sum: bool = False
    is_concatenation: bool = False


@dataclass(frozen=True)
class LRNForm(PointwiseForm):
    """Each value divided by a power of a sum of squares over neighboring channels.

    Attributes:
        size: The number of channels of a sum, odd.
        alpha: The factor of the mean of these squares.
        beta: The exponent.
        k: What is added to the mean, times ``alpha``.
    """

    size: int = 5
    alpha: float = 1.0
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class ConvolutionForm:
    """A convolution of one bottom ``(N, C, H, W)``.

    Attributes:
        windows: The windows along rows and columns.
        group: The number of groups of channels.
    """

    windows: tuple[Window, Window]
    group: int


@dataclass(frozen=True)
class DeconvolutionForm:
    """The transpose of a convolution, of one bottom ``(N, C, H, W)``.

    Attributes:
        windows: The windows along rows and columns.
        group: The number of groups of channels.
    """

    windows: tuple[Window, Window]
    group: int


@dataclass(frozen=True)
class MaxPoolingForm:
    """Max pooling of one bottom ``(N, C, H, W)``, where the size of the top is rounded up.

    Attributes:
        windows: The windows along rows and columns.
    """

    windows: tuple[Window, Window]


@dataclass(frozen=True)
class CropForm:
    """The first bottom ``(N, C, H, W)``, cropped along rows and columns to the size of the second.

    Attributes:
        offsets: The first row and the first column of the crop.
    """

    offsets: tuple[int, int]


CompiledForm = IdentityForm | PointwiseForm | ConvolutionForm | DeconvolutionForm | MaxPoolingForm | CropForm
