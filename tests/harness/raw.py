"""Bytes in, bytes out: a client with no opinion about HTTP."""

from __future__ import annotations

import itertools
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.doors import Link


@dataclass
class Answer:
    """What came back on one connection."""

    raw: bytes
    closed: bool
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    rest: bytes = b""

    def header(self, name: str) -> str | None:
        return self.headers.get(name.lower())


# Refusals without a credential are counted per source network, so every exchange
# can come from a network of its own: all of 127/8 is loopback.
_sources = itertools.count(2)


def own_source() -> str:
    number = next(_sources)
    return f"127.{1 + number // 250 % 250}.{number % 250}.1"


def exchange(
    address: str,
    data: bytes,
    seconds: float = 10,
    source: str | None = None,
    quiet: float | None = None,
    half_close: bool = False,
) -> Answer:
    """Sends `data` and reads one whole answer, or until the peer closes or `seconds` pass.

    `quiet` ends the wait that many seconds after the answer is complete, to see whether more
    follows or the peer closes.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection(
        (host, int(port)), timeout=seconds, source_address=(source or own_source(), 0)
    ) as sock:
        return converse(sock, data, seconds, quiet, half_close)


def converse(link: Link, data: bytes, seconds: float, quiet: float | None = None, half_close: bool = False) -> Answer:
    """The same on a connection that is open already."""
    send(link, data, seconds)
    return receive(link, seconds, quiet, b"HEAD " == data[:5], half_close=half_close)


def drain(link: Link, data: bytes, seconds: float) -> bytes:
    """Sends `data`; all that comes until the peer closes, or has nothing to say until we do."""
    send(link, data, seconds)
    raw, end = b"", time.monotonic() + seconds
    patience = PATIENCE
    while (left := end - time.monotonic()) > 0:
        link.settimeout(min(left, patience))
        try:
            piece = link.recv(65536)
        except TimeoutError:
            if patience == seconds:
                break
            patience = seconds
            no_more(link)
            continue
        except OSError:
            break
        if not piece:
            break
        raw += piece
    return raw


def send(link: Link, data: bytes, seconds: float) -> None:
    link.settimeout(seconds)
    try:
        link.sendall(data)
    except OSError:
        pass  # refused before all of it was taken: the answer still counts


def no_more(link: Link) -> None:
    try:
        link.shutdown(socket.SHUT_WR)
    except OSError:
        pass


# A peer that says nothing for so long waits for more of what we sent. Telling it at once that there
# is no more would be a client that has gone, and requests of clients that have gone are dropped.
PATIENCE = 0.3


def receive(
    link: Link, seconds: float, quiet: float | None, bodiless: bool, start: bytes = b"", half_close: bool = False
) -> Answer:
    raw, end = start, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        answer = parse(raw, bodiless)
        if answer is not None:
            if quiet is None:
                return answer
            left, half_close = min(left, quiet), False
        link.settimeout(min(left, PATIENCE) if half_close else left)
        try:
            piece = link.recv(65536)
        except TimeoutError:
            if not half_close:
                break
            half_close = False
            no_more(link)
            continue
        except OSError:
            piece = b""
        if not piece:
            return parse(raw, bodiless, closed=True) or Answer(raw, closed=True)
        raw += piece
    return parse(raw, bodiless) or Answer(raw, closed=False)


def parse(raw: bytes, bodiless: bool = False, closed: bool = False) -> Answer | None:
    """The first final answer in `raw` if it is complete."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    if not mark:
        return None
    line, *fields = head.decode("latin-1").split("\r\n")
    status = int(line.split(" ")[1]) if line.startswith("HTTP/1.") and line[9:12].isdigit() else 0
    if 100 <= status < 200 and status != 101:
        inner = parse(rest, bodiless, closed)
        return inner and Answer(raw, closed, inner.status, inner.headers, inner.body, inner.rest)
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    answer = Answer(raw, closed, status, headers)
    if bodiless or status in (204, 304):
        answer.rest = rest
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        taken = unchunk(rest)
        if taken is None:
            return None if not closed else answer
        answer.body, answer.rest = taken
    elif "content-length" in headers:
        length = int(headers["content-length"])
        if len(rest) < length and not closed:
            return None
        answer.body, answer.rest = rest[:length], rest[length:]
    elif closed:
        answer.body = rest
    else:
        return None
    return answer


def unchunk(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        size, mark, data = data.partition(b"\r\n")
        if not mark:
            return None
        length = int(size.partition(b";")[0], 16)
        if len(data) < length + 2:
            return None
        body, data = body + data[:length], data[length + 2 :]
        if length == 0:
            return body, data
