"""Enrolment and containment: tokens that end when they should, and not later."""

from __future__ import annotations

import re
import socket
import threading
import time

import pytest
import requests

from harness.gateway import Agent, Gateway
from harness.receipts import Leaf
from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


def test_a_token_can_be_found_by_secret_scanners(agent: Agent) -> None:
    assert re.fullmatch(r"aegis_agt_[A-Za-z0-9]{30,}", agent.token)


def test_a_known_key_is_a_conflict_and_lifts_nothing(gateway: Gateway) -> None:
    agent = gateway.enrol("the-same-key")
    assert gateway.set_agent(agent, "freeze").ok
    body = {
        "agent_key": "the-same-key",
        "name": "n",
        "owner_team": "t",
        "owner_email": "e@example.test",
        "environment": "test",
        "risk_tier": "low",
    }
    again = gateway.api("POST", "/v1/agents/register", body)
    assert again.status_code == 409 and "rotate" in again.json()["detail"]
    assert gateway.call(agent, "GET", "/user").status_code == 403


def test_unknown_fields_and_bindings_are_refused(gateway: Gateway) -> None:
    body = {
        "agent_key": "k-1",
        "name": "n",
        "owner_team": "t",
        "owner_email": "e@example.test",
        "environment": "test",
        "risk_tier": "low",
    }
    assert gateway.api("POST", "/v1/agents/register", {**body, "colour": "red"}).status_code == 400
    assert gateway.api("POST", "/v1/agents/register", {**body, "bind": {"moon": "full"}}).status_code == 400
    missing = {key: value for key, value in body.items() if key != "owner_team"}
    answer = gateway.api("POST", "/v1/agents/register", missing)
    assert answer.status_code == 400 and "owner_team" in answer.json()["detail"]


def test_a_bound_token_works_only_from_its_network(gateway: Gateway, origin: StrictOrigin) -> None:
    agent = gateway.enrol(bind={"cidr": "10.0.0.0/8"})
    before = origin.mark()
    assert gateway.call(agent, "GET", "/user").status_code == 403
    assert origin.since(before) == (0, [])
    assert gateway.call(gateway.enrol(bind={"cidr": "127.0.0.0/8"}), "GET", "/user").status_code == 200


def test_a_token_expires(gateway: Gateway) -> None:
    started = time.monotonic()
    agent = gateway.enrol(ttl_seconds=3)
    assert gateway.call(agent, "GET", "/user").status_code == 200
    while gateway.call(agent, "GET", "/user").status_code == 200:
        assert time.monotonic() < started + 10, "it does not expire"
        time.sleep(0.1)
    assert time.monotonic() >= started + 2.9, "it expires too early"
    assert gateway.call(agent, "GET", "/user").status_code == 401


def test_rotation_by_the_agent_itself(gateway: Gateway, agent: Agent) -> None:
    answer = gateway.api("POST", "/v1/agents/self/rotate", {}, agent.token, admin=False)
    assert answer.status_code in (200, 201), answer.text
    new = Agent(agent.agent_id, answer.json()["agent_token"])
    assert new.token != agent.token
    assert gateway.call(new, "GET", "/user").status_code == 200


def test_transitions_are_leaves_and_take_effect_at_once(gateway: Gateway, agent: Agent) -> None:
    for verb, status in (("freeze", 403), ("unfreeze", 200), ("quarantine", 403), ("revoke", 401)):
        assert gateway.set_agent(agent, verb).status_code == 200, verb
        assert gateway.call(agent, "GET", "/user").status_code == status, verb
    assert gateway.set_agent(agent, "unfreeze").status_code == 409
    assert gateway.call(agent, "GET", "/user").status_code == 401
    events = [leaf for leaf in gateway.leaves() if leaf.kind == "event" and agent.agent_id in str(leaf.body)]
    assert len(events) == 5
    listed = gateway.api("GET", f"/v1/agents/{agent.agent_id}").json()
    assert listed["state"] == "revoked"
    assert agent.token not in str(listed)


@pytest.mark.parametrize("verb", ["freeze", "revoke"])
def test_an_open_stream_ends_within_five_seconds(
    verb: str, gateway: Gateway, agent: Agent, origin: StrictOrigin
) -> None:
    origin.answer("GET", "/repos/octo/long", {"text": "x" * 4000})
    origin.fault(Fault("slow_body", path="/repos/octo/long", options={"piece": 10, "pause": 0.05}))
    started, ended = threading.Event(), []

    def read() -> None:
        try:
            with requests.get(
                gateway.base() + "/repos/octo/long",
                headers={"Authorization": f"Bearer {agent.token}"},
                stream=True,
                timeout=30,
            ) as answer:
                for _ in answer.iter_content(10):
                    started.set()
        except requests.RequestException:
            pass
        started.set()
        ended.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(10)
    assert not ended
    now = time.monotonic()
    assert gateway.set_agent(agent, verb).ok
    reader.join(20)
    assert ended and ended[0] - now < 5.5


def test_many_bad_tokens_from_one_place_make_few_leaves(gateway: Gateway) -> None:
    """A flood of refusals is counted, so it cannot push the record out or fill the disk."""
    start = len(gateway.leaves())
    host, port = gateway.listen.split(":")
    for _ in range(60):
        with socket.create_connection((host, int(port)), source_address=("127.240.0.9", 0)) as sock:
            sock.sendall(
                f"GET /github/user HTTP/1.1\r\nHost: {gateway.listen}\r\nAuthorization: Bearer nonsense\r\n\r\n".encode()
            )
            sock.recv(100)

    def counted() -> list[Leaf]:
        return [leaf for leaf in gateway.leaves()[start:] if leaf.kind == "refused" and "127.240.0" in leaf["source"]]

    end = time.monotonic() + 15
    while sum(leaf.count for leaf in counted()) < 60 and time.monotonic() < end:
        time.sleep(0.1)
    assert sum(leaf.count for leaf in counted()) == 60
    assert len(counted()) <= 40


def test_admins_are_found_by_their_token_alone(gateway: Gateway) -> None:
    for token in ("", "x", gateway.admin_token[:-1], gateway.admin_token + "0"):
        assert gateway.api("GET", "/v1/agents", token=token).status_code in (401, 429)
    assert requests.get(f"http://{gateway.admin}/v1/agents", timeout=5).status_code in (401, 429)
