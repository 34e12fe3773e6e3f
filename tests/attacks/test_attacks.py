"""Every case of the corpus, at every ingress it applies to: refused, on record, and nothing at the origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.target import Target, attacked
from harness import attackfile, doors, frames, raw, receipts
from harness.attackfile import Case

CASES = attackfile.load(Path(__file__).resolve().parent)
RUNS = [(case, ingress) for case in CASES for ingress in case.ingresses]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("attacks")) as running:
        yield running


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 400


@pytest.mark.binary
@pytest.mark.parametrize("ingress", attackfile.EVERYWHERE)
def test_a_clean_request_passes_at_every_ingress(target: Target, ingress: str) -> None:
    """Otherwise the cases would be refused for a reason of their own making."""
    values, before = target.values[ingress], target.origin.mark()
    text = f"GET {values['p']}/repos/octo/hello/issues HTTP/1.1\r\nHost: {values['h']}\r\n"
    case = Case("", 0, "clean", lines=[text + f"Authorization: Bearer {values['t']}\r\n\r\n\\"])
    answer = send(target, case, ingress)
    assert answer.status == 200, answer.raw
    assert [seen.path for seen in target.origin.since(before)[1]] == ["/repos/octo/hello/issues"]
    assert target.origin.violations == []
    target.tail.until(lambda leaves: len(leaves) >= 2, 1)


@pytest.mark.binary
@pytest.mark.parametrize("case, ingress", RUNS, ids=[f"{case.name}-{ingress}" for case, ingress in RUNS])
def test_attack(target: Target, case: Case, ingress: str) -> None:
    before = target.origin.mark()
    target.tail.new()
    answer = send(target, case, ingress)

    framed = bool(case.framed) and ingress in FRAMED
    expected = 1 if case.receipt == "deny" else 0
    denials = target.denials(expected)
    arrived, requests = target.origin.since(before)
    sent = case.bytes(target.values[ingress])
    told = f"{case.file}:{case.line} {case.why}\nsent {sent[:400]!r}\ngot {answer.raw[:600]!r}"

    assert arrived == 0, f"{told}\nthe origin saw {requests}"
    assert answer.status in case.statuses or framed, told
    assert not case.closes or answer.closed or ingress in FRAMED, f"{told}\nthe connection stays open"
    assert answer.rest == b"", f"{told}\na second answer follows"
    assert sum(leaf.count for leaf in denials) == expected, f"{told}\nreceipts {[leaf.body for leaf in denials]}"
    if case.reasons and expected:
        reasons = {"bad_framing"} if framed else case.reasons
        assert denials[0]["reason"] in reasons, f"{told}\nreceipt {denials[0].body}"
    check_answer(answer, denials)


FRAMED = ("connect2", "tls2")


def send(target: Target, case: Case, ingress: str) -> raw.Answer:
    """What came of the case at one ingress."""
    values = target.values[ingress]
    try:
        link = target.enter(ingress, case.connect(values), case.server_name, plain=case.inside == "plain")
    except doors.Turned as turned:
        return turned.answer
    try:
        if ingress in FRAMED:
            return send_frames(case, values, frames.Peer(link))
        quiet = 2 if case.closes else 0.5 if case.alone else None
        return raw.converse(link, case.bytes(values), 10, quiet, half_close=case.closes)
    finally:
        link.close()


def send_frames(case: Case, values: dict[str, str], peer: frames.Peer) -> raw.Answer:
    fields, body = case.as_http2(values)
    peer.send(frames.PREFACE + frames.frame(frames.TYPES["SETTINGS"], 0, 0, b"") + frames.request(fields, body))
    stream = peer.stream(1)
    peer.read(lambda: stream.over or peer.goaway is not None, 10)
    if case.framed:
        was = "reset" if stream.reset else "goaway" if peer.goaway else f"{stream.status}"
        assert was == case.framed, f"{case.file}:{case.line} {case.why}: {was}"
    shown = repr((stream, peer.goaway)).encode()
    return raw.Answer(shown, peer.closed, stream.status, dict(stream.headers), stream.body)


def check_answer(answer: raw.Answer, denials: list[receipts.Leaf]) -> None:
    """Where the answer names a receipt, it is the one that was written, and for its reason."""
    named = answer.header("aegis-receipt")
    if named and denials:
        assert int(named.rpartition("_")[2]) == denials[0]["seq"]
    reason = answer.header("aegis-reason")
    if reason and denials:
        assert reason == denials[0]["reason"]
