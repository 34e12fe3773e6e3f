"""The committed aegis-jcs-1 vectors, against an RFC 8785 implementation we did not write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785

HERE = Path(__file__).resolve().parent
ACCEPTED = json.loads((HERE / "accepted.json").read_text())
REFUSED = json.loads((HERE / "refused.json").read_text())
LIMIT = 2**53 - 1


def bytes_of(vector: dict[str, Any]) -> bytes:
    if "make" in vector:
        made = vector["make"]
        return (made["prefix"] + made["repeat"] * made["count"] + made["suffix"]).encode()
    return bytes.fromhex(vector["hex"]) if "hex" in vector else vector["input"].encode()


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda v: v["name"])
def test_accepted_vectors_are_what_rfc_8785_says(vector: dict[str, Any]) -> None:
    canonical = rfc8785.dumps(json.loads(bytes_of(vector)))
    assert hashlib.sha256(canonical).hexdigest() == vector["sha256"]
    if "canonical" in vector:
        assert canonical.decode() == vector["canonical"]
    assert why_refused(bytes_of(vector)) is None


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda v: v["name"])
def test_sorting_by_code_point_gives_the_same_bytes(vector: dict[str, Any]) -> None:
    """The original definition sorted by code point; whatever is accepted must not tell the two apart."""
    value = json.loads(bytes_of(vector), object_pairs_hook=lambda pairs: dict(sorted(pairs)))
    assert hashlib.sha256(in_own_order(value)).hexdigest() == vector["sha256"]


@pytest.mark.parametrize("vector", REFUSED, ids=lambda v: f"{v['reason']} {v['name']}")
def test_refused_vectors_are_wrong_in_the_way_they_say(vector: dict[str, Any]) -> None:
    assert why_refused(bytes_of(vector)) == vector["reason"]


def test_the_known_answer_is_among_them() -> None:
    known = [v["sha256"] for v in ACCEPTED if v["name"].startswith("known answer")]
    assert set(known) == {"6e729c788f908c95e564d246353ceeee0895630175d19ee34b06fdec32f2cc60"}


def test_the_files_are_up_to_date() -> None:
    from vectors import make

    assert ACCEPTED == make.accepted()
    assert REFUSED == make.refused()


def in_own_order(value: Any) -> bytes:
    """RFC 8785 for scalars, members in the order they have."""
    if isinstance(value, dict):
        return b"{" + b",".join(rfc8785.dumps(k) + b":" + in_own_order(v) for k, v in value.items()) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(in_own_order, value)) + b"]"
    return rfc8785.dumps(value)


class Refused(ValueError):
    """Carries a reason."""


def why_refused(text: bytes) -> str | None:
    """The rules once more, in another language than the gateway's, for checking the vectors."""
    if len(text) > 1024 * 1024:
        return "too_large"
    try:
        depth = nesting(text)
        if depth > 64:
            return "too_deep"
        json.loads(
            text.decode("utf-8"),
            object_pairs_hook=members,
            parse_constant=constant,
            parse_int=number,
            parse_float=number,
        )
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # lone surrogates
    except Refused as refused:
        return str(refused)
    except (ValueError, RecursionError):
        return "syntax"
    return None


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise Refused("duplicate_key")
    if any("\ud800" <= c <= "\udfff" for key in keys for c in key):
        raise ValueError("lone surrogate")
    if sorted(keys) != sorted(keys, key=lambda key: key.encode("utf-16-be")):
        raise Refused("ambiguous_order")
    return dict(pairs)


def number(text: str) -> float:
    if not abs(float(text)) <= LIMIT or (text.lstrip("-").isdigit() and abs(int(text)) > LIMIT):
        raise Refused("number_range")
    return float(text)


def constant(text: str) -> float:
    raise ValueError(text)


def nesting(text: bytes) -> int:
    """Depth of brackets outside strings; the interpreter's own recursion would end sooner."""
    depth = deepest = 0
    inside = escaped = False
    for byte in text:
        if inside:
            inside, escaped = escaped or byte != 0x22, not escaped and byte == 0x5C
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
