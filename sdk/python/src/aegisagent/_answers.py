"""What the gateway says, read strictly. Whatever does not fit is no answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ._canon import CANON_VERSION, CanonError
from ._errors import ActionHashMismatchError, UnexpectedAnswerError
from ._mapping import RISKS, Entry
from ._strict import parse_strict

MAX_ANSWER = 1024 * 1024


@dataclass(frozen=True)
class Receipt:
    """Where a decision is on record."""

    receipt_id: str
    receipt_hash: str
    prev_receipt_hash: str


@dataclass(frozen=True)
class Approval:
    """An approval in a decision."""

    approval_id: str
    status: str
    approver_group: str
    expires_at: datetime
    action_hash: str


@dataclass(frozen=True)
class Decision:
    """What the gateway decided about one call."""

    decision_id: str
    decision: str
    """`allow`, `deny` or `require_approval`."""
    reason: str
    message: str
    action_hash: str
    matched_policies: tuple[str, ...]
    risk: Mapping[str, str]
    effective_trust: str
    receipt: Receipt
    approval: Approval | None
    dry_run: bool


@dataclass(frozen=True)
class Problem:
    """What is known of an answer that is an error (RFC 9457)."""

    reason: str | None
    detail: str | None
    receipt_id: str | None
    decision: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """An HTTP answer as it came."""

    status: int
    content_types: tuple[bytes, ...]
    encoded: bool
    retry_after: float | None
    """Seconds from now."""
    body: bytes
    token: str = field(default="", repr=False)
    """What no part of the answer may pass on, however it is spelled in there."""

    def json(self) -> dict[str, Any]:
        """One JSON object without repeated members."""
        if self.status != 200:
            raise unexpected(f"the gateway answered with status {self.status}", self.status)
        if not self._is(b"application/json") or self.encoded:
            raise unexpected("the answer is not plain `application/json`", self.status)
        try:
            value = self._value()
        except CanonError as error:
            raise unexpected(f"the answer is {error}", self.status) from None
        if not isinstance(value, dict):
            raise unexpected("the answer is no JSON object", self.status)
        return value

    def problem(self) -> Problem:
        """The error's parts, as far as it has them; never an error itself."""
        value: Any = None
        if self._is(b"application/problem+json"):
            try:
                value = self._value()
            except CanonError:
                value = None
        members: dict[str, Any] = value if isinstance(value, dict) else {}
        kind = _text_or_none(members.get("type"))
        prefix = "urn:aegis:problem:"
        decision = members.get("decision")
        return Problem(
            reason=kind[len(prefix) :] if kind and kind.startswith(prefix) else None,
            detail=_text_or_none(members.get("detail")),
            receipt_id=_text_or_none(members.get("receipt")),
            decision=decision if isinstance(decision, dict) else {},
        )

    def _value(self) -> Any:
        value = parse_strict(self.body, MAX_ANSWER)
        return _without(value, self.token) if self.token else value

    def _is(self, media_type: bytes) -> bool:
        if len(self.content_types) != 1:
            return False
        return self.content_types[0].split(b";")[0].strip().lower() == media_type


def _without(value: Any, token: str) -> Any:
    """The value without the token: JSON escapes hide it from whoever looks at the bytes."""
    if isinstance(value, str):
        return value.replace(token, "***")
    if isinstance(value, list):
        return [_without(item, token) for item in value]
    if isinstance(value, dict):
        return {_without(key, token): _without(item, token) for key, item in value.items()}
    return value


def unexpected(message: str, status: int | None = 200) -> UnexpectedAnswerError:
    """An answer that no gateway gives."""
    return UnexpectedAnswerError(message, status=status)


def read_entry(reply: Reply, tool: str, action: str) -> Entry:
    """A catalog entry."""
    members = reply.json()
    resource = members.get("resource")
    parameters, aliases = members.get("parameters"), members.get("aliases")
    fits = (
        members.get("name") == f"{tool}.{action}"
        and (resource is None or isinstance(resource, str))
        and isinstance(members.get("mutates_state"), bool)
        and members.get("risk") in RISKS
        and isinstance(parameters, dict)
        and isinstance(aliases, dict)
        and all(isinstance(name, str) for name in aliases.values())
    )
    if not fits:
        raise unexpected(f"the answer is not the catalog entry of `{tool}.{action}`")
    return Entry(
        tool=tool,
        action=action,
        resource=resource,
        mutates_state=members["mutates_state"],
        risk=members["risk"],
        parameters=frozenset(members["parameters"]),
        aliases=members["aliases"],
    )


def read_decision(reply: Reply, action_hash: str, *, dry_run: bool) -> Decision:
    """A decision about exactly the action that was asked about."""
    members = reply.json()
    if members.get("decision") not in _DECISIONS:
        raise unexpected("the answer has no known `decision`")
    if members.get("canon_version") != CANON_VERSION:
        raise unexpected(f"the answer's `canon_version` is not `{CANON_VERSION}`")
    if members.get("dry_run") is not dry_run:
        raise unexpected("the answer's `dry_run` is not what was asked")
    receipt = _receipt(members.get("receipt"))
    decision_id = _id(members.get("decision_id"), "decision_id")
    told = _text(members.get("action_hash"), "action_hash")
    approval = _approval(members.get("approval"))
    if members["decision"] == "require_approval" and approval is None and not dry_run:
        raise unexpected("the answer asks for an approval and names none")
    for whose, value in (("gateway", told), ("approval", approval.action_hash if approval else action_hash)):
        if value != action_hash:
            raise ActionHashMismatchError(
                f"the {whose}'s action hash is not the one computed here",
                status=200,
                decision_id=decision_id,
                receipt_id=receipt.receipt_id,
                approval_id=approval.approval_id if approval else None,
                action_hash=action_hash,
            )
    policies, risk = members.get("matched_policies"), members.get("risk")
    return Decision(
        decision_id=decision_id,
        decision=members["decision"],
        reason=_text_or_none(members.get("reason")) or "",
        message=_text_or_none(members.get("message")) or "",
        action_hash=action_hash,
        matched_policies=tuple(str(each) for each in policies) if isinstance(policies, list) else (),
        risk={name: str(level) for name, level in risk.items()} if isinstance(risk, dict) else {},
        effective_trust=_text_or_none(members.get("effective_trust")) or "unknown",
        receipt=receipt,
        approval=approval,
        dry_run=dry_run,
    )


def read_approval_status(reply: Reply, approval_id: str) -> tuple[str, str]:
    """Status and action hash of the approval that was asked about."""
    members = reply.json()
    if members.get("approval_id") != approval_id:
        raise unexpected("the answer is about another approval")
    status = members.get("status")
    if status not in _STATUSES:
        raise unexpected("the approval has no known `status`")
    return status, _text(members.get("action_hash"), "action_hash")


def _receipt(value: Any) -> Receipt:
    if not isinstance(value, dict):
        raise unexpected("the answer has no receipt")
    hashes = [_text(value.get(name), f"receipt.{name}") for name in ("receipt_hash", "prev_receipt_hash")]
    if not all(_DIGEST.fullmatch(each) for each in hashes):
        raise unexpected("the receipt's hashes are no digests")
    return Receipt(_id(value.get("receipt_id"), "receipt.receipt_id"), *hashes)


def _approval(value: Any) -> Approval | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise unexpected("`approval` is no object")
    return Approval(
        approval_id=_id(value.get("approval_id"), "approval.approval_id"),
        status=_text(value.get("status"), "approval.status"),
        approver_group=_text_or_none(value.get("approver_group")) or "",
        expires_at=_instant(value.get("expires_at")),
        action_hash=_text(value.get("action_hash"), "approval.action_hash"),
    )


def _instant(value: Any) -> datetime:
    text = _text(value, "approval.expires_at")
    if match := _INSTANT.fullmatch(text):
        try:
            # `fromisoformat` of older versions takes exactly six digits and no `Z`.
            return datetime.fromisoformat(f"{match[1]}.{(match[2] or '')[:6]:0<6}+00:00")
        except ValueError:
            pass
    raise unexpected("`approval.expires_at` is no instant in UTC")


def _id(value: Any, name: str) -> str:
    """Ids become parts of paths."""
    text = _text(value, name)
    if not _ID.fullmatch(text):
        raise unexpected(f"`{name}` is no id")
    return text


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise unexpected(f"the answer has no `{name}`")
    return value


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_DECISIONS = ("allow", "deny", "require_approval")
_STATUSES = ("pending", "approved", "rejected", "expired", "consumed", "cancelled")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9_\-]{1,128}")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
