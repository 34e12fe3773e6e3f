"""`POST /v1/authorize`: every answer that SDKs rely on."""

from __future__ import annotations

import concurrent.futures
import json
from typing import Any

import pytest
import requests

from harness.gateway import Agent, Gateway
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
ISSUE = {
    "tool": "github",
    "action": "create_issue",
    "resource": "octo/hello",
    "mutates_state": True,
    "parameters": {"title": "a"},
}


def test_an_allow_has_every_field(gateway: Gateway, agent: Agent) -> None:
    answer = gateway.authorize(
        agent, ISSUE, trace={"run_id": "run-1"}, user={"id": "u-1"}, context={"contains_sensitive_data": False}
    )
    assert answer.status_code == 200, answer.text
    record = answer.json()
    assert record["decision"] == "allow" and record["canon_version"] == "aegis-jcs-1" and record["dry_run"] is False
    assert record["risk"]["class"] == "write" and record["risk"]["level"] in ("low", "medium")
    assert record["effective_trust"] == "semi_trusted_customer"
    leaf = gateway.leaf_of(record["receipt"]["receipt_id"])
    assert leaf.hash == record["receipt"]["receipt_hash"]
    assert leaf["prev_receipt_hash"] == record["receipt"]["prev_receipt_hash"]
    assert (leaf["decision_id"], leaf["run_id"], leaf["user"]) == (record["decision_id"], "run-1", "u-1")
    assert leaf["agent_id"] == agent.agent_id


def test_nothing_is_sent_and_no_credential_is_involved(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    before = origin.mark()
    assert gateway.authorize(agent, ISSUE).json()["decision"] == "allow"
    assert origin.since(before) == (0, [])


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "tool_call"),
        ({"tool_call": {**ISSUE, "mutates_state": "yes"}}, "mutates_state"),
        ({"tool_call": {k: v for k, v in ISSUE.items() if k != "parameters"}}, "parameters"),
        ({"tool_call": {**ISSUE, "extra": 1}}, "extra"),
        ({"tool_call": ISSUE, "agent": "agt_1"}, "agent"),
        ({"tool_call": {**ISSUE, "mutates_state": False}}, "mutates_state"),
        ({"tool_call": {**ISSUE, "resource": "Octo/Hello"}}, "in lower case: `octo`"),
        ({"tool_call": {**ISSUE, "action": "create_isue"}}, "action"),
        ({"tool_call": {**ISSUE, "tool": "gitlab"}}, "tool"),
        ({"tool_call": {**ISSUE, "parameters": {"title": "a", "body": 5}}}, "body"),
        ({"tool_call": ISSUE, "context": {"source_trust": "high"}}, "source_trust"),
        ({"tool_call": ISSUE, "request_id": ""}, "request_id"),
        ({"tool_call": ISSUE, "dry_run": "no"}, "dry_run"),
        ({"tool_call": ISSUE, "trace": {"run": "x"}}, "run"),
    ],
)
def test_malformed_is_400_and_says_which_field(body: dict, field: str, gateway: Gateway, agent: Agent) -> None:
    answer = gateway.api("POST", "/v1/authorize", body, agent.token, admin=False)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert {"type", "title", "status", "detail"} <= set(answer.json())
    assert field in answer.json()["detail"]


def test_the_size_of_a_body_is_bounded(gateway: Gateway, agent: Agent) -> None:
    big = {**ISSUE, "parameters": {"title": "a", "body": "x" * 1_100_000}}
    assert gateway.authorize(agent, big).status_code == 413


def test_who_is_asked_for_what(gateway: Gateway) -> None:
    frozen, revoked = gateway.enrol(), gateway.enrol()
    assert gateway.set_agent(frozen, "freeze").ok and gateway.set_agent(revoked, "revoke").ok
    assert gateway.authorize(frozen, ISSUE).status_code == 403
    assert gateway.authorize(revoked, ISSUE).status_code == 401
    assert gateway.authorize(Agent("", "aegis_agt_nonsense"), ISSUE).status_code == 401
    assert gateway.authorize(Agent("", gateway.admin_token), ISSUE).status_code == 401
    assert gateway.authorize(Agent("", gateway.approver().token), ISSUE).status_code == 401
    missing = requests.post(f"http://{gateway.listen}/v1/authorize", json={"tool_call": ISSUE}, timeout=5)
    assert missing.status_code == 401 and missing.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "declared, effective",
    [
        (None, "semi_trusted_customer"),
        ("trusted_internal_signed", "semi_trusted_customer"),
        ("semi_trusted_customer", "semi_trusted_customer"),
        ("untrusted_external", "untrusted_external"),
        ("malicious_suspected", "malicious_suspected"),
    ],
)
def test_a_caller_can_lower_trust_and_never_raise_it(
    declared: str | None, effective: str, gateway: Gateway, agent: Agent
) -> None:
    context = {} if declared is None else {"context": {"source_trust": declared}}
    record = gateway.authorize(agent, ISSUE, **context).json()
    assert record["effective_trust"] == effective
    assert record["decision"] == ("allow" if effective == "semi_trusted_customer" else "deny")
    headers = {} if declared is None else {"Aegis-Source-Trust": declared}
    proxied = gateway.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "a"}, headers=headers)
    assert proxied.headers["aegis-decision"] == record["decision"]
    assert gateway.leaf_of(proxied.headers["aegis-receipt"])["source_trust"] == effective


def test_a_request_id_gives_the_same_answer_once_more(gateway: Gateway, agent: Agent) -> None:
    first = gateway.authorize(agent, ISSUE, request_id="r-1").json()
    count = len(gateway.leaves())
    assert gateway.authorize(agent, ISSUE, request_id="r-1").json() == first
    assert len(gateway.leaves()) == count, "a replay decides nothing"
    other = {**ISSUE, "parameters": {"title": "b"}}
    assert gateway.authorize(agent, other, request_id="r-1").status_code == 409
    # Another agent's key is another key.
    assert gateway.authorize(gateway.enrol(), other, request_id="r-1").status_code == 200


def test_a_request_id_means_the_body_not_its_spelling(gateway: Gateway, agent: Agent) -> None:
    first = gateway.authorize(agent, ISSUE, request_id="r-2").json()
    text = json.dumps({"request_id": "r-2", "tool_call": dict(reversed(ISSUE.items()))}, indent=2)
    headers = {"Authorization": f"Bearer {agent.token}", "Content-Type": "application/json"}
    again = requests.post(f"http://{gateway.listen}/v1/authorize", text, headers=headers, timeout=5)
    assert again.json() == first


def test_a_replay_never_outlives_a_freeze(gateway: Gateway, agent: Agent) -> None:
    assert gateway.authorize(agent, ISSUE, request_id="r-3").json()["decision"] == "allow"
    assert gateway.set_agent(agent, "freeze").ok
    assert gateway.authorize(agent, ISSUE, request_id="r-3").status_code == 403
    assert gateway.set_agent(agent, "unfreeze").ok
    assert gateway.authorize(agent, ISSUE, request_id="r-3").status_code == 200


def test_racing_requests_with_one_id_are_decided_once(gateway: Gateway, agent: Agent) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.authorize(agent, ISSUE, request_id="r-4"), range(16)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.json()["decision_id"] for answer in answers if answer.status_code == 200}) == 1


def test_a_dry_run_decides_and_asks_nobody(gateway: Gateway, agent: Agent) -> None:
    record = gateway.authorize(agent, ISSUE, dry_run=True).json()
    assert (record["decision"], record["dry_run"]) == ("allow", True)
    assert gateway.leaf_of(record["receipt"]["receipt_id"])["dry_run"] is True


def test_an_outcome_closes_the_pair_once(gateway: Gateway, agent: Agent) -> None:
    record = gateway.authorize(agent, ISSUE).json()
    path = f"/v1/decisions/{record['decision_id']}/outcome"
    report: dict[str, Any] = {"status": "completed", "result_digest": "0" * 64, "result_bytes": 5}
    assert gateway.api("POST", path, report, gateway.enrol().token, admin=False).status_code in (403, 404)
    assert gateway.api("POST", path, report, agent.token, admin=False).status_code in (200, 201, 204)
    assert gateway.api("POST", path, report, agent.token, admin=False).status_code in (404, 409)
    outcomes = [
        leaf for leaf in gateway.leaves() if leaf.kind == "outcome" and leaf["decision_id"] == record["decision_id"]
    ]
    assert [leaf["state"] for leaf in outcomes] == ["completed"]


def test_why_explains_to_the_agent_that_asked_and_to_no_other(gateway: Gateway, agent: Agent) -> None:
    denied = gateway.authorize(agent, {**ISSUE, "action": "delete_repository", "parameters": {}}).json()
    path = f"/v1/why/{denied['receipt']['receipt_id']}"
    told = gateway.api("GET", path, token=agent.token, admin=False)
    assert told.status_code == 200, told.text
    assert "delete_repository" in told.text and denied["matched_policies"][0] in told.text
    assert gateway.api("GET", path, token=gateway.enrol().token, admin=False).status_code in (403, 404)
    assert gateway.api("GET", path).status_code == 200
