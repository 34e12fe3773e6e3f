"""A WebSocket upstream that insists on the real credential, written frame by frame (RFC 6455).

What it does follows from the path:

    /echo        every message comes back
    /leak        says what credential it was shown: plain, in base64, in two fragments, in a ping
    /silent      nothing, until the peer goes
    /bad         a frame with a reserved bit after the first message
    /extension   agrees to an extension that nobody offered
    /protocol    agrees to a protocol that nobody offered
    /other       switches to another protocol
    /plain       answers 200 instead of switching
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Shaken:
    """One handshake and what followed."""

    path: str
    headers: dict[str, str]
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    closed: float | None = None


class WebSocketOrigin:
    """The server, with a thread for each connection."""

    def __init__(self, credential: str) -> None:
        self.credential = credential
        self.shaken: list[Shaken] = []
        self.violations: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> WebSocketOrigin:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()

    def wait_closed(self, path: str, seconds: float) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for shaken in self.shaken:
                if shaken.path == path and shaken.closed:
                    return shaken.closed
            time.sleep(0.01)
        raise AssertionError(f"{path} is still open")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, EOFError):
            while (shaken := self._head(sock)) and self._shake(sock, shaken):
                pass

    def _head(self, sock: socket.socket) -> Shaken | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = sock.recv(1)
            if not piece:
                return None
            head += piece
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
        shaken = Shaken(line.split(" ")[1], headers)
        self.shaken.append(shaken)
        if headers.get("authorization") != self.credential:
            self.violations.append(f"credential {headers.get('authorization')!r}")
        for name in ("sec-websocket-extensions", "origin", "cookie"):
            if name in headers:
                self.violations.append(f"{name} must not arrive")
        return shaken

    def _shake(self, sock: socket.socket, shaken: Shaken) -> bool:
        """Whether another request may follow."""
        headers = shaken.headers
        if headers.get("upgrade", "").lower() != "websocket" or shaken.path == "/plain":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
            return True
        accept = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + GUID).digest()).decode()
        more = {
            "/extension": "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            "/protocol": "Sec-WebSocket-Protocol: mqtt\r\n",
            "/echo": f"Sec-WebSocket-Protocol: {headers['sec-websocket-protocol'].split(',')[0].strip()}\r\n"
            if "sec-websocket-protocol" in headers
            else "",
        }.get(shaken.path, "")
        upgrade = "mqtt" if shaken.path == "/other" else "websocket"
        sock.sendall(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nX-Inside: secret-of-the-upstream\r\n{more}\r\n".encode()
        )
        try:
            self._talk(sock, shaken)
        finally:
            shaken.closed = time.monotonic()
        return False

    def _talk(self, sock: socket.socket, shaken: Shaken) -> None:
        token = self.credential.partition(" ")[2].encode()
        if shaken.path == "/leak":
            sock.sendall(frame(1, b"you sent " + self.credential.encode()))
            sock.sendall(frame(1, base64.b64encode(b"x:" + token)))
            half = len(token) // 2
            sock.sendall(frame(1, b"first " + token[:half], last=False) + frame(9, token) + frame(0, token[half:] + b" second"))
            whole = frame(2, b"cut " + token + b" here")
            sock.sendall(whole[:12])
            time.sleep(0.1)
            sock.sendall(whole[12:])
        while True:
            opcode, payload, last = read_part(sock)
            shaken.frames.append((opcode, payload))
            if opcode == 8:
                sock.sendall(frame(8, payload))
                return
            if shaken.path == "/bad":
                sock.sendall(bytes([0xC1, 1]) + b"x")
            if shaken.path.startswith("/echo"):
                sock.sendall(frame(10 if opcode == 9 else opcode, payload, last))


def frame(opcode: int, payload: bytes, last: bool = True, mask: bytes = b"") -> bytes:
    """One frame; with four bytes of `mask`, as a client sends it."""
    bit = 0x80 if mask else 0
    head = bytes([(0x80 if last else 0) | opcode])
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(payload))
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


def read_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Opcode and unmasked payload; EOFError where the peer went."""
    return read_part(sock)[:2]


def read_part(sock: socket.socket) -> tuple[int, bytes, bool]:
    """The same, and whether the message ends with it."""
    first, second = exactly(sock, 2)
    length = second & 0x7F
    if length > 125:
        length = int.from_bytes(exactly(sock, 2 if length == 126 else 8))
    mask = exactly(sock, 4) if second & 0x80 else b""
    payload = exactly(sock, length)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return first & 0x0F, payload, first & 0x80 != 0


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
