"""The cases in HTTP/2 frames, inside tunnels and at the TLS listener."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.target import Target, attacked
from harness import framefile, frames
from harness.framefile import FrameCase

CASES = framefile.load(Path(__file__).with_name("h2.txt"))
RUNS = [(case, ingress) for case in CASES for ingress in case.ingresses]

CLEAN = FrameCase("", 0, "clean", script=[("HEADERS end", ["GET /repos/octo/hello/issues"])], expect=["200"])


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("h2")) as running:
        yield running


@pytest.mark.binary
@pytest.mark.parametrize("ingress", ["connect2", "tls2"])
def test_a_clean_request_passes(target: Target, ingress: str) -> None:
    assert_clean(target, ingress)
    assert target.origin.violations == []


@pytest.mark.binary
@pytest.mark.parametrize("case, ingress", RUNS, ids=[f"{case.name}-{ingress}" for case, ingress in RUNS])
def test_attack_in_frames(target: Target, case: FrameCase, ingress: str) -> None:
    before = target.origin.mark()
    target.tail.new()
    link = target.enter(ingress)
    peer = frames.Peer(link)
    as_expected = case.play(peer, target.values[ingress], 10)
    link.close()

    # The cases with a request in front that is refused for its operation leave a receipt for that as well.
    expected = (2 if "unknown_operation" in case.reasons else 1) if case.receipt == "deny" else 0
    denials = target.denials(expected)
    arrived, requests = target.origin.since(before)
    told = f"{case.file}:{case.line} {case.why}\ngot {peer.streams} goaway {peer.goaway} closed {peer.closed}"
    assert case.origin == "any" or arrived == 0, f"{told}\nthe origin saw {requests}"
    assert as_expected, told
    if case.receipt == "any":
        target.settle()
    else:
        told += f"\nreceipts {[leaf.body for leaf in denials]}"
        assert sum(leaf.count for leaf in denials) == expected, told
        assert not case.reasons or {leaf["reason"] for leaf in denials} <= case.reasons, told
    if "flood" in case.name or "reset" in case.name or "streams" in case.name or "memory" in case.name:
        # Whatever it did to that connection, the gateway is still there for others.
        assert_clean(target, ingress)


@pytest.mark.binary
@pytest.mark.parametrize("ingress", ["connect2", "tls2"])
@pytest.mark.parametrize("trailer", ["x-note: a", "authorization: Bearer evil", "content-length: 5", ":path: /user"])
def test_trailers_of_a_request_are_dropped(target: Target, ingress: str, trailer: str) -> None:
    """What is sent is the body that was judged, and nothing behind it."""
    head = ("HEADERS", ["POST /repos/octo/hello/issues", "content-type: application/json"])
    script = [head, ('DATA text={"title":"a"}', []), ("HEADERS end", [trailer])]
    before, link = target.origin.mark(), target.enter(ingress)
    peer = frames.Peer(link)
    assert FrameCase("", 0, "trailers", script=script, expect=["200"]).play(peer, target.values[ingress], 10), peer.streams
    link.close()
    [seen] = target.origin.since(before)[1]
    assert (seen.body, seen.violations) == (b'{"title":"a"}', []) and b"evil" not in seen.raw


def assert_clean(target: Target, ingress: str) -> None:
    link = target.enter(ingress)
    peer = frames.Peer(link)
    assert CLEAN.play(peer, target.values[ingress], 20), (peer.streams, peer.goaway, peer.closed)
    link.close()
