"""LangChain and LangGraph tools, protected in one line. Needs `aegisagent[langchain]`."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from langchain_core.tools import BaseTool, StructuredTool, Tool

from ._client import AegisClient
from ._guard import Guard, guard_of
from ._wrap import wrap

__all__ = ["protect"]

AnyTool = TypeVar("AnyTool", bound=BaseTool)


def protect(
    langchain_tool: AnyTool, *, client: AegisClient, tool: str, action: str | None = None, **more: Any
) -> AnyTool:
    """A copy of the tool that asks the gateway before it runs. `action` is the tool's own name where it is left out.

    What the model cannot say (the config, callbacks, injected state) is no part of the action. `more` is what
    `protect_tool` takes. Refusals are raised as `AegisError`.
    """
    shown = _shown(langchain_tool)
    exclude = frozenset(more.pop("exclude", ()))

    def guarded(function: Any) -> Any:
        hidden = _hidden(function, shown)
        guard: Guard = guard_of(client, tool, action or langchain_tool.name, exclude=exclude | hidden, **more)
        return wrap(guard, function)

    copy = langchain_tool.model_copy()
    if isinstance(copy, (StructuredTool, Tool)):
        if copy.func is not None:
            copy.func = guarded(copy.func)
        if copy.coroutine is not None:
            copy.coroutine = guarded(copy.coroutine)
        return copy
    kind = type(langchain_tool)
    methods = {"_run": guarded(kind._run)}
    if kind._arun is not BaseTool._arun:
        # LangChain's own runs `_run`, which asks already.
        methods["_arun"] = guarded(kind._arun)
    object.__setattr__(copy, "__class__", type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__}))
    return copy


def _shown(tool: BaseTool) -> frozenset[str]:
    """Arguments that the model gives."""
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        return frozenset(schema.get("properties", ()))
    described: dict[str, Any] = getattr(schema, "model_json_schema", schema.schema)()
    return frozenset(described.get("properties", ()))


def _hidden(function: Any, shown: frozenset[str]) -> frozenset[str]:
    """Parameters of the function that the model does not give."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [each for each in inspect.signature(function).parameters.values() if each.kind not in kinds]
    names = [each.name for each in parameters]
    # A tool of one input may call it otherwise than the function does.
    if not shown.intersection(names):
        shown = shown | frozenset(name for name in names if name not in _LANGCHAINS_OWN)
    return frozenset(names) - shown - {"self"}


_LANGCHAINS_OWN = ("config", "callbacks", "run_manager", "runtime")
