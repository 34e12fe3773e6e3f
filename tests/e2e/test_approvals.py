"""Approvals: a person's yes, for exactly one action, once."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CANARY
from harness.gateway import Agent, Approver, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


def merge(number: int, **parameters: Any) -> dict[str, Any]:
    return {
        "tool": "github",
        "action": "merge_pull_request",
        "resource": f"octo/hello#{number}",
        "mutates_state": True,
        "parameters": parameters,
    }


@pytest.fixture(autouse=True)
def answers(origin: StrictOrigin) -> None:
    origin.answer("GET", r"/repos/octo/hello/pulls/\d+", pull("a" * 40))
    origin.answer("GET", "/repos/octo/hello/branches/main", {"name": "main", "protected": True})


def pull(sha: str) -> dict[str, Any]:
    return {"head": {"sha": sha, "ref": "topic"}, "base": {"ref": "main"}, "draft": False, "user": {"login": "mallory"}}


def ask(gateway: Gateway, agent: Agent, call: dict[str, Any]) -> dict[str, Any]:
    record = gateway.authorize(agent, call).json()
    assert record["decision"] == "require_approval", record
    return record["approval"]


def consume(gateway: Gateway, agent: Agent, approval: dict[str, Any], **more: Any) -> Any:
    body = {"action_hash": approval["action_hash"], **more}
    return gateway.api("POST", f"/v1/approvals/{approval['approval_id']}/consume", body, agent.token, admin=False)


def test_the_life_of_an_approval(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, merge(1))
    path = f"/v1/approvals/{approval['approval_id']}"
    assert gateway.api("GET", path, token=agent.token, admin=False).json()["status"] == "pending"
    assert consume(gateway, agent, approval).status_code == 409
    assert gateway.settle(approver, approval["approval_id"]).json()["status"] == "approved"
    assert gateway.api("GET", path, token=agent.token, admin=False).json()["status"] == "approved"
    used = consume(gateway, agent, approval)
    assert used.status_code == 200, used.text
    assert gateway.api("GET", path, token=agent.token, admin=False).json()["status"] == "consumed"
    assert consume(gateway, agent, approval).status_code == 409
    events = [leaf for leaf in gateway.leaves() if approval["approval_id"] in str(leaf.body) and leaf.kind == "event"]
    assert len(events) >= 3 and any(approver.person_id in str(leaf.body) for leaf in events)


def test_asking_again_is_the_same_question(gateway: Gateway, agent: Agent) -> None:
    assert ask(gateway, agent, merge(2))["approval_id"] == ask(gateway, agent, merge(2))["approval_id"]
    assert (
        ask(gateway, agent, merge(2, merge_method="squash"))["approval_id"]
        != ask(gateway, agent, merge(2))["approval_id"]
    )


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_only_an_approver_settles(verb: str, gateway: Gateway, agent: Agent) -> None:
    approval = ask(gateway, agent, merge(3))
    path = f"/v1/approvals/{approval['approval_id']}/{verb}"
    for token in (agent.token, gateway.admin_token, "", "nonsense"):
        for admin in (True, False):
            assert gateway.api("POST", path, token=token, admin=admin).status_code in (401, 403, 404, 405)
    assert gateway.api("POST", path, token=gateway.admin_token).status_code == 403
    shown = gateway.api("GET", f"/v1/approvals/{approval['approval_id']}", token=agent.token, admin=False).json()
    assert shown["status"] == "pending"


def test_an_approver_of_another_group_does_not_count(gateway: Gateway, agent: Agent) -> None:
    approval = ask(gateway, agent, merge(4))
    stranger = gateway.approver("Stranger", ("marketing",))
    assert gateway.settle(stranger, approval["approval_id"]).status_code == 403
    assert gateway.settle(stranger, approval["approval_id"], "reject").status_code == 403


def test_an_approver_administers_nothing(gateway: Gateway, approver: Approver, agent: Agent) -> None:
    for method, path in (
        ("GET", "/v1/agents"), ("POST", "/v1/agents/register"), ("POST", f"/v1/agents/{agent.agent_id}/freeze"),
        ("POST", "/v1/approvers"), ("PUT", "/v1/credentials/github"), ("POST", "/v1/reload"),
    ):  # fmt: skip
        assert gateway.api(method, path, {}, approver.token).status_code in (401, 403), path
    assert gateway.call(agent, "GET", "/user").status_code == 200


def test_an_agent_administers_nothing(gateway: Gateway, agent: Agent) -> None:
    for path in ("/v1/agents", "/v1/approvals", "/v1/receipts", "/v1/decisions", "/v1/credentials"):
        assert gateway.api("GET", path, token=agent.token).status_code in (401, 403), path
        assert gateway.api("GET", path, token=agent.token, admin=False).status_code in (401, 403, 404), path


def test_bound_to_the_hash_and_the_agent(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, merge(5))
    other = ask(gateway, agent, merge(5, merge_method="rebase"))
    assert gateway.settle(approver, approval["approval_id"]).ok
    swapped = {**approval, "action_hash": other["action_hash"]}
    assert consume(gateway, agent, swapped).status_code == 409
    assert consume(gateway, gateway.enrol(), approval).status_code in (403, 404)
    assert consume(gateway, agent, approval).status_code == 200


def test_another_agent_does_not_see_it(gateway: Gateway, agent: Agent) -> None:
    approval = ask(gateway, agent, merge(6))
    seen = gateway.api("GET", f"/v1/approvals/{approval['approval_id']}", token=gateway.enrol().token, admin=False)
    assert seen.status_code in (403, 404)


def test_racing_consumers_one_wins(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, merge(7))
    assert gateway.settle(approver, approval["approval_id"]).ok
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: consume(gateway, agent, approval).status_code, range(16)))
    assert statuses.count(200) == 1, statuses


def test_racing_requests_one_goes_through(
    gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin
) -> None:
    path = "/repos/octo/hello/pulls/8/merge"
    asked = gateway.call(agent, "PUT", path)
    assert asked.status_code == 403
    assert gateway.settle(approver, asked.json()["aegis"]["approval"]).ok
    before = origin.mark()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: gateway.call(agent, "PUT", path).status_code, range(16)))
    assert statuses.count(200) == 1 and set(statuses) == {200, 403}, statuses
    assert [request.method for request in origin.since(before)[1]].count("PUT") == 1


def test_a_rejection_is_final(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, merge(9))
    assert gateway.settle(approver, approval["approval_id"], "reject").json()["status"] == "rejected"
    assert gateway.settle(approver, approval["approval_id"]).status_code == 409
    assert consume(gateway, agent, approval).status_code == 409


def test_a_moved_head_needs_a_new_yes(gateway: Gateway, agent: Agent, approver: Approver, origin: StrictOrigin) -> None:
    path = "/repos/octo/hello/pulls/10/merge"
    first = gateway.call(agent, "PUT", path).json()["aegis"]["approval"]
    assert gateway.settle(approver, first).ok
    origin.answer("GET", "/repos/octo/hello/pulls/10", pull("b" * 40))
    before = origin.mark()
    moved = gateway.call(agent, "PUT", path)
    assert moved.status_code == 403 and moved.json()["aegis"]["approval"] != first
    assert [request.method for request in origin.since(before)[1]].count("PUT") == 0


def test_an_unprotected_branch_needs_no_yes(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    origin.answer("GET", "/repos/octo/hello/pulls/11", {**pull("c" * 40), "base": {"ref": "topic-2"}})
    origin.answer("GET", "/repos/octo/hello/branches/topic-2", {"name": "topic-2", "protected": False})
    assert gateway.call(agent, "PUT", "/repos/octo/hello/pulls/11/merge").status_code == 200


def test_a_fact_that_cannot_be_had_denies(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    origin.answer("GET", "/repos/octo/hello/pulls/12", {"message": "Server Error"}, status=500)
    before = origin.mark()
    answer = gateway.call(agent, "PUT", "/repos/octo/hello/pulls/12/merge")
    assert (answer.status_code, answer.headers["aegis-decision"]) == (403, "deny")
    assert [request.method for request in origin.since(before)[1]].count("PUT") == 0


def test_a_frozen_agent_cannot_use_what_was_approved(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, merge(13))
    assert gateway.settle(approver, approval["approval_id"]).ok
    assert gateway.set_agent(agent, "freeze").ok
    assert consume(gateway, agent, approval).status_code == 403
    assert gateway.call(agent, "PUT", "/repos/octo/hello/pulls/13/merge").status_code == 403


def test_the_payload_shown_masks_secrets(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    secret = "ghp_" + "S" * 36
    approval = ask(gateway, agent, merge(14, commit_message=f"token {secret}"))
    shown = gateway.api("GET", f"/v1/approvals/{approval['approval_id']}", token=approver.token)
    assert shown.status_code == 200 and "merge_pull_request" in shown.text
    assert secret not in shown.text


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """Approvals live as short as the configuration lets them."""
    routes = [Route("github", one_origin.url, more={"approval_ttl_seconds": 10})]
    folder: Path = tmp_path_factory.mktemp("hasty")
    with Gateway(folder, routes, [Credential(CANARY)]) as running:
        yield running


def test_approvals_expire(hasty: Gateway, origin: StrictOrigin) -> None:
    agent, lead = hasty.enrol(), hasty.approver()
    pending, approved = ask(hasty, agent, merge(15)), ask(hasty, agent, merge(16))
    assert hasty.settle(lead, approved["approval_id"]).ok
    for approval in (pending, approved):
        path, end = f"/v1/approvals/{approval['approval_id']}", time.monotonic() + 20
        while hasty.api("GET", path, token=agent.token, admin=False).json()["status"] != "expired":
            assert time.monotonic() < end, "it does not expire"
            time.sleep(0.1)
        assert consume(hasty, agent, approval).status_code == 409
    assert hasty.settle(lead, pending["approval_id"]).status_code == 409
    assert hasty.call(agent, "PUT", "/repos/octo/hello/pulls/16/merge").status_code == 403
