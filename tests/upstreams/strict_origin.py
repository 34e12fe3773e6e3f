"""An upstream that insists: on the real credential, and on well-formed HTTP/1.1.

It stands alone, answering from a table, or in front of an emulator that is too
lax to be evidence. Every byte that reaches it is counted and every request is
kept, so a test can say that nothing arrived, or exactly what did.

    with StrictOrigin(credential=("authorization", "Bearer ghp_x")) as origin:
        origin.answer("GET", "/user", {"login": "octo"})
        origin.fault(Fault("stall", path="/slow"))

    python tests/upstreams/strict_origin.py --listen 127.0.0.1:9001 --control 127.0.0.1:9002 \\
        --credential-env REAL_TOKEN [--upstream http://127.0.0.1:9003] [--log requests.jsonl]

The control port takes one JSON object per connection and answers with one:
{"do":"rotate","credential":["authorization","Bearer …"]}, {"do":"fault","kind":…},
{"do":"clear"}, {"do":"seen"}.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from upstreams.faults import Fault, Reply, play  # noqa: E402
from upstreams.wire import MAX_HEAD, Malformed, Request, read_request  # noqa: E402

Handler = Callable[[Request], Any]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class StrictOrigin:
    """The origin, running its own event loop in a thread."""

    def __init__(
        self,
        credential: tuple[str, str],
        upstream: tuple[str, int] | None = None,
        port: int = 0,
        hosts: set[str] | None = None,
        log: Path | None = None,
        forbidden: tuple[bytes, ...] = (b"aegis_agt_",),
    ) -> None:
        """`credential` is the header and its exact value; `forbidden` must not occur in any request."""
        self.credential = (credential[0].lower(), credential[1])
        self.upstream = upstream
        self.port = port
        self.hosts = hosts
        self.log = log
        self.forbidden = forbidden
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.bytes_seen = 0
        self.connections = 0
        self._answers: list[tuple[str, re.Pattern[str], Any]] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="strict-origin", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    # What tests do with it.

    def start(self) -> StrictOrigin:
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    def __enter__(self) -> StrictOrigin:
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(
        self, method: str, path: str, body: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answers a path (a whole-match regular expression) from now on; the newest wins.

        `body` is bytes, something JSON, or a function of the request that returns either or a `Reply`.
        """
        with self._lock:
            self._answers.insert(0, (method, re.compile(path), (body, status, headers or {})))

    def fault(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.insert(0, fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def rotate(self, value: str) -> None:
        """From now on only this credential value is taken."""
        self.credential = (self.credential[0], value)

    def mark(self) -> tuple[int, int]:
        """Where the record stands; see `since`."""
        with self._lock:
            return self.bytes_seen, len(self.requests)

    def since(self, mark: tuple[int, int]) -> tuple[int, list[Request]]:
        """Bytes and requests that arrived after `mark`."""
        with self._lock:
            return self.bytes_seen - mark[0], self.requests[mark[1] :]

    # The server.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._stopping = asyncio.Event()
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        if self.hosts is None:
            self.hosts = {f"127.0.0.1:{self.port}"}
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; `False` where the connection ends."""
        try:
            request = await read_request(*self._counting(reader), self.hosts or set(), self.credential[0])
        except Malformed as error:
            self._record(Request(violations=[f"malformed: {error}"]), 400, None)
            writer.write(Reply(400, [("Connection", "close")], f"strict origin: {error}".encode()).bytes())
            await writer.drain()
            return False
        if request is None:
            return False
        self._judge(request)
        fault = self._take_fault(request)
        reply = await self._reply(request)
        reply.bodiless = request.method == "HEAD"
        self._record(request, reply.status, fault)
        if fault:
            return await play(fault, request.one(self.credential[0]) or "", reply, writer)
        writer.write(reply.bytes())
        await writer.drain()
        return True

    def _counting(self, reader: asyncio.StreamReader) -> tuple[Any, Any]:
        async def exactly(count: int) -> bytes:
            data = await reader.readexactly(count)
            self._count(data)
            return data

        async def until(mark: bytes, limit: int) -> bytes:
            try:
                data = await reader.readuntil(mark)
            except asyncio.IncompleteReadError as error:
                data = error.partial
            except asyncio.LimitOverrunError as error:
                data = await reader.read(error.consumed)
            self._count(data)
            return data[: limit + 1]

        return exactly, until

    def _count(self, data: bytes) -> None:
        with self._lock:
            self.bytes_seen += len(data)

    def _judge(self, request: Request) -> None:
        header, value = self.credential
        if request.all(header) != [value]:
            request.violations.append(f"{header} is not the real credential")
        for word in self.forbidden:
            if word.lower() in request.raw.lower():
                request.violations.append(f"request contains {word.decode()}")

    def _take_fault(self, request: Request) -> Fault | None:
        with self._lock:
            return next((fault for fault in self._faults if fault.takes(request.method, request.path)), None)

    async def _reply(self, request: Request) -> Reply:
        if any("is not the real credential" in violation for violation in request.violations):
            return Reply(401, [("Content-Type", "application/json")], b'{"message":"Bad credentials"}')
        if request.violations:
            return Reply(400, [("Content-Type", "text/plain")], "; ".join(request.violations).encode())
        if self.upstream:
            return await forward(request, self.upstream)
        with self._lock:
            known = next(
                (a for m, path, a in self._answers if m in (request.method, "*") and path.fullmatch(request.path)),
                ({"ok": True, "method": request.method, "path": request.path}, 200, {}),
            )
        body, status, headers = known
        body = body(request) if callable(body) else body
        if isinstance(body, Reply):
            return body
        if not isinstance(body, bytes):
            headers = {"Content-Type": "application/json; charset=utf-8", **headers}
            body = json.dumps(body).encode()
        return Reply(status, list(headers.items()), body)

    def _record(self, request: Request, status: int, fault: Fault | None) -> None:
        with self._lock:
            self.requests.append(request)
            self.violations += request.violations
            number = len(self.requests)
        if self.log:
            line = {
                "n": number,
                "t": time.time(),
                "method": request.method,
                "target": request.target,
                "raw_base64": base64.b64encode(request.raw).decode(),
                "violations": request.violations,
                "fault": fault.kind if fault else None,
                "status": status,
            }
            with self.log.open("a") as file:
                file.write(json.dumps(line) + "\n")


async def forward(request: Request, upstream: tuple[str, int]) -> Reply:
    """Asks the emulator behind us, on a connection of its own, and takes its framing off."""
    reader, writer = await asyncio.open_connection(*upstream, limit=MAX_HEAD)
    try:
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        lines += [f"{n}: {v}" for n, v in request.headers if n.lower() not in HOP_BY_HOP]
        lines += ["Connection: close"]
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            lines += [f"Content-Length: {len(request.body)}"]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *fields = head.rstrip("\r\n").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        coding = dict((name.lower(), value) for name, value in headers)
        body = b"" if request.method == "HEAD" else await reader.read(-1)
        if coding.get("transfer-encoding") == "chunked":
            body = unchunk(body)
        kept = [(name, value) for name, value in headers if name.lower() not in HOP_BY_HOP]
        return Reply(int(status.split(" ")[1]), kept, body)
    finally:
        writer.close()


def unchunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        body, data = body + rest[:length], rest[length + 2 :]
    return body


# The command line.


async def control(origin: StrictOrigin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        order = json.loads(await reader.readline())
        answer: dict[str, Any] = {"ok": True}
        match order.pop("do", None):
            case "rotate":
                origin.rotate(order["credential"][1])
            case "fault":
                origin.fault(Fault(**order))
            case "clear":
                origin.clear()
            case "seen":
                answer = {"bytes": origin.bytes_seen, "requests": len(origin.requests), "violations": origin.violations}
            case other:
                answer = {"ok": False, "error": f"unknown order {other!r}"}
    except (ValueError, KeyError, TypeError) as error:
        answer = {"ok": False, "error": str(error)}
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()
    writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="An upstream that insists on the real credential.")
    parser.add_argument("--listen", default="127.0.0.1:0", help="address of the origin")
    parser.add_argument("--control", help="address of the control port")
    parser.add_argument("--credential-env", required=True, metavar="NAME", help="variable with the bearer token")
    parser.add_argument("--upstream", help="emulator to ask, http://host:port; without it, canned answers")
    parser.add_argument("--log", type=Path, help="append every request to this JSONL file")
    options = parser.parse_args()
    upstream = None
    if options.upstream:
        host, _, port = options.upstream.removeprefix("http://").rstrip("/").rpartition(":")
        upstream = (host, int(port))
    bearer = f"Bearer {os.environ[options.credential_env]}"
    port = int(options.listen.rpartition(":")[2])
    origin = StrictOrigin(("authorization", bearer), upstream, port, log=options.log).start()
    try:
        asyncio.run(serve_control(origin, options.control))
    except KeyboardInterrupt:
        origin.stop()
    return 0


async def serve_control(origin: StrictOrigin, address: str | None) -> None:
    if address:
        port = int(address.rpartition(":")[2])
        await asyncio.start_server(lambda r, w: control(origin, r, w), "127.0.0.1", port)
    # Only now: whoever waits for this line may use both ports.
    print(json.dumps({"event": "listening", "listen": f"127.0.0.1:{origin.port}"}), flush=True)
    await asyncio.Event().wait()


__all__ = ["Fault", "Reply", "StrictOrigin"]

if __name__ == "__main__":
    sys.exit(main())
