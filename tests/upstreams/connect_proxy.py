"""A corporate HTTP proxy: takes CONNECT, and nothing else."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType


class ConnectProxy:
    """Tunnels to where it is told, by name through `names`; asks for a credential where one is set."""

    def __init__(self, authorization: str | None = None, names: dict[str, str] | None = None) -> None:
        self.authorization, self.names = authorization, names or {}
        self.heads: list[str] = []
        self.refuse: bytes | None = None
        """An answer to give instead of a tunnel."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ConnectProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()

    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = sock.recv(1)
                if not piece:
                    return
                head += piece
            text = head.decode("latin-1")
            self.heads.append(text)
            if self.refuse is not None:
                sock.sendall(self.refuse)
                return
            if self.authorization and f"\r\nProxy-Authorization: {self.authorization}\r\n" not in text:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
                return
            host, _, port = text.split(" ")[1].rpartition(":")
            with socket.create_connection((self.names.get(host, host.strip("[]")), int(port)), timeout=10) as upstream:
                sock.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 corporate\r\n\r\n")
                pump(sock, upstream)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways until either side ends."""
    ends = {one: other, other: one}
    while True:
        for ready in select.select(list(ends), [], [], 60)[0] or [one]:
            data = ready.recv(65536)
            if not data:
                return
            ends[ready].sendall(data)
