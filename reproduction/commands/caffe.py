"""Make `import caffe` import this project in every program of a Python environment, or undo it.

    fcn caffe install     from now on, `import caffe` imports this project, unless a real Caffe is installed
    fcn caffe status      what `import caffe` imports
    fcn caffe remove      undo the installation

Installing adds one file to the environment's packages and changes nothing else. Programs for Python 2, and those that
use names that NumPy and other libraries have removed since, are run by python -m reproduction.pycaffe SCRIPT.
"""

from __future__ import annotations

from collections.abc import Sequence

from reproduction.commands.parsers import make_parser
from reproduction.commands.terminal import say
from reproduction.pycaffe.run import environment


def main(arguments: Sequence[str] | None = None) -> None:
    """Install or remove the import of this project as caffe, or print what it imports."""
    action = make_parser("caffe").parse_args(arguments).action
    if action == "install":
        say(f"{environment.install()}: import caffe now imports this project.")
    elif action == "remove":
        removed = environment.remove()
        say(*(f"{path}: removed." for path in removed) if removed else ["import caffe was not installed here."])
    else:
        say(_describe())


def _describe() -> str:
    other, installed = environment.find_other_caffe(), environment.find_installed()
    if other is not None:
        return f"{other}: import caffe imports this package, which is not this project."
    if installed:
        return f"{installed[0]}: import caffe imports this project."
    return "import caffe imports nothing here. `fcn caffe install` makes it import this project."
