"""Tunnels through the forward proxy, opened byte by byte."""

from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path

from harness import raw


def basic(token: str, user: str = "agent") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def connect_head(target: str, token: str | None, *lines: str) -> bytes:
    head = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if token is not None:
        head.append(f"Proxy-Authorization: {basic(token)}")
    return ("\r\n".join([*head, *lines]) + "\r\n\r\n").encode()


def dial(address: str, seconds: float = 10) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=seconds, source_address=(raw.own_source(), 0))


def open_tunnel(address: str, target: str, token: str | None, *lines: str) -> socket.socket:
    """A connection on which the proxy has said 200."""
    sock = dial(address)
    sock.sendall(connect_head(target, token, *lines))
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = sock.recv(4096)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return sock


def context(ca: Path, *alpn: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(ca))
    # What newer Pythons demand of certificates by default.
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


def tls(sock: socket.socket, ca: Path, name: str | None, *alpn: str) -> ssl.SSLSocket:
    """TLS as a client does it that trusts `ca` alone."""
    return context(ca, *alpn).wrap_socket(sock, server_hostname=name)
