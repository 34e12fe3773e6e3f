#!/usr/bin/env python3
"""The Python SDK behind the driver protocol: one JSON object per line in, one out, in order."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import inspect
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from aegisagent import (
    AegisClient,
    AegisError,
    CanonError,
    Decision,
    canonicalize,
    parse_strict,
    protect_tool,
    source_trust,
)
from aegisagent.action import hash_call
from aegisagent.verify import verify_path

CLIENTS: dict[tuple[Any, ...], AegisClient] = {}


class BodyFailed(Exception):
    """What a function raises that is told to fail."""


class Loop:
    """One event loop for all async calls, so that their connections are kept."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def main() -> None:
    operations = {"call": Calls().answer, "canon": canon, "hash_call": hashed, "verify": verify}
    for line in sys.stdin:
        order = json.loads(line)
        answer = {"id": order["id"], **operations[order["op"]](order)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Calls:
    """`call`."""

    def __init__(self) -> None:
        self._loop = Loop()

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        call = Call(order)
        started = time.perf_counter()
        result, error = None, None
        try:
            result = self._run(order["mode"], call)
        except AegisError as refused:
            error = described(refused)
            call.action_hash = call.action_hash or refused.action_hash
        except BodyFailed:
            error = {"code": "body"}
        decision = None
        if isinstance(result, Decision):
            result, decision = None, result.decision
        return {
            "ran": call.ran, "result": result, "error": error, "action_hash": call.action_hash, "decision": decision,
            "elapsed_ms": (time.perf_counter() - started) * 1000,
        }  # fmt: skip

    def _run(self, mode: str, call: Call) -> Any:
        with source_trust(call.order["context_trust"]) if call.order["context_trust"] else contextlib.nullcontext():
            protected = call.protected(mode)
            given = call.order["args"]
            if mode == "plain" or (mode == "stream" and call.order["dry_run"]):
                return protected(**given)
            if mode == "stream":
                return list(protected(**given))
            # The coroutine takes this context along.
            context_trust = call.order["context_trust"]
            return self._loop.run(call.awaited(mode, protected, context_trust))


class Call:
    """One order: the function it describes, and what became of it."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.ran = 0
        self.action_hash: str | None = None

    def protected(self, mode: str) -> Any:
        order = self.order
        wrapper = protect_tool(
            client=client_of(order), tool=order["tool"], action=order["action"], risk=order["risk"],
            resource=order["resource"], exclude=order["exclude"], source_trust=order["source_trust"],
            dry_run=order["dry_run"], on_pending=self.on_pending, on_decision=self.on_decision,
        )  # fmt: skip
        return wrapper(self.function(mode))

    async def awaited(self, mode: str, protected: Any, trust: str | None) -> Any:
        with source_trust(trust) if trust else contextlib.nullcontext():
            given = self.order["args"]
            if mode == "async" or self.order["dry_run"]:
                return await protected(**given)
            return [item async for item in protected(**given)]

    def function(self, mode: str) -> Callable[..., Any]:
        def plain(**_: Any) -> Any:
            return self.body()

        async def coroutine(**_: Any) -> Any:
            return self.body()

        def stream(**_: Any) -> Iterator[Any]:
            yield from self.body()

        async def async_stream(**_: Any) -> AsyncIterator[Any]:
            for item in self.body():
                yield item

        made: Any = {"plain": plain, "async": coroutine, "stream": stream, "async_stream": async_stream}[mode]
        keyword = inspect.Parameter.KEYWORD_ONLY
        named = [name for name in self.order["args"] if name.isidentifier()]
        if len(named) == len(self.order["args"]):
            made.__signature__ = inspect.Signature([inspect.Parameter(name, keyword) for name in named])
        return made  # type: ignore[no-any-return]

    def body(self) -> Any:
        self.ran += 1
        if self.order["fails"]:
            raise BodyFailed
        return self.order["returns"]

    def on_decision(self, decision: Decision) -> None:
        self.action_hash = decision.action_hash

    def on_pending(self, _: Decision) -> None:
        if not self.order["on_pending"]:
            return
        *path, last, value = self.order["on_pending"]["set"]
        inside = self.order["args"]
        for step in path:
            inside = inside[step]
        inside[last] = value


def client_of(order: dict[str, Any]) -> AegisClient:
    key = tuple(
        order[name]
        for name in ("gateway_url", "agent_token", "ca_file", "danger_plaintext", "timeout_s", "approval_timeout_s")
    )
    if key not in CLIENTS:
        url, token, ca_file, danger, timeout, approval_timeout = key
        CLIENTS[key] = AegisClient(
            url, token, ca_file=ca_file, danger_plaintext=danger, timeout=timeout, approval_timeout=approval_timeout
        )
    return CLIENTS[key]


def described(error: AegisError) -> dict[str, Any]:
    return {
        "code": error.code, "reason": error.reason, "message": error.message, "status": error.status,
        "decision_id": error.decision_id, "receipt_id": error.receipt_id, "approval_id": error.approval_id,
        "type": type(error).__name__,
    }  # fmt: skip


def canon(order: dict[str, Any]) -> dict[str, Any]:
    try:
        raw = canonicalize(parse_strict(base64.b64decode(order["text_b64"])))
    except CanonError as error:
        return {"ok": False, "reason": error.reason}
    return {"ok": True, "sha256": hashlib.sha256(raw).hexdigest()}


def hashed(order: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": True, "sha256": hash_call(order["tool_call"])}
    except CanonError as error:
        return {"ok": False, "reason": error.reason}


def verify(order: dict[str, Any]) -> dict[str, Any]:
    report = verify_path(Path(order["path"]))
    return {"exit": report.exit_code, "verdict": report.as_json()}


if __name__ == "__main__":
    main()
