"""Every case of the corpus, at every ingress it applies to: refused, on record, and nothing at the origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY, all_routes
from harness import attackfile, raw, receipts
from harness.attackfile import Case
from harness.gateway import Credential, Gateway
from upstreams.strict_origin import StrictOrigin

CASES = attackfile.load(Path(__file__).resolve().parent)
RUNS = [(case, ingress) for case in CASES for ingress in case.ingresses]


class Target:
    """A gateway, the origin behind it, and the values that the cases' placeholders stand for."""

    def __init__(self, gateway: Gateway, origin: StrictOrigin) -> None:
        self.gateway, self.origin = gateway, origin
        tokens = self.tokens()
        self.values = {
            "path": {"p": "/github", "h": gateway.listen, **tokens},
            "host": {"p": "", "h": "api.github.test", **tokens},
            "port": {"p": "", "h": gateway.route_listen["github-port"], **tokens},
            "api": {"p": "", "h": gateway.listen, **tokens},
        }
        self.address = {name: gateway.listen for name in self.values} | {"port": gateway.route_listen["github-port"]}
        self.tail = receipts.Tail(gateway.receipts)
        self.tail.new()

    def tokens(self) -> dict[str, str]:
        gateway = self.gateway
        agent, other, frozen, revoked = (gateway.enrol() for _ in range(4))
        assert gateway.set_agent(frozen, "freeze").ok and gateway.set_agent(revoked, "revoke").ok
        swapped = "A" if agent.token[20] != "A" else "B"
        return {
            "t": agent.token,
            "t:other": other.token,
            "t:frozen": frozen.token,
            "t:revoked": revoked.token,
            "t:forged": agent.token[:20] + swapped + agent.token[21:],
            "t:short": agent.token[:-1],
            "t:capitals": agent.token.upper(),
            "t:admin": gateway.admin_token,
            "t:approver": gateway.approver().token,
        }


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        with Gateway(tmp_path_factory.mktemp("attacks"), all_routes(origin), [Credential(CANARY)]) as gateway:
            yield Target(gateway, origin)
            done = receipts.verify(gateway.receipts)
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 120


@pytest.mark.binary
def test_a_clean_request_passes_at_every_ingress(target: Target) -> None:
    """Otherwise the cases would be refused for a reason of their own making."""
    for ingress in ("path", "host", "port"):
        values = target.values[ingress]
        text = f"GET {values['p']}/repos/octo/hello/issues HTTP/1.1\r\nHost: {values['h']}\r\n"
        answer = raw.exchange(target.address[ingress], f"{text}Authorization: Bearer {values['t']}\r\n\r\n".encode())
        assert answer.status == 200, answer.raw
    assert len(target.origin.requests) == 3 and target.origin.violations == []
    target.tail.until(lambda leaves: len(leaves) >= 6, 1)


@pytest.mark.binary
@pytest.mark.parametrize("case, ingress", RUNS, ids=[f"{case.name}-{ingress}" for case, ingress in RUNS])
def test_attack(target: Target, case: Case, ingress: str) -> None:
    before = target.origin.mark()
    target.tail.new()
    data = case.bytes(target.values[ingress])
    answer = raw.exchange(target.address[ingress], data, quiet=2 if case.closes else None, half_close=case.closes)

    denials = wait_for_denials(target, 1 if case.receipt == "deny" else 0)
    arrived, requests = target.origin.since(before)
    told = f"{case.file}:{case.line} {case.why}\nsent {data[:400]!r}\ngot {answer.raw[:600]!r}"

    assert arrived == 0, f"{told}\nthe origin saw {requests}"
    assert answer.status in case.statuses, told
    assert not case.closes or answer.closed, f"{told}\nthe connection stays open"
    assert answer.rest == b"", f"{told}\na second answer follows"
    expected = 1 if case.receipt == "deny" else 0
    assert sum(leaf.count for leaf in denials) == expected, f"{told}\nreceipts {[leaf.body for leaf in denials]}"
    if case.reasons:
        assert denials[0]["reason"] in case.reasons, told
    check_answer(answer, denials)


def wait_for_denials(target: Target, expected: int) -> list[receipts.Leaf]:
    def denials(leaves: list[receipts.Leaf]) -> list[receipts.Leaf]:
        return [leaf for leaf in leaves if leaf.is_denial]

    if expected == 0:
        return denials(target.tail.new())
    return denials(target.tail.until(lambda leaves: len(denials(leaves)) >= expected, 2))


def check_answer(answer: raw.Answer, denials: list[receipts.Leaf]) -> None:
    """Where the answer names a receipt, it is the one that was written, and for its reason."""
    named = answer.header("aegis-receipt")
    if named and denials:
        assert int(named.rpartition("_")[2]) == denials[0]["seq"]
    reason = answer.header("aegis-reason")
    if reason and denials:
        assert reason == denials[0]["reason"]
