"""Reads the attack corpus: text files that a person can review case by case.

    === name
    What the attacker is after, in one or more lines.
    > GET {p}/repos/octo/hello/%2e%2e/x HTTP/1.1
    > {head}
    >
    expect  400
    origin  nothing
    receipt deny bad_path
    on      path host port

`>` lines are the bytes. Each ends in CRLF unless it ends in a backslash. `\\r \\n
\\t \\0 \\\\ \\xHH` are escapes; `{p}` is the route's prefix, `{h}` its host, `{t}` the
agent's token, `{t:name}` the token of another agent, `{head}` the Host and
Authorization lines, `{a*1000}` a thousand times `a`, `{len}` the length of what
follows the empty line. `#` starts a comment line between cases, and `default …`
above the first case says what the cases of a file have in common.

expect    statuses that are right, and `close` where the connection must end; 0 is a close without an answer
origin    always `nothing`: cases that may reach the origin are tests of their own
receipt   `deny` and, where one is promised, the reason; or `none`
on        the ingresses: path, host, port, api
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

INGRESSES = ("path", "host", "port", "api")
NAMES = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass
class Case:
    """One attack."""

    file: str
    line: int
    name: str
    why: str = ""
    lines: list[str] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    closes: bool = False
    receipt: str = ""
    reasons: set[str] = field(default_factory=set)
    ingresses: list[str] = field(default_factory=lambda: ["path", "host", "port"])

    def bytes(self, values: dict[str, str]) -> bytes:
        """What goes over the wire, for one ingress's values."""
        head, body, in_body = [], [], False
        for line in self.lines:
            (body if in_body else head).append(encode(line, values))
            in_body = in_body or line == ""
        payload = b"".join(body)
        return b"".join(head).replace(b"{len}", str(len(payload)).encode()) + payload


def load(folder: Path) -> list[Case]:
    cases: list[Case] = []
    for path in sorted(folder.glob("*.txt")):
        cases += parse(path)
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"case names used twice: {', '.join(twice)}")
    return cases


def parse(path: Path) -> list[Case]:
    cases: list[Case] = []
    common: list[str] = []
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        where = f"{path.name}:{number}"
        if line.startswith("=== "):
            name = line[4:].strip()
            if not NAMES.fullmatch(name):
                raise ValueError(f"{where}: bad case name `{name}`")
            cases.append(Case(path.name, number, name))
            for default in common:
                read_line(cases[-1], default, where)
        elif line.startswith("default ") and not cases:
            common.append(line.removeprefix("default "))
        elif line.strip() and not line.startswith("#"):
            if not cases:
                raise ValueError(f"{where}: text before the first case")
            read_line(cases[-1], line, where)
    for case in cases:
        if not (case.why and case.lines and case.statuses and case.receipt):
            raise ValueError(f"{case.file}:{case.line}: `{case.name}` lacks a reason, bytes, `expect` or `receipt`")
    return cases


def read_line(case: Case, line: str, where: str) -> None:
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word == ">":
        case.lines.append(line[2:])
    elif word == "expect":
        case.closes = "close" in rest.split()
        case.statuses = {int(status) for status in rest.split() if status != "close"}
    elif word == "origin":
        if rest != "nothing":
            raise ValueError(f"{where}: the corpus is for requests that never reach the origin")
    elif word == "receipt":
        case.receipt, *reasons = rest.split()
        case.reasons = set(reasons)
        if case.receipt not in ("deny", "none"):
            raise ValueError(f"{where}: receipt is `deny` or `none`")
    elif word == "on":
        case.ingresses = rest.split()
        if not set(case.ingresses) <= set(INGRESSES):
            raise ValueError(f"{where}: unknown ingress in `{rest}`")
    elif case.lines:
        raise ValueError(f"{where}: `{word}` is no keyword")
    else:
        case.why = f"{case.why} {line.strip()}".strip()


def encode(line: str, values: dict[str, str]) -> bytes:
    ends = not line.endswith("\\") or line.endswith("\\\\")
    text = line if ends else line[:-1]
    text = text.replace("{head}", "Host: {h}\\r\\nAuthorization: Bearer {t}")
    text = re.sub(r"\{([^{}*]+)\*(\d+)\}", lambda m: m[1] * int(m[2]), text)
    text = re.sub(r"\{(p|h|t|t:[a-z]+)\}", lambda m: values[m[1]], text)
    data = re.sub(rb"\\(x[0-9a-fA-F]{2}|[rnt0\\])", unescape, text.encode("ascii"))
    return data + (b"\r\n" if ends else b"")


def unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] == b"x":
        return bytes([int(code[1:], 16)])
    return {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}[code]
