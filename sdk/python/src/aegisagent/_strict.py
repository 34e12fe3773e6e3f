"""JSON text to values, refusing whatever has no canonical form.

Two ways lead to the same answer. The interpreter's own decoder accepts what is plainly good; whatever it
does not accept is read again, byte by byte, by a parser that stops at the first fault in the order of the
text, as the gateway's does, and words it as the gateway does.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ._canon import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_SAFE_INTEGER,
    CanonError,
    check_order,
    deeper,
    number_range,
    too_large,
)


def parse_strict(text: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """One JSON value of at most `max_bytes`; a `CanonError` says what is wrong with it."""
    if len(text) > max_bytes:
        raise too_large(max_bytes)
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH and not _SURROGATE_ESCAPE.search(text):
        try:
            return _DECODER.decode(text.decode("utf-8"))
        except ValueError:
            pass
    return _Reader(text).whole()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    check_order(sorted(members))
    return members


def _integer(digits: str) -> int:
    # Longer ones are out of range whatever they say; converting them would take quadratic time.
    if len(digits) > 17 or abs(value := int(digits)) > MAX_SAFE_INTEGER:
        raise number_range()
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not abs(value) <= MAX_SAFE_INTEGER:
        raise number_range()
    return value


def _constant(word: str) -> Any:
    raise ValueError(word)


class _Reader:
    """A recursive-descent parser of RFC 8259 that remembers nothing but its place."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> Any:
        value = self._value(0)
        self._blanks()
        if self._at < len(self._text):
            raise self._before("trailing characters")
        return value

    def _value(self, depth: int) -> Any:
        self._blanks()
        first = self._peek()
        if first == b"":
            raise self._before("EOF while parsing a value")
        if first == b"{":
            return self._object(deeper(depth))
        if first == b"[":
            return self._array(deeper(depth))
        if first == b'"':
            self._at += 1
            return self._string()
        if first in _WORDS:
            word, value = _WORDS[first]
            self._word(word)
            return value
        if first == b"-" or first.isdigit():
            return self._number()
        raise self._before("expected value")

    def _object(self, depth: int) -> dict[str, Any]:
        self._at += 1
        members: dict[str, Any] = {}
        first = True
        while True:
            self._blanks()
            byte = self._peek()
            if byte == b"":
                raise self._before("EOF while parsing an object")
            if byte == b"}":
                break
            if not first:
                if byte != b",":
                    raise self._before("expected `,` or `}`")
                self._at += 1
                self._blanks()
                byte = self._peek()
                if byte == b"}":
                    raise self._before("trailing comma")
                if byte == b"":
                    raise self._before("EOF while parsing a value")
            if byte != b'"':
                raise self._before("key must be a string")
            first = False
            self._at += 1
            key = self._string()
            if key in members:
                raise CanonError("duplicate_key", f"duplicate key `{key}`")
            self._colon()
            members[key] = self._value(depth)
        check_order(sorted(members))
        self._at += 1
        return members

    def _colon(self) -> None:
        self._blanks()
        byte = self._peek()
        if byte == b"":
            raise self._before("EOF while parsing an object")
        if byte != b":":
            raise self._before("expected `:`")
        self._at += 1

    def _array(self, depth: int) -> list[Any]:
        self._at += 1
        items: list[Any] = []
        while True:
            self._blanks()
            byte = self._peek()
            if byte == b"":
                raise self._before("EOF while parsing a list")
            if byte == b"]":
                self._at += 1
                return items
            if items:
                if byte != b",":
                    raise self._before("expected `,` or `]`")
                self._at += 1
                self._blanks()
                byte = self._peek()
                if byte == b"]":
                    raise self._before("trailing comma")
                if byte == b"":
                    raise self._before("EOF while parsing a value")
            items.append(self._value(depth))

    def _string(self) -> str:
        """From behind the opening quote."""
        raw = b""
        while True:
            plain = _PLAIN.match(self._text, self._at)
            assert plain is not None  # noqa: S101 - it matches nothing at least
            raw += plain.group()
            self._at = plain.end()
            byte = self._next("EOF while parsing a string")
            if byte == b'"':
                break
            if byte != b"\\":
                raise self._here("control character (\\u0000-\\u001F) found while parsing a string")
            raw += self._escape()
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._here("invalid unicode code point", back=len(raw) - error.start) from None

    def _escape(self) -> bytes:
        byte = self._next("EOF while parsing a string")
        if byte != b"u":
            if byte not in _ESCAPES:
                raise self._here("invalid escape")
            return _ESCAPES[byte]
        unit = self._hex()
        if 0xDC00 <= unit <= 0xDFFF:
            raise self._here("lone leading surrogate in hex escape")
        if 0xD800 <= unit <= 0xDBFF:
            for expected in (b"\\", b"u"):
                if self._next("EOF while parsing a string") != expected:
                    raise self._here("unexpected end of hex escape")
            low = self._hex()
            if not 0xDC00 <= low <= 0xDFFF:
                raise self._here("lone leading surrogate in hex escape")
            unit = ((unit - 0xD800) << 10 | (low - 0xDC00)) + 0x10000
        return chr(unit).encode("utf-8")

    def _hex(self) -> int:
        digits = self._text[self._at : self._at + 4]
        self._at += len(digits)
        if len(digits) < 4:
            raise self._here("EOF while parsing a string")
        if not _HEX.fullmatch(digits):
            raise self._here("invalid escape")
        return int(digits, 16)

    def _word(self, word: bytes) -> None:
        for expected in word:
            if self._next("EOF while parsing a value") != bytes((expected,)):
                raise self._here("expected ident")

    def _number(self) -> Any:
        start = self._at
        if self._peek() == b"-":
            self._at += 1
        first = self._next("EOF while parsing a value")
        if not first.isdigit():
            raise self._here("invalid number")
        if first == b"0" and self._peek().isdigit():
            raise self._before("invalid number")
        self._digits()
        whole = True
        if self._peek() == b".":
            whole = False
            self._at += 1
            if not self._digits():
                raise self._before("invalid number" if self._peek() else "EOF while parsing a value")
        if self._peek() in (b"e", b"E"):
            whole = False
            self._at += 1
            if self._peek() in (b"+", b"-"):
                self._at += 1
            if not self._next("EOF while parsing a value").isdigit():
                raise self._here("invalid number")
            self._digits()
        token = self._text[start : self._at].decode("ascii")
        return _integer(token) if whole else _float(token)

    def _digits(self) -> bool:
        start = self._at
        while self._peek().isdigit():
            self._at += 1
        return self._at > start

    def _blanks(self) -> None:
        while self._peek() in (b" ", b"\n", b"\t", b"\r"):
            self._at += 1

    def _peek(self) -> bytes:
        return self._text[self._at : self._at + 1]

    def _next(self, at_the_end: str) -> bytes:
        byte = self._peek()
        if byte == b"":
            raise self._here(at_the_end)
        self._at += 1
        return byte

    def _here(self, what: str, back: int = 0) -> CanonError:
        return self._fault(what, self._at, back)

    def _before(self, what: str) -> CanonError:
        return self._fault(what, min(len(self._text), self._at + 1), 0)

    def _fault(self, what: str, at: int, back: int) -> CanonError:
        line_start = self._text.rfind(b"\n", 0, at) + 1
        line = self._text.count(b"\n", 0, line_start) + 1
        column = max(0, at - line_start - back)
        return CanonError("syntax", f"not valid JSON: {what} at line {line} column {column}")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_WORDS: dict[bytes, tuple[bytes, Any]] = {b"n": (b"null", None), b"t": (b"true", True), b"f": (b"false", False)}
_ESCAPES = {
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}
