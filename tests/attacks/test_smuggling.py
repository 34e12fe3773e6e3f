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


JUDGED = b'{"title":"a"}'
# Spellings of chunks that one parser reads otherwise than the next (extensions above all). What the
# gateway takes it sends in a spelling of its own; what it does not take it refuses.
CHUNKS = {
    "extension": b"d;a=b\r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "extension-with-return": b"d;a\rb\r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "extension-with-newline": b"d;a\nb\r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "extension-in-open-quotes": b'd;a="\r\n' + JUDGED + b'\r\n0\r\n\r\n"',
    "extension-too-long": b"d;" + b"a" * 20_000 + b"\r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "newline-after-size": b"d\n" + JUDGED + b"\r\n0\r\n\r\n",
    "newline-after-data": b"d\r\n" + JUDGED + b"\n0\r\n\r\n",
    "newline-at-the-end": b"d\r\n" + JUDGED + b"\r\n0\r\n\n",
    "zeros-in-front": b"0000000d\r\n" + JUDGED + b"\r\n00\r\n\r\n",
    "capital-size": b"D\r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "blank-after-size": b"d \r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "blank-before-size": b" d\r\n" + JUDGED + b"\r\n0\r\n\r\n",
    "last-with-extension": b"d\r\n" + JUDGED + b"\r\n0;a=b\r\n\r\n",
    "trailer": b"d\r\n" + JUDGED + b"\r\n0\r\nX-Note: evil\r\n\r\n",
    "trailer-that-frames": b"d\r\n" + JUDGED + b"\r\n0\r\nContent-Length: 999\r\nX-Note: evil\r\n\r\n",
    "trailer-with-credential": b"d\r\n" + JUDGED + b"\r\n0\r\nAuthorization: Bearer evil\r\n\r\n",
}


@pytest.mark.binary
@pytest.mark.parametrize("ingress", ["host", "forward", "connect"])
@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_are_sent_as_they_were_judged(target: Target, ingress: str, name: str) -> None:
    values, before = target.values[ingress], target.origin.mark()
    head = f"POST {values['p']}/repos/octo/hello/issues HTTP/1.1\r\nHost: {values['h']}\r\nAuthorization: Bearer "
    head += f"{values['t']}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    link = target.enter(ingress)
    answer = raw.drain(link, head.encode() + CHUNKS[name] + canary(target, ingress), 15)
    link.close()
    seen = target.origin.since(before)[1]
    told = f"got {answer[:600]!r}\nthe origin saw {seen}"
    assert [request.method for request in seen] in ([], ["POST"], ["POST", "GET"]), told
    assert all(request.body == JUDGED for request in seen[:1]), told
    assert all(request.path == CANARY_PATH for request in seen[1:]), told
    assert not any(b"evil" in request.raw for request in seen), told
    assert target.origin.violations == [], told
