"""Tables and pages from scores and from the logs of trainings.

1. ``reference`` what scores are compared with, and how far off they may be
2. ``record``    what a run measured and what was published of the same nets, as data: ``scores.json``
3. ``markdown``  the same as a page of tables: ``scores.md``
4. ``gallery``   how well each picture was segmented, and those that are shown
5. ``page``      all of it as one file of HTML: ``index.html``, from ``templates/``
6. ``course``    what the logs of trainings say
7. ``curves``    losses and scores over iterations, drawn as SVG
8. ``training``  the page of trainings
9. ``tables``    the paper's tables besides those of scores
"""
