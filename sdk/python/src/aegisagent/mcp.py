"""Tools of an MCP server (`FastMCP`, `MCPServer` since mcp 2), protected in one line. Needs `aegisagent[mcp]`."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any, Callable

from ._client import AegisClient
from ._errors import AegisError, ConfigurationError
from ._guard import guard_of
from ._wrap import wrap

__all__ = ["protect"]


def protect(
    server: Any, name: str | None = None, *, client: AegisClient, tool: str, action: str | None = None, **more: Any
) -> None:
    """Makes the server's tools ask the gateway before they run: the one named, or all that it has by now.

    `action` is the tool's own name where it is left out. Refusals reach the MCP client as the tool's error, with
    their reason. The server's context and what it resolves by itself are no part of the action. `more` is what
    `protect_tool` takes.
    """
    manager = getattr(server, "_tool_manager", None)
    if manager is None:
        raise ConfigurationError("this is no FastMCP or MCPServer whose tools can be protected")
    found = [each for each in manager.list_tools() if name in (None, each.name)]
    if not found:
        raise ConfigurationError(f"the server has no tool `{name}`" if name else "the server has no tools yet")
    if action is not None and name is None:
        raise ConfigurationError("`action` is for one tool: name it")
    refused = _tool_error()
    exclude = frozenset(more.pop("exclude", ()))
    for each in found:
        own = {getattr(each, "context_kwarg", None), *getattr(each, "resolved_params", ())} - {None}
        guard = guard_of(client, tool, action or each.name, exclude=exclude | own, **more)
        each.fn = _telling(wrap(guard, each.fn), refused)


def _telling(protected: Callable[..., Any], refused: type[Exception]) -> Callable[..., Any]:
    """Servers keep what they do not know from their clients; a refusal is meant to be read."""
    if inspect.iscoroutinefunction(protected):

        @functools.wraps(protected)
        async def told_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await protected(*args, **kwargs)
            except AegisError as error:
                raise refused(str(error)) from error

        return told_async

    @functools.wraps(protected)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return protected(*args, **kwargs)
        except AegisError as error:
            raise refused(str(error)) from error

    return told


def _tool_error() -> type[Exception]:
    for module in ("mcp.server.mcpserver.exceptions", "mcp.server.fastmcp.exceptions"):
        try:
            kind: type[Exception] = importlib.import_module(module).ToolError
        except ImportError:
            continue
        return kind
    raise ConfigurationError("the `mcp` package is not installed: install `aegisagent[mcp]`")
