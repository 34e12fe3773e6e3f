"""Reads cases in HTTP/2 frames: attacks/h2.txt and conformance/h2.txt.

    === name-in-capitals
    What the case is about, in one or more lines.
    > HEADERS end
    | GET /user
    | X-Note: a
    expect  reset:PROTOCOL_ERROR
    receipt none

`>` lines are frames, `|` lines the fields of the HEADERS, CONTINUATION or PUSH_PROMISE
above them. `| GET /user` stands for the four pseudo-headers and the agent's token.
Otherwise `| name: value`, sent as HPACK literals, byte for byte, with the escapes and
placeholders of harness/attackfile.py. The preface and an empty SETTINGS go first,
unless the case says `preface none`.

    > DATA [end] [padded=N] [text=REST OF LINE | bytes=N | raw=HEX]
    > HEADERS [end] [open] [padded=N] [priority=STREAM:WEIGHT[:x]] [raw=HEX]    open: no END_HEADERS
    > CONTINUATION [open] [raw=HEX]
    > PUSH_PROMISE promised=N
    > RST_STREAM [code=NAME]          > GOAWAY [code=NAME]
    > SETTINGS [ack] [NAME=N …] [raw=HEX]
    > PING [ack] [raw=HEX]            > WINDOW_UPDATE by=N
    > PRIORITY on=STREAM [weight=N]
    > FRAME type=N [flags=N] [raw=HEX]
    > BYTES raw=HEX | text=REST OF LINE      no frame at all
    > WAIT answer | ack | pong | settings    read until the stream is over, …
    > REPEAT N … > END                       the lines between, N times

Every frame takes `stream=N` (a number, `same` as the frame before, or `next` odd one;
stream 1 to begin with, 0 for the frames that have none) and `length=N`, the length that its header
claims. `raw=` is hexadecimal, in parts joined by `+`, each of which may end in `*N`, N times.

expect    any of these is right: a status, `answer` (any status), `reset[:CODE]` or `goaway[:CODE]`,
          `close`, `pong`, `ack` (SETTINGS acknowledged), `data:N` (first DATA frame has N bytes)
receipt   `deny` with reasons, `none`, or `any`
origin    `nothing` or `any`
rfc       section that the case is about
on        ingresses
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness import attackfile, frames
from harness.doors import INGRESSES
from harness.frames import ACK, CODES, END_HEADERS, END_STREAM, PADDED, PREFACE, PRIORITY, SETTINGS, TYPES, Peer

CONNECTION_FRAMES = {"SETTINGS", "PING", "GOAWAY", "WINDOW_UPDATE"}
Line = tuple[str, list[str]]


@dataclass
class FrameCase:
    """One case in frames."""

    file: str
    line: int
    name: str
    why: str = ""
    rfc: str = ""
    #: Each frame line with the field lines below it.
    script: list[Line] = field(default_factory=list)
    preface: bool = True
    expect: list[str] = field(default_factory=list)
    origin: str = "nothing"
    receipt: str = ""
    reasons: set[str] = field(default_factory=set)
    ingresses: list[str] = field(default_factory=lambda: ["connect2", "tls2"])

    def play(self, peer: Peer, values: dict[str, str], seconds: float = 5) -> bool:
        """Sends the frames; whether what was expected came back in time."""
        if self.preface:
            peer.send(PREFACE + frames.frame(TYPES["SETTINGS"], 0, 0, b""))
        stream = 1
        pending = []
        for line, fields in unrolled(self.script):
            word, _, rest = line.partition(" ")
            if word == "WAIT":
                peer.send(b"".join(pending))
                pending = []
                peer.read(lambda what=rest, on=stream: seen(peer, on, what), seconds)
                continue
            data, stream = encode(word, rest, fields, stream, values)
            pending.append(data)
        peer.send(b"".join(pending))
        return peer.read(lambda: any(seen(peer, stream, word) for word in self.expect), seconds) or any(
            seen(peer, stream, word) for word in self.expect
        )


def seen(peer: Peer, number: int, word: str) -> bool:
    """Whether the peer has done what the word says."""
    stream = peer.streams.get(number, frames.Stream())
    kind, _, detail = word.partition(":")
    match kind:
        case "answer":
            return stream.status > 0 and stream.over
        case "reset":
            return any(s.reset is not None and detail in ("", s.reset) for s in peer.streams.values())
        case "goaway":
            return peer.goaway is not None and detail in ("", peer.goaway)
        case "close":
            return peer.closed
        case "pong":
            return bool(peer.pongs)
        case "ack":
            return peer.acks > 0
        case "settings":
            return bool(peer.settings)
        case "data":
            return bool(stream.pieces) and stream.pieces[0] == int(detail)
        case status if status.isdigit():
            return stream.status == int(status) and stream.over
    raise ValueError(f"`{word}` cannot be expected")


def load(path: Path) -> list[FrameCase]:
    cases = []
    for block in attackfile.blocks(path):
        case = FrameCase(block.file, block.line, block.name)
        for where, line in block.lines:
            read_line(case, line, where)
        if not (case.why and case.script and case.expect):
            raise ValueError(f"{case.file}:{case.line}: `{case.name}` lacks a reason, frames or `expect`")
        # A slip in a frame is an error here, not when the case is played.
        for word, fields in unrolled(case.script):
            kind, _, rest = word.partition(" ")
            if kind != "WAIT":
                encode(kind, rest, fields, 1, PROBE)
        for word in case.expect:
            seen(NOBODY, 1, word)
        cases.append(case)
    attackfile.distinct([case.name for case in cases])
    return cases


class _Nobody:
    streams: dict[int, frames.Stream] = {}
    goaway = None
    closed = False
    pongs: list[bytes] = []
    settings: dict[int, int] = {}
    acks = 0


NOBODY: Peer = _Nobody()  # type: ignore[assignment]
PROBE = {name: "x" for name in ("p", "h", "t")} | {
    f"t:{name}": "x" for name in ("other", "frozen", "revoked", "forged", "short", "capitals", "admin", "approver")
}


def read_line(case: FrameCase, line: str, where: str) -> None:
    word, _, rest = line.partition(" ")
    match word:
        case ">":
            case.script.append((rest, []))
        case "|":
            if not case.script:
                raise ValueError(f"{where}: a field before the first frame")
            case.script[-1][1].append(rest)
        case "expect":
            case.expect = rest.split()
        case "origin":
            case.origin = rest.strip()
        case "receipt":
            case.receipt, *reasons = rest.split()
            case.reasons = set(reasons)
        case "rfc":
            case.rfc = rest.strip()
        case "preface":
            case.preface = rest.strip() != "none"
        case "on":
            case.ingresses = rest.split()
            if not set(case.ingresses) <= set(INGRESSES):
                raise ValueError(f"{where}: unknown ingress in `{rest}`")
        case _ if case.script:
            raise ValueError(f"{where}: `{word}` is no keyword")
        case _:
            case.why = f"{case.why} {line.strip()}".strip()


def unrolled(script: list[Line]) -> Iterator[Line]:
    at = 0
    while at < len(script):
        line, _ = script[at]
        if line.startswith("REPEAT "):
            end = next(n for n in range(at, len(script)) if script[n][0] == "END")
            for _ in range(int(line.split()[1])):
                yield from script[at + 1 : end]
            at = end
        else:
            yield script[at]
        at += 1


def encode(word: str, rest: str, lines: list[str], stream: int, values: dict[str, str]) -> tuple[bytes, int]:
    """The bytes of one frame line, and the stream it was on."""
    flags, options = options_of(rest, values)
    named = options.pop("stream", None)
    number = stream + 2 if named == b"next" else int(named) if named not in (None, b"same") else stream
    on = 0 if word in CONNECTION_FRAMES and named is None else number
    kept = stream if word in CONNECTION_FRAMES else number
    raw = options.pop("raw", None)
    text = options.pop("text", b"") or bytes(int(options.pop("bytes", 0)))
    length = int(options.pop("length")) if "length" in options else None
    if word == "BYTES":
        return raw or text, stream
    bits, payload = payload_of(word, flags, options, block_of(lines, values), raw, text)
    kind = int(options.get("type", 0)) if word == "FRAME" else TYPES[word]
    bits |= int(options.get("flags", 0))
    return frames.frame(kind, bits, on, payload, length), kept


def payload_of(
    word: str, flags: set[str], options: dict[str, bytes], block: bytes, raw: bytes | None, text: bytes
) -> tuple[int, bytes]:
    """Flags and payload."""
    bits, payload = 0, b""
    match word:
        case "DATA":
            bits, payload = END_STREAM if "end" in flags else 0, raw or text
        case "HEADERS":
            bits = (END_STREAM if "end" in flags else 0) | (0 if "open" in flags else END_HEADERS)
            payload = block + (raw or b"")
            if "priority" in options:
                on, weight, *exclusive = options["priority"].decode().split(":")
                bits |= PRIORITY
                payload = struct.pack(">LB", int(on) | (0x80000000 if exclusive else 0), int(weight)) + payload
        case "CONTINUATION":
            bits, payload = 0 if "open" in flags else END_HEADERS, block + (raw or b"")
        case "PUSH_PROMISE":
            bits, payload = END_HEADERS, struct.pack(">L", int(options["promised"])) + block
        case "RST_STREAM":
            payload = struct.pack(">L", code(options)) if raw is None else raw
        case "GOAWAY":
            payload = struct.pack(">LL", 0, code(options)) if raw is None else raw
        case "SETTINGS":
            pairs = [(SETTINGS[n], int(v)) for n, v in options.items() if n in SETTINGS]
            bits = ACK if "ack" in flags else 0
            payload = b"".join(struct.pack(">HL", *pair) for pair in pairs) + (raw or b"")
        case "PING":
            bits, payload = ACK if "ack" in flags else 0, b"fence...".ljust(8) if raw is None else raw
        case "WINDOW_UPDATE":
            payload = struct.pack(">L", int(options["by"])) if raw is None else raw
        case "PRIORITY":
            payload = struct.pack(">LB", int(options["on"]), int(options.get("weight", 15))) if raw is None else raw
        case "FRAME":
            payload = raw or b""
        case _:
            raise ValueError(f"`{word}` is no frame")
    if "padded" in options:
        padding = int(options["padded"])
        bits |= PADDED
        # More padding than there is room for is what some cases are about.
        payload = bytes([padding]) + payload + bytes(padding if padding < 200 else 0)
    return bits, payload


def options_of(rest: str, values: dict[str, str]) -> tuple[set[str], dict[str, bytes]]:
    flags: set[str] = set()
    options: dict[str, bytes] = {}
    if found := re.search(r"(?:^| )text=(.*)$", rest):
        options["text"] = attackfile.expand(found[1], values)
        rest = rest[: found.start()]
    for word in rest.split():
        name, mark, value = word.partition("=")
        if not mark:
            flags.add(name)
        elif name == "raw":
            options["raw"] = b"".join(hexadecimal(part) for part in value.split("+"))
        else:
            options[name] = value.encode()
    return flags, options


def hexadecimal(text: str) -> bytes:
    digits, _, times = text.partition("*")
    return bytes.fromhex(digits) * int(times or 1)


def code(options: dict[str, bytes]) -> int:
    name = options.get("code", b"NO_ERROR").decode()
    return CODES.index(name) if name in CODES else int(name)


def block_of(lines: list[str], values: dict[str, str]) -> bytes:
    pairs: list[tuple[bytes, bytes]] = []
    for line in lines:
        if found := re.fullmatch(r"([A-Z]+) (\S+)", line):
            pairs += [(b":method", found[1].encode()), (b":scheme", b"https")]
            pairs += [(b":authority", values["h"].encode()), (b":path", attackfile.expand(found[2], values))]
            pairs += [(b"authorization", f"Bearer {values['t']}".encode())]
            continue
        times = 1
        if found := re.fullmatch(r"(\d+) x (.*)", line):
            times, line = int(found[1]), found[2]
        name, _, value = line[1:].partition(":")
        pair = (attackfile.expand(line[0] + name, values), attackfile.expand(value.removeprefix(" "), values))
        pairs += [pair] * times
    return frames.fields_block(pairs)
