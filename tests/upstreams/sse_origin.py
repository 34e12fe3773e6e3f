"""Streams of server-sent events as OpenAI's chat completions and Anthropic's messages send them.

Each event is written by itself after a pause, and the moment is noted on the
system's monotonic clock, which every process of the machine shares: a client can
compare when a token was sent with when it arrived.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

WORDS = ["The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."]


class SseOrigin:
    """One origin for both APIs. `sent` has the times of the last stream's tokens."""

    def __init__(self, credentials: dict[str, str], pause: float = 0.12) -> None:
        """`credentials` has the header that each path insists on: path to `header: value`."""
        self.credentials, self.pause = credentials, pause
        self.sent: list[float] = []
        self.paths: list[str] = []
        self.bodies: list[Any] = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # A token is a packet of its own.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                origin._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="sse-origin", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> SseOrigin:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        self.paths.append(request.path)
        header, _, value = self.credentials.get(request.path, "").partition(": ")
        if not header or request.headers.get_all(header) != [value]:
            return refuse(request)
        asked = json.loads(body)
        self.bodies.append(asked)
        assert asked.get("stream") is True, "only streams are served"
        events = openai_events() if "completions" in request.path else anthropic_events()
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Cache-Control", "no-cache")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        self.sent = []
        for is_token, event in events:
            if is_token:
                time.sleep(self.pause)
                self.sent.append(time.monotonic())
            request.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            request.wfile.flush()
        request.wfile.write(b"0\r\n\r\n")


def refuse(request: BaseHTTPRequestHandler) -> None:
    text = b'{"error":{"type":"authentication_error","message":"not the real credential"}}'
    request.send_response(401)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(text)))
    request.end_headers()
    request.wfile.write(text)


Event = tuple[bool, bytes]


def openai_events() -> Iterator[Event]:
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-test"}

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return f"data: {json.dumps({**common, 'choices': [choice]})}\n\n".encode()

    yield False, chunk({"role": "assistant", "content": ""})
    for word in WORDS:
        yield True, chunk({"content": word})
    yield False, chunk({}, "stop")
    yield False, b"data: [DONE]\n\n"


def anthropic_events() -> Iterator[Event]:
    def event(kind: str, **more: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
    }  # fmt: skip
    yield False, event("message_start", message=message)
    yield False, event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in WORDS:
        yield True, event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield False, event("content_block_stop", index=0)
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    yield False, event("message_delta", delta=stop, usage={"output_tokens": len(WORDS)})
    yield False, event("message_stop")
