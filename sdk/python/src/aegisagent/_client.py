"""The client: one gateway, one agent, connections that stay open."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from types import TracebackType
from typing import Any, Callable

from ._answers import Decision
from ._errors import ConfigurationError
from ._flow import Exchange, Limits, Sleep, Steps, entry_steps
from ._mapping import Entry
from ._settings import target_of
from ._transport import AsyncTransport, SyncTransport

OnDecision = Callable[[Decision], Any]


class AegisClient:
    """Asks one gateway as one agent. Holds no policy and decides nothing.

    It serves sync and async functions alike, from any thread and any event loop. Create one and keep it: it
    keeps connections open and the catalog's entries for five minutes.

    What is not given is taken from `AEGIS_GATEWAY_URL`, `AEGIS_AGENT_TOKEN` and `AEGIS_CA_FILE`.
    """

    def __init__(
        self,
        gateway_url: str | None = None,
        agent_token: str | None = None,
        *,
        ca_file: str | None = None,
        danger_plaintext: bool = False,
        timeout: float = 10.0,
        approval_timeout: float = 900.0,
        on_pending: OnDecision | None = None,
        on_decision: OnDecision | None = None,
    ) -> None:
        """`timeout` and `approval_timeout` are seconds: for one question with its resends, and for people.

        `ca_file` (PEM) adds roots. `danger_plaintext` allows `http://` beyond loopback. `on_pending` is called
        when a person has to agree, `on_decision` with every decision; both get a `Decision`.
        """
        if not timeout > 0 or not approval_timeout >= 0:
            raise ConfigurationError("`timeout` must be over 0 seconds, and `approval_timeout` not below 0")
        self.limits = Limits(timeout, approval_timeout)
        self.on_pending = on_pending
        self.on_decision = on_decision
        self._target = target_of(gateway_url, agent_token, ca_file, danger_plaintext)
        self._sync = SyncTransport(self._target)
        self._async = AsyncTransport(self._target)
        self._entries: dict[tuple[str, str], tuple[float, Entry]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._target.origin}{self._target.path}>"

    def __enter__(self) -> AegisClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> AegisClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def close(self) -> None:
        """Closes the connections of sync calls. Later calls open new ones."""
        self._sync.close()

    async def aclose(self) -> None:
        """The same, and for those of the running event loop."""
        self.close()
        await self._async.aclose()

    def _run(self, steps: Steps) -> Any:
        """Drives steps in this thread."""
        value: Any = None
        while True:
            try:
                effect = steps.send(value)
            except StopIteration as end:
                return end.value
            if isinstance(effect, Exchange):
                value = self._sync.exchange(effect)
            elif isinstance(effect, Sleep):
                time.sleep(effect.seconds)
                value = None
            else:
                value = effect.callback(effect.decision)
                if inspect.iscoroutine(value):
                    value.close()
                    raise ConfigurationError("a callback of a sync function must not be a coroutine function")

    async def _arun(self, steps: Steps) -> Any:
        """Drives steps in the running event loop."""
        value: Any = None
        while True:
            try:
                effect = steps.send(value)
            except StopIteration as end:
                return end.value
            if isinstance(effect, Exchange):
                value = await self._async.exchange(effect)
            elif isinstance(effect, Sleep):
                await asyncio.sleep(effect.seconds)
                value = None
            else:
                value = effect.callback(effect.decision)
                if inspect.isawaitable(value):
                    value = await value

    def _entry(self, tool: str, action: str) -> Entry:
        """The catalog entry of an action."""
        return self._kept(tool, action) or self._keep(self._run(entry_steps(tool, action, self.limits)))

    async def _aentry(self, tool: str, action: str) -> Entry:
        """The same for async callers."""
        return self._kept(tool, action) or self._keep(await self._arun(entry_steps(tool, action, self.limits)))

    def _kept(self, tool: str, action: str) -> Entry | None:
        with self._lock:
            until, entry = self._entries.get((tool, action), (0.0, None))
        return entry if entry is not None and time.monotonic() < until else None

    def _keep(self, entry: Entry) -> Entry:
        with self._lock:
            self._entries[entry.tool, entry.action] = (time.monotonic() + ENTRY_SECONDS, entry)
        return entry


class AsyncAegisClient(AegisClient):
    """The same client under the name that async programs look for."""


ENTRY_SECONDS = 300.0
