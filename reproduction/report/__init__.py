"""Reports: tables and HTML pages of scores and of training logs.

1. ``reference``         published numbers to compare scores with, and their tolerances
2. ``record``            the results of a run with the published numbers, as data: ``scores.json``
3. ``markdown``          the same results as Markdown tables: ``scores.md``
4. ``gallery``           the selection of images to display, and their rendering
5. ``page``              the results and images as one HTML file: ``index.html``, from ``templates/``
6. ``scoring_run``       the scores of the nets of a data set, ``evaluation`` those of one net
7. ``training_history``  the losses and validations of a training, loaded from its log
8. ``curves``            losses and scores over iterations, drawn as SVG
9. ``training``          the HTML page of trainings
10. ``tables``           the paper's tables other than its scores
"""
