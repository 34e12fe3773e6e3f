"""Webhooks: what happened is told, signed, in order and at least once; and Slack's buttons settle approvals."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CANARY
from harness import environment
from harness.certificates import Authority, server_context
from harness.gateway import Agent, Approver, Credential, Gateway, Route, Webhook
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

KEY = b"0123456789abcdefghijklmn"
WHSEC = "whsec_" + base64.b64encode(KEY).decode()
SLACK_KEY = "8f742231b10e8888abcd99yyyzzz85a5"
LINK = "https://aegis.example"


@dataclass
class Told:
    """One request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Takes everything, unless told otherwise."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.told: list[Told] = []
        self.answer: Callable[[Told], int] = lambda told: 200
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                told = Told(self.path, {k.lower(): v for k, v in self.headers.items()}, body, 0)
                told.status = receiver.answer(told)
                receiver.told.append(told)
                receiver.gate.wait(30)
                try:
                    self.send_response(told.status)
                    self.send_header("location", "/elsewhere")
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def taken(self) -> list[Told]:
        return [told for told in self.told if told.status == 200]

    def wait(self, found: Callable[[], Any], seconds: float = 15) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := found():
                return value
            time.sleep(0.02)
        raise AssertionError(f"not told within {seconds} s: {[told.body for told in self.told]}")

    def about(self, approval_id: str, kind: str = "approval_asked") -> Told:
        """The accepted delivery of one event of an approval, once it is there."""
        def found() -> Told | None:
            of = [t for t in self.taken() if t.json["type"] == kind and t.json["data"].get("approval_id") == approval_id]
            return of[0] if of else None
        return self.wait(found)

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


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


def transfer() -> dict[str, Any]:
    return {
        "tool": "github", "action": "transfer_repository", "resource": "octo/hello", "mutates_state": True,
        "parameters": {"new_owner": "elsewhere"},
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


# Slack.


@pytest.fixture()
def slack(tmp_path: Path, one_origin: StrictOrigin, receiver: Receiver) -> Iterator[Gateway]:
    credentials = [
        Credential(CANARY), Credential(receiver.url + "/T0/B0/secret", "slack-url", "webhook_url"),
        Credential(SLACK_KEY, "slack-key", "signing_key"),
    ]  # fmt: skip
    more = {"format": "slack", "signing_secret": "slack-key", "danger_plaintext": True, "link": LINK}
    webhooks = [Webhook("slack", "slack-url", more)]
    with Gateway(tmp_path / "gw", [Route("github", one_origin.url)], credentials, webhooks=webhooks) as one:
        yield one


def buttons(receiver: Receiver, count: int = 1) -> dict[str, Any]:
    """Buttons of the latest question, by action id."""
    asked = receiver.wait(lambda: [t for t in receiver.taken() if "Approval asked" in t.json["text"]][count - 1 :])
    blocks = [block for block in asked[0].json["blocks"] if block["type"] == "actions"]
    return {element["action_id"]: element for element in blocks[0]["elements"]}


def click(
    gateway: Gateway, button: dict[str, Any], user: str = "U0LEAD", key: str = SLACK_KEY, at: float | None = None, **more: Any
) -> requests.Response:
    payload = {"type": "block_actions", "user": {"id": user}, "actions": [{**button, "type": "button"}], **more}
    return send(gateway, urllib.parse.urlencode({"payload": json.dumps(payload)}), key, at)


def send(gateway: Gateway, body: str, key: str, at: float | None = None) -> requests.Response:
    stamp = str(int(at if at is not None else time.time()))
    tag = hmac.new(key.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
    headers = {
        "x-slack-request-timestamp": stamp, "x-slack-signature": f"v0={tag}",
        "content-type": "application/x-www-form-urlencoded",
    }  # fmt: skip
    return requests.post(f"http://{gateway.admin}/slack/actions", data=body, headers=headers, timeout=10)


def status(gateway: Gateway, approval: dict[str, Any]) -> str:
    return str(gateway.api("GET", f"/v1/approvals/{approval['approval_id']}").json()["status"])


def test_slack_shows_the_action_and_no_parameters(slack: Gateway, receiver: Receiver) -> None:
    approval = ask(slack, slack.enrol(name="<!channel> bot"), deploy("main"))
    found = buttons(receiver)
    assert set(found) == {"approve", "reject", "open"}
    value = f"{approval['approval_id']}:{approval['action_hash']}"
    assert found["approve"]["value"] == found["reject"]["value"] == value
    assert found["open"]["url"] == f"{LINK}/approvals/{approval['approval_id']}"
    told = receiver.taken()[0]
    assert told.path.endswith("/T0/B0/secret") and "webhook-signature" not in told.headers
    text = told.body.decode()
    for words in ("Create a deployment", "octo/hello", "a deployment takes a person's agreement", "Risk", "platform"):
        assert words in text, words
    assert "hunter2" not in text and "mrkdwn" not in text
    assert "/T0/B0/secret" not in slack.stderr.read_text() + slack.stdout.read_text()


def test_a_click_of_the_approver_settles_once(slack: Gateway, receiver: Receiver) -> None:
    agent = slack.enrol()
    slack.approver(slack_user="U0LEAD")
    yes = ask(slack, agent, deploy("yes"))
    answer = click(slack, buttons(receiver)["approve"])
    assert answer.status_code == 200 and "yes is counted" in answer.json()["text"], answer.text
    assert answer.json()["response_type"] == "ephemeral"
    assert status(slack, yes) == "approved"
    again = click(slack, buttons(receiver)["reject"])
    assert "Nothing was settled" in again.json()["text"] and status(slack, yes) == "approved"
    no = ask(slack, agent, deploy("no"))
    assert "no is counted" in click(slack, buttons(receiver, 2)["reject"]).json()["text"]
    assert status(slack, no) == "rejected"
    receiver.wait(lambda: [t for t in receiver.taken() if t.json["text"].startswith("Rejected: Create")])


def test_a_click_that_is_not_signed_or_not_fresh_settles_nothing(slack: Gateway, receiver: Receiver) -> None:
    slack.approver(slack_user="U0LEAD")
    approval = ask(slack, slack.enrol(), deploy("x"))
    button = buttons(receiver)["approve"]
    assert click(slack, button, key="another").status_code == 401
    for at in (time.time() - 310, time.time() + 310):
        assert click(slack, button, at=at).status_code == 401
    url = f"http://{slack.admin}/slack/actions"
    body = urllib.parse.urlencode({"payload": "{}"})
    assert requests.post(url, data=body, timeout=10).status_code == 401
    assert requests.get(url, timeout=10).status_code == 405
    assert requests.get(f"{url}?payload={button['value']}", timeout=10).status_code == 405
    for payload in ("{}", "[]", "nonsense", '{"type":"view_submission"}'):
        assert send(slack, urllib.parse.urlencode({"payload": payload}), SLACK_KEY).status_code == 400
    assert status(slack, approval) == "pending"
    assert click(slack, button).json()["text"] == "Your yes is counted."


def test_a_message_that_comes_again_settles_nothing(slack: Gateway, receiver: Receiver) -> None:
    approval = ask(slack, slack.enrol(), deploy("x"))
    button, at = buttons(receiver)["approve"], time.time()
    assert "No approver here" in click(slack, button, at=at).json()["text"]
    # The one who sent it may settle by now; the message that was caught then may not.
    slack.approver(slack_user="U0LEAD")
    assert click(slack, button, at=at).status_code == 401
    assert status(slack, approval) == "pending"
    assert click(slack, button, trigger_id="1.2").json()["text"] == "Your yes is counted."


def test_strangers_other_groups_and_other_actions_settle_nothing(slack: Gateway, receiver: Receiver) -> None:
    slack.approver(slack_user="U0LEAD")
    slack.approver("Other", ("marketing",), slack_user="U0OTHER")
    gone = slack.approver("Gone", slack_user="U0GONE")
    assert slack.api("POST", f"/v1/approvers/{gone.person_id}/revoke").ok
    agent = slack.enrol()
    approval = ask(slack, agent, deploy("x"))
    second = ask(slack, agent, deploy("y"))
    button = buttons(receiver)["approve"]
    for user in ("U0STRANGER", "U0GONE", ""):
        assert "No approver here" in click(slack, button, user).json()["text"], user
    assert "platform-leads" in click(slack, button, "U0OTHER").json()["text"]
    swapped = {**button, "value": f"{approval['approval_id']}:{second['action_hash']}"}
    assert "not the one that was approved" in click(slack, swapped).json()["text"]
    for value in ("", "apr_x", "apr_x:y", f"{approval['approval_id']}:"):
        assert "Nothing was settled" in click(slack, {**button, "value": value}).json()["text"]
    assert click(slack, buttons(receiver)["open"]).status_code == 200
    assert status(slack, approval) == "pending" and status(slack, second) == "pending"


def test_nobody_approves_for_a_critical_agent_of_their_own(slack: Gateway, receiver: Receiver) -> None:
    slack.approver("Owner", slack_user="U0OWNER", email="owner@example.test")
    slack.approver("Lead", slack_user="U0LEAD", email="lead@example.test")
    slack.approver("Nameless", slack_user="U0NONE")
    approval = ask(slack, slack.enrol(owner_email="owner@example.test"), transfer())
    button = buttons(receiver)["approve"]
    assert "an agent that they own" in click(slack, button, "U0OWNER").json()["text"]
    assert "e-mail" in click(slack, button, "U0NONE").json()["text"]
    assert status(slack, approval) == "pending"
    assert click(slack, button, "U0LEAD").json()["text"] == "Your yes is counted."
    assert status(slack, approval) == "approved"


def test_a_slack_user_is_one_approver(slack: Gateway) -> None:
    slack.cli("approver", "add", "Ana", "--group", "platform-leads", "--slack", "U0ANA")
    body = {"name": "Eve", "groups": ["platform-leads"], "slack_user": "U0ANA"}
    assert slack.api("POST", "/v1/approvers", body).status_code == 409
    for bad in ("ana", "U", "U0 ANA", "u0ana", "U" * 40):
        assert slack.api("POST", "/v1/approvers", {**body, "slack_user": bad}).status_code == 400, bad
    shown = slack.api("GET", "/v1/approvers").json()["approvers"]
    assert [person.get("slack_user") for person in shown] == ["U0ANA"]
