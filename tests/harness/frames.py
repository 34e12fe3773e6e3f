"""HTTP/2 frame by frame, written and read without any rule about what may follow what."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import hpack

from harness.doors import Link

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TYPES = {
    "DATA": 0, "HEADERS": 1, "PRIORITY": 2, "RST_STREAM": 3, "SETTINGS": 4, "PUSH_PROMISE": 5,
    "PING": 6, "GOAWAY": 7, "WINDOW_UPDATE": 8, "CONTINUATION": 9,
}  # fmt: skip
CODES = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
]  # fmt: skip
SETTINGS = {
    "HEADER_TABLE_SIZE": 1, "ENABLE_PUSH": 2, "MAX_CONCURRENT_STREAMS": 3, "INITIAL_WINDOW_SIZE": 4,
    "MAX_FRAME_SIZE": 5, "MAX_HEADER_LIST_SIZE": 6, "ENABLE_CONNECT_PROTOCOL": 8,
}  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

Fields = Iterable[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """`length` is what the header says, where that is to differ from the payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields_block(fields: Fields) -> bytes:
    """HPACK literals without indexing or Huffman coding: every byte passes as it is."""
    return b"".join(b"\0" + string(name) + string(value) for name, value in fields)


def string(text: bytes) -> bytes:
    return integer(len(text), 7) + text


def integer(number: int, bits: int) -> bytes:
    """RFC 7541 section 5.1, with nothing set above the prefix."""
    limit = (1 << bits) - 1
    if number < limit:
        return bytes([number])
    out, number = [limit], number - limit
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def request(fields: Fields, body: bytes = b"", stream: int = 1, frame_size: int = 16384) -> bytes:
    """HEADERS, CONTINUATIONs and DATA of one request."""
    block = fields_block(fields)
    pieces = [block[at : at + frame_size] for at in range(0, len(block), frame_size)] or [b""]
    out = []
    for number, piece in enumerate(pieces):
        flags = END_HEADERS if number == len(pieces) - 1 else 0
        flags |= END_STREAM if number == 0 and not body else 0
        out.append(frame(TYPES["CONTINUATION" if number else "HEADERS"], flags, stream, piece))
    for at in range(0, len(body), frame_size):
        last = at + frame_size >= len(body)
        out.append(frame(TYPES["DATA"], END_STREAM if last else 0, stream, body[at : at + frame_size]))
    return b"".join(out)


@dataclass
class Stream:
    """One stream as the peer's frames show it."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    #: Payload length of each DATA frame.
    pieces: list[int] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: str | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


class Peer:
    """The far end of one connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.settings: dict[int, int] = {}
        self.streams: dict[int, Stream] = {}
        self.acks = 0
        self.pongs: list[bytes] = []
        self.goaway: str | None = None
        self.closed = False
        self._decoder = hpack.Decoder()
        self._bytes = b""

    def stream(self, number: int) -> Stream:
        return self.streams.setdefault(number, Stream())

    def send(self, data: bytes) -> None:
        try:
            self.link.sendall(data)
        except OSError:
            pass  # ended before all of it was taken: what it said before still counts

    def read(self, enough: Callable[[], bool], seconds: float) -> bool:
        """Takes frames in until `enough`, the end of the connection, or the time is up."""
        end = time.monotonic() + seconds
        while not enough():
            left = end - time.monotonic()
            if self.closed or left <= 0:
                return False
            self.link.settimeout(left)
            try:
                piece = self.link.recv(65536)
            except TimeoutError:
                return False
            except OSError:
                piece = b""
            self.closed = not piece
            self._bytes += piece
            self._take()
        return True

    def _take(self) -> None:
        while len(self._bytes) >= 9:
            size = int.from_bytes(self._bytes[:3], "big")
            if len(self._bytes) < 9 + size:
                return
            kind, flags = self._bytes[3], self._bytes[4]
            number = int.from_bytes(self._bytes[5:9], "big") & 0x7FFFFFFF
            payload, self._bytes = self._bytes[9 : 9 + size], self._bytes[9 + size :]
            self._frame(kind, flags, number, payload)

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        match kind:
            case 0:
                stream = self.stream(number)
                stream.pieces.append(len(payload))
                stream.body += payload
                stream.ended = stream.ended or bool(flags & END_STREAM)
            case 1:
                self._headers(self.stream(number), payload, flags)
            case 3:
                self.stream(number).reset = code(payload)
            case 4 if not flags & ACK:
                self.settings |= {ident: value for ident, value in struct.iter_unpack(">HL", payload)}
                self.send(frame(TYPES["SETTINGS"], ACK, 0, b""))
            case 4:
                self.acks += 1
            case 6 if flags & ACK:
                self.pongs.append(payload)
            case 7:
                self.goaway = code(payload[4:8])

    def _headers(self, stream: Stream, payload: bytes, flags: int) -> None:
        assert flags & END_HEADERS, "an answer's head in several frames"
        fields = [(str(n), str(v)) for n, v in self._decoder.decode(payload, raw=False)]
        status = int(dict(fields).get(":status", "0"))
        if status >= 200:
            stream.status, stream.headers = status, fields
        elif status == 0:
            stream.trailers = fields
        stream.ended = stream.ended or bool(flags & END_STREAM)


def code(payload: bytes) -> str:
    number = int.from_bytes(payload[:4], "big")
    return CODES[number] if number < len(CODES) else str(number)
