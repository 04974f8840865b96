"""Caffe's solver: update rules, learning-rate policies, snapshots, and training of one net by several processes.

This package imports ``net`` and the packages below it; it imports no data set and prints nothing.
"""
