"""Translates Python 2 to Python 3: fissix the syntax; this module division, some methods, and line numbers."""

from __future__ import annotations

import ast
import difflib
import functools
import types
import warnings
from collections.abc import Iterable
from typing import Any

from reproduction.caffe.errors import missing_package
from reproduction.pycaffe.python2 import removed_methods

#: The names under which translated sources call helper functions; ``python2_builtins.BUILTINS`` defines them.
BOUND, CODE, DIVIDE, DIVIDE_NAME, DIVIDE_ITEM, DIVIDE_ATTRIBUTE, MESSAGE, METHOD = (
    f"__python2_{what}__"
    for what in ("bound", "code", "divide", "divide_name", "divide_item", "divide_attribute", "message", "method")
)

_TAB = 8

# The fixers of fissix to run. None is needed for Python 2's builtins and the modules of
# ``standard_library.MODULES``, which translated modules find under their old names; see ``python2_builtins.BUILTINS``.
_FIXERS = [
    f"fissix.fixes.fix_{name}"
    for name in (
        "dict", "except", "exec", "execfile", "exitfunc", "funcattrs", "getcwdu", "has_key", "imports", "imports2",
        "input", "metaclass", "methodattrs", "ne", "next", "nonzero", "numliterals", "paren", "print", "raise",
        "renames", "repr", "sys_exc", "throw", "tuple_params", "unicode", "urllib", "xreadlines",
    )
]  # fmt: skip

_DIVISION_METHODS = {"__div__": "__truediv__", "__rdiv__": "__rtruediv__", "__idiv__": "__itruediv__"}


def compile_python2(text: str, path: str, mode: str = "exec", true_division: bool = False) -> types.CodeType:
    """Translate a Python 2 source and compile it; line numbers in tracebacks are those of the original.

    Args:
        text: The source.
        path: Its file, for tracebacks.
        mode: ``"exec"``, or ``"eval"`` for an expression.
        true_division: Whether ``/`` is true division even without a ``__future__`` import, as in a text executed by a
            source that has this import.

    Raises:
        SyntaxError: If the source is neither Python 2 nor Python 3.
        ReproductionError: If fissix is not installed.
    """
    text = text.strip() if mode == "eval" else _expand_tabs(text)
    translated = _translate_syntax(text, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3 warns of invalid escapes and the like in Python 2 sources
        tree = ast.parse(translated, path, mode)
        statements = getattr(tree, "body", []) if mode == "exec" else []
        features = {alias.name for node in statements if _is_future(node) for alias in node.names}
        tree = _Python2Semantics(true_division or "division" in features).visit(tree)
        _set_line_numbers(tree, _map_lines(text, translated))
        return compile(tree, path, mode, dont_inherit=True)


def compile_python3(text: str, path: str) -> types.CodeType:
    """Compile a Python 3 source that was written for numpy 1.

    Calls of the methods in ``removed_methods.REMOVED`` go through ``get_method`` there, and ``copy=False`` of ``array``
    copies only if necessary, as before numpy 2.

    Args:
        text: The source.
        path: Its file, for tracebacks.
    """
    tree = ast.fix_missing_locations(_RemovedMethodCalls(removed_methods.REMOVED).visit(ast.parse(text, path)))
    return compile(tree, path, "exec", dont_inherit=True)


def _expand_tabs(text: str) -> str:
    """Expand tabs in the indentation to multiples of 8 columns, except in lines that begin inside a string.

    Source: docs.python.org/2.7/reference/lexical_analysis.html, 2.1.8.
    """
    if "\t" not in text:
        return text
    lines = text.splitlines(keepends=True)
    inside = _find_lines_in_strings(lines)
    for i, line in enumerate(lines):
        rest = line.lstrip(" \t")
        if i + 1 not in inside:
            lines[i] = line[: len(line) - len(rest)].expandtabs(_TAB) + rest
    return "".join(lines)


def _find_lines_in_strings(lines: list[str]) -> set[int]:
    """Return the numbers, from 1, of the lines that begin inside a string."""
    from fissix.pgen2 import token, tokenize

    inside: set[int] = set()
    waiting = iter(lines)
    try:
        for kind, _, start, end, _ in tokenize.generate_tokens(lambda: next(waiting, "")):
            if kind == token.STRING:
                inside.update(range(start[0] + 1, end[0] + 1))
    except (tokenize.TokenError, IndentationError):
        pass  # the parser reports the error later
    return inside


def _translate_syntax(text: str, path: str) -> str:
    tool, parse_errors = _load_fissix()
    try:
        return str(tool.refactor_string(text + "\n", path))
    except parse_errors as error:
        raise _syntax_error(error, text, path) from None


def _syntax_error(error: Exception, text: str, path: str) -> SyntaxError:
    """Return the syntax error of Python 2 or of Python 3, whichever is at the later line."""
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
def _load_fissix() -> tuple[Any, tuple[type[Exception], ...]]:
    """Return the fissix refactoring tool, and the exceptions that it raises for a syntax error."""
    try:
        from fissix.pgen2.parse import ParseError
        from fissix.pgen2.tokenize import TokenError
        from fissix.refactor import RefactoringTool
    except ImportError:
        raise missing_package("fissix", "pycaffe", ", which translates this program from Python 2") from None
    return RefactoringTool(_FIXERS), (ParseError, TokenError, IndentationError)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


class _RemovedMethodCalls(ast.NodeTransformer):
    """A transformer that makes calls of removed methods go through ``removed_methods.get_method``.

    It also replaces ``array(copy=False)`` by ``array(copy=None)``, which has the meaning of numpy 1.

    Args:
        names: The names of the methods.
    """

    def __init__(self, names: Iterable[str]):
        self.names = frozenset(names)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in self.names:
                node.func = _call(METHOD, node.func.value, ast.Constant(node.func.attr))
            elif node.func.attr == "array":
                for keyword in node.keywords:
                    if keyword.arg == "copy" and isinstance(keyword.value, ast.Constant) and not keyword.value.value:
                        keyword.value.value = None  # copy only if necessary, as False did before numpy 2
        return node


class _Python2Semantics(_RemovedMethodCalls):
    """A transformer for code that is valid in both Pythons but has another meaning in Python 2.

    It replaces division, slices, ``eval``, ``exec``, ``.message`` and some methods by calls of helper functions.

    Args:
        true_division: Whether the source has ``from __future__ import division``.
    """

    def __init__(self, true_division: bool):
        super().__init__(removed_methods.PYTHON2)
        self.true_division = true_division

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if self.true_division or not isinstance(node.op, ast.Div):
            return node
        return ast.copy_location(_call(DIVIDE, node.left, node.right), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if self.true_division or not isinstance(node.op, ast.Div):
            return node
        target = node.target
        new: ast.stmt
        if isinstance(target, ast.Name):
            value = _call(DIVIDE_NAME, ast.Name(target.id, ast.Load()), node.value)
            new = ast.Assign([target], value)
        elif isinstance(target, ast.Subscript):
            new = ast.Expr(_call(DIVIDE_ITEM, target.value, _index(target.slice), node.value))
        else:
            new = ast.Expr(_call(DIVIDE_ATTRIBUTE, target.value, ast.Constant(target.attr), node.value))
        return ast.copy_location(new, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _DIVISION_METHODS.get(node.name, node.name)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec") and node.args:
            mode, division = ast.Constant(node.func.id), ast.Constant(self.true_division)
            node.args[0] = _call(CODE, node.args[0], mode, division)
        return super().visit_Call(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr == "message" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(_call(MESSAGE, node.value), node)
        return node

    def visit_Slice(self, node: ast.Slice) -> ast.AST:
        self.generic_visit(node)
        for part in ("lower", "upper", "step"):
            value = getattr(node, part)
            if value is not None and not isinstance(value, (ast.Constant, ast.UnaryOp)):
                setattr(node, part, ast.copy_location(_call(BOUND, value), value))
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _index(node: ast.expr) -> ast.expr:
    """Return the index of a subscript as an expression, with slices as ``slice(...)`` calls."""
    if isinstance(node, ast.Slice):
        return _call("slice", *(part or ast.Constant(None) for part in (node.lower, node.upper, node.step)))
    if isinstance(node, ast.Tuple):
        return ast.Tuple([_index(part) for part in node.elts], ast.Load())
    return node


def _map_lines(text: str, translated: str) -> list[int]:
    """Map lines of the translation to lines of the original: item ``i`` is for line ``i + 1``; lines start at 1."""
    old, new = text.splitlines(), translated.splitlines()
    if len(old) == len(new) or (len(old) + 1 == len(new) and not new[-1]):
        return list(range(1, len(new) + 2))
    found = [1] * (len(new) + 1)
    for _, start, end, low, high in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for line in range(low, high):
            found[line] = min(start + line - low, max(end - 1, start - 1, 0)) + 1
    return found


def _set_line_numbers(tree: ast.AST, lines: list[int]) -> None:
    """Set the line of every node to that of the original; columns are unknown and set to -1."""
    ast.fix_missing_locations(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr, ast.excepthandler, ast.arg, ast.keyword, ast.alias)):
            node.lineno = node.end_lineno = lines[min(node.lineno, len(lines)) - 1]
            node.col_offset = node.end_col_offset = -1
