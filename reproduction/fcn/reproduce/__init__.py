"""The numbers of the paper: what was published, where data and weights come from, and the run that measures them.

This room imports all other rooms of ``fcn``.
"""
