"""What an upstream can do wrong, chosen per request.

A fault is matched by method and path and says how to answer. `kind` is one of:

    stall           {seconds}           nothing for that long, then the normal answer
    stall_body      {seconds}           head and half of the body, then nothing, then the rest
    reset           {}                  RST instead of an answer
    reset_body      {}                  head and half of the body, then RST
    close           {}                  FIN instead of an answer
    status          {status, body, headers}
    redirect        {status, location}
    echo            {where, encoding, chunks, status}  the Authorization header in every known form;
                                        where: header, body, both, interim; encoding: identity, gzip,
                                        deflate, br-lie; chunks: write the body n bytes at a time
    slow_body       {pause, piece}      the body in pieces
    long_length     {}                  Content-Length larger than the body, then FIN
    short_length    {}                  Content-Length smaller than what follows
    two_lengths     {}                  two Content-Lengths that differ
    both_framings   {extra}             Content-Length and Transfer-Encoding; with `extra`, that text behind
                                        the last chunk and the connection stays open
    huge_headers    {bytes}
    interim         {}                  100, 103, then the normal answer
    garbage         {}                  not HTTP at all
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import socket
import struct
import urllib.parse
import zlib
from dataclasses import dataclass, field
from typing import Any

KINDS = set(re.findall(r"^    (\w+) +\{", __doc__ or "", flags=re.MULTILINE))


@dataclass
class Reply:
    """A normal answer."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    bodiless: bool = False

    def head(self, extra: list[tuple[str, str]] | None = None, length: int | None = None) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Status')}"]
        headers = [*self.headers, *(extra or [])]
        if length is not None and self.status not in (204, 304):
            headers.append(("Content-Length", str(length)))
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def bytes(self) -> bytes:
        return self.head(length=len(self.body)) + (b"" if self.bodiless else self.body)


@dataclass
class Fault:
    """One fault and the requests it is for."""

    kind: str
    method: str | None = None
    path: str = ".*"
    times: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known: {', '.join(sorted(KINDS))}")

    def takes(self, method: str, path: str) -> bool:
        """Whether this request gets the fault; counts it if so."""
        if self.times == 0 or self.method not in (None, method) or not re.fullmatch(self.path, path):
            return False
        if self.times is not None:
            self.times -= 1
        return True


async def play(fault: Fault, authorization: str, reply: Reply, writer: asyncio.StreamWriter) -> bool:
    """Answers with the fault. `False` where the connection cannot be used again."""
    options = fault.options
    match fault.kind:
        case "stall":
            await asyncio.sleep(float(options.get("seconds", 60)))
            return await send(writer, reply.bytes())
        case "stall_body":
            await send(writer, reply.head(length=len(reply.body)) + reply.body[: len(reply.body) // 2])
            await asyncio.sleep(float(options.get("seconds", 60)))
            return await send(writer, reply.body[len(reply.body) // 2 :])
        case "reset":
            return reset(writer)
        case "reset_body":
            await send(writer, reply.head(length=len(reply.body) + 1000) + reply.body)
            await asyncio.sleep(0.05)
            return reset(writer)
        case "close":
            return False
        case "status" | "redirect":
            return await send(writer, chosen(fault, reply).bytes())
        case "echo":
            return await echo(options, authorization, writer)
        case "slow_body":
            await send(writer, reply.head(length=len(reply.body)))
            await in_pieces(writer, reply.body, int(options.get("piece", 16)), float(options.get("pause", 0.05)))
            return True
        case "long_length":
            await send(writer, reply.head(length=len(reply.body) + 10) + reply.body)
            return False
        case "short_length":
            await send(writer, reply.head(length=max(0, len(reply.body) - 5)) + reply.body)
            return False
        case "two_lengths":
            await send(writer, reply.head([("Content-Length", "3")], len(reply.body)) + reply.body)
            return False
        case "both_framings":
            framed = f"{len(reply.body):x}\r\n".encode() + reply.body + b"\r\n0\r\n\r\n"
            extra = str(options.get("extra", ""))
            head = reply.head([("Transfer-Encoding", "chunked")], len(reply.body))
            await send(writer, head + framed + extra.encode())
            return bool(extra)
        case "huge_headers":
            filler = "x" * 4000
            count = int(options.get("bytes", 256 * 1024)) // len(filler) + 1
            await send(writer, reply.head([(f"X-Filler-{n}", filler) for n in range(count)], 0))
            return False
        case "interim":
            hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
            return await send(writer, hints + reply.bytes())
        case "garbage":
            await send(writer, b"\x16\x03\x01\x00\x05hello\r\n\r\n")
            return False
    raise AssertionError(fault.kind)


def chosen(fault: Fault, reply: Reply) -> Reply:
    options = fault.options
    if fault.kind == "redirect":
        headers = [("Location", str(options["location"]))]
        return Reply(int(options.get("status", 302)), headers, b"", reply.bodiless)
    body = options.get("body", "")
    text = body if isinstance(body, str) else json.dumps(body)
    headers = [("Content-Type", "application/json"), *map(tuple, options.get("headers", []))]
    return Reply(int(options["status"]), headers, text.encode(), reply.bodiless)


async def echo(options: dict[str, Any], authorization: str, writer: asyncio.StreamWriter) -> bool:
    where, encoding = options.get("where", "both"), options.get("encoding", "identity")
    forms = reflections(authorization)
    reply = Reply(int(options.get("status", 200)), [("Content-Type", options.get("type", "application/json"))])
    if where in ("header", "both"):
        reply.headers += [(f"X-Echo-{n}", form) for n, form in enumerate(forms)]
        reply.headers.append(("ETag", f'"{forms[0]}"'))
    if where in ("body", "both"):
        reply.body = json.dumps({"message": "you sent", "echo": forms, "padding": "p" * 300}, indent=1).encode()
    else:
        reply.body = b'{"message":"nothing here"}'
    if encoding != "identity":
        reply.headers.append(("Content-Encoding", {"gzip": "gzip", "deflate": "deflate"}.get(encoding, "br")))
        reply.body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(reply.body)
    if where == "interim":
        await send(writer, f"HTTP/1.1 103 Early Hints\r\nX-Echo: {authorization}\r\n\r\n".encode())
    size = int(options.get("chunks", 0))
    if not size:
        return await send(writer, reply.bytes())
    await send(writer, reply.head([("Transfer-Encoding", "chunked")]))
    for start in range(0, len(reply.body), size):
        piece = reply.body[start : start + size]
        await send(writer, f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if start < 200 * size:
            await asyncio.sleep(0)
    return await send(writer, b"0\r\n\r\n")


def reflections(authorization: str) -> list[str]:
    """The header as a careless or hostile upstream might hand it back."""
    token = authorization.rpartition(" ")[2]
    forms = []
    for text in (authorization, token, f"x-access-token:{token}", f"id{token}"):
        raw = text.encode()
        forms += [
            text,
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode().rstrip("="),
            raw.hex(),
            raw.hex().upper(),
            urllib.parse.quote(text, safe=""),
            "".join(f"%{byte:02x}" for byte in raw),
            "".join(f"%{byte:02X}" for byte in raw),
        ]
    return forms


async def in_pieces(writer: asyncio.StreamWriter, body: bytes, piece: int, pause: float) -> None:
    for start in range(0, len(body), piece):
        await send(writer, body[start : start + piece])
        await asyncio.sleep(pause)


async def send(writer: asyncio.StreamWriter, data: bytes) -> bool:
    writer.write(data)
    await writer.drain()
    return True


def reset(writer: asyncio.StreamWriter) -> bool:
    """Closes with RST: linger on, for no time."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


REASONS = {
    200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified",
    307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    409: "Conflict", 422: "Unprocessable Entity", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
