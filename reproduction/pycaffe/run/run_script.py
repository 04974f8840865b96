"""Runs a program that imports caffe as Python runs a script, with this project as ``caffe``.

See ``reproduction.pycaffe`` for the command. A program that is started in another way can call ``prepare`` first.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path

from reproduction.caffe.errors import ReproductionError, shorten_warnings
from reproduction.pycaffe.net import caffe_log
from reproduction.pycaffe.python2 import import_hook, version_detection
from reproduction.pycaffe.run import caffe_alias, restore_libraries

# Modules that programs for Caffe import -> the packages that install them.
_PACKAGES = {
    "IPython": "ipython", "cv2": "opencv-python-headless", "google": "protobuf", "leveldb": "plyvel", "lmdb": "lmdb",
    "matplotlib": "matplotlib", "pandas": "pandas", "pydot": "pydot", "pylab": "matplotlib",
    "setproctitle": "setproctitle", "six": "six", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}  # fmt: skip

# Files whose frames are left out of tracebacks.
_RUNNER = (__file__, str(Path(__file__).parents[1] / "__main__.py"), str(Path(import_hook.__file__).parent))


def prepare(python2: bool = False) -> None:
    """Prepare this process to run programs for Caffe.

    Install the alias ``caffe``, restore names that libraries have removed, and translate Python 2 sources when they are
    imported.

    Args:
        python2: Whether to treat sources that fit both Python 2 and Python 3 as Python 2.
    """
    caffe_alias.install()
    restore_libraries.restore()
    import_hook.Loader.python2 = python2
    import_hook.install()
    if not any(isinstance(finder, _MissingPackageFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MissingPackageFinder())


def run_script(path: str, args: Sequence[str] = (), *, python2: bool = False) -> None:
    """Run a script in this process as ``__main__``, with this project as the module ``caffe``.

    The exceptions that it raises propagate.

    Args:
        path: The script.
        args: The arguments of its command line.
        python2: Whether to treat sources that fit both Python 2 and Python 3 as Python 2. This is also done if the
            script or one of its modules is Python 2.

    Raises:
        OSError: If the script cannot be read.
    """
    file = os.path.realpath(path)
    sys.argv = [path, *args]
    sys.path[0] = os.path.dirname(file)  # noqa: PTH120
    folders = [Path(folder or os.curdir) for folder in sys.path if import_hook.is_program_file(folder)]
    prepare(python2 or version_detection.detect_program_version(Path(file), folders) == 2)
    caffe_log.init_log()
    shorten_warnings()
    main = types.ModuleType("__main__")
    loader = import_hook.Loader("__main__", path)
    main.__file__, main.__loader__ = path, loader
    sys.modules["__main__"] = main
    sys.excepthook = _print_exception
    loader.exec_module(main)


class _MissingPackageFinder(importlib.abc.MetaPathFinder):
    """A finder of last resort: raises an error that names the package to install for a missing module."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        package = _PACKAGES.get(fullname)
        if package is None:
            return None
        raise ModuleNotFoundError(
            f"No module named {fullname!r}, which the program needs and this project does not. "
            f"Install it: pip install {package}.",
            name=fullname,
        )


def _print_exception(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Print an uncaught exception as Python does, without the frames of the code that runs the program.

    For a ReproductionError, whose message explains the problem, print only the frames of the program.
    """
    report = traceback.TracebackException(kind, error, trace)
    ours = isinstance(error, ReproductionError)
    each: traceback.TracebackException | None = report
    while each is not None:
        shown = [frame for frame in each.stack if _is_in_traceback(frame.filename, ours)]
        each.stack = traceback.StackSummary.from_list(shown)
        each = each.__cause__ or each.__context__
    sys.stderr.write("".join(report.format()))


def _is_in_traceback(file: str, ours: bool) -> bool:
    if file.startswith(("<frozen importlib", "<frozen runpy", *_RUNNER)):
        return False
    return not ours or import_hook.is_program_file(file)
