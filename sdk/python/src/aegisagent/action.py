"""The action hash of a tool call, for programs that speak to the gateway by themselves."""

from __future__ import annotations

from typing import Any

from ._action import seal_call

__all__ = ["hash_call"]


def hash_call(tool_call: Any) -> str:
    """Lowercase hex SHA-256 of a `tool_call` of five keys, long strings folded; a `CanonError` where it has none."""
    return seal_call(tool_call).hash
