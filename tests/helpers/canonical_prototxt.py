"""A digest of a prototxt's content that ignores its layout, computed without any schema.

It shares no code with the reader under test. Values of ``param_str`` are ignored, because Python 2 printed dicts in
hash order.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from pathlib import Path

TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<str> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' )
    | (?P<word> [A-Za-z_][\w.]* )
    | (?P<num> [-+]?[\d.][\w.+-]* )
    | (?P<sym> [{}:<>,;\[\]-] )""",
    re.VERBOSE,
)
CLOSE = {"{": "}", "<": ">"}


def digest(path: Path) -> str:
    """Return the SHA-256 of the file's content as canonical JSON."""
    said = _without_param_str(parse(path.read_text()))
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def parse(text: str) -> dict:
    """Parse a message: each field's values in order, with numbers as floats and enums as strings."""
    tokens, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match, f"at {at}: {text[at : at + 20]!r}"
        at = match.end()
        if match.lastgroup:
            tokens.append((match.lastgroup, match.group()))
    return _message(tokens[::-1], None)


def _message(tokens: list, end: str | None) -> dict:
    """Parse fields up to the closing bracket ``end``; ``tokens`` is reversed, its last item is the next token."""
    out: dict = {}
    while tokens and tokens[-1][1] != end:
        _, name = tokens.pop()
        if name in ",;":
            continue
        values = out.setdefault(name, [])
        if tokens[-1][1] == ":":
            tokens.pop()
        opened = tokens[-1][1]
        if opened in CLOSE:
            tokens.pop()
            values.append(_message(tokens, CLOSE[opened]))
            tokens.pop()
        elif opened == "[":
            while tokens.pop()[1] != "]":
                if tokens[-1][1] != "]":
                    values.append(_value(tokens))
        else:
            values.append(_value(tokens))
    return out


def _value(tokens: list) -> str | float | bool:
    kind, text = tokens.pop()
    if kind == "str":
        said = ast.literal_eval(text)
        while tokens and tokens[-1][0] == "str":
            said += ast.literal_eval(tokens.pop()[1])
        return said
    if kind == "num":
        return float(text.rstrip("f"))
    return {"true": True, "false": False}.get(text, text)


def _without_param_str(message):
    if not isinstance(message, dict):
        return message
    return {
        name: ["<dict>"] if name == "param_str" else [_without_param_str(value) for value in values]
        for name, values in message.items()
    }
