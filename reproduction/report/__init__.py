"""Reports: tables and HTML pages of scores and of training logs.

1. ``reference``         published numbers to compare scores with, and their tolerances
2. ``record``            the results of a run with the published numbers, as data: ``scores.json``
3. ``markdown``          the same results as Markdown tables: ``scores.md``
4. ``gallery``           the score of each image, and the selection of images to display
5. ``page``              the results and images as one HTML file: ``index.html``, from ``templates/``
6. ``training_history``  the losses and validations of a training, loaded from its log
7. ``curves``            losses and scores over iterations, drawn as SVG
8. ``training``          the HTML page of trainings
9. ``tables``            the paper's tables other than its scores
"""
