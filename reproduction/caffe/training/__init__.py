"""Caffe's solver: update rules, learning-rate policies, snapshots, and several processes that train one net.

This room imports ``net`` and what is below it; it imports no data set and prints nothing.
"""
