"""Slack's buttons settle approvals, for the approver whose Slack user clicks, and for nobody else."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CANARY
from harness.gateway import Agent, Credential, Gateway, Route, Webhook
from upstreams.hook_receiver import Receiver
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

SLACK_KEY = "8f742231b10e8888abcd99yyyzzz85a5"
LINK = "https://aegis.example"


@pytest.fixture()
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


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
