"""One leaf after the other: what the log and a bundle both demand of leaf bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from .._canon import MAX_DEPTH, CanonError, canonicalize, sha256_hex
from .._strict import parse_strict
from ._report import Broken

TYPES = ("intent.v1", "outcome.v1", "outcomes.v1", "refused.v1", "event.v1", "recovered.v1")
GENESIS = "0" * 64


@dataclass
class LeafView:
    """The members of a leaf that link it. Strings are the raw text between the quotes."""

    value: dict[str, Any]
    type_name: str
    node: str
    seq: int
    ts: int
    prev: str

    @classmethod
    def read(cls, raw: bytes) -> LeafView:
        """Checks that the bytes are canonical JSON with the members every leaf has."""
        value = canonical_object(raw)
        seq, ts = unsigned(value.get("seq")), value.get("ts")
        if seq is None:
            raise Broken("`seq` is missing or no number")
        if not isinstance(ts, int) or isinstance(ts, bool):
            raise Broken("`ts` is missing or no number")
        type_name = raw_text(value.get("type")) or ""
        if type_name not in TYPES:
            raise Broken(f"unknown type `{type_name}`")
        node, prev = raw_text(value.get("node")) or "", raw_text(value.get("prev_receipt_hash")) or ""
        if not node or len(prev.encode("utf-8")) != 64:
            raise Broken("`node` or `prev_receipt_hash` is missing")
        return cls(value, type_name, node, seq, ts, prev)


@dataclass
class Chain:
    """The end of a chain."""

    node: str | None = None
    next_seq: int = 0
    last_hash: str = GENESIS
    last_ts: int = 0

    def check(self, view: LeafView) -> None:
        """Whether a leaf is the next one."""
        if view.seq != self.next_seq:
            raise Broken(f"its `seq` is {view.seq}, expected {self.next_seq}")
        if view.prev != self.last_hash:
            raise Broken("its `prev_receipt_hash` is not the hash of the leaf before it")
        if self.node is not None and self.node != view.node:
            raise Broken(f"its `node` is `{view.node}`, expected `{self.node}`")

    def advance(self, raw: bytes, view: LeafView) -> str:
        """Goes on behind a checked leaf and gives its hash."""
        if self.node is None:
            self.node = view.node
        self.next_seq += 1
        self.last_hash = sha256_hex(raw)
        self.last_ts = view.ts
        return self.last_hash


def canonical_object(raw: bytes) -> dict[str, Any]:
    """The object that canonical bytes are."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Broken("not UTF-8") from None
    if not text.startswith("{"):
        raise Broken("not a JSON object")
    value = _plainly_canonical(raw, text)
    if value is None:
        try:
            value = parse_strict(raw)
            if canonicalize(value) != raw:
                raise Broken("not in canonical form")
        except CanonError as error:
            raise Broken(str(error)) from None
    if not isinstance(value, dict):
        raise Broken("not a JSON object")
    return value


def _plainly_canonical(raw: bytes, text: str) -> Any:
    """The value of what is canonical beyond doubt, fast: the interpreter's own writer gives the same text.

    It would not for fractions, large numbers and keys beyond ASCII, nor does it mind depth. Those are left to
    the slow way.
    """
    if not raw.isascii() or raw.count(b"{") + raw.count(b"[") > MAX_DEPTH or _LONG_NUMBER.search(raw):
        return None
    try:
        value = _DECODER.decode(text)
    except ValueError:
        return None
    return value if _ENCODER.encode(value) == text else None


def raw_text(value: Any) -> str | None:
    """A string as it stands in canonical text, without its quotes; `None` for other values."""
    return encode_basestring(value)[1:-1] if isinstance(value, str) else None


def unsigned(value: Any) -> int | None:
    """A whole number that is not negative."""
    return value if _is_integer(value) and value >= 0 else None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def objects(value: Any) -> list[Any] | None:
    """The items of an array."""
    return value if isinstance(value, list) else None


_DECODER = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse)
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)
_LONG_NUMBER = re.compile(rb"[:\[,]-?[0-9]{16}")
