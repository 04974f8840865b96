"""Tables and pages from scores and from the logs of trainings.

1. ``record``    what a run measured and what was published of the same nets, as data: ``scores.json``
2. ``markdown``  the same as a page of tables: ``scores.md``
3. ``gallery``   how well each picture was segmented, and those that are shown
4. ``page``      all of it as one file of HTML: ``index.html``, from ``templates/``
5. ``course``    what the logs of trainings say
6. ``curves``    losses and scores over iterations, drawn as SVG
7. ``training``  the page of trainings
8. ``tables``    the paper's tables besides those of scores
"""
