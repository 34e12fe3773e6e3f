"""What a wrapper says of a call, and the way from there to running it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

import anyio

from ._action import Action, is_name
from ._answers import Decision
from ._client import AegisClient, OnDecision
from ._errors import ConfigurationError
from ._flow import Asked, Limits, decide_steps, outcome_steps
from ._mapping import RISKS, Entry, check_risk, make_action
from ._outcome import Digest, digest_of
from ._trust import SOURCE_TRUST, checked, least


@dataclass(frozen=True)
class Guard:
    """The settings of a wrapper, checked."""

    client: AegisClient
    tool: str
    action: str
    limits: Limits
    risk: str | None = None
    resource: str | None = None
    exclude: frozenset[str] = field(default_factory=frozenset)
    source_trust: str | None = None
    dry_run: bool = False
    on_pending: OnDecision | None = None
    on_decision: OnDecision | None = None

    def __post_init__(self) -> None:
        for member, name in (("tool", self.tool), ("action", self.action)):
            if not is_name(name):
                raise ConfigurationError(f"`{member}` must be 1 to 128 ASCII letters, digits, `_`, `-` or `.`")
        if self.risk is not None and self.risk not in RISKS:
            raise ConfigurationError(f"`risk` must be one of {', '.join(RISKS)}")
        if self.source_trust is not None:
            checked(self.source_trust)

    def trust(self) -> str | None:
        """What is said of the source here and now."""
        return least(self.source_trust, SOURCE_TRUST.get())

    def decide(self, arguments: Mapping[str, Any], trust: str | None) -> Decision:
        """The decision that lets these arguments run, or an error. With `dry_run`, any decision."""
        entry = self.client._entry(self.tool, self.action)
        decision: Decision = self.client._run(decide_steps(self._asked(arguments, entry, trust)))
        return decision

    async def adecide(self, arguments: Mapping[str, Any], trust: str | None) -> Decision:
        """The same in an event loop."""
        entry = await self.client._aentry(self.tool, self.action)
        decision: Decision = await self.client._arun(decide_steps(self._asked(arguments, entry, trust)))
        return decision

    def report(self, decision: Decision, status: str, digest: Digest | None = None) -> None:
        """Says how the call ended."""
        self.client._run(outcome_steps(decision, status, digest, self.limits))

    async def areport(self, decision: Decision, status: str, digest: Digest | None = None) -> None:
        """The same in an event loop, also where the task is being cancelled."""
        with anyio.move_on_after(self.limits.timeout + 1, shield=True):
            await self.client._arun(outcome_steps(decision, status, digest, self.limits))

    def call(self, arguments: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        """Runs `body` once these arguments are allowed."""
        decision = self.decide(arguments, self.trust())
        try:
            result = body()
        except BaseException:
            self.report(decision, "failed")
            raise
        self.report(decision, "completed", digest_of(result))
        return result

    async def acall(self, arguments: Mapping[str, Any], body: Callable[[], Awaitable[Any]]) -> Any:
        """The same in an event loop."""
        decision = await self.adecide(arguments, self.trust())
        try:
            result = await body()
        except BaseException:
            await self.areport(decision, "failed")
            raise
        await self.areport(decision, "completed", digest_of(result))
        return result

    def _asked(self, arguments: Mapping[str, Any], entry: Entry, trust: str | None) -> Asked:
        check_risk(entry, self.risk)

        def make() -> Action:
            return make_action(entry, arguments, self.resource)

        return Asked(make, trust, self.limits, self.dry_run, self.on_pending, self.on_decision)


def guard_of(
    client: AegisClient,
    tool: str,
    action: str,
    *,
    risk: str | None = None,
    resource: str | None = None,
    exclude: Iterable[str] = (),
    source_trust: str | None = None,
    dry_run: bool = False,
    approval_timeout: float | None = None,
    on_pending: OnDecision | None = None,
    on_decision: OnDecision | None = None,
) -> Guard:
    """From what users write, with the client's settings for what they leave open."""
    limits = client.limits
    if approval_timeout is not None:
        limits = Limits(limits.timeout, approval_timeout)
    return Guard(
        client=client,
        tool=tool,
        action=action,
        limits=limits,
        risk=risk,
        resource=resource,
        exclude=frozenset([exclude] if isinstance(exclude, str) else exclude),
        source_trust=source_trust,
        dry_run=dry_run,
        on_pending=on_pending or client.on_pending,
        on_decision=on_decision or client.on_decision,
    )
