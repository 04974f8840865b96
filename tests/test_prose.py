"""Docstrings of the library and the tools use the verbs that PyTorch's and NumPy's documentation uses."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

SOURCES = [path for folder in ("reproduction", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
FIRST_WORDS = ("Give", "Say", "Let", "Word", "Tell", "Bring", "Hold", "Lay")
PHRASES = (
    "anew", "likewise", "lay out", "hold against", "held against", "tell apart", "whole or absent", "of its own",
    "one's own", "somebody's own", "as given", "sooner", "whoever", "in his hand",
)  # fmt: skip
FIRST = re.compile(rf"(?:{'|'.join(FIRST_WORDS)})\b", re.IGNORECASE)
PHRASE = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b".replace(" ", r"\s+"), re.IGNORECASE)
#: (path, dotted name, phrase) of each docstring in which a phrase is the correct term; a module's name is "".
ALLOWED: frozenset[tuple[str, str, str]] = frozenset()


def docstrings(node: ast.AST, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, docstring) of a module and of every class and function in it."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        name = f"{name}.{node.name}".lstrip(".")
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield name, ast.get_docstring(node) or ""
    for child in ast.iter_child_nodes(node):
        yield from docstrings(child, name)


def problems(path: str, source: str) -> list[str]:
    """Return a line for each banned first word and phrase in the docstrings of a source."""
    found = []
    for name, text in docstrings(ast.parse(source)):
        where = f"{path}: {name or 'module'}"
        if first := FIRST.match(text):
            found.append(f"{where} begins with {first[0]!r}")
        phrases = [" ".join(match[0].lower().split()) for match in PHRASE.finditer(text)]
        found += [f"{where} has {phrase!r}" for phrase in phrases if (path, name, phrase) not in ALLOWED]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_are_in_plain_english(path: Path):
    assert not problems(path.relative_to(ROOT).as_posix(), path.read_text())


def test_every_exception_is_needed():
    used = {
        (path, name, " ".join(match[0].lower().split()))
        for path in {path for path, *_ in ALLOWED}
        for name, text in docstrings(ast.parse((ROOT / path).read_text()))
        for match in PHRASE.finditer(text)
    }
    assert used >= ALLOWED


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""Give a number."""', ["a.py: module begins with 'Give'"]),
        ('class A:\n    def _b(self):\n        """say what is there."""', ["a.py: A._b begins with 'say'"]),
        ('def f():\n    """Compute it\n    Anew."""', ["a.py: f has 'anew'"]),
        ('def f():\n    """Return what is held\n    against it."""', ["a.py: f has 'held against'"]),
        ('async def f():\n    """Return a file of its own, or somebody\'s own."""',
         ["a.py: f has 'of its own'", "a.py: f has \"somebody's own\""]),
        ('if True:\n    def f():\n        """Layers, sayings and letters; renewed."""', []),
        ('x = "Give it anew"', []),
    ],
)  # fmt: skip
def test_banned_words_are_found(source, found):
    assert problems("a.py", source) == found
