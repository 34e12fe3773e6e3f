"""The ways in: what comes before the bytes of a case, for each ingress.

    path      the agents' listener, by the first segment of the path
    host      the same, by `Host`
    port      a route's own listener
    api       the agents' listener, for POST /v1/…
    forward   the agents' listener as a forward proxy: absolute-form in plain HTTP, and raw CONNECT
    connect   a tunnel through it, with TLS and HTTP/1.1 inside
    connect2  the same with HTTP/2 inside
    tls       the TLS listener, by the server name, HTTP/1.1
    tls2      the same with HTTP/2
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from harness import raw

INGRESSES = ("path", "host", "port", "api", "forward", "connect", "connect2", "tls", "tls2")


@dataclass(frozen=True)
class Door:
    """One ingress."""

    address: str
    #: Head of the CONNECT that comes first.
    connect: bytes = b""
    #: TLS, with this server name; empty for TLS without one.
    server_name: str | None = None
    alpn: tuple[str, ...] = ()


class Link(Protocol):
    """What a plain socket and a TLS connection have in common."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Turned(Exception):
    """The gateway ended it before the bytes of the case were sent; `answer` is what it said."""

    def __init__(self, answer: raw.Answer) -> None:
        super().__init__(answer.raw[:200])
        self.answer = answer


def enter(door: Door, authority: Path | None = None, seconds: float = 10, source: str | None = None) -> Link:
    """A connection through the door. The certificate must come from `authority`; any name will do."""
    host, _, port = door.address.rpartition(":")
    address = (host, int(port))
    sock = socket.create_connection(address, timeout=seconds, source_address=(source or raw.own_source(), 0))
    try:
        if door.connect:
            tunnel(sock, door.connect, seconds)
        if door.server_name is None:
            return sock
        assert authority
        return Tls(sock, context(authority, door.alpn), door.server_name)
    except BaseException:
        sock.close()
        raise


def tunnel(sock: socket.socket, head: bytes, seconds: float) -> None:
    said = b""
    try:
        sock.sendall(head)
        while b"\r\n\r\n" not in said:
            piece = sock.recv(65536)
            if not piece:
                raise Turned(raw.parse(said, closed=True) or raw.Answer(said, closed=True))
            said += piece
    except OSError as error:
        raise Turned(raw.Answer(said, closed=isinstance(error, ConnectionError))) from error
    if not said.startswith(b"HTTP/1.1 200"):
        raise Turned(raw.receive(sock, seconds, 2, bodiless=False, start=said))
    assert said.endswith(b"\r\n\r\n"), f"bytes behind the answer to CONNECT: {said!r}"


@cache
def context(authority: Path, alpn: tuple[str, ...]) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Cases lie about names; that a name gets the right certificate is tested with real clients.
    made.check_hostname = False
    made.load_verify_locations(authority)
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


class Tls:
    """TLS over a socket that can be closed in one direction, as a plain one can."""

    def __init__(self, sock: socket.socket, made: ssl.SSLContext, server_name: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = made.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name or None)
        try:
            self._until_done(self._tls.do_handshake)
        except ssl.SSLCertVerificationError:
            raise
        except OSError as error:
            raise Turned(raw.Answer(b"", closed=True)) from error

    @property
    def alpn(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    @property
    def certificate(self) -> dict[str, object]:
        return dict(self._tls.getpeercert() or {})

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), 16384):
            self._until_done(lambda: self._tls.write(data[start : start + 16384]))

    def recv(self, size: int) -> bytes:
        try:
            return bytes(self._until_done(lambda: self._tls.read(size)))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def shutdown(self, _: int) -> None:
        """`close_notify`: no more is sent; what comes is still read."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self._flush()

    def close(self) -> None:
        self._sock.close()

    def _until_done(self, act: object) -> object:
        assert callable(act)
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                self._flush()
                raise
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._sock.sendall(data)
