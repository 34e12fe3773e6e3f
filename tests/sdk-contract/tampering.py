"""Receipt logs as files, taken apart and put together again, by code that is none of the verifiers'."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rfc8785

ZEROS = "0" * 64
Change = Callable[["Log"], None]


class Log:
    """A copy of a log's directory with its leaves as bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments = sorted((folder / "segments").glob("*.log"))
        self.leaves = [leaf for segment in self.segments for leaf in records(segment.read_bytes())]

    @property
    def segment(self) -> Path:
        return self.segments[0]

    def write(self) -> None:
        """All leaves into the first segment, the head as it was."""
        data = b"".join(struct.pack(">H", len(leaf)) + leaf for leaf in self.leaves)
        self.segment.write_bytes(data)
        for other in self.segments[1:]:
            other.unlink()

    def edit(self, at: int, change: Callable[[dict[str, Any]], Any], again: bool = True) -> None:
        """Changes one leaf's members and, with `again`, chains all leaves behind it anew, as a forger would."""
        body = json.loads(self.leaves[at])
        change(body)
        self.leaves[at] = rfc8785.dumps(body)
        if again:
            self.chain(at + 1)
        self.write()

    def chain(self, start: int) -> None:
        for at in range(start, len(self.leaves)):
            body = json.loads(self.leaves[at])
            body["prev_receipt_hash"] = digest(self.leaves[at - 1]) if at else ZEROS
            self.leaves[at] = rfc8785.dumps(body)

    def head(self, next_seq: int | None = None, last: str | None = None) -> None:
        count = len(self.leaves) if next_seq is None else next_seq
        known = digest(self.leaves[count - 1]) if last is None and count else last or ZEROS
        text = f"aegis-receipts-head-1 {count:020} {known}"
        (self.folder / "head").write_text(f"{text} {digest(text.encode())[:16]}\n")

    def find(self, kind: str, wanted: Callable[[dict[str, Any]], bool] = lambda body: True) -> int:
        """The first leaf of a type."""
        for at, leaf in enumerate(self.leaves):
            body = json.loads(leaf)
            if body["type"] == kind and wanted(body):
                return at
        raise LookupError(f"the log has no {kind}")


def records(data: bytes) -> list[bytes]:
    leaves, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at)
        leaves.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return leaves


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flip(log: Log, share: float, bit: int = 1) -> None:
    data = bytearray(log.segment.read_bytes())
    data[int(len(data) * share)] ^= bit
    log.segment.write_bytes(bytes(data))


def swapped(log: Log) -> None:
    log.leaves[2], log.leaves[3] = log.leaves[3], log.leaves[2]
    log.write()


def kept(count: int) -> Change:
    def change(log: Log) -> None:
        log.leaves = log.leaves[:count]
        log.write()

    return change


def without(at: int) -> Change:
    def change(log: Log) -> None:
        del log.leaves[at]
        log.write()

    return change


def set_member(at: int, name: str, value: Any, again: bool = True, head: bool = False) -> Change:
    def change(log: Log) -> None:
        where = at % len(log.leaves)
        log.edit(where, lambda body: body.update({name: value(body) if callable(value) else value}), again)
        if head:
            log.head()

    return change


def gone(at: int, name: str) -> Change:
    def change(log: Log) -> None:
        log.edit(at % len(log.leaves), lambda body: body.pop(name))
        log.head()

    return change


def raw(at: int, text: Callable[[bytes], bytes]) -> Change:
    """Bytes of one leaf, everything behind it chained anew and the head too: only the leaf itself is wrong."""

    def change(log: Log) -> None:
        where = at % len(log.leaves)
        log.leaves[where] = text(log.leaves[where])
        log.chain(where + 1)
        log.write()
        log.head()

    return change


def outcome(name: str, value: Any) -> Change:
    def change(log: Log) -> None:
        at = log.find("outcome.v1")
        log.edit(at, lambda body: body.update({name: value(body) if callable(value) else value}))
        log.head()

    return change


def appended(data: bytes) -> Change:
    def change(log: Log) -> None:
        log.segment.write_bytes(log.segment.read_bytes() + data)

    return change


def split(name: str) -> Change:
    """The log in two segments, the second under a name of its own."""

    def change(log: Log) -> None:
        half = len(log.leaves) // 2
        data = [
            b"".join(struct.pack(">H", len(leaf)) + leaf for leaf in part)
            for part in (log.leaves[:half], log.leaves[half:])
        ]
        log.segment.write_bytes(data[0])
        (log.folder / "segments" / name.format(half=half)).write_bytes(data[1])

    return change


def nothing(log: Log) -> None:
    pass


# What stays verified is among them: a verifier that cries wolf is wrong as well.
DIRECTORIES: dict[str, Change] = {
    "intact": nothing,
    "a byte early": lambda log: flip(log, 0.1),
    "a byte in the middle": lambda log: flip(log, 0.5),
    "a byte late": lambda log: flip(log, 0.93),
    "a byte beyond ASCII": lambda log: flip(log, 0.4, 0x80),
    "the first length": lambda log: flip(log, 0),
    "the first leaf removed": without(0),
    "a leaf removed": without(2),
    "two leaves swapped": swapped,
    "a leaf twice": lambda log: (log.leaves.insert(2, log.leaves[2]), log.write())[1],
    "the last leaf cut off": kept(-1),
    "half of it cut off": kept(5),
    "all leaves cut off": kept(0),
    "the last record torn": lambda log: log.segment.write_bytes(log.segment.read_bytes()[:-7]),
    "a torn record behind the head": appended(b"\x00\x50{half"),
    "zeros behind the head": appended(b"\x00" * 64),
    "one byte behind the head": appended(b"\x01"),
    "a record of zeros behind the head": appended(b"\x00\x04\x00\x00\x00\x00"),
    "a record of trash behind the head": appended(b"\x00\x04abcd"),
    "a length of zero in the middle": lambda log: (log.leaves.insert(3, b""), log.write())[1],
    "a leaf rewritten": set_member(3, "tenant", "other", again=False),
    "a leaf rewritten, chained anew": set_member(3, "tenant", "other"),
    "a leaf rewritten, chained anew, the head too": set_member(3, "tenant", "other", head=True),
    "another node in the middle": set_member(4, "node", "n2", head=True),
    "another number": set_member(3, "seq", 30, head=True),
    "a number that is text": set_member(3, "seq", "3", head=True),
    "no number": gone(3, "seq"),
    "no time": gone(3, "ts"),
    "no node": gone(3, "node"),
    "no hash of the leaf before": gone(3, "prev_receipt_hash"),
    "a hash of the leaf before in capitals": set_member(3, "prev_receipt_hash", lambda body: body["prev_receipt_hash"].upper()),
    "an unknown type": set_member(3, "type", "intent.v9", head=True),
    "time set back by a second": set_member(-1, "ts", lambda body: body["ts"] - 1_000, head=True),
    "time set back by an hour": set_member(-1, "ts", lambda body: body["ts"] - 3_600_000, head=True),
    "blanks in a leaf": raw(3, lambda leaf: leaf.replace(b'":', b'": ', 1)),
    "members in another order": raw(3, lambda leaf: json.dumps(dict(reversed(json.loads(leaf).items())), separators=(",", ":"), ensure_ascii=False).encode()),
    "a member twice": raw(3, lambda leaf: leaf[:-1] + b',"type":"intent.v1"}'),
    "a needless escape": raw(3, lambda leaf: leaf.replace(b'"node":"n', b'"node":"\\u006e', 1)),
    "a number spelled otherwise": raw(-1, lambda leaf: leaf.replace(b'"seq":', b'"seq":0', 1)),
    "a leaf that is a list": raw(-1, lambda leaf: b"[]"),
    "a leaf that is no JSON": raw(-1, lambda leaf: b"{nonsense"),
    "a leaf with a line end": raw(-1, lambda leaf: leaf + b"\n"),
    "an outcome of a later leaf": outcome("intent_seq", lambda body: body["seq"] + 5),
    "an outcome of itself": outcome("intent_seq", lambda body: body["seq"]),
    "an outcome of another decision": outcome("decision_id", "dec_other"),
    "an outcome of what has none": outcome("intent_seq", 0),
    "an outcome of nothing": lambda log: (log.edit(log.find("outcome.v1"), lambda body: body.pop("intent_seq")), log.head())[1],
    "an intent without a decision": lambda log: (log.edit(log.find("intent.v1"), lambda body: body.pop("decision")), log.head())[1],
    "an older head": lambda log: log.head(4),
    "a head of nothing": lambda log: log.head(0),
    "a head further on": lambda log: log.head(len(log.leaves) + 3, "5" * 64),
    "a head with another hash": lambda log: log.head(len(log.leaves), "5" * 64),
    "an older head with another hash": lambda log: log.head(4, "5" * 64),
    "a damaged head": lambda log: (log.folder / "head").write_text((log.folder / "head").read_text().replace("1", "2", 1)),
    "half a head": lambda log: (log.folder / "head").write_text((log.folder / "head").read_text()[:60]),
    "a head with more behind it": lambda log: (log.folder / "head").write_text((log.folder / "head").read_text() + "\n"),
    "no head": lambda log: (log.folder / "head").unlink(),
    "no segment": lambda log: [segment.unlink() for segment in log.segments][:0],
    "no folder of segments": lambda log: shutil.rmtree(log.folder / "segments"),
    "a file that is no segment": lambda log: (log.folder / "segments" / "notes.txt").write_text("hello"),
    "a segment under another number": lambda log: log.segment.rename(log.segment.with_name(f"{7:020}.log")),
    "in two segments": split("{half:020}.log"),
    "in two segments, the second under another number": split("{half:019}9.log"),
    "an empty segment made in advance": lambda log: (log.folder / "segments" / f"{len(log.leaves):020}.log").touch(),
    "an empty segment before the end": lambda log: (split("{half:020}.log")(log), log.segment.write_bytes(b""))[1],
}  # fmt: skip


def opened(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """A change of the first opening in a bundle."""
    return lambda bundle: change(next(leaf["opening"] for leaf in bundle["leaves"] if leaf.get("opening")))


BUNDLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "intact": lambda bundle: None,
    "without the opening": lambda bundle: [leaf.pop("opening", None) for leaf in bundle["leaves"]],
    "without leaves": lambda bundle: bundle.update(leaves=[]),
    "another format": lambda bundle: bundle.update(format="aegis-receipt-bundle-2"),
    "another node": lambda bundle: bundle.update(node="n2"),
    "a leaf changed": lambda bundle: bundle["leaves"][0].update(leaf=bundle["leaves"][0]["leaf"].replace("n1", "n3", 1)),
    "a hash changed": lambda bundle: bundle["leaves"][0].update(receipt_hash="5" * 64),
    "a hash in capitals": lambda bundle: bundle["leaves"][0].update(receipt_hash=bundle["leaves"][0]["receipt_hash"].upper()),
    "a number changed": lambda bundle: bundle["leaves"][0].update(seq=bundle["leaves"][0]["seq"] + 1),
    "a number that is text": lambda bundle: bundle["leaves"][0].update(seq="1"),
    "a number with a fraction": lambda bundle: bundle["leaves"][0].update(seq=bundle["leaves"][0]["seq"] + 0.5),
    "a leaf twice": lambda bundle: bundle["leaves"].append(bundle["leaves"][0]),
    "leaves the other way round": lambda bundle: bundle["leaves"].reverse(),
    "a leaf made up": lambda bundle: bundle["leaves"][0].update(leaf="{}", receipt_hash=digest(b"{}")),
    "another action": opened(lambda opening: opening.update(action=opening["action"].replace("exported", "exportee"))),
    "another action with its hash": opened(lambda o: o.update(action=(a := o["action"].replace("exported", "exportee")), action_hash=digest(a.encode()))),
    "an action with blanks": opened(lambda o: o.update(action=(a := o["action"].replace(",", ", ", 1)), action_hash=digest(a.encode()))),
    "another action hash": opened(lambda opening: opening.update(action_hash="5" * 64)),
    "another salt": opened(lambda opening: opening.update(salt="5" * 64)),
    "a short salt": opened(lambda opening: opening.update(salt="55")),
    "a member that there is not": lambda bundle: bundle.update(more=1),
    "a member missing": lambda bundle: bundle.pop("node"),
    "an opening that is null": lambda bundle: bundle["leaves"][0].update(opening=None),
    "an opening where nothing is committed": lambda bundle: bundle["leaves"][-1].update(
        opening=next(leaf["opening"] for leaf in bundle["leaves"] if leaf.get("opening"))
    ),
}  # fmt: skip
FILES = {
    "empty": b"", "no JSON": b"hello", "a list": b"[]", "null": b"null", "no UTF-8": b'{"format":"\xff"}',
    "a member twice": b'{"format":"aegis-receipt-bundle-1","format":"aegis-receipt-bundle-1","node":"n1","leaves":[]}',
    "more behind it": b'{"format":"aegis-receipt-bundle-1","node":"n1","leaves":[]} x',
    "blanks around it": b' \n{"format":"aegis-receipt-bundle-1","node":"n1","leaves":[]}\n ',
    "a byte order mark": b'\xef\xbb\xbf{"format":"aegis-receipt-bundle-1","node":"n1","leaves":[]}',
}  # fmt: skip
