"""Differential: 100,000 random texts, sound and unsound, and no implementation disagrees with another.

AEGIS_FUZZ=1000000 AEGIS_FUZZ_SEED=7 pytest sdk-contract/test_fuzz.py       more of them, or others
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import json
import os
import subprocess
import threading
from typing import Any

import pytest
import rfc8785

import answers
import sdks
from texts import Texts

COUNT = int(os.environ.get("AEGIS_FUZZ", "100000"))
SEED = int(os.environ.get("AEGIS_FUZZ_SEED", "20261124"))
SECONDS = 60 * max(1, COUNT // 100_000)


@pytest.fixture(scope="module")
def texts() -> list[tuple[bytes, str | None]]:
    source = Texts(SEED)
    return [source.next() for _ in range(COUNT)]


def chosen() -> list[str]:
    return [*sdks.names(), *(["rust"] if sdks.canon_lines().is_file() else [])]


@pytest.fixture(scope="module")
def told(texts: list[tuple[bytes, str | None]]) -> dict[str, list[str]]:
    """What each language says of each text: a hash, or a reason."""
    lines = b"".join(
        b'{"op":"canon","id":%d,"text_b64":"%b"}\n' % (number, base64.b64encode(text))
        for number, (text, _) in enumerate(texts)
    )
    return of_all(lines, COUNT)


def of_all(lines: bytes, count: int) -> dict[str, list[str]]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(chosen(), pool.map(lambda name: said(name, lines, count), chosen()), strict=True))


def said(name: str, lines: bytes, count: int) -> list[str]:
    process = subprocess.Popen(
        sdks.command(name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=sdks.surroundings(),
    )
    timer = threading.Timer(SECONDS * 3, process.kill)
    timer.start()
    try:
        out, _ = process.communicate(lines)
    finally:
        timer.cancel()
    told: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in told] == list(range(count)), f"{name} answered {len(told)} of {count}"
    return [answer["sha256"] if answer["ok"] else answer["reason"] for answer in told]


def shown(texts: list[tuple[bytes, str | None]], wrong: list[tuple[int, Any]]) -> str:
    lines = [f"{texts[number][0][:300]!r}: {what}" for number, what in wrong[:10]]
    return f"{len(wrong)} of {COUNT} (seed {SEED}):\n" + "\n".join(lines)


def test_all_languages_agree(texts: list[tuple[bytes, str | None]], told: dict[str, list[str]]) -> None:
    """Of a text that is wrong in several ways they have to agree that it is, and need not agree on the reason."""
    assert len(told) >= 2
    wrong = []
    for number, (_, reason) in enumerate(texts):
        each = {name: said[number] for name, said in told.items()}
        kinds = {(answer if len(answer) == 64 else "refused") if reason == "" else answer for answer in each.values()}
        if len(kinds) > 1:
            wrong.append((number, each))
    assert not wrong, shown(texts, wrong)


@pytest.mark.skipif(bool(sdks.without_canon_lines()), reason=sdks.without_canon_lines())
def test_rust_is_among_them(told: dict[str, list[str]]) -> None:
    assert "rust" in told, f"{sdks.canon_lines()} is not built"


def test_they_agree_with_an_implementation_that_is_not_ours(
    texts: list[tuple[bytes, str | None]], told: dict[str, list[str]]
) -> None:
    first = next(iter(told.values()))
    wrong = []
    for number, (text, reason) in enumerate(texts):
        wanted = hashlib.sha256(rfc8785.dumps(json.loads(text))).hexdigest() if reason is None else reason
        if wanted and first[number] != wanted:
            wrong.append((number, (first[number], wanted)))
    assert not wrong, shown(texts, wrong)


def test_the_texts_are_what_they_are_meant_to_be(told: dict[str, list[str]]) -> None:
    """Enough of each kind; a generator that makes only trash finds nothing."""
    first = next(iter(told.values()))
    share = {reason: first.count(reason) / COUNT for reason in set(first) if len(reason) != 64}
    assert sum(share.values()) < 0.5
    assert {"duplicate_key", "number_range", "ambiguous_order", "too_deep", "syntax"} <= set(share)
    assert min(share.values()) > 0.001, share


def test_calls_have_one_hash_in_all_languages() -> None:
    """Folding included. What refuses a call may be called otherwise in another language, where it is not its JSON."""
    source = Texts(SEED + 1)
    calls = [source.call() for _ in range(COUNT // 20)]
    orders = [{"op": "hash_call", "id": number, "tool_call": call} for number, call in enumerate(calls)]
    each = of_all(b"".join(json.dumps(order).encode() + b"\n" for order in orders), len(calls))
    wrong = []
    for number, call in enumerate(calls):
        kinds = {said[number] if len(said[number]) == 64 else "refused" for said in each.values()}
        if len(kinds) > 1 or not kinds & {"refused", answers.hash_of(call)}:
            wrong.append((number, {name: said[number] for name, said in each.items()}))
    assert not wrong, "\n".join(f"{str(calls[number])[:300]}: {what}" for number, what in wrong[:10])
    refused = sum(len(answer) != 64 for answer in next(iter(each.values())))
    assert 0.05 < refused / len(calls) < 0.7, refused
