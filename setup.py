"""What pyproject.toml cannot say: two folders next to the package belong into it."""

from setuptools import find_packages, setup

FOLDERS = ("prototxt", "weights")  # reproduction/fcn/folders.py finds them, next to the package or in it

setup(
    packages=[*find_packages(include=["reproduction*"]), *(f"reproduction.{name}" for name in FOLDERS)],
    package_dir={f"reproduction.{name}": name for name in FOLDERS},
    package_data={
        "reproduction": ["py.typed", "**/*.txt", "**/*.json", "report/templates/*"],
        "reproduction.prototxt": ["README.md", "*/*.prototxt"],
        # Not all that is there: a checkout downloads the published weights to this folder.
        "reproduction.weights": [
            "README.md",
            "manifest.json",
            "mini/README.md",
            "mini/*.caffemodel",
            "mini/*.json*",
            "results/*.json",
            "results/*/*.json",
        ],
    },
)
