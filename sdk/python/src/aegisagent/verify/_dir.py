"""A log directory, read once from front to back in memory that does not grow with the log."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import BinaryIO, Callable, NamedTuple

from .._canon import sha256_hex
from ._leaf import Chain, LeafView
from ._links import Links
from ._report import Broken, Report, Tampered, Unreadable

CLOCK_STEP_MS = 5_000
"""A clock that was set back by more is a finding; less is something the log does not write."""
_MAGIC = "aegis-receipts-head-1"
_HEAD_BYTES = 125
_HEAD_TRIES = 5
_HEAD_PAUSE = 0.005
_TELL_EVERY = 16_384
_MAX_SEQ = 2**64 - 1


class Progress(NamedTuple):
    """How far a verification is."""

    leaves: int
    bytes: int
    total_bytes: int


class _Head(NamedTuple):
    next_seq: int
    last_hash: str


def verify_dir(folder: Path, progress: Callable[[Progress], None] | None = None) -> Report:
    """Verifies a log directory. The log may be in use: then what is written meanwhile may or may not be covered."""
    run = _Run(folder, progress or (lambda _: None))
    try:
        run.verify()
    except (Tampered, Unreadable) as fault:
        run.report.fail(fault)
    report = run.report
    report.node = run.chain.node
    report.without_outcome = run.links.without_outcome()
    report.last_hash = run.chain.last_hash if report.leaves else None
    return report


class _Run:
    def __init__(self, folder: Path, progress: Callable[[Progress], None]) -> None:
        self._folder = folder
        self._progress = progress
        self._total = 0
        self.report = Report()
        self.chain = Chain()
        self.links = Links()

    def verify(self) -> None:
        # The head comes first: in a log that is in use, the leaves are then never behind it.
        head = self._head()
        firsts = self._segments()
        try:
            for first in firsts:
                with self._path(first).open("rb") as file:
                    self._total += file.seek(0, 2)
        except OSError as error:
            raise Unreadable.io("a segment", error) from None
        for at, first in enumerate(firsts):
            try:
                self._segment(first, at + 1 == len(firsts), head)
            except OSError as error:
                raise Unreadable.io("a segment", error) from None
        if self.chain.next_seq < head.next_seq:
            why = f"the head file says that {head.next_seq} leaves are durable, and they are gone"
            raise Tampered(self.chain.next_seq, "head", why)
        self.report.beyond_head = self.chain.next_seq - head.next_seq

    def _path(self, first: int) -> Path:
        return self._folder / "segments" / f"{first:020}.log"

    def _head(self) -> _Head:
        """Without it nothing vouches for the last leaf. Read again where it is just being rewritten."""
        try:
            with (self._folder / "head").open("rb") as file:
                for _ in range(_HEAD_TRIES):
                    file.seek(0)
                    head = _parse_head(file.read(_HEAD_BYTES + 1))
                    if head is not None:
                        return head
                    time.sleep(_HEAD_PAUSE)
        except OSError as error:
            raise Unreadable.io("the head file", error) from None
        raise Unreadable("the head file is damaged")

    def _segments(self) -> list[int]:
        try:
            names = sorted(path.name for path in (self._folder / "segments").iterdir())
        except OSError as error:
            raise Unreadable.io("the segments", error) from None
        firsts = []
        for name in names:
            if re.fullmatch(r"[0-9]{20}\.log", name) and int(name[:20]) <= _MAX_SEQ:
                firsts.append(int(name[:20]))
            else:
                self.report.find(f"`segments/{name}` is no segment")
        return sorted(firsts)

    def _segment(self, first: int, last: bool, head: _Head) -> None:
        file_name = f"segments/{first:020}.log"
        with self._path(first).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size == 0 and last:
                # Made in advance, for when the one before it is full.
                return
            expected = self.chain.next_seq
            if first != expected or size == 0:
                why = f"it starts at leaf {first} with {size} bytes, expected leaf {expected}"
                raise Tampered(expected, file_name, why)
            self.report.segments += 1
            self._records(file, size, file_name, last, head)

    def _records(self, file: BinaryIO, size: int, file_name: str, last: bool, head: _Head) -> None:
        before, at = self.report.bytes, 0
        while True:
            self.report.bytes = before + at
            if at == size:
                return
            seq = self.chain.next_seq
            raw = _record(file, size - at)
            # A hole that a power cut left reads as zeros, which no leaf has.
            if last and seq >= head.next_seq and (raw is None or b"\0" in raw):
                self.report.find(
                    f"{size - at} bytes behind the last leaf are torn (leaf {seq} was never acknowledged): "
                    "a crash, or a write under way"
                )
                return
            if raw is None:
                raise Tampered(seq, file_name, "no whole record")
            try:
                self._leaf(raw, head)
            except Broken as why:
                raise Tampered(seq, file_name, str(why)) from None
            at += 2 + len(raw)
            if self.report.leaves % _TELL_EVERY == 0:
                self._progress(Progress(self.report.leaves, before + at, self._total))

    def _leaf(self, raw: bytes, head: _Head) -> None:
        view = LeafView.read(raw)
        self.chain.check(view)
        odd = self.links.follow(view)
        if odd is not None:
            self.report.find(odd)
        back = self.chain.last_ts - view.ts
        if self.chain.next_seq > 0 and back > 0:
            if back <= CLOCK_STEP_MS:
                raise Broken(f"its time is {back} ms before that of the leaf before it, which the log does not write")
            self.report.find(f"the clock was set back by {back} ms at leaf {view.seq}")
        self.report.types.setdefault(view.type_name, 0)
        digest = self.chain.advance(raw, view)
        if self.chain.next_seq == head.next_seq and digest != head.last_hash:
            self.report.types[view.type_name] += 1
            raise Broken("it does not have the hash in the head file")
        self.report.count(view.type_name, view.ts, 0)


def _record(file: BinaryIO, left: int) -> bytes | None:
    """The next leaf; `None` for bytes that are no whole record."""
    if left < 2:
        return None
    length = int.from_bytes(file.read(2), "big")
    if length == 0 or left < 2 + length:
        return None
    raw = file.read(length)
    # The file may be shorter than it was when its length was taken.
    return raw if len(raw) == length else None


def _parse_head(raw: bytes) -> _Head | None:
    match = re.fullmatch(rb"aegis-receipts-head-1 ([0-9]{20}) ([0-9a-f]{64}) ([0-9a-f]{16})\n", raw)
    if match is None or int(match[1]) > _MAX_SEQ:
        return None
    text = f"{_MAGIC} {match[1].decode()} {match[2].decode()}"
    if sha256_hex(text.encode("ascii"))[:16] != match[3].decode():
        return None
    return _Head(int(match[1]), match[2].decode())
