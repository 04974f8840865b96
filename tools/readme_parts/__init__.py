"""Generated parts of README.md and docs/ that take more than a few lines to write; see ``tools/readme.py``."""
