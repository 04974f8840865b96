"""The parser of protobuf's text format, which reports errors with line and column.

``prototxt`` is the public interface. The parser accepts what Caffe's parser accepts: comments from ``#`` to the end of
the line; strings in single or double quotes with C's escapes, where adjacent strings are joined; ``{}`` and ``<>``
blocks with or without a colon; ``,`` or ``;`` after a field; lists in square brackets; decimal, octal and hexadecimal
integers; ``inf``, ``nan`` and a suffix ``f``; enums by name or number; ``true``, ``True``, ``t``, 1 and their
opposites. A field that is not repeated may be set only once. Unknown fields are skipped, so that one error lists all.

Source: protobuf's C++ io::Tokenizer and TextFormat::Parser, called by BVLC/caffe@9b89154 src/caffe/util/io.cpp L34-42.
"""

from __future__ import annotations

import array
import re
from collections.abc import Iterator
from typing import Any

from reproduction.caffe.errors import PrototxtError, ReproductionError, StrPath, append_unknown_names, spelling_hint
from reproduction.caffe.schema import Field, Message, MessageList, NetParameter, V1LayerParameter, V1LayerType
from reproduction.caffe.schema.scalar_types import BOOL, BYTES, STRING, UINT32
from reproduction.caffe.schema.types import unknown_types

# Spaces and comments, then one token. No text matches in two ways, so parsing takes linear time.
_TOKEN = re.compile(
    r"""(?: [ \t\r\n\v\f]++ | \#[^\n]*+ )*+
    (?: (?P<word>   [A-Za-z_][A-Za-z0-9_]{0,255}+ (?![A-Za-z0-9_]) )
      | (?P<symbol> [:{}<>\[\],;-] )
      | (?P<number> \.?[0-9](?: [eE][+-] | [A-Za-z0-9_.] )*+ )
      | (?P<string> "(?: [^"\\\n] | \\[^\n] )*+" | '(?: [^'\\\n] | \\[^\n] )*+' )
      | (?P<end>    \Z )
      | (?P<other>  . ) )""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_REAL = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_DIGITS = 25  # digits of a decimal integer that are parsed; one of 25 digits fits no field
_MOST = 2**80  # limit of parsed integers, which fits no field; Python cannot format one of more than 4,300 digits
# Memory limit: Python objects may take _SPARE_BYTES and one byte per character; then the estimated cost of each.
_SPARE_BYTES = 2**25
_MESSAGE, _ITEM = 400, 40
_ESCAPE = re.compile(
    r"""\\(?: (?P<octal> [0-7]{1,3} )
            | [xX](?P<hex> [0-9a-fA-F]{1,2} )
            | u(?P<pair> [dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2} )
            | u(?P<short> [0-9a-fA-F]{4} )
            | U00(?P<long> (?: 0[0-9a-fA-F] | 10 )[0-9a-fA-F]{4} )
            | (?P<plain> [abfnrtv\\?'"] )
            | )""",
    re.VERBOSE,
)
_ESCAPED = dict(zip("abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))
_BOOLEANS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_SPECIAL = {"inf": float("inf"), "infinity": float("inf"), "nan": float("nan")}
_CLOSER = {"{": "}", "<": ">"}
_BRACKETS = {**_CLOSER, "[": "]"}
_MOST_UNKNOWN = 1000  # unknown names in one text, after which parsing stops

# Remedies for fields of the V1 format.
_REMEDY = {
    ("LayerParameter", "blobs_lr"): "In a 'layer', write 'param { lr_mult: ... }' for each blob.",
    ("LayerParameter", "weight_decay"): "In a 'layer', write 'param { decay_mult: ... }' for each blob.",
}


class TextReader:
    """A recursive-descent parser of prototxt with one token of lookahead. ``read`` parses the whole text.

    The current token is ``token``, which is of the kind ``kind``. Positions are indices into the text.

    Args:
        text: the prototxt.
        path: the place to name in errors.
    """

    def __init__(self, text: str, path: StrPath):
        self.text, self.path = text, path
        self.open: list[tuple[Field[Any], int, type[Message]]] = []  # open blocks: field, position, enclosing message
        self.unknown: PrototxtError | None = None  # the error for the first unknown name
        self.others: dict[str, list[int]] = {}  # further unknown names, with their lines
        self.counted, self.line = 0, 1  # a position and its line, from which later lines are counted
        self.room = _SPARE_BYTES + len(text)
        self.kind, self.token, self.start, self.end = "", "", 0, 0
        self.next()

    def next(self) -> None:
        """Advance to the next token, past spaces and comments."""
        match = _TOKEN.match(self.text, self.end)
        assert match is not None
        assert match.lastgroup is not None
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        self.start, self.end = match.span(match.lastgroup)
        if self.kind == "other":
            raise self.character_error()

    def skip(self, *tokens: str) -> None:
        """Advance if the current token is one of ``tokens``."""
        if self.token in tokens:
            self.next()

    def next_after_name(self, field: Field[Any]) -> None:
        """Advance from the name of ``field`` past its colon, which may be missing before a block only."""
        self.next()
        if self.token != ":" and field.message is None:
            raise self.unexpected_token(f"':' after {field.name!r}")
        self.skip(":")

    def read(self, message: Message) -> None:
        """Parse the whole text into ``message``, or raise a PrototxtError, which lists all unknown names."""
        try:
            self.parse_fields(message)
        except PrototxtError:
            if self.unknown is None:
                raise
        if self.unknown is not None:
            types = unknown_types(message.layer) if isinstance(message, NetParameter) else {}
            raise self.unknown.advise(append_unknown_names(self.unknown.remedy, self.others | types))

    def parse_fields(self, message: Message, closer: str = "", opened: int = 0) -> None:
        """Parse fields into ``message`` up to the end of its block or, if ``closer`` is empty, of the text.

        Args:
            message: the message.
            closer: the token that ends the block, ``}`` or ``>``.
            opened: the position of the token that opens the block.
        """
        cls, values = type(message), message.values
        given: dict[str, int] = {}
        arrays: list[Field[Any]] = []
        while self.token != closer:
            if self.kind != "word":
                raise self.field_name_error(closer, opened)
            field, at = cls.fields.get(self.token) or cls.find_field(self.token), self.start
            if field is None:
                self.skip_unknown(cls)
                continue
            self.next_after_name(field)
            if field.repeated:
                items = values.get(field.name)
                if items is None:
                    items = values[field.name] = _empty_container(field)
                    if field.array:
                        arrays.append(field)
                if self.token == "[":
                    items.extend(self.parse_list(field, cls))
                else:
                    items.append(self.parse_item(field, at, cls))
            elif field.name in given:
                first = f"It is not repeated; the first is at line {self.line_of(given[field.name])}."
                raise self.error(f"{cls.__name__}.{field.name} is set twice", at, remedy=first)
            else:
                given[field.name] = at
                values[field.name] = self.parse_value(field, at, cls)
            self.skip(",", ";")
        for field in arrays:
            values[field.name] = field.check(values[field.name])
        for name in cls.required:
            if name not in given:
                raise self.error(f"{cls.__name__}.{name} is missing", opened, remedy="It is required.")

    def parse_list(self, field: Field[Any], outside: type[Message]) -> Iterator[Any]:
        """Parse a list in square brackets, and yield its values; ``outside`` is the message class of ``field``."""
        opened = self.start
        self.next()
        more = self.token != "]"
        while more:
            yield self.parse_item(field, self.start, outside)
            more = self.token == ","
            if self.kind == "end":
                raise self.error("the list that opens here is not closed", opened)
            if not more and self.token != "]":
                raise self.unexpected_token("',' or ']'")
            if more:
                self.next()
        self.next()

    def parse_item(self, field: Field[Any], at: int, outside: type[Message]) -> Any:
        """Parse one value of a repeated field, as ``parse_value``, and subtract its size from the memory left."""
        self.spend(field.kind.dtype.itemsize if field.array and field.kind and field.kind.dtype else _ITEM)
        return self.parse_value(field, at, outside)

    def spend(self, cost: int) -> None:
        """Subtract ``cost`` (estimated bytes) from the memory left for the result; raise an error if it is used up."""
        self.room -= cost
        if self.room < 0:
            size = len(self.text)
            raise self.error("the text has too many values for its size", self.start, got=f"{size} characters")

    def parse_value(self, field: Field[Any], at: int, outside: type[Message]) -> Any:
        """Parse one value of ``field``, whose name is at position ``at``, in a message of class ``outside``."""
        if field.message is not None:
            return self.parse_block(field, field.message, at, outside)
        if self.kind == "string" and field.kind in (STRING, BYTES):
            return self.parse_string(field)
        start, sign = self.start, "-" if self.token == "-" else ""
        self.skip("-")
        try:
            value = field.check_one(self.parse_scalar(field, sign))
        except ReproductionError as error:
            got, remedy = self.format_token(sign), self.value_remedy(field, error.remedy)
            refusal = self.error(error.problem, start, got=got, want=error.want, remedy=remedy)
            if self.kind != "word" or field is not V1LayerParameter.type:
                raise refusal from None
            self.add_unknown(f"layer type {self.token!r}", refusal)
            value = V1LayerType.NONE
        self.next()
        return value

    def add_unknown(self, what: str, error: PrototxtError) -> None:
        """Record an unknown name: the first by ``error``, each further one by ``what``, such as ``'a' in NetState``."""
        if self.unknown is None:
            self.unknown = error
        else:
            self.others.setdefault(what, []).append(error.line)
            if sum(map(len, self.others.values())) == _MOST_UNKNOWN:
                raise error

    def skip_unknown(self, cls: type[Message]) -> None:
        """Record the current token as an unknown field of the message class ``cls``, and skip it and its value."""
        name, outside = self.token, self.find_block(self.token)
        first = self.unknown is None
        error = self.unknown_field_error(cls, outside) if first else self.error("", self.start)
        self.add_unknown(f"{name!r} in {cls.__name__}", error)
        if outside is not None:
            raise error  # a block is probably not closed, so the rest of the text would be misread
        self.next()
        if self.token == ":":
            self.next()
        elif self.token not in _CLOSER:
            raise error
        self.skip("-")
        closers: list[str] = []
        text = self.kind == "string"
        while True:
            if closers and self.token == closers[-1]:
                closers.pop()
            elif self.token in _BRACKETS:
                closers.append(_BRACKETS[self.token])
            elif self.kind == "end" or self.token in _BRACKETS.values():
                raise error
            self.next()
            if not closers and not (text and self.kind == "string"):
                break
        self.skip(",", ";")

    def parse_block(self, field: Field[Any], message: type[Message], at: int, outside: type[Message]) -> Message:
        """Parse a block, the sub-message of ``field``, whose name is at ``at`` in a message of class ``outside``."""
        closer = _CLOSER.get(self.token)
        if closer is None:
            raise self.unexpected_token(f"'{{' after {field.name!r}")
        self.spend(_MESSAGE)
        self.line += self.text.count("\n", self.counted, at)
        self.counted = at
        found = message()
        found.present, found.line = True, self.line
        self.open.append((field, at, outside))
        opened = self.start
        self.next()
        self.parse_fields(found, closer, opened)
        self.open.pop()
        self.next()
        return found

    def parse_scalar(self, field: Field[Any], sign: str) -> Any:
        """Return the value of the current token, a number or word; if invalid, a value that ``field`` rejects."""
        token, kind = self.token, field.kind
        if kind is not None and kind.dtype is not None:
            if self.kind == "number" and _REAL.fullmatch(token):
                real = float(token.rstrip("fF"))
            else:
                real = _SPECIAL.get(token.lower())  # type: ignore[assignment]
            return real if real is None or not sign else -real
        whole = None
        if self.kind == "number" and _INTEGER.fullmatch(token):
            base = 16 if token[1:2] in ("x", "X") else 8 if token[0] == "0" else 10
            whole = min(int(token[:_DIGITS] if base == 10 else token, base), _MOST)
        if field.enum:
            return sign + token if whole is None else -whole if sign else whole
        if kind is BOOL:
            return None if sign else _BOOLEANS.get(token) if whole is None else {0: False, 1: True}.get(whole)
        if whole is None or kind in (STRING, BYTES) or (sign and kind is UINT32):
            return None
        return -whole if sign else whole

    def parse_string(self, field: Field[Any]) -> str | bytes:
        """Return the string at the current token, joined with the strings that directly follow it."""
        at, parts = self.start, []
        try:
            while self.kind == "string":
                parts.append(self.unescape())
                self.next()
        except UnicodeEncodeError:
            raise self.error("the string is not UTF-8", at, remedy="Save the file as UTF-8.") from None
        data = b"".join(parts)
        # Escapes may produce bytes that are not UTF-8; they are kept, as in the reader of the wire format.
        return data if field.kind is BYTES else data.decode("utf-8", "surrogateescape")

    def unescape(self) -> bytes:
        """Return the bytes of the current token, a string in quotes, with its backslash escapes replaced."""
        body, at, parts = self.token[1:-1], 0, []
        for match in _ESCAPE.finditer(body):
            parts.append(body[at : match.start()].encode())
            at = match.end()
            if match["octal"]:
                parts.append(bytes([int(match["octal"], 8) & 255]))
            elif match["hex"]:
                parts.append(bytes([int(match["hex"], 16)]))
            elif match["plain"]:
                parts.append(bytes([_ESCAPED[match["plain"]]]))
            elif match["pair"]:
                parts.append(bytes.fromhex(match["pair"].replace("\\u", "")).decode("utf-16-be").encode())
            elif code := match["short"] or match["long"]:
                parts.append(chr(int(code, 16)).encode("utf-8", "surrogatepass"))
            else:
                raise self.error(
                    "not an escape sequence",
                    self.start + 1 + match.start(),
                    got=body[match.start() : match.start() + 2],
                    remedy="Write a backslash twice, or '/' in paths.",
                )
        parts.append(body[at:].encode())
        return b"".join(parts)

    def error(
        self, problem: str, at: int, *, got: object = None, want: object = None, remedy: str = ""
    ) -> PrototxtError:
        """Return an error whose place is the line and column of the position ``at``; see ``ReproductionError``."""
        line, column = self.line_of(at), at - self.text.rfind("\n", 0, at)
        return PrototxtError(problem, path=self.path, line=line, column=column, got=got, want=want, remedy=remedy)

    def line_of(self, at: int) -> int:
        """Return the line number of the position ``at``, counted from 1."""
        return self.text.count("\n", 0, at) + 1

    def format_token(self, sign: str = "") -> str:
        """Return the current token, after ``sign``, in quotes and cut to 40 characters, for an error."""
        if self.kind == "end":
            return "the end of the text"
        text = sign + (self.token if len(self.token) <= 40 else f"{self.token[:37]}...")
        return text if self.kind == "string" and text.isprintable() else repr(text)

    def unexpected_token(self, want: str) -> PrototxtError:
        """Return the error for a current token that is not allowed here; ``want`` says in words what is."""
        return self.error("unexpected text", self.start, got=self.format_token(), want=want)

    def character_error(self) -> PrototxtError:
        """Return the error for a current character that cannot begin a token."""
        if self.token in "\"'":
            return self.error("the string that opens here is not closed on its line", self.start)
        if self.token.isalpha() and self.token.isascii():
            return self.error("a name is too long", self.start, want="at most 256 characters")
        remedy = "Comments begin with '#'." if self.token == "/" else ""
        if not self.token.isascii():
            remedy = "Outside of strings and comments a prototxt is plain ASCII."
        return self.error("unexpected character", self.start, got=ascii(self.token), remedy=remedy)

    def field_name_error(self, closer: str, opened: int) -> PrototxtError:
        """Return the error for a current token that is neither a field name nor ``closer``, the end of the block."""
        if not self.open:
            stray = self.token in _CLOSER.values()
            return self.unexpected_token("a field name; no block is open here" if stray else "a field name")
        field, at, _ = self.open[-1]
        if self.kind == "end":
            return self.error(f"the block {field.name!r} that opens here is not closed", at)
        if self.token in _CLOSER.values():
            return self.unexpected_token(f"{closer!r}, to match {self.text[opened]!r} of line {self.line_of(opened)}")
        return self.unexpected_token(f"a field name or {closer!r}")

    def find_block(self, name: str) -> tuple[Field[Any], int, type[Message]] | None:
        """Return the innermost open block for which the enclosing message has a field ``name``, or None.

        Returns:
            The field of the block, the position of the field's name, and the class of the enclosing message.
        """
        return next((block for block in reversed(self.open) if name in block[2].fields), None)

    def unknown_field_error(
        self, cls: type[Message], outside: tuple[Field[Any], int, type[Message]] | None
    ) -> PrototxtError:
        """Return the error for the current token, which is not a field of ``cls``, with the most likely remedy.

        ``outside`` is what ``find_block`` returns for the token: a block that was perhaps not closed.
        """
        name = self.token
        inside = [field.name for field in cls.fields.values() if field.message and name in field.message.fields]
        if (cls.__name__, name) in _REMEDY:
            remedy = _REMEDY[cls.__name__, name]
        elif outside is not None:
            field, at, message = outside
            where = f"the block {field.name!r} of line {self.line_of(at)}"
            remedy = f"It is a field of {message.__name__}: is {where} closed?"
        elif 0 < len(inside) < 4:
            remedy = f"It belongs inside {' or '.join(map(repr, inside))}."
        else:
            remedy = spelling_hint(name, cls.fields)
            if name.endswith("_param"):
                remedy += " Otherwise, it is a field of a fork of Caffe." if remedy else "A fork of Caffe may have it."
        return self.error(f"unknown field {name!r} in {cls.__name__}", self.start, remedy=remedy)

    def value_remedy(self, field: Field[Any], near: str) -> str:
        """Return a remedy for the current token, a wrong value of ``field``; if no other fits, the hint ``near``."""
        place = f"{field.owner}.{field.name}"
        if field.enum and self.kind == "string":
            other = ", or write 'layer' for 'layers'" if place == "V1LayerParameter.type" else ""
            return f"Write it without quotes{other}."
        if field.kind is STRING and self.kind == "word":
            other = ", or write 'layers' for 'layer'" if place == "LayerParameter.type" else ""
            return f"Write it in quotes{other}."
        if field.kind and field.kind.dtype and _INTEGER.fullmatch(self.token):
            return "Write it in decimal."
        if place == "V1LayerParameter.type":
            return near or "Newer types are written 'layer { type: \"Name\" }'."
        return near


def _empty_container(field: Field[Any]) -> Any:
    """Return an empty container for the values of a repeated field."""
    if field.message:
        return MessageList(field.message)
    return array.array(field.kind.dtype.char) if field.array and field.kind and field.kind.dtype else []
