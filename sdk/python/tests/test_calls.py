"""One call: what is asked, what runs, what is said afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fake import Gateway, instant, problem

from aegisagent import (
    ActionHashMismatchError,
    AegisClient,
    AegisError,
    ApprovalExpiredError,
    ApprovalReplayedError,
    ApprovalStaleError,
    ApprovalTimeoutError,
    ConfigurationError,
    Decision,
    DeniedError,
    UnexpectedAnswerError,
    canonicalize,
    protect_tool,
)

RESULT = {"merged": True, "é": [1.5]}
KINDS = ["plain", "async", "stream", "async_stream"]


class Tool:
    """The same tool in every kind; counts how often it ran."""

    def __init__(self, kind: str, client: AegisClient, **more: Any) -> None:
        self.ran = 0
        self.fails = False

        def plain(repo: str, pr_number: int, labels: list[Any], branch: str | None = None) -> Any:
            return self.body()

        async def coroutine(repo: str, pr_number: int, labels: list[Any], branch: str | None = None) -> Any:
            return self.body()

        def stream(repo: str, pr_number: int, labels: list[Any], branch: str | None = None) -> Iterator[Any]:
            yield self.body()
            yield None

        async def async_stream(
            repo: str, pr_number: int, labels: list[Any], branch: str | None = None
        ) -> AsyncIterator[Any]:
            yield self.body()
            yield None

        kinds: dict[str, Any] = {"plain": plain, "async": coroutine, "stream": stream, "async_stream": async_stream}
        wrapper: Any = protect_tool(client=client, tool="github", action="merge_pull_request", risk="high", **more)
        self.protected = wrapper(kinds[kind])
        self.kind = kind

    def body(self) -> Any:
        self.ran += 1
        if self.fails:
            raise ZeroDivisionError
        return RESULT

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self.protected(*args, **kwargs)
        if self.kind == "plain":
            return made
        if self.kind == "stream":
            return list(made)

        async def wait() -> Any:
            return await made if self.kind == "async" else [item async for item in made]

        return asyncio.run(wait())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_allowed_call_runs_once_and_its_digest_is_reported(kind: str, gateway: Gateway, client: AegisClient) -> None:
    tool = Tool(kind, client)
    result = tool("octo/pay", 7, labels=["a"])
    whole = canonicalize(RESULT)
    if "stream" in kind:
        assert result == [RESULT, None]
        whole += b"\nnull\n"
    else:
        assert result == RESULT
    assert tool.ran == 1
    assert gateway.steps == ["catalog", "authorize", "outcome"]
    call = {"tool": "github", "action": "merge_pull_request", "resource": "octo/pay#7", "mutates_state": True}
    assert gateway.body("authorize")["tool_call"] == {**call, "parameters": {"labels": ["a"]}}
    digest = hashlib.sha256(whole).hexdigest()
    assert gateway.body("outcome") == {"status": "completed", "result_digest": digest, "result_bytes": len(whole)}


def test_a_denied_call_does_not_run(kind: str, gateway: Gateway, client: AegisClient) -> None:
    gateway.script["authorize"] = ["deny"]
    tool = Tool(kind, client)
    with pytest.raises(DeniedError) as refused:
        tool("octo/pay", 7, [])
    error = refused.value
    assert (error.code, error.reason, error.message) == ("denied", "because", "said: deny")
    assert (error.status, error.decision_id, error.receipt_id) == (200, "dec_1", "rcp_n1_1")
    assert (tool.ran, gateway.steps) == (0, ["catalog", "authorize"])


def test_an_approved_call_runs_after_its_approval_is_used_up(kind: str, gateway: Gateway, client: AegisClient) -> None:
    gateway.script = {"authorize": ["require_approval"], "approval": ["pending"]}
    told: list[Decision] = []
    tool = Tool(kind, client, on_pending=told.append)
    assert tool("octo/pay", 7, [])
    assert gateway.steps == ["catalog", "authorize", "approval", "approval", "consume", "outcome"]
    assert gateway.body("consume") == {
        "action_hash": gateway.hash,
        "tool_call": gateway.body("authorize")["tool_call"],
    }
    assert [each.approval.approval_id for each in told if each.approval] == ["apr_1"]


def test_arguments_swapped_while_waiting_do_not_run(kind: str, gateway: Gateway, client: AegisClient) -> None:
    gateway.script = {"authorize": ["require_approval"]}
    labels = ["a"]
    tool = Tool(kind, client, on_pending=lambda _: labels.append("swapped"))
    with pytest.raises(ActionHashMismatchError) as refused:
        tool("octo/pay", 7, labels)
    assert (refused.value.approval_id, tool.ran) == ("apr_1", 0)
    assert "consume" not in gateway.steps


def test_arguments_swapped_during_consume_do_not_run(gateway: Gateway, client: AegisClient) -> None:
    labels = ["a"]

    def swap() -> str:
        labels.append("swapped")
        return "default"

    gateway.script = {"authorize": ["require_approval"], "consume": [swap]}
    tool = Tool("plain", client)
    with pytest.raises(ActionHashMismatchError):
        tool("octo/pay", 7, labels)
    assert tool.ran == 0


def test_arguments_swapped_during_authorize_do_not_run(kind: str, gateway: Gateway, client: AegisClient) -> None:
    labels = ["a"]

    def swapped() -> str:
        labels.append("swapped")
        return "default"

    gateway.script = {"authorize": [swapped]}
    tool = Tool(kind, client)
    with pytest.raises(ActionHashMismatchError):
        tool("octo/pay", 7, labels)
    assert tool.ran == 0


def test_a_failing_function_is_reported_and_its_error_stays(kind: str, gateway: Gateway, client: AegisClient) -> None:
    tool = Tool(kind, client)
    tool.fails = True
    with pytest.raises(ZeroDivisionError):
        tool("octo/pay", 7, [])
    assert gateway.body("outcome") == {"status": "failed"}


def test_a_dry_run_gives_the_decision(kind: str, gateway: Gateway, client: AegisClient) -> None:
    tool = Tool(kind, client, dry_run=True)
    tool.kind = "async" if "async" in kind else "plain"
    gateway.script["authorize"] = ["deny", "require_approval"]
    assert tool("octo/pay", 7, []).decision == "deny"
    assert tool("octo/pay", 7, []).decision == "require_approval"
    assert gateway.body("authorize")["dry_run"] is True
    assert (tool.ran, gateway.steps) == (0, ["catalog", "authorize", "authorize"])


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "maybe"},
        {"decision": True},
        {"canon_version": "aegis-jcs-2"},
        {"dry_run": True},
        {"dry_run": 0},
        {"receipt": None},
        {"receipt": {"receipt_id": "rcp_n1_1", "receipt_hash": "x", "prev_receipt_hash": "2" * 64}},
        {"decision_id": "../x"},
        {"decision": "require_approval", "approval": None},
    ],
)
def test_an_answer_that_is_none_runs_nothing(change: dict[str, Any], gateway: Gateway, client: AegisClient) -> None:
    gateway.script["authorize"] = [lambda: (200, gateway.decision("allow", **change))]
    tool = Tool("plain", client)
    with pytest.raises(UnexpectedAnswerError):
        tool("octo/pay", 7, [])
    assert tool.ran == 0


@pytest.mark.parametrize("told", ["0" * 64, ""])
@pytest.mark.parametrize("step", ["authorize", "consume", "approval"])
def test_another_hash_runs_nothing(step: str, told: str, gateway: Gateway, client: AegisClient) -> None:
    if step == "authorize":
        gateway.script["authorize"] = [lambda: (200, gateway.decision("allow", action_hash=told))]
    else:
        gateway.script["authorize"] = ["require_approval"]
        approved = {"approval_id": "apr_1", "status": "approved", "action_hash": told}
        answers = {"approval": approved, "consume": None}
        gateway.script[step] = [lambda: (200, answers[step] or gateway.decision("allow", action_hash=told))]
    tool = Tool("plain", client)
    with pytest.raises(ActionHashMismatchError):
        tool("octo/pay", 7, [])
    assert tool.ran == 0


@pytest.mark.parametrize(
    "answer, code",
    [
        (problem(409, "approval_settled", detail="the approval is consumed"), "approval_replayed"),
        (problem(409, "approval_settled", detail="the approval is expired"), "approval_expired"),
        (problem(409, "approval_hash_mismatch"), "action_hash_mismatch"),
        (problem(409, "not_allowed_any_more"), "approval_stale"),
        (problem(403, "agent_frozen"), "agent_stopped"),
        (problem(503, "not_recorded"), "gateway_unavailable"),
        (None, "consume_unknown"),
    ],
)
def test_consume_is_sent_once(answer: Any, code: str, gateway: Gateway, client: AegisClient) -> None:
    gateway.script = {"authorize": ["require_approval"], "consume": [answer, answer]}
    tool = Tool("plain", client)
    with pytest.raises(AegisError) as refused:
        tool("octo/pay", 7, [])
    assert (refused.value.code, refused.value.approval_id) == (code, "apr_1")
    assert (tool.ran, gateway.steps.count("consume")) == (0, 1)


def test_consume_that_asks_again_is_stale(gateway: Gateway, client: AegisClient) -> None:
    gateway.script = {"authorize": ["require_approval"], "consume": ["require_approval"]}
    with pytest.raises(ApprovalStaleError):
        Tool("plain", client)("octo/pay", 7, [])


def test_how_approvals_end(gateway: Gateway, client: AegisClient) -> None:
    for status, kind in [("rejected", "approval_rejected"), ("cancelled", "approval_cancelled")]:
        gateway.script = {"authorize": ["require_approval"], "approval": [status]}
        with pytest.raises(AegisError) as refused:
            Tool("plain", client)("octo/pay", 7, [])
        assert refused.value.code == kind
    gateway.script = {"authorize": ["require_approval"], "approval": ["consumed"]}
    with pytest.raises(ApprovalReplayedError):
        Tool("plain", client)("octo/pay", 7, [])


def test_nobody_answers(gateway: Gateway, client: AegisClient) -> None:
    gateway.script = {"authorize": ["require_approval"], "approval": ["pending"] * 9}
    with pytest.raises(ApprovalTimeoutError):
        Tool("plain", client, approval_timeout=0.3)("octo/pay", 7, [])

    def ends_soon() -> Any:
        made = gateway.decision("require_approval")
        made["approval"]["expires_at"] = instant(0.3)
        return 200, made

    gateway.script["authorize"] = [ends_soon]
    with pytest.raises(ApprovalExpiredError):
        Tool("plain", client)("octo/pay", 7, [])


def test_the_outcome_cannot_spoil_a_result(kind: str, gateway: Gateway, client: AegisClient, caplog: Any) -> None:
    gateway.script["outcome"] = [problem(404, "not_found")]
    assert Tool(kind, client)("octo/pay", 7, [])
    assert "dec_1 is not reported" in caplog.text


def test_results_without_canonical_form_have_no_digest(gateway: Gateway, client: AegisClient) -> None:
    protect = protect_tool(client=client, tool="shop", action="refund")
    result = object()

    @protect
    def refund(amount: int) -> Any:
        return result

    assert refund(5) is result
    assert gateway.body("outcome") == {"status": "completed"}


def test_the_risk_that_the_author_expects(gateway: Gateway, client: AegisClient) -> None:
    @protect_tool(client=client, tool="shop", action="refund", risk="critical")
    def refund(amount: int) -> None:
        raise AssertionError

    with pytest.raises(ConfigurationError, match="less than `critical`"):
        refund(5)
    assert gateway.steps == ["catalog"]


def test_callbacks_may_be_coroutines_where_the_function_is_one(gateway: Gateway, client: AegisClient) -> None:
    seen: list[str] = []

    async def note(decision: Decision) -> None:
        await asyncio.sleep(0)
        seen.append(decision.decision)

    gateway.script = {"authorize": ["require_approval"]}
    assert Tool("async", client, on_decision=note)("octo/pay", 7, [])
    assert seen == ["require_approval", "allow"]
    with pytest.raises(ConfigurationError):
        Tool("plain", client, on_decision=note)("octo/pay", 7, [])


def test_request_ids_are_fresh(gateway: Gateway, client: AegisClient) -> None:
    tool = Tool("plain", client)
    tool("octo/pay", 7, [])
    tool("octo/pay", 7, [])
    ids: Callable[[int], str] = lambda at: json.loads(gateway.raw[at])["request_id"]  # noqa: E731
    assert ids(1) != ids(3)
    assert gateway.steps.count("catalog") == 1
