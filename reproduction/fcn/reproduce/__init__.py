"""Reproduction of the paper: its published numbers, the sources of data and weights, and the scoring pipeline.

This package imports all other packages of ``fcn``.
"""
