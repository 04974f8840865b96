"""Imports the modules of a program: translates Python 2 sources, and loads Python 3 sources unchanged."""

from __future__ import annotations

import importlib.abc
import importlib.machinery as machinery
import importlib.util
import os
import re
import site
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path

import reproduction
from reproduction.pycaffe.python2 import python2_builtins, removed_methods, translate, version_detection

_OUTDATED = re.compile(rf"\.({'|'.join(removed_methods.REMOVED)})\s*\(|\bcopy\s*=\s*False")


class Loader(machinery.SourceFileLoader):
    """A loader that translates Python 2 sources in memory, and loads Python 3 sources as Python does.

    Python 3 sources that may use interfaces removed from numpy are rewritten in memory too.

    Attributes:
        python2: Whether to treat a source that fits both Python 2 and Python 3 as Python 2.
    """

    python2 = False

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Return the compiled code of a module, translated or rewritten if its source needs that.

        Args:
            fullname: The module's dotted name.
        """
        path = self.get_filename(fullname)
        text, compile_text = self._read_text()
        if compile_text is not None:
            return compile_text(text, path)
        if fullname == "__main__":  # Python keeps no bytecode of scripts
            code: types.CodeType = self.source_to_code(self.get_data(path), path)
            return code
        return super().get_code(fullname)

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the code of a module: with Python 2's builtins if its source is Python 2."""
        _, compile_text = self._read_text()
        if compile_text is translate.compile_python2:
            module.__dict__["__builtins__"] = python2_builtins.BUILTINS
        elif compile_text is translate.compile_python3:
            module.__dict__[translate.METHOD] = removed_methods.get_method
        super().exec_module(module)

    def _read_text(self) -> tuple[str, Callable[[str, str], types.CodeType] | None]:
        """Return the source, and the function that compiles it, or None if Python does.

        A Python 3 source is rewritten if it may call removed methods or pass ``copy=False``.
        """
        try:
            text = importlib.util.decode_source(self.get_data(self.path))
        except (SyntaxError, UnicodeDecodeError):
            return "", None  # Python reports the error when it loads the source
        found = version_detection.detect_version(text)
        if found == 2 or (found is None and self.python2):
            return text, translate.compile_python2
        return text, translate.compile_python3 if _OUTDATED.search(text) else None


_LOADERS = (
    (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    (Loader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)
_create_finder = machinery.FileFinder.path_hook(*_LOADERS)


def _path_hook(path: str) -> importlib.abc.PathEntryFinder:
    if not is_program_file(path):
        raise ImportError("not a folder of the program", path=path)
    return _create_finder(path)


def is_program_file(path: str) -> bool:
    """Return whether a file or folder belongs to the program that runs.

    Those that are part of Python, of an installed package or of this project do not.
    """
    folder = Path(os.path.realpath(path or os.curdir))
    return not any(folder.is_relative_to(other) for other in _installed_folders())


def _installed_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [Path(os.path.realpath(each)) for each in (*folders, *site.getsitepackages(), *reproduction.__path__)]


def install() -> None:
    """Load the modules that the program imports from now on with ``Loader``, by a hook in ``sys.path_hooks``."""
    if _path_hook not in sys.path_hooks:
        sys.path_hooks.insert(0, _path_hook)
        sys.path_importer_cache.clear()  # cached finders would bypass the hook
