"""Compile nets for faster inference, with the same results up to rounding.

In the order in which a call of a compiled net goes through them:

1. ``compiler``     ``compile(net)`` returns a ``CompiledNet``, which is called like the net and caches its plans
2. ``convert``      converts the layers to ``ops`` once, by ``Layer.compiled_form``; each op knows which pixels it reads
3. ``folding``      folds layers into the convolution before them, except where a blob in between is requested
4. ``planner``      plans one input size: ``blob_facts`` says which pixels the image reaches, ``blob_regions`` which are
                    computed; all others are copied from an image of zeros that is computed once
5. ``plan``         the steps of one input size: which kernel reads and computes which region
6. ``execution``    executes a plan, with the memory of ``buffers``; on a GPU, ``cuda_graph`` records it
7. ``kernels``      compute regions; ``convolution`` chooses those of convolutions, such as ``winograd``; those
                    that are torch's operators are computed together by ``onednn_graph``

``regions`` has rectangles of pixels, ``precisions`` what a device supports, ``explain`` formats plans, and ``threads``
sets how OpenMP's threads wait for each other. ``planned_graph`` writes plans as graphs of standard operators, which
``engines`` runs in other runtimes, and ``saved_net`` writes compiled nets to files and opens them.
"""
