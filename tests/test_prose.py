"""Docstrings, comments, messages and pages are in the plain English of PyTorch's and NumPy's documentation.

Messages are all other strings with a space in them: the texts of errors and warnings, help texts, progress lines and
labels of tables. An f-string is read with ``{}`` for each value.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

FOLDERS = ("reproduction", "tools")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "reproduction").rglob("*.html")),
    ROOT / "weights/README.md",
    ROOT / "Makefile",
    ROOT / "hubconf.py",
]
# No docstring begins with one of these, and no sentence of a message.
FIRST_WORDS = ("Give", "Say", "Let", "Word", "Tell", "Bring", "Hold", "Lay")
# Banned phrase: what it becomes.
PHRASES = {
    "anew": "again",
    "likewise": "also",
    "whoever": "who",
    "(?:is|are|be|was|were) told": "a log or a message says",
    "(?:given|gives|giving|gave|give) up": "stop, fail",
    "(?:goes|going|went) on": "continue, resume",
    "sooner": "faster",
    "beside": "next to",
    "lay out": "copy, arrange",
    "(?:held|hold) against": "compared with",
    "tell apart": "distinguish",
    "whole or absent": "atomic",
    "of (?:its|their|one's|somebody's) own": "separate, new, own",
    "(?:one|somebody)'s own": "custom",
    "nothing of": "none of",
    "as given": "drop it, or say what it does",
    "in (?:his|her) hand": "owned",
    "(?<!there )(?:is|are|was|were) no (?!longer|more|less|larger|smaller|greater|later|earlier)\\w+": "is not a",
    "(?:is|are) another": "differs",
    "has not(?= (?:a|an|the|its|this)\\b|[.,;]|$)": "does not have",
    "there twice": "appears twice",
    "comes? twice": "appears twice",
    "goes? with(?! [a-z]+ing)": "is used with, can be combined with",
    "pictures?(?!:)": "image",
}
CODE = re.compile(  # names, commands and the tags of templates, which are not prose
    r"`+[^`\n]+`+|^```.*?^```$|<(style|script)\b.*?</\1>|<[^>]*>|\{\{.*?\}\}|\{%.*?%\}", re.MULTILINE | re.DOTALL
)
FIRST = re.compile(rf"(?:{'|'.join(FIRST_WORDS)})\b", re.IGNORECASE)
SENTENCE = re.compile(r"(?:^|[.:;] )(?:Say|Let|Word|Tell|Bring|Hold|Lay)\b")
PHRASE = re.compile(rf"\b(?:{'|'.join(PHRASES)})(?!\w)", re.IGNORECASE)
#: Uses in which a phrase is the correct term: (path, phrase).
ALLOWED = {
    ("reproduction/commands/parsers.py", "picture"),  # of the option --input picture
    ("reproduction/commands/export.py", "picture"),
}


def docstrings(node: ast.AST, name: str = "") -> Iterator[tuple[str, ast.Constant]]:
    """Yield (dotted name, docstring) of a module and of every class and function in it."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        name = f"{name}.{node.name}".lstrip(".")
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield name or "module", first.value
    for child in ast.iter_child_nodes(node):
        yield from docstrings(child, name)


def messages(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (line, text) of the strings that are sentences or parts of one."""
    skipped = {id(found) for _, found in docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            skipped |= {id(part) for part in node.values}
            yield f"line {node.lineno}", "".join(parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield f"line {node.lineno}", node.value


def comments(source: str) -> Iterator[tuple[str, str]]:
    """Yield (line, text) of each block of comments; lines that follow each other are one text."""
    block, start, last = "", 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != last + 1:
                yield f"line {start}", block
                block = ""
            start = start if block else token.start[0]
            block, last = f"{block} {token.string.lstrip('#: ')}", token.start[0]
    if block:
        yield f"line {start}", block


def problems(path: str, source: str) -> Iterator[tuple[str, str]]:
    """Yield (place, what is wrong with it) of a source file's docstrings, comments and messages, or of a page."""
    texts = [("page", source)]
    if path.endswith(".py"):
        tree = ast.parse(source)
        texts = [(name, str(found.value)) for name, found in docstrings(tree)]
        yield from ((f"{path}: {name}", FIRST.match(text)[0]) for name, text in texts if FIRST.match(text))
        said = list(messages(tree))
        yield from ((f"{path}: {line}", found.strip(".:; ")) for line, text in said for found in SENTENCE.findall(text))
        texts += [(line, text) for line, text in said if " " in text]
        texts += comments(source)
    for name, text in texts:
        for match in PHRASE.finditer(" ".join(CODE.sub("", text).split())):
            phrase = match[0].lower().strip()
            if (path, phrase) not in ALLOWED:
                yield f"{path}: {name}", phrase


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_texts_are_in_plain_english(path: Path):
    assert not list(problems(path.relative_to(ROOT).as_posix(), path.read_text()))


def test_every_exception_is_needed():
    used = {
        (path, match[0].lower())
        for path in {path for path, _ in ALLOWED}
        for match in PHRASE.finditer(" ".join(CODE.sub("", (ROOT / path).read_text()).split()))
    }
    assert used >= ALLOWED


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""Give a number."""', [("a.py: module", "Give")]),
        ('class A:\n    def _b(self):\n        """say what is there."""', [("a.py: A._b", "say")]),
        ('def f():\n    """Compute it\n    Anew."""', [("a.py: f", "anew")]),
        ('def f():\n    """Return what is held\n    against it."""', [("a.py: f", "held against")]),
        ('async def f():\n    """Return a file of its own, or somebody\'s own."""',
         [("a.py: f", "of its own"), ("a.py: f", "somebody's own")]),
        ('raise E("this is no card")', [("a.py: line 1", "is no card")]),
        ('raise E(f"{x} is no card", remedy="Say which. Tell it.")',
         [("a.py: line 1", "Say"), ("a.py: line 1", "Tell"), ("a.py: line 1", "is no card")]),
        ("x = 1  # goes\nx = 2  # on anew", [("a.py: line 1", "goes on"), ("a.py: line 1", "anew")]),
        ("x = 1  # goes\n\nx = 2  # on", []),
        ('if True:\n    def f():\n        """Layers, sayings and letters; renewed."""', []),
        ('x = "there is no file, and it is no longer needed", "beside"', []),
    ],
)  # fmt: skip
def test_banned_words_are_found(source, found):
    assert list(problems("a.py", source)) == found


def test_banned_words_are_found_in_pages():
    assert list(problems("a.md", "It goes\non beside `it`.")) == [("a.md: page", "goes on"), ("a.md: page", "beside")]
