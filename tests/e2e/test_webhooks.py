"""Webhooks: what happened is told, signed, in order and at least once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CANARY
from harness import environment
from harness.certificates import Authority, server_context
from harness.gateway import Agent, Approver, Credential, Gateway, Route, Webhook
from upstreams.hook_receiver import Receiver, Told
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

KEY = b"0123456789abcdefghijklmn"
WHSEC = "whsec_" + base64.b64encode(KEY).decode()
LINK = "https://aegis.example"


@pytest.fixture()
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


def standard(receiver: Receiver, **more: Any) -> Webhook:
    return Webhook("ops", "hook-key", {"url": receiver.url, "danger_plaintext": True, "link": LINK, **more})


@pytest.fixture()
def gateway(tmp_path: Path, one_origin: StrictOrigin, receiver: Receiver) -> Iterator[Gateway]:
    credentials = [Credential(CANARY), Credential(WHSEC, "hook-key", "signing_key")]
    with Gateway(tmp_path / "gw", [Route("github", one_origin.url)], credentials, webhooks=[standard(receiver)]) as one:
        yield one


@pytest.fixture()
def approver(gateway: Gateway) -> Approver:
    return gateway.approver()


def deploy(ref: str) -> dict[str, Any]:
    return {
        "tool": "github", "action": "create_deployment", "resource": "octo/hello", "mutates_state": True,
        "parameters": {"ref": ref, "payload": {"password": "hunter2-of-the-parameters"}},
    }  # fmt: skip


def ask(gateway: Gateway, agent: Agent, call: dict[str, Any]) -> dict[str, Any]:
    record = gateway.authorize(agent, call).json()
    assert record["decision"] == "require_approval", record
    return record["approval"]


def verify(told: Told, key: bytes = KEY) -> None:
    """As a receiver does, by the text of Standard Webhooks."""
    identity, at = told.headers["webhook-id"], told.headers["webhook-timestamp"]
    assert abs(time.time() - int(at)) < 60
    expected = hmac.new(key, f"{identity}.{at}.".encode() + told.body, hashlib.sha256).digest()
    assert told.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert told.json["id"] == identity


def metric(gateway: Gateway, start: str) -> float:
    lines = [line for line in gateway.api("GET", "/metrics").text.splitlines() if line.startswith(start)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_question_is_told_signed_in_plain_words_and_without_parameters(gateway: Gateway, receiver: Receiver) -> None:
    agent = gateway.enrol()
    approval = ask(gateway, agent, deploy("main"))
    told = receiver.about(approval["approval_id"])
    verify(told)
    assert told.path == "/hook" and told.headers["content-type"] == "application/json"
    data = told.json["data"]
    assert data["agent"] == {"id": agent.agent_id, "name": "Test agent", "owner_team": "platform"}
    assert data["words"] == "Create a deployment" and data["action"] == "github.create_deployment"
    assert (data["resource"], data["groups"], data["status"]) == ("octo/hello", ["platform-leads"], "pending")
    assert {"id": "deployment", "words": "a deployment takes a person's agreement"} in data["policies"]
    assert data["risk"] in ("medium", "high") and data["expires_at"].endswith("Z")
    assert data["link"] == f"{LINK}/approvals/{approval['approval_id']}"
    assert data["action_hash"] == approval["action_hash"]
    assert b"main" not in told.body and b"hunter2" not in told.body and KEY not in told.body
    event = next(leaf for leaf in gateway.leaves() if leaf.kind == "event" and leaf.body["event_id"] == told.json["id"])
    assert event.body["kind"] == "approval_asked" and data["receipt_id"].endswith(f"_{event.body['seq']}")


def test_the_life_of_approvals_and_grants_is_told_in_the_order_of_the_log(
    gateway: Gateway, receiver: Receiver, approver: Approver
) -> None:
    agent = gateway.enrol()
    yes, no = ask(gateway, agent, deploy("a")), ask(gateway, agent, deploy("b"))
    assert gateway.settle(approver, yes["approval_id"]).ok
    assert gateway.settle(approver, no["approval_id"], "reject").ok
    body = {"action_hash": yes["action_hash"], "tool_call": deploy("a")}
    used = gateway.api("POST", f"/v1/approvals/{yes['approval_id']}/consume", body, agent.token, admin=False)
    assert used.ok, used.text
    grant = {"agent_id": agent.agent_id, "action": "github.create_deployment", "resource": "octo/hello"}
    given = gateway.api("POST", "/v1/grants", {**grant, "ttl_seconds": 60}, approver.token)
    assert given.status_code == 201, given.text
    assert gateway.api("POST", f"/v1/grants/{given.json()['grant_id']}/revoke", token=approver.token).ok
    expected = ["approval_asked", "approval_asked", "approval_granted", "approval_rejected", "approval_consumed",
                "grant_given", "grant_revoked"]  # fmt: skip
    receiver.wait(lambda: len(receiver.taken()) >= len(expected))
    assert [told.json["type"] for told in receiver.taken()] == expected
    for told in receiver.taken():
        verify(told)
    assert receiver.taken()[2].json["data"]["people"] == [{"id": approver.person_id, "name": "Lead"}]
    receiver.wait(lambda: metric(gateway, 'aegis_webhook_deliveries_total{result="delivered",webhook="ops"}') == 7)
    assert metric(gateway, "aegis_webhook_behind_seconds") == 0


def test_what_is_refused_is_sent_again_under_the_same_id(gateway: Gateway, receiver: Receiver) -> None:
    refusals = iter([500, 302])
    receiver.answer = lambda told: next(refusals, 200)
    first = ask(gateway, gateway.enrol(), deploy("one"))
    second = ask(gateway, gateway.enrol(), deploy("two"))
    receiver.about(second["approval_id"])
    assert [told.status for told in receiver.told] == [500, 302, 200, 200], "in order, one at a time"
    assert len({told.headers["webhook-id"] for told in receiver.told[:3]}) == 1
    assert {told.json["data"]["approval_id"] for told in receiver.told[:3]} == {first["approval_id"]}
    assert {told.path for told in receiver.told} == {"/hook"}, "no redirect is followed"
    for told in receiver.told:
        verify(told)
    assert metric(gateway, 'aegis_webhook_deliveries_total{result="refused",webhook="ops"}') == 2


def test_a_kill_loses_nothing(gateway: Gateway, receiver: Receiver) -> None:
    agent = gateway.enrol()
    asked = [ask(gateway, agent, deploy("taken"))["approval_id"]]
    receiver.about(asked[0])
    receiver.answer = lambda told: 500
    asked += [ask(gateway, agent, deploy(f"refused-{n}"))["approval_id"] for n in range(3)]
    receiver.wait(lambda: any(told.status == 500 for told in receiver.told))
    gateway.kill()
    receiver.answer = lambda told: 200
    gateway.start()
    receiver.about(asked[-1])
    once: dict[str, str] = {}
    for told in receiver.taken():
        verify(told)
        once.setdefault(told.headers["webhook-id"], told.json["data"]["approval_id"])
    assert list(once.values()) == asked


def test_a_kill_before_the_cursor_moves_repeats_the_event_and_its_id(gateway: Gateway, receiver: Receiver) -> None:
    receiver.gate.clear()
    asked = ask(gateway, gateway.enrol(), deploy("held"))["approval_id"]
    receiver.wait(lambda: receiver.told)
    gateway.kill()
    receiver.gate.set()
    gateway.start()
    receiver.wait(lambda: len(receiver.told) == 2)
    assert {told.json["data"]["approval_id"] for told in receiver.told} == {asked}
    assert len({told.headers["webhook-id"] for told in receiver.told}) == 1


def test_a_receiver_that_hangs_holds_up_nobody_else(gateway: Gateway, receiver: Receiver, approver: Approver) -> None:
    receiver.gate.clear()
    agent = gateway.enrol()
    ask(gateway, agent, deploy("first"))
    receiver.wait(lambda: receiver.told)
    began = time.monotonic()
    for n in range(10):
        asked = ask(gateway, agent, deploy(f"then-{n}"))
        assert gateway.settle(approver, asked["approval_id"]).ok
    assert time.monotonic() - began < 5
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 9, "a stop does not wait for it either"


def test_a_new_webhook_starts_at_the_head_and_follows_its_configuration(gateway: Gateway, receiver: Receiver) -> None:
    agent = gateway.enrol()
    receiver.about(ask(gateway, agent, deploy("before"))["approval_id"])
    other = Receiver()
    try:
        gateway.webhooks = [Webhook("later", "hook-key", {
            "url": other.url, "danger_plaintext": True, "events": ["agent_frozen", "agent_unfrozen"],
        })]  # fmt: skip
        assert gateway.set_agent(agent, "freeze").ok and gateway.set_agent(agent, "unfreeze").ok
        gateway.write_routes(gateway.routes)
        assert gateway.api("POST", "/v1/reload").ok
        time.sleep(1)
        assert gateway.set_agent(agent, "freeze").ok
        other.wait(lambda: other.told)
        assert [told.json["type"] for told in other.told] == ["agent_frozen"]
        assert other.told[0].json["data"]["agent"]["id"] == agent.agent_id
        count = len(receiver.told)
        assert gateway.set_agent(agent, "unfreeze").ok
        other.wait(lambda: len(other.told) == 2)
        ask(gateway, agent, deploy("after"))
        time.sleep(1)
        assert len(receiver.told) == count and len(other.told) == 2
    finally:
        other.close()


def test_without_its_key_nothing_is_sent_until_it_is_there(gateway: Gateway, receiver: Receiver) -> None:
    assert gateway.api("DELETE", "/v1/credentials/hook-key").ok
    asked = ask(gateway, gateway.enrol(), deploy("x"))["approval_id"]
    unprepared = 'aegis_webhook_deliveries_total{result="unprepared",webhook="ops"}'
    receiver.wait(lambda: metric(gateway, unprepared))
    assert receiver.told == []
    assert gateway.api("PUT", "/v1/credentials/hook-key", {"value": "a raw key, no whsec"}).ok
    verify(receiver.about(asked), b"a raw key, no whsec")


def test_a_certificate_that_the_system_trusts_is_needed(
    tmp_path: Path, one_origin: StrictOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "trusted")
    trusted = Receiver(server_context(authority.server("127.0.0.1")))
    stranger = Receiver(server_context(Authority(tmp_path / "stranger").server("127.0.0.1")))
    clean = environment.clean
    monkeypatch.setattr(environment, "clean", lambda extra=None: clean({"SSL_CERT_FILE": str(authority.root)}))
    webhooks = [Webhook(name, "hook-key", {"url": to.url}) for name, to in (("good", trusted), ("bad", stranger))]
    credentials = [Credential(CANARY), Credential(WHSEC, "hook-key", "signing_key")]
    try:
        with Gateway(tmp_path / "gw", [Route("github", one_origin.url)], credentials, webhooks=webhooks) as gateway:
            asked = ask(gateway, gateway.enrol(), deploy("x"))["approval_id"]
            verify(trusted.about(asked))
            failed = 'aegis_webhook_deliveries_total{result="failed",webhook="bad"}'
            trusted.wait(lambda: metric(gateway, failed))
            assert stranger.told == [] and "does not trust" in gateway.stderr.read_text()
    finally:
        trusted.close()
        stranger.close()
