"""Running a program that says ``import caffe``: aliases of modules, and names that libraries removed since.

This room imports all other rooms of ``pycaffe``.
"""
