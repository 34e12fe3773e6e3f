"""Function tools of the OpenAI Agents SDK, protected in one line. Needs `aegisagent[openai-agents]`."""

from __future__ import annotations

import copy
from typing import Any, Callable

from agents import FunctionTool

from ._canon import CanonError
from ._client import AegisClient
from ._errors import AegisError, NotCanonicalError
from ._guard import guard_of
from ._strict import parse_strict

__all__ = ["protect"]


def protect(
    function_tool: FunctionTool,
    *,
    client: AegisClient,
    tool: str,
    action: str | None = None,
    on_refusal: Callable[[AegisError], Any] | None = None,
    **more: Any,
) -> FunctionTool:
    """A copy of the tool that asks the gateway before it runs. `action` is the tool's own name where it is left out.

    Refusals are raised, which ends the run; with `on_refusal` the model gets what that gives back instead
    (`on_refusal=str` tells it why). `more` is what `protect_tool` takes.
    """
    guard = guard_of(client, tool, action or function_tool.name, **more)
    invoke = function_tool.on_invoke_tool
    defaults = _defaults(function_tool.params_json_schema)

    async def protected(context: Any, text: str) -> Any:
        try:
            given = {**defaults, **_arguments(text)}
            arguments = {
                name: value for name, value in given.items() if value is not None and name not in guard.exclude
            }
            return await guard.acall(arguments, lambda: invoke(context, text))
        except AegisError as error:
            if on_refusal is None:
                raise
            return on_refusal(error)

    made = copy.copy(function_tool)
    made.on_invoke_tool = protected
    return made


def _arguments(text: str) -> dict[str, Any]:
    """What the model says, read strictly: two readings of one text must not exist."""
    try:
        value = parse_strict(text.encode("utf-8", "surrogatepass")) if text.strip() else {}
    except CanonError as error:
        raise NotCanonicalError(f"the tool's arguments: {error}", reason=error.reason) from None
    if not isinstance(value, dict):
        raise NotCanonicalError("the tool's arguments are no JSON object", reason="syntax")
    return value


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {name: each["default"] for name, each in properties.items() if isinstance(each, dict) and "default" in each}
