"""An HTTP/2 upstream, over TLS or by prior knowledge, that keeps what reached it stream by stream.

What it does follows from the path:

    /slow/<milliseconds>    an answer after that long, so that streams meet
    /trailers               a body, then trailers with the credential in them
    /silent                 the head and one event, then nothing until the stream ends
    anything else           what was asked, as JSON
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events


@dataclass
class Stream:
    """One request."""

    connection: int
    client: str | None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: float | None = None
    """When the stream was reset or its connection went, where the answer never ends."""

    @property
    def path(self) -> str:
        return self.headers.get(":path", "")


class H2Origin:
    """The server, running its own event loop in a thread."""

    def __init__(self, context: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> None:
        self.context, self.name = context, name
        self.streams: list[Stream] = []
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://{self.name}:{self.port}"

    def __enter__(self) -> H2Origin:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def of(self, path: str) -> list[Stream]:
        return [stream for stream in list(self.streams) if stream.path == path]

    def wait_ended(self, path: str, seconds: float) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for stream in self.of(path):
                if stream.ended:
                    return stream.ended
            time.sleep(0.01)
        raise AssertionError(f"{path} is still open")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError):
            await Connection(self, reader, writer).run()
        writer.close()


class Connection:
    """One connection's state."""

    def __init__(self, origin: H2Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.origin, self.reader, self.writer = origin, reader, writer
        origin.connections += 1
        self.number = origin.connections
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams: dict[int, Stream] = {}
        self.answers: set[asyncio.Task[None]] = set()
        shown = (writer.get_extra_info("peercert") or {}).get("subject", ())
        self.client = next((value for part in shown for key, value in part if key == "commonName"), None)

    async def run(self) -> None:
        self.state.initiate_connection()
        await self.flush()
        try:
            while data := await self.reader.read(65536):
                for event in self.state.receive_data(data):
                    self.take(event)
                await self.flush()
        finally:
            for stream in self.streams.values():
                stream.ended = stream.ended or time.monotonic()

    async def flush(self) -> None:
        self.writer.write(self.state.data_to_send())
        await self.writer.drain()

    def take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                stream = Stream(self.number, self.client, dict(event.headers))
                self.streams[event.stream_id] = stream
                self.origin.streams.append(stream)
            case h2.events.DataReceived():
                self.streams[event.stream_id].body += event.data
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                self.streams[event.stream_id].ended = time.monotonic()
            case h2.events.StreamEnded():
                task = asyncio.ensure_future(self.answer(event.stream_id, self.streams[event.stream_id]))
                self.answers.add(task)
                task.add_done_callback(self.answers.discard)

    async def answer(self, number: int, stream: Stream) -> None:
        parts = stream.path.split("?")[0].strip("/").split("/")
        if parts[0] == "slow":
            await asyncio.sleep(int(parts[1]) / 1000)
        if parts[0] == "silent":
            self.head(number, ("content-type", "text/event-stream"))
            self.state.send_data(number, b"data: first\n\n")
            return await self.flush()
        if parts[0] == "trailers":
            self.head(number, ("content-type", "text/plain"))
            self.state.send_data(number, b"the body")
            leak = stream.headers.get("authorization", "")
            self.state.send_headers(number, [("x-checksum", "abc"), ("x-leak", leak)], end_stream=True)
            return await self.flush()
        told: dict[str, Any] = {"path": stream.path, "connection": self.number, "client": self.client}
        body = json.dumps({**told, "bytes": len(stream.body)}).encode()
        self.head(number, ("content-type", "application/json"), ("content-length", str(len(body))))
        self.state.send_data(number, body, end_stream=True)
        await self.flush()

    def head(self, number: int, *headers: tuple[str, str]) -> None:
        self.state.send_headers(number, [(":status", "200"), *headers])
