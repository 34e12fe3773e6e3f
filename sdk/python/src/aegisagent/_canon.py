"""`aegis-jcs-1`: RFC 8785, refusing what RFC 8785 implementations disagree on.

Values are `None`, `bool`, `int`, `float`, `str`, lists and tuples, and dicts with string keys.
There is never a best effort: two values that both fail must not end up with the same bytes.
"""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring
from typing import Any

CANON_VERSION = "aegis-jcs-1"
MAX_DEPTH = 64
"""Nesting of arrays and objects; the outermost container is depth 1."""
MAX_BYTES = 1024 * 1024
"""Size of the canonical bytes, and of the text that a strict parse accepts."""
MAX_SAFE_INTEGER = 2**53 - 1
"""Beyond it an IEEE double no longer tells neighbours apart."""
BULK_THRESHOLD = 64 * 1024
"""Strings of more UTF-8 bytes than this are replaced by their digest in an action."""
RESERVED = ("$bulk", "$stream")


class CanonError(ValueError):
    """Why a value has no canonical form; `reason` is the word that every implementation uses."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def canonicalize(value: Any) -> bytes:
    """The canonical bytes of a value, at most `MAX_BYTES`."""
    return bounded(Writer(fold=False).text(value))


def bounded(text: str) -> bytes:
    """UTF-8 of canonical text within the bound."""
    raw = encoded(text)
    if len(raw) > MAX_BYTES:
        raise too_large()
    return raw


def sha256_hex(raw: bytes) -> str:
    """Lowercase hex SHA-256."""
    return hashlib.sha256(raw).hexdigest()


class Writer:
    """Writes canonical text. With `fold`, long strings become digests and reserved keys are refused."""

    def __init__(self, *, fold: bool, limit: int = MAX_BYTES) -> None:
        self.folded = False
        self._fold = fold
        self._limit = limit

    def text(self, value: Any, depth: int = 0) -> str:
        """The canonical text of a value that stands `depth` containers deep."""
        out: list[str] = []
        self._value(value, depth, out)
        return "".join(out)

    def _value(self, value: Any, depth: int, out: list[str]) -> None:
        if isinstance(value, str):
            # A subclass (a string enum) stands for the text it holds.
            self._string(str.__str__(value), depth, out)
        elif value is True:
            out.append("true")
        elif value is False:
            out.append("false")
        elif value is None:
            out.append("null")
        elif isinstance(value, int):
            out.append(_integer(value))
        elif isinstance(value, float):
            out.append(_float(value))
        elif isinstance(value, dict):
            self._object(value, deeper(depth), out)
        elif isinstance(value, (list, tuple)):
            self._array(value, deeper(depth), out)
        else:
            raise CanonError("type", f"a value of type `{type(value).__name__}` is no JSON value")

    def _string(self, value: str, depth: int, out: list[str]) -> None:
        if self._fold and len(value) * 4 > BULK_THRESHOLD:
            raw = encoded(value)
            if len(raw) > BULK_THRESHOLD:
                deeper(deeper(depth))
                self.folded = True
                out.append(f'{{"$bulk":{{"bytes":{len(raw)},"sha256":"{sha256_hex(raw)}"}}}}')
                return
        out.append(encode_basestring(value))

    def _array(self, items: Any, depth: int, out: list[str]) -> None:
        out.append("[")
        for at, item in enumerate(items):
            if at:
                out.append(",")
            # Every part is a byte at least, so a hostile value cannot make us build far more than the bound.
            if len(out) > self._limit:
                raise too_large()
            self._value(item, depth, out)
        out.append("]")

    def _object(self, members: dict[Any, Any], depth: int, out: list[str]) -> None:
        for key in members:
            if not isinstance(key, str):
                raise CanonError("type", f"a key of type `{type(key).__name__}` is no string")
            if self._fold and key in RESERVED:
                raise CanonError("reserved_key", f"reserved key `{key}`")
        keys = sorted(members)
        check_order(keys)
        out.append("{")
        for at, key in enumerate(keys):
            if at:
                out.append(",")
            if len(out) > self._limit:
                raise too_large()
            out.append(encode_basestring(str.__str__(key)))
            out.append(":")
            self._value(members[key], depth, out)
        out.append("}")


def encoded(text: str) -> bytes:
    """UTF-8; a lone surrogate is no text."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise CanonError("syntax", "a lone surrogate is no Unicode text") from None


def check_order(keys: list[str]) -> None:
    """`keys` by code point, which must be their order by UTF-16 unit too (RFC 8785 sorts by the latter)."""
    if all(key.isascii() for key in keys):
        return
    if sorted(keys, key=_utf16) != keys:
        raise CanonError("ambiguous_order", "keys of one object sort differently by UTF-16 unit and by code point")


def deeper(depth: int) -> int:
    """One level down, where that is still within the bound."""
    if depth >= MAX_DEPTH:
        raise CanonError("too_deep", f"nested deeper than {MAX_DEPTH} levels")
    return depth + 1


def too_large(limit: int = MAX_BYTES) -> CanonError:
    """The value or the text is over its bound."""
    return CanonError("too_large", f"larger than {limit} bytes")


def number_range() -> CanonError:
    """The number is not one that every language reads alike."""
    return CanonError("number_range", "number beyond ±(2^53-1)")


def _integer(value: int) -> str:
    if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        raise number_range()
    return int.__repr__(value)


def _float(value: float) -> str:
    """As ECMAScript prints it (RFC 8785 section 3.2.2.3). Python finds the same shortest digits."""
    if not abs(value) <= MAX_SAFE_INTEGER:
        raise number_range()
    if value == int(value):
        return str(int(value))
    text = float.__repr__(value)
    if "e" not in text:
        return text
    digits, _, power = text.partition("e")
    exponent = int(power)
    if exponent < -6:
        return f"{digits}e{exponent}"
    # Python turns to exponents below 1e-4, ECMAScript below 1e-6.
    sign = "-" if digits.startswith("-") else ""
    return f"{sign}0.{'0' * (-exponent - 1)}{digits.lstrip('-').replace('.', '')}"


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")
