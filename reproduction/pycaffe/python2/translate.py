"""Python 2 to Python 3: the syntax by fissix, then division, a few methods' names, and the lines of the original."""

from __future__ import annotations

import ast
import difflib
import functools
import types
import warnings
from typing import Any

from reproduction.caffe.errors import ReproductionError
from reproduction.pycaffe.python2 import names

# What fissix rewrites. Names that are builtins in Python 2 are left: a translated module finds Python 2's, see
# ``names.BUILTINS``.
_FIXERS = [
    f"fissix.fixes.fix_{name}"
    for name in (
        "dict", "except", "exec", "execfile", "exitfunc", "funcattrs", "getcwdu", "has_key", "imports", "imports2",
        "input", "itertools", "itertools_imports", "metaclass", "methodattrs", "ne", "next", "nonzero", "numliterals",
        "paren", "print", "raise", "renames", "repr", "sys_exc", "throw", "tuple_params", "types", "unicode", "urllib",
        "xreadlines",
    )
]  # fmt: skip

_METHODS = {"__div__": "__truediv__", "__rdiv__": "__rtruediv__", "__idiv__": "__itruediv__"}


def compiled(text: str, path: str) -> types.CodeType:
    """Compile a Python 2 source.

    Args:
        text: the source.
        path: its file, for tracebacks; their lines are those of the file.

    Raises:
        SyntaxError: it is neither Python 2 nor Python 3.
        ReproductionError: fissix is not installed.
    """
    translated = _translated(text, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python 3 has to say about a source for Python 2
        tree = ast.parse(translated, path)
        features = {alias.name for node in tree.body if _is_future(node) for alias in node.names}  # type: ignore[attr-defined]
        tree = _Meaning("division" in features).visit(tree)
        _place(tree, _lines(text, translated))
        return compile(tree, path, "exec", dont_inherit=True)


def _translated(text: str, path: str) -> str:
    tool, parse_errors = _tool()
    try:
        return str(tool.refactor_string(text + "\n", path))
    except parse_errors as error:
        raise _syntax_error(error, text, path) from None


def _syntax_error(error: Exception, text: str, path: str) -> SyntaxError:
    """Say where a source is neither Python 2 nor Python 3: of the two places, the one that is further down."""
    *_, place = getattr(error, "context", None) or error.args
    line, column = place[:2] if isinstance(place, tuple) and isinstance(place[0], int) else place[1]
    lines = text.splitlines()
    line = min(line, len(lines))
    found = SyntaxError("invalid syntax", (path, line, column + 1, lines[line - 1]))
    try:
        compile(text, path, "exec", ast.PyCF_ONLY_AST)
    except SyntaxError as python3:
        return python3 if (python3.lineno or 0) >= line else found
    return found


@functools.cache
def _tool() -> tuple[Any, tuple[type[Exception], ...]]:
    """Return what translates, and what it raises where it cannot."""
    try:
        from fissix.pgen2.parse import ParseError
        from fissix.pgen2.tokenize import TokenError
        from fissix.refactor import RefactoringTool
    except ImportError:
        raise ReproductionError(
            "a Python 2 source needs the package fissix", remedy="Install it: pip install fissix."
        ) from None
    return RefactoringTool(_FIXERS), (ParseError, TokenError, IndentationError)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


class _Meaning(ast.NodeTransformer):
    """Makes calls of ``names`` of what parses alike and means something else.

    Args:
        true_division: whether the source has ``from __future__ import division``.
    """

    def __init__(self, true_division: bool):
        self.true_division = true_division

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if self.true_division or not isinstance(node.op, ast.Div):
            return node
        return ast.copy_location(_call(names.DIVIDE, node.left, node.right), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if self.true_division or not isinstance(node.op, ast.Div):
            return node
        target = node.target
        new: ast.stmt
        if isinstance(target, ast.Name):
            value = _call(names.DIVIDE_NAME, ast.Name(target.id, ast.Load()), node.value)
            new = ast.Assign([target], value)
        elif isinstance(target, ast.Subscript):
            new = ast.Expr(_call(names.DIVIDE_ITEM, target.value, _index(target.slice), node.value))
        else:
            new = ast.Expr(_call(names.DIVIDE_ATTRIBUTE, target.value, ast.Constant(target.attr), node.value))
        return ast.copy_location(new, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _METHODS.get(node.name, node.name)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "tostring" and not node.args:
            node.func.attr = "tobytes"  # of an array or a picture
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _index(node: ast.expr) -> ast.expr:
    """Write what is in the brackets of ``x[...]`` as an argument."""
    if isinstance(node, ast.Slice):
        return _call("slice", *(part or ast.Constant(None) for part in (node.lower, node.upper, node.step)))
    if isinstance(node, ast.Tuple):
        return ast.Tuple([_index(part) for part in node.elts], ast.Load())
    return node


def _lines(text: str, translated: str) -> list[int]:
    """Give the line of the original, from 1, of each line of the translation, from 0."""
    old, new = text.splitlines(), translated.splitlines()
    if len(old) == len(new) or (len(old) + 1 == len(new) and not new[-1]):
        return list(range(1, len(new) + 2))
    found = [1] * (len(new) + 1)
    for _, start, end, low, high in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for line in range(low, high):
            found[line] = min(start + line - low, max(end - 1, start - 1, 0)) + 1
    return found


def _place(tree: ast.AST, lines: list[int]) -> None:
    """Put every node on its line of the original; columns are not known, and are said to be not."""
    ast.fix_missing_locations(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr, ast.excepthandler, ast.arg, ast.keyword, ast.alias)):
            node.lineno = node.end_lineno = lines[min(node.lineno, len(lines)) - 1]
            node.col_offset = node.end_col_offset = -1
