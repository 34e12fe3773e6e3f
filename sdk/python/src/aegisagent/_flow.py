"""One call from the question to the permission, told once for sync and async alike.

The steps are generators: they yield what has to be done (`Exchange`, `Sleep`, `Tell`) and get what came of it.
Whoever drives them does the waiting; nothing here does.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable, Union

from ._action import Action
from ._answers import (
    Approval,
    Decision,
    Reply,
    read_approval_status,
    read_decision,
    read_entry,
    unexpected,
)
from ._errors import (
    BY_CODE,
    ActionHashMismatchError,
    AegisError,
    ApprovalStaleError,
    ConsumeUnknownError,
    DeniedError,
    NotCanonicalError,
)
from ._mapping import Entry


@dataclass(frozen=True)
class Exchange:
    """Send this and bring the answer: a `Reply`, or a `Failure`."""

    method: str
    path: str
    body: bytes | None
    limit: float
    """Seconds for all of it."""
    fresh: bool = False
    """On a connection of its own."""


@dataclass(frozen=True)
class Sleep:
    """Wait that many seconds."""

    seconds: float


@dataclass(frozen=True)
class Tell:
    """Call the user's callback, and wait for it where it is a coroutine."""

    callback: Callable[[Decision], Any]
    decision: Decision


@dataclass(frozen=True)
class Failure:
    """A request that has no whole answer."""

    code: str
    message: str
    arrived: bool
    """Whether the gateway may have got it."""
    again: bool = False
    """Whether it is one of those after which a request may be sent again."""
    status: int | None = None


Effect = Union[Exchange, Sleep, Tell]
Steps = Generator[Effect, Any, Any]


@dataclass(frozen=True)
class Limits:
    """How long things may take, seconds."""

    timeout: float
    """For each question, resends included."""
    approval_timeout: float
    """For people."""


@dataclass(frozen=True)
class Asked:
    """One call as it is asked about."""

    make: Callable[[], Action]
    """Makes the action of the arguments as they are now."""
    trust: str | None
    limits: Limits
    dry_run: bool = False
    on_pending: Callable[[Decision], Any] | None = None
    on_decision: Callable[[Decision], Any] | None = None


def entry_steps(tool: str, action: str, limits: Limits) -> Steps:
    """The catalog entry."""
    reply = yield from _exchange("GET", f"/v1/actions/{tool}.{action}", None, limits.timeout)
    _raise_for(reply)
    return read_entry(reply, tool, action)


def decide_steps(asked: Asked) -> Steps:
    """Ends with the decision that allows the call, or raises. With `dry_run`, ends with any decision."""
    action = asked.make()
    decision: Decision = yield from _authorize(action, asked)
    if asked.on_decision is not None:
        yield Tell(asked.on_decision, decision)
    if asked.dry_run:
        return decision
    if decision.decision == "require_approval":
        decision = yield from _with_approval(action, decision, asked)
        if asked.on_decision is not None:
            yield Tell(asked.on_decision, decision)
    if decision.decision != "allow":
        raise _refused(DeniedError, decision)
    _same_again(asked, action, decision)
    return decision


def outcome_steps(decision: Decision, status: str, digest: tuple[str, int] | None, limits: Limits) -> Steps:
    """Says how it ended. What goes wrong is logged: the function has run."""
    report: dict[str, Any] = {"status": status}
    if digest is not None:
        report["result_digest"], report["result_bytes"] = digest
    path = f"/v1/decisions/{decision.decision_id}/outcome"
    try:
        reply: Reply = yield from _exchange("POST", path, json.dumps(report).encode("ascii"), limits.timeout)
        if reply.status != 204:
            _raise_for(reply)
            raise unexpected(f"status {reply.status}", reply.status)
    except AegisError as error:
        LOG.warning("the outcome of decision %s is not reported: %s", decision.decision_id, error)


def _authorize(action: Action, asked: Asked) -> Steps:
    said: dict[str, Any] = {"context": {}, "dry_run": asked.dry_run, "request_id": str(uuid.uuid4())}
    if asked.trust is not None:
        said["context"]["source_trust"] = asked.trust
    body = json.dumps(said)[:-1].encode("ascii") + b', "tool_call": ' + action.tool_call + b"}"
    reply: Reply = yield from _exchange("POST", "/v1/authorize", body, asked.limits.timeout)
    _raise_for(reply)
    return read_decision(reply, action.hash, dry_run=asked.dry_run)


def _with_approval(action: Action, decision: Decision, asked: Asked) -> Steps:
    approval = decision.approval
    if approval is None:
        raise unexpected("the answer asks for an approval and names none")
    try:
        return (yield from _approved(action, decision, approval, asked))
    except AegisError as error:
        # Whatever went wrong, it went wrong with this approval.
        error.approval_id = error.approval_id or approval.approval_id
        error.decision_id = error.decision_id or decision.decision_id
        error.receipt_id = error.receipt_id or decision.receipt.receipt_id
        error.action_hash = error.action_hash or action.hash
        raise


def _approved(action: Action, decision: Decision, approval: Approval, asked: Asked) -> Steps:
    if asked.on_pending is not None:
        yield Tell(asked.on_pending, decision)
    yield from _wait(action, approval, asked)
    _same_again(asked, action, decision)
    body = b'{"action_hash": "' + action.hash.encode("ascii") + b'", "tool_call": ' + action.tool_call + b"}"
    reply: Reply = yield from _exchange(
        "POST", f"/v1/approvals/{approval.approval_id}/consume", body, asked.limits.timeout, once=True
    )
    _raise_for(reply, consuming=True)
    used: Decision = read_decision(reply, action.hash, dry_run=False)
    if used.decision == "require_approval":
        raise _refused(ApprovalStaleError, used)
    return used


def _wait(action: Action, approval: Approval, asked: Asked) -> Steps:
    """Polls until a person said yes."""
    now = time.monotonic()
    own_end = now + (approval.expires_at - datetime.now(timezone.utc)).total_seconds()
    patience = now + asked.limits.approval_timeout
    end, code = min((own_end, "approval_expired"), (patience, "approval_timeout"))
    pause = FIRST_PAUSE
    while True:
        yield Sleep(max(0.0, min(pause, end - time.monotonic())))
        pause = min(pause * 1.5, LONGEST_PAUSE)
        reply: Reply = yield from _exchange("GET", f"/v1/approvals/{approval.approval_id}", None, asked.limits.timeout)
        _raise_for(reply)
        status, action_hash = read_approval_status(reply, approval.approval_id)
        if action_hash != action.hash:
            raise ActionHashMismatchError("the approval's action hash is not the one computed here", status=200)
        if status == "approved":
            return
        if status != "pending":
            raise BY_CODE[_ENDED[status]](f"the approval is {status}", status=200)
        if time.monotonic() >= end:
            raise BY_CODE[code]("nobody answered in time", status=200)


def _same_again(asked: Asked, action: Action, decision: Decision) -> None:
    """The arguments may have changed while somebody waited."""
    try:
        same = asked.make().hash == action.hash
    except NotCanonicalError:
        same = False
    if not same:
        raise ActionHashMismatchError(
            "the arguments changed after they were asked about",
            decision_id=decision.decision_id,
            receipt_id=decision.receipt.receipt_id,
            approval_id=decision.approval.approval_id if decision.approval else None,
            action_hash=action.hash,
        )


def _exchange(method: str, path: str, body: bytes | None, timeout: float, *, once: bool = False) -> Steps:
    """Sends a request, and the same bytes again where that is safe: at most twice more, within `timeout`.

    `once`: never again after it may have arrived, and on a fresh connection: one that was kept may be gone, and
    then nobody knows whether it arrived.
    """
    deadline = time.monotonic() + timeout
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        left = deadline - time.monotonic()
        # One that another may follow gets half of the time that is left.
        outcome: Reply | Failure = yield Exchange(method, path, body, left if last or once else left / 2, fresh=once)
        pause = RESEND_PAUSE * 2**attempt
        if isinstance(outcome, Failure):
            if once and outcome.arrived and outcome.again:
                raise ConsumeUnknownError(
                    f"the answer to consume was lost ({outcome.message}): the approval may be used up",
                    status=outcome.status,
                )
            again = outcome.again
        else:
            told = outcome.retry_after is not None
            again = not once and (outcome.status in _AGAIN or (outcome.status == 409 and told))
            if outcome.retry_after is not None:
                pause = outcome.retry_after
        if last or not again or pause >= deadline - time.monotonic():
            if isinstance(outcome, Failure):
                raise BY_CODE[outcome.code](outcome.message, status=outcome.status)
            return outcome
        yield Sleep(pause)
    raise AssertionError("the last attempt returns")


def _raise_for(reply: Reply, *, consuming: bool = False) -> None:
    """Raises for a status that stands for an error of its own; every other one is left to the reading."""
    problem = reply.problem() if reply.status >= 400 else None
    if problem is None:
        return
    detail = problem.detail or f"the gateway answered with status {reply.status}"
    code = _BY_STATUS.get(reply.status, "gateway_unavailable" if 500 <= reply.status <= 599 else None)
    if code is None:
        return
    if code == "request_conflict" and consuming:
        code = _CONFLICTS.get(problem.reason or "", code)
        if problem.reason == "approval_settled":
            # The gateway says in words what became of it.
            code = next((_ENDED[word] for word in _ENDED if detail.endswith(word)), code)
    decision = problem.decision.get("decision_id")
    raise BY_CODE[code](
        detail,
        reason=problem.reason,
        status=reply.status,
        receipt_id=problem.receipt_id,
        decision_id=decision if isinstance(decision, str) else None,
    )


def _refused(kind: Any, decision: Decision) -> AegisError:
    error: AegisError = kind(
        decision.message or "the gateway does not allow this call",
        reason=decision.reason,
        status=200,
        decision_id=decision.decision_id,
        receipt_id=decision.receipt.receipt_id,
        approval_id=decision.approval.approval_id if decision.approval else None,
        action_hash=decision.action_hash,
    )
    return error


LOG = logging.getLogger("aegisagent")
ATTEMPTS = 3
RESEND_PAUSE = 0.1
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
_AGAIN = (429, 502, 503, 504)
_ENDED = {
    "rejected": "approval_rejected",
    "expired": "approval_expired",
    "cancelled": "approval_cancelled",
    "consumed": "approval_replayed",
}
_CONFLICTS = {
    "approval_settled": "approval_replayed",
    "approval_hash_mismatch": "action_hash_mismatch",
    "not_allowed_any_more": "approval_stale",
}
_BY_STATUS = {
    400: "request_refused",
    401: "unauthenticated",
    403: "agent_stopped",
    404: "request_refused",
    409: "request_conflict",
    413: "request_refused",
    422: "request_refused",
    429: "rate_limited",
}
__all__ = ["Asked", "Effect", "Entry", "Exchange", "Failure", "Limits", "Sleep", "Steps", "Tell"]
