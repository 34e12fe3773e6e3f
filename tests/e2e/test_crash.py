"""SIGKILL under load: every request that the origin saw is on record, and the log verifies each time."""

from __future__ import annotations

import http.client
import itertools
import re
import threading
import time
from pathlib import Path

import pytest

from conftest import CANARY
from harness import receipts
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
KILLS = 50
WORKERS = 4


class Load:
    """Clients that write as fast as they can, each request to an issue number of its own."""

    def __init__(self, gateway: Gateway, agent: Agent, numbers: itertools.count) -> None:
        self.address, self.token, self.numbers = gateway.listen, agent.token, numbers
        self.answered: list[int] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(WORKERS)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)

    def work(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=5)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        while not self.stopping.is_set():
            number = next(self.numbers)
            try:
                connection.request(
                    "POST", f"/github/repos/octo/hello/issues/{number}/comments", '{"body":"x"}', headers
                )
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answered.append(number)
            except (OSError, http.client.HTTPException):
                return


def arrived(origin: StrictOrigin) -> list[int]:
    found = (re.fullmatch(r"/repos/octo/hello/issues/(\d+)/comments", request.path) for request in origin.requests)
    return [int(match[1]) for match in found if match]


def test_fifty_kills(tmp_path: Path) -> None:
    numbers, kills_under_load = itertools.count(1), 0
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as gateway:
            agent = gateway.enrol()
            tail, intents = receipts.Tail(gateway.receipts), {}
            for round_ in range(KILLS):
                seen = len(origin.requests)
                with Load(gateway, agent, numbers) as load:
                    until = time.monotonic() + 10
                    # A different moment each time, but always in the middle of the load.
                    while len(origin.requests) < seen + 8 + round_ % 13 and time.monotonic() < until:
                        time.sleep(0.001)
                    gateway.kill()
                kills_under_load += len(load.answered) > 0
                for leaf in tail.new():
                    if leaf.kind == "intent":
                        intents[leaf["resource"]] = leaf
                for number in arrived(origin):
                    leaf = intents.get(f"octo/hello#{number}")
                    assert leaf is not None, f"kill {round_}: the origin saw {number}, the log did not"
                    assert leaf["decision"] == "allow"
                gateway.start()
                done = receipts.verify(gateway.receipts)
                assert done.returncode == 0, f"kill {round_}: {done.stdout}{done.stderr}"
            assert gateway.call(agent, "GET", "/user").status_code == 200
        assert kills_under_load == KILLS
        assert len(set(arrived(origin))) == len(arrived(origin)), "a request was sent twice"
        assert origin.violations == []
    leaves = receipts.read(gateway.receipts)
    receipts.check_chain(leaves)
    check_outcomes(leaves)


def check_outcomes(leaves: list[receipts.Leaf]) -> None:
    """Outcomes point at intents before them; what has none was in flight when the process died."""
    seqs = {leaf["seq"]: leaf for leaf in leaves if leaf.kind == "intent"}
    entries = [leaf.body for leaf in leaves if leaf.kind == "outcome"]
    for leaf in leaves:
        if leaf.kind == "outcomes":
            entries += leaf["entries"] or leaf["outcomes"] or []
    assert entries
    for entry in entries:
        intent = seqs[entry["intent_seq"]]
        assert intent["decision_id"] == entry["decision_id"]


def test_state_survives(tmp_path: Path) -> None:
    """Agents, freezes and approvals are there after a kill; so is what was said to be revoked."""
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as gateway:
            alive, frozen, revoked = (gateway.enrol() for _ in range(3))
            assert gateway.set_agent(frozen, "freeze").ok and gateway.set_agent(revoked, "revoke").ok
            gateway.kill()
            gateway.start()
            assert [gateway.call(each, "GET", "/user").status_code for each in (alive, frozen, revoked)] == [
                200,
                403,
                401,
            ]
            kinds = [leaf["kind"] for leaf in gateway.leaves() if leaf.kind == "event"]
            assert (
                sum("froze" in str(kind) for kind in kinds) == 1 and sum("revoke" in str(kind) for kind in kinds) == 1
            )


def test_two_processes_cannot_write_one_log(tmp_path: Path) -> None:
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as gateway:
            done = gateway.cli("serve", "--json", ok=False)
            assert done.returncode != 0
            assert "lock" in done.stderr or "another" in done.stderr, done.stderr
            assert gateway.call(gateway.enrol(), "GET", "/user").status_code == 200
