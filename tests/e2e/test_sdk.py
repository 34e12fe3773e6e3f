"""The SDKs against the real gateway: nothing runs that was not allowed, and a yes is for one action, once."""

from __future__ import annotations

import concurrent.futures
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CANARY
from harness import environment
from harness.gateway import Agent, Approver, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

sys.path.insert(0, str(environment.TESTS / "sdk-contract"))
import sdks  # noqa: E402  the folder is no package

pytestmark = pytest.mark.binary
NUMBERS = iter(range(1000, 9999))


@pytest.fixture(scope="module", params=sdks.names())
def sdk(request: pytest.FixtureRequest) -> Iterator[sdks.Driver]:
    driver = sdks.Driver(request.param)
    yield driver
    driver.stop()


@pytest.fixture(autouse=True)
def answers(origin: StrictOrigin) -> None:
    pull = {"head": {"sha": "a" * 40, "ref": "topic"}, "base": {"ref": "main"}, "draft": False, "user": {"login": "m"}}
    origin.answer("GET", r"/repos/octo/hello/pulls/\d+", pull)
    origin.answer("GET", "/repos/octo/hello/branches/main", {"name": "main", "protected": True})


@pytest.fixture()
def number() -> int:
    """A pull request that no other test asked about: the same question is the same approval."""
    return next(NUMBERS)


def order(gateway: Gateway, agent: Agent, action: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "op": "call", "id": action, "gateway_url": f"http://{gateway.listen}", "agent_token": agent.token,
        "ca_file": None, "danger_plaintext": False, "timeout_s": 10, "approval_timeout_s": 30, "mode": "plain",
        "tool": "github", "action": action, "risk": None, "resource": None, "exclude": [], "source_trust": None,
        "context_trust": None, "dry_run": False, "args": args, "on_pending": None, "returns": {"done": True},
        "fails": False, **more,
    }  # fmt: skip


def merge(gateway: Gateway, agent: Agent, number: int, **more: Any) -> dict[str, Any]:
    args = {"repo": "octo/hello", "pr_number": number, "branch": "topic", "labels": ["a"]}
    return order(gateway, agent, "merge_pull_request", args, **more)


def issue(gateway: Gateway, agent: Agent, **more: Any) -> dict[str, Any]:
    return order(gateway, agent, "create_issue", {"repo": "octo/hello", "title": "Hello"}, **more)


class Asking:
    """A call that waits for a person, and the approval it waits for."""

    def __init__(self, gateway: Gateway, agent: Agent, driver: sdks.Driver, call: dict[str, Any]) -> None:
        self.gateway, self.agent, self.pool = gateway, agent, concurrent.futures.ThreadPoolExecutor(1)
        self.future = self.pool.submit(driver.ask, call)
        self.approval = self._pending()

    def _pending(self) -> str:
        lead, end = self.gateway.approver("Reader"), time.monotonic() + 15
        while time.monotonic() < end and not self.future.done():
            listed = self.gateway.api("GET", "/v1/approvals?status=pending", token=lead.token).json()["approvals"]
            mine = [each["approval_id"] for each in listed if each["agent_id"] == self.agent.agent_id]
            if mine:
                return str(mine[0])
            time.sleep(0.02)
        raise AssertionError(f"no approval was asked for: {self.future.result(1)}")

    def status(self) -> str:
        path = f"/v1/approvals/{self.approval}"
        return str(self.gateway.api("GET", path, token=self.agent.token, admin=False).json()["status"])

    def answer(self, seconds: float = 40) -> dict[str, Any]:
        try:
            return self.future.result(seconds)
        finally:
            self.pool.shutdown(wait=False)


# Whoever asks while another uses it up is told that it was used, or that none is left.
USED_UP = ("approval_replayed", "approval_stale")


def until_asked(gateway: Gateway, agent: Agent, times: int) -> None:
    """Until that many questions of an agent are on record."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        asked = [leaf for leaf in gateway.leaves() if leaf["agent_id"] == agent.agent_id and leaf.kind == "intent"]
        if len([leaf for leaf in asked if leaf["decision"] == "require_approval"]) >= times:
            return
        time.sleep(0.02)
    raise AssertionError(f"{agent.agent_id} did not ask {times} times")


def refused(answer: dict[str, Any], *codes: str) -> dict[str, Any]:
    assert answer["error"] is not None and answer["error"]["code"] in codes, answer
    assert (answer["ran"], answer["result"]) == (0, None)
    return dict(answer["error"])


def ran(answer: dict[str, Any]) -> None:
    assert (answer["error"], answer["ran"], answer["result"]) == (None, 1, {"done": True}), answer


def test_an_allowed_call_runs_and_its_end_is_on_record(sdk: sdks.Driver, gateway: Gateway, agent: Agent) -> None:
    before = len(gateway.leaves())
    ran(sdk.ask(issue(gateway, agent)))
    leaves = [leaf for leaf in gateway.leaves()[before:] if leaf.kind in ("intent", "outcome")]
    assert [leaf.kind for leaf in leaves] == ["intent", "outcome"]
    assert leaves[0]["decision"] == "allow" and leaves[0]["agent_id"] == agent.agent_id
    assert leaves[1]["decision_id"] == leaves[0]["decision_id"] and leaves[1]["state"] == "completed"


def test_a_denied_call_does_not_run(sdk: sdks.Driver, gateway: Gateway, agent: Agent) -> None:
    error = refused(sdk.ask(order(gateway, agent, "delete_repository", {"repo": "octo/hello"})), "denied")
    leaf = gateway.leaf_of(error["receipt_id"])
    assert (leaf["decision"], leaf["decision_id"]) == ("deny", error["decision_id"])
    assert error["reason"]


def test_trust_reaches_the_policies(sdk: sdks.Driver, gateway: Gateway, agent: Agent) -> None:
    refused(sdk.ask(issue(gateway, agent, context_trust="untrusted_external")), "denied")
    ran(sdk.ask(issue(gateway, agent, source_trust="semi_trusted_customer")))


def test_an_action_that_there_is_not(sdk: sdks.Driver, gateway: Gateway, agent: Agent) -> None:
    refused(sdk.ask(order(gateway, agent, "create_isue", {"repo": "octo/hello"})), "request_refused")


def test_what_the_gateway_refuses_is_named(sdk: sdks.Driver, gateway: Gateway, agent: Agent) -> None:
    call = order(gateway, agent, "create_issue", {"repo": "Octo/Hello", "title": "a"})
    assert "lower case" in refused(sdk.ask(call), "request_refused")["message"]


def test_who_may_not_ask(sdk: sdks.Driver, gateway: Gateway) -> None:
    refused(sdk.ask(issue(gateway, Agent("", "aegis_agt_nonsense"))), "unauthenticated")
    frozen = gateway.enrol()
    assert gateway.set_agent(frozen, "freeze").ok
    refused(sdk.ask(issue(gateway, frozen)), "agent_stopped")


def test_a_dry_run_runs_nothing(sdk: sdks.Driver, gateway: Gateway, agent: Agent) -> None:
    answer = sdk.ask(issue(gateway, agent, dry_run=True))
    assert (answer["error"], answer["ran"], answer["decision"]) == (None, 0, "allow")


def test_approved_runs_once(sdk: sdks.Driver, gateway: Gateway, agent: Agent, approver: Approver, number: int) -> None:
    asking = Asking(gateway, agent, sdk, merge(gateway, agent, number))
    assert gateway.settle(approver, asking.approval).ok
    ran(asking.answer())
    assert asking.status() == "consumed"


def test_rejected(sdk: sdks.Driver, gateway: Gateway, agent: Agent, approver: Approver, number: int) -> None:
    asking = Asking(gateway, agent, sdk, merge(gateway, agent, number))
    assert gateway.settle(approver, asking.approval, "reject").ok
    assert refused(asking.answer(), "approval_rejected")["approval_id"] == asking.approval


def test_nobody_answers(sdk: sdks.Driver, gateway: Gateway, agent: Agent, number: int) -> None:
    asking = Asking(gateway, agent, sdk, merge(gateway, agent, number, approval_timeout_s=1))
    assert refused(asking.answer(), "approval_timeout")["approval_id"] == asking.approval


def test_swapped_arguments_after_the_yes(
    sdk: sdks.Driver, gateway: Gateway, agent: Agent, approver: Approver, number: int
) -> None:
    call = merge(gateway, agent, number, on_pending={"set": ["labels", 0, "swapped"]})
    asking = Asking(gateway, agent, sdk, call)
    assert gateway.settle(approver, asking.approval).ok
    refused(asking.answer(), "action_hash_mismatch")
    assert asking.status() == "approved", "what was approved is still there for who asks for it"


def test_a_yes_that_was_used_up_by_another(
    sdk: sdks.Driver, gateway: Gateway, agent: Agent, approver: Approver, number: int
) -> None:
    asking = Asking(gateway, agent, sdk, merge(gateway, agent, number))
    # By now the pauses between polls leave room for somebody faster.
    time.sleep(2)
    path = f"/v1/approvals/{asking.approval}"
    known = gateway.api("GET", path, token=agent.token, admin=False).json()["action_hash"]
    assert gateway.settle(approver, asking.approval).ok
    used = gateway.api("POST", f"{path}/consume", {"action_hash": known}, agent.token, admin=False)
    if used.status_code == 200:
        assert refused(asking.answer(), *USED_UP)["approval_id"] == asking.approval
    else:
        ran(asking.answer())
    assert asking.status() == "consumed"


def test_two_that_wait_for_one_yes(
    sdk: sdks.Driver, gateway: Gateway, agent: Agent, approver: Approver, number: int
) -> None:
    other = sdks.Driver(sdk.name)
    try:
        first = Asking(gateway, agent, sdk, merge(gateway, agent, number))
        second = Asking(gateway, agent, other, merge(gateway, agent, number))
        until_asked(gateway, agent, 2)
        assert first.approval == second.approval
        assert gateway.settle(approver, first.approval).ok
        answers = [first.answer(), second.answer()]
        assert sorted(answer["ran"] for answer in answers) == [0, 1], answers
        refused(next(answer for answer in answers if not answer["ran"]), *USED_UP)
    finally:
        other.stop()


def test_frozen_after_the_yes(sdk: sdks.Driver, gateway: Gateway, approver: Approver, number: int) -> None:
    agent = gateway.enrol()
    asking = Asking(gateway, agent, sdk, merge(gateway, agent, number))
    assert gateway.set_agent(agent, "freeze").ok
    gateway.settle(approver, asking.approval)
    refused(asking.answer(), "agent_stopped")


def test_the_head_moved_after_the_yes(
    sdk: sdks.Driver, gateway: Gateway, agent: Agent, approver: Approver, number: int, origin: StrictOrigin
) -> None:
    asking = Asking(gateway, agent, sdk, merge(gateway, agent, number))
    time.sleep(1)
    moved = {"head": {"sha": "b" * 40, "ref": "topic"}, "base": {"ref": "main"}, "draft": False, "user": {"login": "m"}}
    origin.answer("GET", f"/repos/octo/hello/pulls/{number}", moved)
    assert gateway.settle(approver, asking.approval).ok
    refused(asking.answer(), "approval_stale")


def test_the_gateway_is_killed_while_somebody_waits(
    sdk: sdks.Driver, tmp_path: Path, one_origin: StrictOrigin, number: int
) -> None:
    with Gateway(tmp_path / "killed", [Route("github", one_origin.url)], [Credential(CANARY)]) as gateway:
        agent = gateway.enrol()
        asking = Asking(gateway, agent, sdk, merge(gateway, agent, number))
        gateway.kill()
        refused(asking.answer(), "gateway_unavailable")


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """Approvals live as short as the configuration lets them."""
    routes = [Route("github", one_origin.url, more={"approval_ttl_seconds": 10})]
    with Gateway(tmp_path_factory.mktemp("hasty"), routes, [Credential(CANARY)]) as running:
        yield running


def test_expired(sdk: sdks.Driver, hasty: Gateway, number: int) -> None:
    agent = hasty.enrol()
    asking = Asking(hasty, agent, sdk, merge(hasty, agent, number))
    assert refused(asking.answer(), "approval_expired")["approval_id"] == asking.approval


def test_the_hash_is_that_of_the_proxied_call(sdk: sdks.Driver, gateway: Gateway, agent: Agent, number: int) -> None:
    """One action, whichever door it comes through."""
    asked = sdk.ask(issue(gateway, agent, dry_run=True))
    proxied = gateway.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "Hello"})
    assert asked["action_hash"] == proxied.headers["aegis-action-hash"]
    args = {"repo": "octo/hello", "prNumber": number, "mergeMethod": "squash"}
    asked = sdk.ask(order(gateway, agent, "merge_pull_request", args, dry_run=True))
    proxied = gateway.call(agent, "PUT", f"/repos/octo/hello/pulls/{number}/merge", json={"merge_method": "squash"})
    assert asked["action_hash"] == proxied.headers["aegis-action-hash"]
    assert asked["decision"] == "require_approval" and proxied.status_code == 403
    args = {"owner": "octo", "repo": "hello", "path": "docs/a b.txt", "ref": "main"}
    asked = sdk.ask(order(gateway, agent, "get_file_contents", args, dry_run=True))
    proxied = gateway.call(agent, "GET", "/repos/octo/hello/contents/docs/a%20b.txt?ref=main")
    assert asked["action_hash"] == proxied.headers["aegis-action-hash"]
