"""Requests that wait for people on a route that says `hold`, and grants given in advance."""

from __future__ import annotations

import concurrent.futures
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CANARY
from harness.gateway import Agent, Approver, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

HOLD = 5


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    routes = [Route("github", one_origin.url, more={"approvals": "hold", "approval_hold_seconds": HOLD})]
    folder: Path = tmp_path_factory.mktemp("holding")
    with Gateway(folder, routes, [Credential(CANARY)]) as running:
        yield running


@pytest.fixture(autouse=True)
def answers(origin: StrictOrigin) -> None:
    pull = {"head": {"sha": "a" * 40, "ref": "topic"}, "base": {"ref": "main"}, "draft": False, "user": {"login": "m"}}
    origin.answer("GET", r"/repos/octo/hello/pulls/\d+", pull)
    origin.answer("GET", "/repos/octo/hello/branches/main", {"name": "main", "protected": True})


def merge(number: int) -> str:
    return f"/repos/octo/hello/pulls/{number}/merge"


def puts(origin: StrictOrigin, mark: Any) -> int:
    return [request.method for request in origin.since(mark)[1]].count("PUT")


def pending(gateway: Gateway, agent: Agent) -> str:
    """The id of the agent's open question, once there is one."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = gateway.api("GET", f"/v1/approvals?status=pending&agent_id={agent.agent_id}").json()["approvals"]
        if found:
            return str(found[0]["approval_id"])
        time.sleep(0.02)
    raise AssertionError("nobody was asked")


def while_held(gateway: Gateway, agent: Agent, number: int, then: Any) -> tuple[requests.Response, float]:
    """Sends a merge, does something once it waits, and returns the answer and how long it took after that."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = pool.submit(gateway.call, agent, "PUT", merge(number), json={"merge_method": "squash"})
        approval = pending(gateway, agent)
        assert not sent.done()
        began = time.monotonic()
        then(approval)
        answer = sent.result(timeout=30)
        return answer, time.monotonic() - began


def test_a_yes_lets_the_waiting_request_through_once(
    gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin
) -> None:
    before = origin.mark()
    answer, took = while_held(gateway, agent, 1, lambda approval: gateway.settle(approver, approval))
    assert answer.status_code == 200, answer.text
    assert took < 2
    assert puts(origin, before) == 1
    assert b'"merge_method":"squash"' in origin.since(before)[1][-1].body
    decisions = [
        leaf.body["decision"] for leaf in gateway.leaves()
        if leaf.kind == "intent" and leaf.body["agent_id"] == agent.agent_id and leaf.body["action"].startswith("merge")
    ]  # fmt: skip
    assert decisions == ["require_approval", "allow"]


def test_a_no_is_told_at_once(gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin) -> None:
    before = origin.mark()
    answer, took = while_held(gateway, agent, 2, lambda approval: gateway.settle(approver, approval, "reject"))
    assert (answer.status_code, answer.headers["aegis-decision"]) == (403, "require_approval")
    assert took < 2
    assert puts(origin, before) == 0


def test_after_the_time_the_client_is_told_and_may_come_again(
    gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin
) -> None:
    before = origin.mark()
    began = time.monotonic()
    answer = gateway.call(agent, "PUT", merge(3))
    assert HOLD <= time.monotonic() - began < HOLD + 3
    assert answer.status_code == 403 and answer.headers["retry-after"]
    assert gateway.settle(approver, answer.headers["aegis-approval"]).ok
    assert gateway.call(agent, "PUT", merge(3)).status_code == 200
    assert puts(origin, before) == 1


def test_a_client_that_goes_is_not_waited_for(
    gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin
) -> None:
    def in_flight() -> float:
        text = gateway.api("GET", "/metrics").text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("aegis_requests_in_flight ")))

    before = origin.mark()
    host, port = gateway.listen.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as raw:
        head = f"PUT /github{merge(4)} HTTP/1.1\r\nHost: {gateway.listen}\r\nAuthorization: Bearer {agent.token}\r\n"
        raw.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
        approval = pending(gateway, agent)
        assert in_flight() == 1
    gone = time.monotonic()
    while in_flight():
        assert time.monotonic() - gone < HOLD - 2, "the request is kept although its client is gone"
        time.sleep(0.05)
    assert gateway.settle(approver, approval).ok
    time.sleep(0.3)
    assert puts(origin, before) == 0
    assert gateway.call(agent, "PUT", merge(4)).status_code == 200, "the yes is still there for the same request"


def test_a_frozen_agent_is_not_let_through_by_a_yes(
    gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin
) -> None:
    def freeze_and_approve(approval: str) -> None:
        assert gateway.set_agent(agent, "freeze").ok
        assert gateway.settle(approver, approval).ok

    before = origin.mark()
    answer, _ = while_held(gateway, agent, 5, freeze_and_approve)
    assert answer.status_code == 403
    assert puts(origin, before) == 0


def test_a_granted_action_asks_nobody(
    gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin
) -> None:
    words = ["grants", "add", agent.agent_id, "github.merge_pull_request", "octo/hello#6", "--for", "1h", "--json"]
    token = gateway.state / "lead.token"
    token.write_text(approver.token)
    token.chmod(0o600)
    given = gateway.cli(*words, "--token-file", str(token))
    assert '"holds":true' in given.stdout.replace(" ", "")
    before = origin.mark()
    answers = [gateway.call(agent, "PUT", merge(6)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    leaf = gateway.leaf_of(answers[0].headers["aegis-receipt"])
    assert leaf.body["approval"]["id"].startswith("grt_") and leaf.body["approval"]["approvers"] == [approver.person_id]
    listed = gateway.cli("grants", "list", "--token-file", str(token)).stdout
    assert "octo/hello#6" in listed and "active" in listed
    gateway.cli("grants", "revoke", leaf.body["approval"]["id"], "--token-file", str(token))
    assert puts(origin, before) == 2
    answer, _ = while_held(gateway, agent, 6, lambda approval: gateway.settle(approver, approval, "reject"))
    assert answer.status_code == 403
