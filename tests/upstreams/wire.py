"""HTTP/1.1 requests, read as strictly as RFC 9110 and 9112 allow.

Written for the tests alone and sharing no code with the gateway, so that a
parser never checks itself. It judges: what is merely unusual becomes a
violation too, because the gateway rebuilds every request and has no excuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")
SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-F]{2})+")
QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-F]{2})*")
UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]")

# Headers a gateway must have taken out before it put a credential in.
FORBIDDEN = {
    "connection", "keep-alive", "te", "trailer", "upgrade", "expect", "forwarded", "via-agent",
    "proxy-authorization", "proxy-connection", "x-api-key", "cookie", "x-original-url", "x-rewrite-url",
    "x-http-method", "x-http-method-override", "x-method-override",
}  # fmt: skip
FORBIDDEN_PREFIXES = ("x-forwarded-", "aegis-", "x-aegis-", "proxy-")


class Malformed(Exception):
    """The bytes are not a request; the connection cannot go on."""


@dataclass
class Request:
    """One request as it came, with everything that was wrong with it."""

    raw: bytes = b""
    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    violations: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if len(values) == 1 else None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def json(self) -> object:
        return json.loads(self.body)


Read = Callable[[int], Awaitable[bytes]]
ReadUntil = Callable[[bytes, int], Awaitable[bytes]]


async def read_request(
    read_exactly: Read, read_until: ReadUntil, hosts: set[str], credential: str = "authorization"
) -> Request | None:
    """The next request of a connection, or `None` where it ends between requests.

    Raises `Malformed` when framing is lost. Lesser faults are in `violations`. The header
    `credential` may arrive even where it would otherwise be a leak.
    """
    head = await read_until(b"\r\n\r\n", MAX_HEAD)
    if not head:
        return None
    request = parse_head(head)
    check_target(request)
    check_headers(request, hosts, credential)
    await read_body(request, read_exactly, read_until)
    check_body(request)
    return request


def parse_head(head: bytes) -> Request:
    request = Request(raw=head)
    if not head.endswith(b"\r\n\r\n"):
        raise Malformed("head is cut off or too large")
    lines = head[:-4].split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise Malformed("bare CR, bare LF or NUL in the head")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1":
        raise Malformed(f"request line {lines[0][:80]!r}")
    try:
        request.method, request.target = parts[0].decode("ascii"), parts[1].decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("request line is not ASCII") from error
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name):
            raise Malformed(f"header line {line[:80]!r}")
        value = value.strip(b" \t")
        if not VALUE.fullmatch(value):
            request.violations.append(f"value of {name.decode()} has bytes outside visible ASCII")
        request.headers.append((name.decode("ascii"), value.decode("latin-1")))
    return request


def check_target(request: Request) -> None:
    say = request.violations.append
    if request.method not in METHODS:
        say(f"method {request.method!r}")
    if not request.target.startswith("/"):
        say(f"target is not in origin form: {request.target[:80]!r}")
        return
    path, mark, query = request.target.partition("?")
    segments = path[1:].split("/")
    for number, segment in enumerate(segments):
        if segment == "" and number == len(segments) - 1:
            continue
        if not SEGMENT.fullmatch(segment):
            say(f"path segment {segment[:60]!r}")
        decoded = re.sub(r"%2E", ".", segment, flags=re.IGNORECASE)
        if decoded in (".", ".."):
            say("dot segment in path")
        say_encoded(segment, say)
    if mark and not QUERY.fullmatch(query):
        say(f"query {query[:60]!r}")


def say_encoded(segment: str, say: Callable[[str], None]) -> None:
    """Encoding what needs none gives one resource two names."""
    for escape in re.findall(r"%[0-9A-Fa-f]{2}", segment):
        character = chr(int(escape[1:], 16))
        if UNRESERVED.fullmatch(character) or character in "\\%\0\r\n;":
            say(f"{escape} in path")


def check_headers(request: Request, hosts: set[str], credential: str) -> None:
    say = request.violations.append
    names = [name.lower() for name, _ in request.headers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        say(f"header {name} more than once")
    for name in names:
        # `Connection: keep-alive` or `close` is the peer's own business; nominations are not.
        if name == "connection" and set(request.all(name)) <= {"keep-alive", "close"}:
            continue
        if name == credential:
            continue
        if name in FORBIDDEN or name.startswith(FORBIDDEN_PREFIXES) or "_" in name:
            say(f"header {name} must not arrive")
    if request.one("host") not in hosts:
        say(f"Host is {request.all('host')!r}")


async def read_body(request: Request, read_exactly: Read, read_until: ReadUntil) -> None:
    lengths, codings = request.all("content-length"), request.all("transfer-encoding")
    if lengths and codings:
        raise Malformed("Content-Length and Transfer-Encoding")
    if codings:
        if codings != ["chunked"]:
            raise Malformed(f"Transfer-Encoding {codings!r}")
        await read_chunks(request, read_exactly, read_until)
    elif lengths:
        if len(lengths) != 1 or not re.fullmatch(r"0|[1-9][0-9]{0,15}", lengths[0]):
            raise Malformed(f"Content-Length {lengths!r}")
        length = int(lengths[0])
        if length > MAX_BODY:
            raise Malformed("body too large")
        request.body = await read_exactly(length)
        request.raw += request.body


async def read_chunks(request: Request, read_exactly: Read, read_until: ReadUntil) -> None:
    while True:
        line = await read_until(b"\r\n", 64)
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}\r\n", line):
            raise Malformed(f"chunk size {line[:40]!r}")
        size = int(line, 16)
        data = await read_exactly(size + 2)
        if data[-2:] != b"\r\n":
            # With size 0 this is where trailers would be: they are never passed on.
            raise Malformed("chunk without CRLF, or trailers")
        request.raw += line + data
        if size == 0:
            return
        request.body += data[:-2]
        if len(request.body) > MAX_BODY:
            raise Malformed("body too large")


def check_body(request: Request) -> None:
    say = request.violations.append
    if request.body and request.method in ("GET", "HEAD"):
        say(f"{request.method} with a body")
    kind = request.one("content-type")
    if request.body and kind and re.match(r"application/(?:[\w.\-]+\+)?json\b", kind):
        try:
            json.loads(request.body, object_pairs_hook=distinct, parse_constant=refuse)
        except ValueError as error:
            say(f"body: {error}")


def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
