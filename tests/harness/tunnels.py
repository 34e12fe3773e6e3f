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


def h2_request(fields: list[tuple[str, str]], ends_later: bool = False) -> bytes:
    """A client's preface, settings and one request without a body, every field written out.

    It ends with its head, or `ends_later` with an empty frame of data.
    """
    block = b""
    for name, value in fields:
        # RFC 7541, section 6.2.2: a literal without indexing, a new name, no Huffman code.
        block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    stream = (1).to_bytes(4, "big")
    headers = len(block).to_bytes(3, "big") + b"\x01" + (b"\x04" if ends_later else b"\x05") + stream + block
    data = b"\x00\x00\x00\x00\x01" + stream if ends_later else b""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers + data
