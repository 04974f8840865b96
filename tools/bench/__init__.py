"""The benchmark of ``tools/bench.py``: ways to run a net, and how they are timed in turns and compared.

1. ``contenders``   the table of all ways to run a net; ``ours``, ``pytorch_port``, ``graph_port``
   and ``runtimes`` implement them
2. ``rounds``       lets contenders take turns, each in a ``worker`` process, and summarizes their times
3. ``results``      formats tables and plots, and stores figures; ``measured.json`` has those that the README shows
4. ``busy``         times the compiled and the plain net in pairs, next to busy processes
"""
