"""A receiver of webhooks: keeps what it is told and answers as a test says."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Told:
    """One request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Takes everything, unless told otherwise."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.told: list[Told] = []
        self.answer: Callable[[Told], int] = lambda told: 200
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                told = Told(self.path, {k.lower(): v for k, v in self.headers.items()}, body, 0)
                told.status = receiver.answer(told)
                receiver.told.append(told)
                receiver.gate.wait(30)
                try:
                    self.send_response(told.status)
                    self.send_header("location", "/elsewhere")
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def taken(self) -> list[Told]:
        return [told for told in self.told if told.status == 200]

    def wait(self, found: Callable[[], Any], seconds: float = 15) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := found():
                return value
            time.sleep(0.02)
        raise AssertionError(f"not told within {seconds} s: {[told.body for told in self.told]}")

    def about(self, approval_id: str, kind: str = "approval_asked") -> Told:
        """The accepted delivery of one event of an approval, once it is there."""
        def found() -> Told | None:
            of = [t for t in self.taken() if t.json["type"] == kind and t.json["data"].get("approval_id") == approval_id]
            return of[0] if of else None
        return self.wait(found)

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
