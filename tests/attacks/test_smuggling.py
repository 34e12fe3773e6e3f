"""A canary behind every framing case on the same connection: the origin must never see one request too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.target import Target, attacked
from harness import attackfile, raw
from harness.attackfile import Case

HERE = Path(__file__).resolve().parent
CANARY_PATH = "/repos/octo/canary/issues"
INGRESSES = attackfile.PLAIN

CASES = [
    case
    for name in ("framing.txt", "advisories.txt")
    for case in attackfile.parse(HERE / name)
    if not case.tunnel and "api" not in case.ingresses
]
RUNS = [(case, ingress) for case in CASES for ingress in case.ingresses if ingress in INGRESSES]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("smuggling")) as running:
        yield running


def canary(target: Target, ingress: str, path: str = CANARY_PATH) -> bytes:
    values = target.values[ingress]
    head = f"GET {values['p']}{path} HTTP/1.1\r\nHost: {values['h']}\r\nAuthorization: Bearer {values['t']}\r\n"
    return f"{head}\r\n".encode()


def said(target: Target, ingress: str, data: bytes) -> bytes:
    """Everything the gateway says to it before it ends the connection."""
    link = target.enter(ingress)
    try:
        return raw.drain(link, data, 15)
    finally:
        link.close()


@pytest.mark.binary
@pytest.mark.parametrize("ingress", INGRESSES)
def test_clean_requests_are_as_many_as_were_sent(target: Target, ingress: str) -> None:
    """Otherwise nothing behind a case could ever arrive. A second one in the same write may be left unread."""
    before = target.origin.mark()
    said(target, ingress, canary(target, ingress, "/user") + canary(target, ingress))
    assert [seen.path for seen in target.origin.since(before)[1]] in (["/user"], ["/user", CANARY_PATH])
    link = target.enter(ingress)
    before = target.origin.mark()
    assert raw.converse(link, canary(target, ingress, "/user"), 10).status == 200
    assert raw.converse(link, canary(target, ingress), 10).status == 200
    link.close()
    assert [seen.path for seen in target.origin.since(before)[1]] == ["/user", CANARY_PATH]


@pytest.mark.binary
@pytest.mark.parametrize("together", [True, False], ids=["pipelined", "after-the-answer"])
@pytest.mark.parametrize("case, ingress", RUNS, ids=[f"{case.name}-{ingress}" for case, ingress in RUNS])
def test_nothing_rides_behind(target: Target, case: Case, ingress: str, together: bool) -> None:
    data, before = case.bytes(target.values[ingress]), target.origin.mark()
    link = target.enter(ingress)
    try:
        if together:
            answer = raw.drain(link, data + canary(target, ingress), 15)
        else:
            answer = raw.converse(link, data, 15, half_close=case.closes).raw
            answer += raw.drain(link, canary(target, ingress), 15)
    finally:
        link.close()
    arrived = [(seen.method, seen.path) for seen in target.origin.since(before)[1]]
    told = f"{case.file}:{case.line} {case.why}\ngot {answer[:800]!r}"
    # Where the end of the case is in doubt, what stands behind it is not read. Where the case was refused
    # for what it asks, the canary is the request it looks like, once.
    allowed = [[]] if case.closes else [[], [("GET", CANARY_PATH)]]
    assert arrived in allowed, f"{told}\nthe origin saw {arrived}"
    assert target.origin.violations == [], told
