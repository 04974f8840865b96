"""Detects whether a source is Python 2 or Python 3, by its syntax and by names that only one of them has."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reproduction.pycaffe.python2 import standard_library
from reproduction.pycaffe.python2.python2_builtins import BUILTINS

# Builtins, modules, attributes of modules, and methods of dicts that Python 3 does not have.
_PYTHON2_BUILTINS = BUILTINS.keys() - vars(builtins).keys() | {"execfile"}
_PYTHON2_MODULES = frozenset(
    ["ConfigParser", "HTMLParser", "Queue", "SocketServer", "StringIO", "Tkinter", "__builtin__", "cPickle",
     "cStringIO", "commands", "copy_reg", "httplib", "thread", "urllib2", "urlparse", *standard_library.PYTHON2_MODULES]
)  # fmt: skip
_PYTHON2_ATTRIBUTES = {
    "os": {"getcwdu"},
    "sys": {"maxint"},
    "urllib": {"quote", "quote_plus", "unquote", "unquote_plus", "urlencode", "urlopen", "urlretrieve"},
    **standard_library.PYTHON2_NAMES,
}
_PYTHON2_METHODS = frozenset({"has_key", "iteritems", "iterkeys", "itervalues"})

# Modules that only a source for both Python 2 and Python 3 imports.
_COMPATIBILITY_MODULES = frozenset({"builtins", "future", "past", "six"})

_PYTHON3_ONLY = (
    ast.AnnAssign, ast.AsyncFor, ast.AsyncFunctionDef, ast.AsyncWith, ast.JoinedStr, ast.MatMult, ast.Match,
    ast.NamedExpr, ast.Nonlocal, ast.TryStar, ast.YieldFrom,
)  # fmt: skip


def detect_version(text: str) -> int | None:
    """Return 2 or 3 if a source is for only that Python, or None if it fits both.

    A source that does not parse as Python 3 is Python 2. One that parses is Python 3 if it uses syntax that only Python
    3 has. It is Python 2 if it uses names that only Python 2 has, unless this is inside a ``try`` or the source checks
    the version or imports a compatibility module such as ``six``.

    Args:
        text: The source.
    """
    tree = parse(text)
    if tree is None:
        return 2
    nodes = list(ast.walk(tree))
    if any(map(_is_python3, nodes)):
        return 3
    if any(map(_supports_both, nodes)):
        return None
    known = set(_find_assigned_names(nodes))
    modules = {
        alias.asname or alias.name: alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    return 2 if any(_is_python2(node, known, modules) for node in _walk_outside_try(tree)) else None


def parse(text: str) -> ast.Module | None:
    """Parse a source as Python 3, without warnings; return None if it has a syntax error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError):
            return None


def detect_program_version(script: Path, folders: Sequence[Path]) -> int:
    """Return 2 if a script or one of the program's modules that it imports is for Python 2 only, else 3.

    Imports are followed recursively, to modules in the folder of the importing file and then in ``folders``.

    Args:
        script: The script.
        folders: Further folders of the program to find modules in, such as those in ``sys.path``.
    """
    waiting, seen = [script], {script}
    while waiting:
        path = waiting.pop()
        text = path.read_bytes().decode("utf-8", "replace")
        if detect_version(text) == 2:
            return 2
        tree = parse(text)
        for name in _find_imports(tree) if tree else ():
            for found in _find_files(name, [path.parent, *folders]):
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return 3


def _find_files(module: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the file of a module and the ``__init__.py`` files of its packages."""
    for folder in folders:
        at = folder
        for part in module.split("."):
            for file in (at / part / "__init__.py", at / f"{part}.py"):
                if file.is_file():
                    yield file
            at /= part
        if at.is_dir() or at.with_suffix(".py").is_file():
            return


def _find_imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from (base + alias.name for alias in node.names)


def _is_python3(node: ast.AST) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        noted = any(each.annotation for each in every) or getattr(node, "returns", None) is not None
        return noted or bool(arguments.kwonlyargs or arguments.posonlyargs)
    if isinstance(node, ast.ClassDef):
        return bool(node.keywords)
    if isinstance(node, ast.Raise):
        return node.cause is not None
    return isinstance(node, _PYTHON3_ONLY)


def _supports_both(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("version_info", "hexversion")
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in _COMPATIBILITY_MODULES for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _COMPATIBILITY_MODULES


def _is_python2(node: ast.AST, bound: set[str], modules: Mapping[str, str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _PYTHON2_BUILTINS and node.id not in bound
    if isinstance(node, ast.Attribute):
        module = modules.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
        return node.attr in _PYTHON2_ATTRIBUTES.get(module, ())
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr in _PYTHON2_METHODS
    if isinstance(node, ast.Import):
        return any(alias.name in _PYTHON2_MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom) and not node.level:
        lost = _PYTHON2_ATTRIBUTES.get(node.module or "", ())
        return node.module in _PYTHON2_MODULES or any(alias.name in lost for alias in node.names)
    return False


def _find_assigned_names(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]


def _walk_outside_try(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Try):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _walk_outside_try(child)
