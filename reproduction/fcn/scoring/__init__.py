"""From labels to numbers: the paper's metrics, the evaluation of a net over a data set, and upper bounds.

This room imports ``datasets``, ``images`` and what is below them.
"""
