"""Compile nets for faster inference, with the same results up to rounding.

1. ``compiler``  converts a ``Net`` to a ``CompiledNet``, which is called like the net; ``ops`` are its layers
2. ``plan``      decides for each input size which part of each blob is computed, and where the rest comes from
3. ``regions``   computes which pixels a window reads, and which pixels an image reaches
4. ``forms``     are the forms of a convolution's weights, and estimates of when they are faster than the layer
5. ``winograd``  computes convolutions with fewer products; ``kernels`` compute all other layers
6. ``running``   executes a plan; ``memory`` reuses buffers; ``threads`` sets how OpenMP's threads wait
"""
