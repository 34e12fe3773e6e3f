"""An HTTP/1.1 upstream whose answers take their time, with or without TLS.

What it does follows from the path:

    /sse/<count>/<milliseconds>    so many events, so far apart, chunked
    /silent                        one event, then nothing until the peer goes
    /stalled                       a Content-Length body of which only the first part comes
    /never                         no answer at all
    /upload                        says when which part of the body came
    /gzip/<what>                   gzip: `echo` (the Authorization header), `sse`, `bomb`, `cut`, `text`
    /redirect/<status>             to another host
    anything else                  what was asked, as JSON

Every request is kept with its connection, so that a test can say who shared one.
"""

from __future__ import annotations

import gzip
import http.server
import io
import itertools
import json
import ssl
import threading
import time
import zlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass
class Seen:
    """One request."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    client: str | None
    body: bytes = b""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When how many bytes of the body came."""
    closed: float | None = None
    """When the peer went, where the answer never ends."""
    whole: bool = True
    """Whether the body came to its end."""


class PacedOrigin:
    """The server, with a thread for each connection."""

    def __init__(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1", name: str | None = None) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._count = itertools.count(1)
        self._lock = threading.Lock()
        self._server = Server((host, 0), Handler, self, context)
        self.port = self._server.server_address[1]
        self.host = name or host
        self.tls = context is not None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def __enter__(self) -> PacedOrigin:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def opened(self) -> int:
        with self._lock:
            self.connections += 1
            return next(self._count)

    def note(self, seen: Seen) -> Seen:
        with self._lock:
            self.seen.append(seen)
        return seen

    def of(self, path: str) -> list[Seen]:
        with self._lock:
            return [seen for seen in self.seen if seen.path == path]

    def wait(self, path: str, until: Any, seconds: float = 10) -> Seen:
        """The last request of a path, once `until` holds of it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.of(path)
            if found and until(found[-1]):
                return found[-1]
            time.sleep(0.01)
        raise AssertionError(f"{path} never came to that: {self.of(path)}")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Any, handler: Any, origin: PacedOrigin, context: ssl.SSLContext | None) -> None:
        self.origin, self.context = origin, context
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread, so that a slow handshake holds up nobody.
        if self.context:
            request.settimeout(20)
            request = self.context.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # peers that go are what the tests are about


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection_id = self.server.origin.opened()

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        self.seen = self.server.origin.note(
            Seen(self.connection_id, self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.peer())
        )
        if not self.read_body():
            self.close_connection = True
            return
        what, *more = self.path.split("?")[0].strip("/").split("/")
        getattr(self, f"page_{what}", self.plain)(*more)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    def peer(self) -> str | None:
        """Common name of the client certificate."""
        if not isinstance(self.connection, ssl.SSLSocket):
            return None
        shown = self.connection.getpeercert() or {}
        names = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
        return names[0] if names else None

    def read_body(self) -> bool:
        """Whether it came to its end."""
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline().strip() or b"missing", 16):
                    self.take(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                self.take(int(self.headers.get("content-length", 0)))
        except (ValueError, OSError, EOFError):
            self.seen.whole = False
        return self.seen.whole

    def take(self, size: int) -> None:
        while size:
            data = self.rfile.read1(size)
            if not data:
                raise EOFError
            self.seen.body += data
            self.seen.arrivals.append((time.monotonic(), len(data)))
            size -= len(data)

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, media: str, **headers: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def until_gone(self) -> None:
        """Waits for the peer to close, which is the only thing that can come."""
        try:
            self.connection.settimeout(60)
            while self.connection.recv(1):
                pass
        except OSError:
            pass
        self.seen.closed = time.monotonic()
        self.close_connection = True

    # What the paths do.

    def plain(self, *_: str) -> None:
        told = {"path": self.path, "connection": self.connection_id, "client": self.seen.client, "bytes": len(self.seen.body)}
        self.answer(json.dumps(told).encode(), Content_Type="application/json")

    def page_sse(self, count: str, gap: str) -> None:
        self.begin("text/event-stream")
        for number in range(int(count)):
            self.chunk(f"data: {number} {time.monotonic()}\n\n".encode())
            time.sleep(int(gap) / 1000)
        self.chunk(b"")

    def page_silent(self) -> None:
        self.begin("text/event-stream")
        self.chunk(b"data: first\n\n")
        self.until_gone()

    def page_stalled(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"x" * 5000)
        self.wfile.flush()
        self.until_gone()

    def page_never(self) -> None:
        self.until_gone()

    def page_upload(self) -> None:
        self.answer(json.dumps({"bytes": len(self.seen.body), "parts": len(self.seen.arrivals)}).encode())

    def page_redirect(self, status: str) -> None:
        self.answer(b"", int(status), Location="http://elsewhere.test/stolen")

    def page_gzip(self, what: str) -> None:
        asked = self.headers.get("accept-encoding", "")
        if "gzip" not in asked:
            return self.answer(f"plain {what}: {asked}".encode(), Content_Type="text/plain")
        if what == "sse":
            self.begin("text/event-stream", Content_Encoding="gzip")
            raw = io.BytesIO()
            with gzip.GzipFile(fileobj=raw, mode="wb") as packed:
                for number in range(5):
                    packed.write(f"data: {number} {time.monotonic()}\n\n".encode())
                    packed.flush(zlib.Z_SYNC_FLUSH)
                    self.chunk(raw.getvalue())
                    raw.seek(0)
                    raw.truncate()
                    time.sleep(0.2)
            self.chunk(raw.getvalue())
            return self.chunk(b"")
        body = {
            "echo": f"you sent {self.headers.get('authorization')} and more".encode(),
            "bomb": b"\0" * (64 << 20),
            "cut": b"some text that is cut short " * 50,
            "text": b"some text that is long enough to be worth it " * 1000,
        }[what]
        packed = gzip.compress(body)
        packed = packed[:-5] if what == "cut" else packed
        return self.answer(packed, Content_Type="text/plain", Content_Encoding="gzip", ETag='"strong"')

