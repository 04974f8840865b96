"""Tables and pages from scores.

1. ``record``    what a run measured and what was published of the same nets, as data: ``scores.json``
2. ``markdown``  the same as a page of tables: ``scores.md``
"""
