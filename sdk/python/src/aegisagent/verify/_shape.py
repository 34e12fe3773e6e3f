"""The members of leaves and their types, for leaves whose commitments are opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable

from ._report import Broken

Check = Callable[[Any], bool]


def check_shape(leaf: Mapping[str, Any]) -> None:
    """Whether a leaf has the members of its type. Unknown ones are passed over: a later version may add some."""
    _check(leaf, _STAMP)
    required, optional = _BODIES[leaf["type"]]
    _check(leaf, required)
    for name, check in optional.items():
        if name in leaf and not check(leaf[name]):
            raise Broken(f"not a leaf: `{name}` has the wrong type")


def _check(leaf: Mapping[str, Any], required: Mapping[str, Check]) -> None:
    for name, check in required.items():
        if name in leaf and not check(leaf[name]):
            raise Broken(f"not a leaf: `{name}` has the wrong type")
    for name in required:
        if name not in leaf:
            raise Broken(f"not a leaf: missing field `{name}`")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(limit: int) -> Check:
    return lambda value: _integer(value) and 0 <= value < limit


def _one_of(*words: str) -> Check:
    return lambda value: value in words


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _struct(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(name in value and each(value[name]) for name, each in required.items())
            and all(name not in value or each(value[name]) for name, each in optional.items())
        )

    return check


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


_U64, _U32, _U16 = _whole(2**64), _whole(2**32), _whole(2**16)
_DOOR = _one_of("route", "connect", "sdk", "sql", "webhook", "fact")
_TRUST = _one_of(
    "trusted_internal_signed",
    "trusted_internal_unsigned",
    "semi_trusted_customer",
    "untrusted_external",
    "malicious_suspected",
    "unknown",
)
_TRANSFER = _or_null(_struct({"bytes": _U64}, {"frames": _or_null(_U64), "sha256": _or_null(_digest)}))
_STAMP: dict[str, Check] = {
    "node": _text,
    "seq": _U64,
    "ts": _integer,
    "prev_receipt_hash": _digest,
    "type": _text,
}
_INTENT: tuple[dict[str, Check], dict[str, Check]] = (
    {
        "action": _text,
        "action_commitment": _digest,
        "agent_binding": _text,
        "class": _one_of("read", "write", "delete", "admin", "mint", "persist", "money"),
        "decision": _one_of("allow", "deny", "require_approval"),
        "decision_id": _text,
        "door": _DOOR,
        "mutates_state": _flag,
        "parameters_commitment": _digest,
        "reason": _text,
        "risk": _one_of("low", "medium", "high", "critical"),
        "route": _text,
        "snapshot": _digest,
        "source_trust": _TRUST,
        "tenant": _text,
        "tool": _text,
    },
    {
        "agent_id": _or_null(_text),
        "approval": _or_null(_struct({"approvers": _texts, "id": _text}, {})),
        "count": _or_null(_U32),
        "credential": _or_null(_text),
        "dry_run": _flag,
        "index": _or_null(_U32),
        "parent_run_id": _or_null(_text),
        "policies": _texts,
        "request_id": _or_null(_text),
        "resource": _or_null(_text),
        "run_id": _or_null(_text),
        "sending": _text_map,
        "trace_id": _or_null(_text),
        "user": _or_null(_text),
    },
)
_OUTCOME: tuple[dict[str, Check], dict[str, Check]] = (
    {
        "decision_id": _text,
        "ended_at": _integer,
        "intent_seq": _U64,
        "started_at": _integer,
        "state": _one_of("completed", "failed", "aborted", "unknown"),
    },
    {
        "credential": _or_null(_struct({"id": _text, "version": _text}, {})),
        "received": _TRANSFER,
        "sent": _TRANSFER,
        "tamper": _or_null(_text),
        "upstream_status": _or_null(_U16),
    },
)
_REFUSED: tuple[dict[str, Check], dict[str, Check]] = (
    {"count": _U64, "door": _DOOR, "reason": _text, "source": _text, "status": _U16},
    {
        "agent_id": _or_null(_text),
        "detail": _or_null(_text),
        "route": _or_null(_text),
        "since": _or_null(_integer),
        "tenant": _or_null(_text),
        "trace_id": _or_null(_text),
    },
)
_BODIES: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "intent.v1": _INTENT,
    "outcome.v1": _OUTCOME,
    "outcomes.v1": ({"entries": _list_of(_struct(*_OUTCOME))}, {}),
    "refused.v1": _REFUSED,
    "event.v1": (
        {"at": _integer, "body": lambda value: isinstance(value, dict), "event_id": _text, "kind": _text},
        {},
    ),
    "recovered.v1": ({"bytes": _U64, "leaves": _U64, "torn": _text}, {}),
}
