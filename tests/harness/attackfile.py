"""Reads the attack corpus: text files that a person can review case by case.

    === name
    What the attacker is after, in one or more lines.
    c> CONNECT {h}:443 HTTP/1.1
    c>
    sni     other.test
    > GET {p}/repos/octo/hello/%2e%2e/x HTTP/1.1
    > {head}
    >
    expect  400
    origin  nothing
    receipt deny bad_path
    on      path host port

`>` lines are the bytes. Each ends in CRLF unless it ends in a backslash. `\\r \\n
\\t \\0 \\\\ \\xHH` are escapes; `{p}` is the route's prefix, `{h}` its host, `{g}` and
`{admin}` the addresses of the gateway's own doors, `{t}` the agent's token, `{t:name}`
the token of another agent, `{basic}` and `{basic:name}` such a token as the password
of Basic credentials, `{head}` the Host and Authorization lines, `{a*1000}` a thousand
times `a`, `{len}` the length of what follows the empty line. `#` starts a comment line between cases, and `default …` above the first case
says what the cases of a file have in common.

expect    statuses that are right, `close` where the connection must end, `alone` where nothing may
          follow the answer; 0 is an end without an answer
origin    always `nothing`: cases that may reach the origin are tests of their own
receipt   `deny` and, where one is promised, the reason; or `none`
on        the ingresses; the names are in harness/doors.py
c>        in the place of the CONNECT that the ingress would send before the case; its lines end as above
sni       the server name in the place of the ingress's own; `none` for none
inside    `plain`: the bytes follow the CONNECT without TLS
framed    what the HTTP/2 layer does with such a request by itself, before anybody is asked: `reset`
          or `goaway`; the receipt is then the one of the connection's watcher

Over HTTP/2 (`connect2`, `tls2`) a case is the same request in frames: see `as_http2`.
What only frames can say is in h2.txt, in a notation of its own (harness/framefile.py).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.doors import INGRESSES

NAMES = re.compile(r"[a-z0-9][a-z0-9-]*")
PLAIN = ("path", "host", "port", "forward", "connect", "tls")
EVERYWHERE = [*PLAIN, "connect2", "tls2"]


@dataclass
class Case:
    """One attack."""

    file: str
    line: int
    name: str
    why: str = ""
    lines: list[str] = field(default_factory=list)
    tunnel: list[str] = field(default_factory=list)
    server_name: str | None = None
    inside: str = "tls"
    statuses: set[int] = field(default_factory=set)
    closes: bool = False
    alone: bool = False
    receipt: str = ""
    reasons: set[str] = field(default_factory=set)
    framed: str = ""
    ingresses: list[str] = field(default_factory=lambda: list(EVERYWHERE))

    def bytes(self, values: dict[str, str]) -> bytes:
        """What goes over the wire, for one ingress's values."""
        head, body = self.parts(values)
        return head + body

    def parts(self, values: dict[str, str]) -> tuple[bytes, bytes]:
        """The same, cut behind the empty line."""
        head, body, in_body = [], [], False
        for line in self.lines:
            (body if in_body else head).append(encode(line, values))
            in_body = in_body or line == ""
        payload = b"".join(body)
        return b"".join(head).replace(b"{len}", str(len(payload)).encode()), payload

    def connect(self, values: dict[str, str]) -> bytes:
        """The CONNECT of the case's own, if it has one."""
        return b"".join(encode(line, values) for line in self.tunnel)

    def as_http2(self, values: dict[str, str]) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Fields and body of the same request in HTTP/2.

        Names become lower case, Host becomes `:authority`; what only frames HTTP/1.1 goes.
        """
        head, body = self.parts(values)
        line, *fields = head.rstrip(b"\r\n").split(b"\r\n")
        method, _, rest = line.partition(b" ")
        pairs = [(name.lower(), value.strip(b" \t")) for name, _, value in (f.partition(b":") for f in fields)]
        authority = next((value for name, value in pairs if name == b"host"), values["h"].encode())
        pseudo = {b":method": method, b":scheme": b"https", b":authority": authority, b":path": rest.rpartition(b" ")[0]}
        return [*pseudo.items(), *((n, v) for n, v in pairs if n not in FRAMING)], body


FRAMING = {b"host", b"content-length", b"transfer-encoding", b"connection"}


@dataclass
class Block:
    """One case as text: its lines and their numbers, defaults first."""

    file: str
    line: int
    name: str
    lines: list[tuple[str, str]] = field(default_factory=list)


def blocks(path: Path) -> Iterator[Block]:
    common: list[tuple[str, str]] = []
    block: Block | None = None
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        where = f"{path.name}:{number}"
        if line.startswith("=== "):
            if block:
                yield block
            name = line[4:].strip()
            if not NAMES.fullmatch(name):
                raise ValueError(f"{where}: bad case name `{name}`")
            block = Block(path.name, number, name, list(common))
        elif line.startswith("default ") and not block:
            common.append((where, line.removeprefix("default ")))
        elif line.strip() and not line.startswith("#"):
            if not block:
                raise ValueError(f"{where}: text before the first case")
            block.lines.append((where, line))
    if block:
        yield block


def load(folder: Path) -> list[Case]:
    cases = [case for path in sorted(folder.glob("*.txt")) if path.name != "h2.txt" for case in parse(path)]
    distinct([case.name for case in cases])
    return cases


def distinct(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"case names used twice: {', '.join(twice)}")


def parse(path: Path) -> list[Case]:
    cases = []
    for block in blocks(path):
        case = Case(block.file, block.line, block.name)
        for where, line in block.lines:
            read_line(case, line, where)
        if not (case.why and case.statuses and case.receipt) or not (case.lines or case.tunnel):
            raise ValueError(f"{case.file}:{case.line}: `{case.name}` lacks a reason, bytes, `expect` or `receipt`")
        cases.append(case)
    return cases


def read_line(case: Case, line: str, where: str) -> None:
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    match word:
        case ">":
            case.lines.append(line[2:])
        case "c>":
            case.tunnel.append(line[3:])
        case "expect":
            words = set(rest.split())
            case.closes, case.alone = "close" in words, "alone" in words
            case.statuses = {int(status) for status in words - {"close", "alone"}}
        case "origin":
            if rest != "nothing":
                raise ValueError(f"{where}: the corpus is for requests that never reach the origin")
        case "receipt":
            case.receipt, *reasons = rest.split()
            case.reasons = set(reasons)
            if case.receipt not in ("deny", "none"):
                raise ValueError(f"{where}: receipt is `deny` or `none`")
        case "on":
            case.ingresses = EVERYWHERE if rest == "everywhere" else rest.split()
            if not set(case.ingresses) <= set(INGRESSES):
                raise ValueError(f"{where}: unknown ingress in `{rest}`")
        case "sni":
            case.server_name = "" if rest == "none" else rest
        case "inside":
            case.inside = rest
        case "framed":
            case.framed = rest
        case _ if case.lines or case.tunnel:
            raise ValueError(f"{where}: `{word}` is no keyword")
        case _:
            case.why = f"{case.why} {line.strip()}".strip()


def encode(line: str, values: dict[str, str]) -> bytes:
    ends = not line.endswith("\\") or line.endswith("\\\\")
    return expand(line if ends else line[:-1], values) + (b"\r\n" if ends else b"")


def expand(text: str, values: dict[str, str]) -> bytes:
    """Placeholders, repetitions and escapes."""
    text = text.replace("{head}", "Host: {h}\\r\\nAuthorization: Bearer {t}")
    text = re.sub(r"\{([^{}*]+)\*(\d+)\}", lambda m: m[1] * int(m[2]), text)
    text = re.sub(r"\{basic(?::([a-z]+))?\}", lambda m: basic(values[f"t:{m[1]}" if m[1] else "t"]), text)
    text = re.sub(r"\{(p|h|g|admin|t|t:[a-z]+)\}", lambda m: values[m[1]], text)
    return re.sub(rb"\\(x[0-9a-fA-F]{2}|[rnt0\\])", unescape, text.encode("ascii"))


def basic(token: str) -> str:
    return base64.b64encode(f"agent:{token}".encode()).decode()


def unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] == b"x":
        return bytes([int(code[1:], 16)])
    return {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}[code]
