"""The vectors of tests/vectors in every language, and calls whose hash all of them have to find."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

import answers
import sdks
from harness import environment
from vectors.test_vectors import bytes_of

FOLDER = environment.TESTS / "vectors"
ACCEPTED = json.loads((FOLDER / "accepted.json").read_text())
REFUSED = json.loads((FOLDER / "refused.json").read_text())


def languages() -> list[Any]:
    """The SDKs and the gateway's own."""
    excuse = sdks.without_canon_lines()
    return [*sdks.names(), pytest.param("rust", marks=[pytest.mark.skip(reason=excuse)] if excuse else [])]


RUNNING: dict[str, sdks.Driver] = {}


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    for each in RUNNING.values():
        each.stop()
    RUNNING.clear()


def ask(name: str, **order: Any) -> dict[str, Any]:
    if name not in RUNNING:
        RUNNING[name] = sdks.Driver(name)
    return RUNNING[name].ask({"id": "1", **order})


def canon(name: str, text: bytes) -> dict[str, Any]:
    return ask(name, op="canon", text_b64=base64.b64encode(text).decode())


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda v: v["name"])
@pytest.mark.parametrize("name", languages())
def test_accepted(name: str, vector: dict[str, Any]) -> None:
    answer = canon(name, bytes_of(vector))
    assert (answer["id"], answer["ok"], answer["sha256"]) == ("1", True, vector["sha256"]), answer


@pytest.mark.parametrize("vector", REFUSED, ids=lambda v: f"{v['reason']} {v['name']}")
@pytest.mark.parametrize("name", languages())
def test_refused(name: str, vector: dict[str, Any]) -> None:
    answer = canon(name, bytes_of(vector))
    assert (answer["id"], answer["ok"], answer["reason"]) == ("1", False, vector["reason"]), answer
    assert "sha256" not in answer


def call(**changes: Any) -> dict[str, Any]:
    return {
        "tool": "github", "action": "merge_pull_request", "resource": "octo/payments#482", "mutates_state": True,
        "parameters": {}, **changes,
    }  # fmt: skip


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


HASHED = {
    "nothing": call(),
    "no resource": call(resource=None),
    "a read": call(mutates_state=False),
    "values of each kind": call(parameters={"a": None, "b": [True, 0.5, -0.0, "é\u2028"], "": {"x": 1}}),
    "65,536 bytes": call(parameters={"t": "x" * 65_536}),
    "65,537 bytes": call(parameters={"t": "x" * 65_537}),
    "65,538 bytes of umlauts": call(parameters={"t": "ä" * 32_769}),
    "65,540 bytes of surrogate pairs": call(parameters={"t": "😀" * 16_385}),
    "long strings in lists": call(parameters={"t": [["y" * 70_000, "y"], {"z": "z" * 70_000}]}),
    "over 1 MiB, folded": call(parameters={"t": "x" * 1_100_000}),
    "a long key is no bulk": call(parameters={"k" * 70_000: 1}),
    "as deep as it may be": call(parameters={"d": nested(62)}),
    "a resource of 2,048 characters": call(resource="ö" * 2048),
    "a name of 128 characters": call(action="a" * 128),
    "a name of all kinds": call(tool="A-z_0.9"),
}
UNHASHED = {
    "reserved_key": [call(parameters={"$bulk": {}}), call(parameters={"a": [{"$stream": 1}]}), call(parameters={"a": {"$bulk": 1}})],
    "too_deep": [call(parameters={"d": nested(63)})],
    "too_large": [call(parameters={"t": ["x" * 60_000] * 18})],
    "number_range": [call(parameters={"n": 2**53}), call(parameters={"n": [-1e300]})],
    "ambiguous_order": [call(parameters={"o": {"\uffff": 1, "😀": 2}})],
    # How these are called is each language's own matter.
    None: [
        call(tool=""), call(tool="a b"), call(action="a/b"), call(action="ä"), call(action="a" * 129), call(resource=""),
        call(resource="a\nb"), call(resource="a\x7f"), call(resource="a\x85"), call(resource="x" * 2049), call(resource=5), call(mutates_state=1),
        call(parameters=[]), call(extra=1), {k: v for k, v in call().items() if k != "resource"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("title", HASHED)
@pytest.mark.parametrize("name", languages())
def test_a_call_has_its_hash(name: str, title: str) -> None:
    answer = ask(name, op="hash_call", tool_call=HASHED[title])
    assert (answer["ok"], answer["sha256"]) == (True, answers.hash_of(HASHED[title])), answer


@pytest.mark.parametrize("reason, number", [(r, n) for r, calls in UNHASHED.items() for n in range(len(calls))])
@pytest.mark.parametrize("name", languages())
def test_a_call_without_canonical_form_has_none(name: str, reason: str | None, number: int) -> None:
    answer = ask(name, op="hash_call", tool_call=UNHASHED[reason][number])
    assert answer["ok"] is False and "sha256" not in answer, answer
    assert reason is None or answer["reason"] == reason
