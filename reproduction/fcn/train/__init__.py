"""Training: the paper's recipes, one stage from start or snapshot to end, and nets for custom classes.

This package imports ``segment``, ``scoring`` and the packages below them.
"""
