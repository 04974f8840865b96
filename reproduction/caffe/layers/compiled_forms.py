"""The forms of layers that ``reproduction.fast`` can compute faster than their own forward pass.

A layer type returns its form from ``Layer.compiled_form``. A form is a description at test time: the layer's blobs are
its weights and bias, and ``fast`` decides whether one of its kernels is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.caffe.geometry import Window


@dataclass(frozen=True)
class IdentityForm:
    """Each top equals the first bottom, as for Split and Dropout; nothing is computed."""


@dataclass(frozen=True)
class PointwiseForm:
    """Each pixel of the top depends only on the same pixel of the bottoms; the layer can compute any region alone.

    Attributes:
        is_relu: Whether the top is ``max(x, 0)``, which a convolution before the layer can compute.
    """

    is_relu: bool = False


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
    """Max pooling with sizes that are rounded up.

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
