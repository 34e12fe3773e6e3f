"""The canonical action: five keys, folded and hashed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from ._canon import CanonError, Writer, bounded, encoded, sha256_hex


@dataclass(frozen=True)
class Action:
    """A sealed action."""

    hash: str
    """Lowercase hex SHA-256 of the canonical bytes."""
    tool_call: bytes
    """The unfolded call as JSON. Where nothing was folded these are the very bytes that were hashed."""


def seal(tool: str, action: str, resource: str | None, mutates_state: bool, parameters: Mapping[str, Any]) -> Action:
    """Checks, folds and hashes. A `CanonError` whose message begins with the member says what does not hold."""
    for member, name in (("tool", tool), ("action", action)):
        if not is_name(name):
            raise CanonError("bad_name", f"`{member}` must be 1 to 128 ASCII letters, digits, `_`, `-` or `.`")
    if resource is not None and not _is_resource(resource):
        raise CanonError("bad_resource", "`resource` must be 1 to 2048 characters without controls")
    writer = Writer(fold=True)
    canonical = bounded(_text(tool, action, resource, mutates_state, writer.text(dict(parameters), 1)))
    unfolded = canonical
    if writer.folded:
        whole = Writer(fold=False, limit=_UNFOLDED_PARTS).text(dict(parameters), 1)
        unfolded = encoded(_text(tool, action, resource, mutates_state, whole))
    return Action(sha256_hex(canonical), unfolded)


def seal_call(call: Any) -> Action:
    """The same for a `tool_call` as it is written in JSON."""
    if not isinstance(call, dict) or set(call) != _KEYS:
        raise CanonError(
            "syntax", "a tool call has exactly `tool`, `action`, `resource`, `mutates_state`, `parameters`"
        )
    fits = (
        isinstance(call["tool"], str)
        and isinstance(call["action"], str)
        and (call["resource"] is None or isinstance(call["resource"], str))
        and isinstance(call["mutates_state"], bool)
        and isinstance(call["parameters"], dict)
    )
    if not fits:
        raise CanonError("syntax", "a member of the tool call has the wrong type")
    return seal(**call)


def is_name(text: str) -> bool:
    """Whether it can be a `tool` or an `action`."""
    return _NAME.fullmatch(text) is not None


def _is_resource(text: str) -> bool:
    return 1 <= len(text) <= 2048 and not any(unicodedata.category(char) == "Cc" for char in text)


def _text(tool: str, action: str, resource: str | None, mutates_state: bool, parameters: str) -> str:
    # The five keys are ASCII and already in order.
    return (
        f'{{"action":"{action}","mutates_state":{"true" if mutates_state else "false"},"parameters":{parameters},'
        f'"resource":{"null" if resource is None else encode_basestring(resource)},"tool":"{tool}"}}'
    )


_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,128}", re.ASCII)
_KEYS = {"tool", "action", "resource", "mutates_state", "parameters"}
_UNFOLDED_PARTS = 64 * 1024 * 1024
