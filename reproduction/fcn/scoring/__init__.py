"""Scoring: the paper's metrics, the evaluation of a net on a data set, and upper bounds on mean IU.

This package imports ``datasets``, ``images`` and what these import.
"""
