"""`protect_tool`: a function that runs only when the gateway allows exactly this call."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Callable, Literal, TypeVar, overload

from ._client import AegisClient, OnDecision
from ._guard import guard_of
from ._wrap import wrap

F = TypeVar("F", bound=Callable[..., Any])


@overload
def protect_tool(
    *,
    client: AegisClient,
    tool: str,
    action: str,
    risk: str | None = None,
    resource: str | None = None,
    exclude: Iterable[str] = (),
    source_trust: str | None = None,
    dry_run: Literal[False] = False,
    approval_timeout: float | None = None,
    on_pending: OnDecision | None = None,
    on_decision: OnDecision | None = None,
) -> Callable[[F], F]: ...


@overload
def protect_tool(
    *,
    client: AegisClient,
    tool: str,
    action: str,
    risk: str | None = None,
    resource: str | None = None,
    exclude: Iterable[str] = (),
    source_trust: str | None = None,
    dry_run: bool,
    approval_timeout: float | None = None,
    on_pending: OnDecision | None = None,
    on_decision: OnDecision | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def protect_tool(
    *,
    client: AegisClient,
    tool: str,
    action: str,
    risk: str | None = None,
    resource: str | None = None,
    exclude: Iterable[str] = (),
    source_trust: str | None = None,
    dry_run: bool = False,
    approval_timeout: float | None = None,
    on_pending: OnDecision | None = None,
    on_decision: OnDecision | None = None,
) -> Callable[[Any], Any]:
    """Asks the gateway before a function, method or generator runs, sync or async.

    `tool` and `action` are the catalog's names. `risk` is the least that the author expects. `resource` is a
    template over the function's parameters, instead of the catalog's. Names in `exclude` are not part of the
    action. `source_trust` says what the source is; see also the context manager of that name. With `dry_run` the
    function never runs: a call gives the `Decision`, and an awaitable of it where the function is async.
    `approval_timeout` (seconds), `on_pending` and `on_decision` override those of the client.
    """
    guard = guard_of(
        client,
        tool,
        action,
        risk=risk,
        resource=resource,
        exclude=exclude,
        source_trust=source_trust,
        dry_run=dry_run,
        approval_timeout=approval_timeout,
        on_pending=on_pending,
        on_decision=on_decision,
    )
    return functools.partial(wrap, guard)
