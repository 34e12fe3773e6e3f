"""aegis-jcs-1 against the committed vectors and against an RFC 8785 implementation that is not ours."""

from __future__ import annotations

import enum
import json
import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from aegisagent import CanonError, canonicalize, parse_strict
from aegisagent._strict import _Reader
from aegisagent.action import hash_call

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    if not VECTORS.is_dir():
        return []
    loaded: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())
    return loaded


def bytes_of(vector: dict[str, Any]) -> bytes:
    if "make" in vector:
        made = vector["make"]
        return str(made["prefix"] + made["repeat"] * made["count"] + made["suffix"]).encode()
    return bytes.fromhex(vector["hex"]) if "hex" in vector else str(vector["input"]).encode()


@pytest.mark.parametrize("vector", load("accepted.json"), ids=lambda v: str(v["name"]))
def test_accepted(vector: dict[str, Any]) -> None:
    import hashlib

    assert hashlib.sha256(canonicalize(parse_strict(bytes_of(vector)))).hexdigest() == vector["sha256"]


@pytest.mark.parametrize("vector", load("refused.json"), ids=lambda v: str(v["name"]))
def test_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(CanonError) as refused:
        parse_strict(bytes_of(vector))
    assert refused.value.reason == vector["reason"]


def test_the_known_answer() -> None:
    call = {"tool": "github", "action": "merge_pull_request", "resource": "payments-service#482"}
    known = "6e729c788f908c95e564d246353ceeee0895630175d19ee34b06fdec32f2cc60"
    assert hash_call({**call, "mutates_state": True, "parameters": {"base_branch": "main"}}) == known


def test_every_double_prints_as_rfc_8785_says() -> None:
    random.seed(8785)
    for _ in range(20_000):
        value = struct.unpack("<d", random.randbytes(8))[0]
        if not math.isfinite(value) or abs(value) > 2**53 - 1:
            with pytest.raises(CanonError):
                canonicalize(value)
        else:
            assert canonicalize(value) == rfc8785.dumps(value)
    for exponent in range(-12, 16):
        for digits in ("1", "1.5", "-9.007", "123456.789"):
            value = float(f"{digits}e{exponent}")
            if abs(value) <= 2**53 - 1:
                assert canonicalize(value) == rfc8785.dumps(value)


def test_the_fast_and_the_exact_reading_agree() -> None:
    random.seed(7)
    parts = ['"', "\\", "\\u00", "\\ud83d\\ude00", "\\ud800", "é", "a", "{", "}", "[", "]", ":", ",", " ", "\n"]
    parts += ["1", "0", "-", ".", "e", "9007199254740992", "true", "null", '"a":1', '"k"', "[1,2]", '{"a":{}}']
    accepted = 0
    for _ in range(60_000):
        text = "".join(random.choices(parts, k=random.randrange(1, 9))).encode()
        results = []
        for read in (parse_strict, lambda raw: _Reader(raw).whole()):
            try:
                results.append(("value", read(text)))
            except CanonError as error:
                results.append(("fault", f"{error.reason} {error}"))
        assert results[0] == results[1], text
        accepted += results[0][0] == "value"
    assert accepted > 500


def test_what_values_of_python_stand_for() -> None:
    class Word(str, enum.Enum):
        A = "é"

    class Level(enum.IntEnum):
        HIGH = 3

    assert (
        canonicalize({"b": (1, 2.0), "a": [Word.A, Level.HIGH, True, None, -0.0]})
        == b'{"a":["\xc3\xa9",3,true,null,0],"b":[1,2]}'
    )


@pytest.mark.parametrize(
    "value, reason",
    [
        (2**53, "number_range"),
        (float("nan"), "number_range"),
        (float("inf"), "number_range"),
        (10**400, "number_range"),
        ("\ud800", "syntax"),
        ({"\ud800": 1}, "syntax"),
        ({"\uffff": 1, "\U0001f600": 2}, "ambiguous_order"),
        ({1: 2}, "type"),
        (b"bytes", "type"),
        ({1, 2}, "type"),
        ("x" * 2**20, "too_large"),
        ([0] * 2**21, "too_large"),
    ],
)
def test_what_has_no_canonical_form(value: Any, reason: str) -> None:
    with pytest.raises(CanonError) as refused:
        canonicalize(value)
    assert refused.value.reason == reason


def test_a_cycle_is_too_deep() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CanonError) as refused:
        canonicalize(endless)
    assert refused.value.reason == "too_deep"


def test_faults_are_worded_and_placed_as_the_gateway_does() -> None:
    for text, said in [
        (b'{"a" 1}', "expected `:` at line 1 column 6"),
        (b'{"a":1,}', "trailing comma at line 1 column 8"),
        (b"[1\n,2", "EOF while parsing a list at line 2 column 2"),
        (b'"a\n"', "control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"),
        (b"nul", "EOF while parsing a value at line 1 column 3"),
        (b'"\xff"', "invalid unicode code point at line 1 column 2"),
    ]:
        with pytest.raises(CanonError) as refused:
            parse_strict(text)
        assert str(refused.value) == f"not valid JSON: {said}"


@pytest.mark.parametrize("key", ["$bulk", "$stream"])
def test_reserved_keys_are_refused_in_actions(key: str) -> None:
    call = {"tool": "t", "action": "a", "resource": None, "mutates_state": False, "parameters": {"x": [{key: 1}]}}
    with pytest.raises(CanonError) as refused:
        hash_call(call)
    assert refused.value.reason == "reserved_key"
    assert canonicalize({key: 1})


@pytest.mark.parametrize(
    "change", [{"tool": ""}, {"action": "a/b"}, {"resource": ""}, {"resource": "a\x7f"}, {"more": 1}]
)
def test_calls_that_are_none(change: dict[str, Any]) -> None:
    call: dict[str, Any] = {"tool": "t", "action": "a", "resource": None, "mutates_state": False, "parameters": {}}
    with pytest.raises(CanonError):
        hash_call({**call, **change})
