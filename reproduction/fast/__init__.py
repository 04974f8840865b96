"""The same numbers, sooner: nets compiled for inference.

1. ``compiler``  a ``Net`` -> a ``Fast``, called like the net; ``ops`` its layers in the form that is compiled
2. ``plan``      for each size of the inputs: which part of which blob is computed, and where the rest comes from
3. ``regions``   the arithmetic of parts: what a window reads, and what an image reaches
4. ``forms``     of the weights of convolutions, and when they are quicker than the layer as it is
5. ``winograd``  convolutions with fewer products;  ``kernels``  all other ways to compute a layer
6. ``running``   one run of a plan;  ``memory``  buffers that are used again;  ``threads``  how they wait
"""
