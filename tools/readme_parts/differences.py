"""The list of differences from PyTorch and of upstream errors, from the marked comments of the sources."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping

from common import ROOT

KINDS = {  # the prefixes of comments, and the titles of their lists
    "Caffe": "Caffe computes something else than PyTorch: Caffe's definition is used",
    "Upstream bug, kept": "Errors of Caffe and of the authors' code that are kept, since their numbers depend on them",
    "Upstream bug, fixed": "Errors of Caffe and of the authors' code that are fixed here",
}
COMMIT = "9b891540183ddc834a02b2bd81b31afae71b2153"
FOLDERS = {  # Caffe's folder for file names that match the pattern
    r"\w+_layer\.(cpp|cu)": "src/caffe/layers",
    r"\w+_layer\.hpp": "include/caffe/layers",
    r"(filler|layer)\.hpp": "include/caffe",
    r"\w+_solver\.cpp": "src/caffe/solvers",
    r"(solver|net)\.cpp": "src/caffe",
    r"(upgrade_proto|hdf5)\.cpp": "src/caffe/util",
    r"io\.py": "python/caffe",
}
FILE = re.compile(r"\b(?<!/)(?P<name>\w+\.(?:cpp|hpp|cu|py))(?: L(?P<first>\d+)(?:-L?(?P<last>\d+))?)?")
MARK = re.compile(r"# (Caffe|Upstream bug, kept|Upstream bug, fixed): (.*)")


def difference_lists() -> str:
    """Return the marked comments of the sources as lists by kind and file, with their class or function."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((ROOT / "reproduction").rglob("*.py")):
        for kind, name, text in find_marked_comments(path.read_text()):
            entry = f"- **`{name}`**: {text}" if name else f"- {text}"
            found.setdefault(kind, {}).setdefault(path.relative_to(ROOT / "reproduction").as_posix(), []).append(entry)
    parts = []
    for kind, title in KINDS.items():
        if files := found.get(kind):
            parts.append(f"## {title} ({sum(map(len, files.values()))})")
            parts += [f"### {name}\n\n" + "\n".join(entries) for name, entries in files.items()]
    return "\n\n".join(parts)


def find_marked_comments(source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, class or function around it, text as a sentence) of each marked comment of a Python source."""
    lines, files = source.splitlines(), _find_fork_files(source)
    link = functools.partial(_link_file, fork_files=files)
    for i, line in enumerate(lines):
        if match := MARK.search(line):
            text = match[2]
            for more in lines[i + 1 :]:
                rest = re.match(r"\s*# (?!Caffe:|Upstream bug)(.*)", more)
                if not rest or not line.lstrip().startswith("#"):
                    break
                text += f" {rest[1]}"
            text = text.rstrip(".") + "."
            start = text[0].upper() if re.match(r"[a-z]+[ ,;]", text) else text[0]
            yield match[1], _find_enclosing_names(source, i + 1), FILE.sub(link, start + text[1:])


def _find_enclosing_names(source: str, line: int) -> str:
    """Return the dotted name of the classes and functions that contain a line, such as ``Pooling.forward``."""
    names = [
        (node.lineno, node.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return ".".join(name for _, name in sorted(names) if name != "__init__")


def _find_fork_files(source: str) -> dict[str, str]:
    """Return the addresses of the files of forks that the ``Source:`` lines of a Python source name, by file name."""
    found: dict[str, str] = {}
    for text in re.findall(r"Source: (.*?)\n\s*(?:\n|\"\"\")", source + "\n\n", re.DOTALL):
        address = ""
        for word in text.replace(",", " ").replace(";", " ").split():
            if start := re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})", word):
                address = "" if start[1] == "BVLC/caffe" else f"https://github.com/{start[1]}/blob/{start[2]}"
            elif address and (name := re.fullmatch(r"(?:[\w.-]+/)*([\w.-]+\.(?:cpp|hpp|cu|py))\.?", word)):
                found.setdefault(name[1], f"{address}/{word.rstrip('.')}")
    return found


def _link_file(match: re.Match[str], fork_files: Mapping[str, str]) -> str:
    """Link a file of Caffe or of a fork, and its first line if there is one; return any other file name unchanged.

    Args:
        match: A match of ``FILE``.
        fork_files: The addresses of files of forks, by file name.
    """
    name, first, last = match["name"], match["first"], match["last"]
    folder = next((folder for pattern, folder in FOLDERS.items() if re.fullmatch(pattern, name)), None)
    address = f"https://github.com/BVLC/caffe/blob/{COMMIT}/{folder}/{name}" if folder else ""
    address = fork_files.get(name, address)
    lines = (f"#L{first}" + (f"-L{last}" if last else "")) if first else ""
    return f"[{match[0]}]({address}{lines})" if address else match[0]
