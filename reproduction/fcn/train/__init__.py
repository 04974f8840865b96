"""Trainings: the paper's recipes, one stage of a training from start or snapshot to end, and nets for other classes.

This room imports ``segment``, ``scoring`` and what is below them.
"""
