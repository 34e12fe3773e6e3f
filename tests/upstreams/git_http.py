"""Git over smart HTTP: `git http-backend` behind a small CGI server.

It takes one pair of Basic credentials, answers 401 with `WWW-Authenticate: Basic`
without them, as hosts of git do, and keeps what arrived: method, target, framing
and headers of every request. The CGI program never sees the agent's token and the
test can say so.
"""

from __future__ import annotations

import base64
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

PROGRAM = "http-backend"


@dataclass
class Seen:
    """One request as it arrived; `body` is its length after de-chunking."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: int = 0
    status: int = 0


class GitServer:
    """Bare repositories below a folder, served on loopback."""

    def __init__(self, folder: Path, environment: dict[str, str], user: str, password: str) -> None:
        self.folder, self.environment = folder, environment
        self.expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.seen: list[Seen] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="git-http", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> GitServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def create(self, name: str) -> Path:
        """An empty bare repository that takes pushes."""
        path = self.folder / name
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
        self.git("-C", str(path), "config", "http.receivepack", "true")
        return path

    def git(self, *words: str) -> str:
        """Git on the server's own disk, past every proxy."""
        done = subprocess.run(["git", *words], capture_output=True, text=True, env=self.environment, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        seen = Seen(request.command, request.path, {name.lower(): value for name, value in request.headers.items()})
        self.seen.append(seen)
        body = read_body(request)
        seen.body = len(body)
        if request.headers.get("authorization") != self.expected:
            seen.status = 401
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        status, headers, answer = self._backend(request, body)
        seen.status = status
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _backend(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        path, _, query = request.path.partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(self.folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": request.command, "REMOTE_USER": "real", "CONTENT_LENGTH": str(len(body)),
        }  # fmt: skip
        for name, variable in (("content-type", "CONTENT_TYPE"), ("content-encoding", "HTTP_CONTENT_ENCODING"),
                               ("git-protocol", "GIT_PROTOCOL")):  # fmt: skip
            if value := request.headers.get(name):
                variables[variable] = value
        environment = {**self.environment, **variables}
        done = subprocess.run(["git", PROGRAM], input=body, capture_output=True, env=environment, timeout=60)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.partition(": ")[::2] for line in head.decode("latin-1").split("\r\n") if line]
        status = next((int(value.split(" ")[0]) for name, value in fields if name.lower() == "status"), 200)
        return status, [(name, value) for name, value in fields if name.lower() != "status"], answer


def read_body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("transfer-encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("content-length", 0)))
    body = b""
    while size := int(request.rfile.readline().partition(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body
