"""Training: the paper's recipes, and the loop that trains one stage (one net of 32s, 16s, 8s) or resumes it.

This package imports ``segment``, ``scoring`` and the packages below them.
"""
