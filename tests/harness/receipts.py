"""Reads the receipt log from its files, without any code of the gateway."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import environment

ZEROS = "0" * 64


@dataclass
class Leaf:
    """One leaf: its bytes and what they say."""

    raw: bytes
    hash: str
    body: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.body.get(name)

    @property
    def kind(self) -> str:
        return str(self.body.get("type", "")).partition(".")[0]

    @property
    def is_denial(self) -> bool:
        return self.kind == "refused" or (self.kind == "intent" and self.body.get("decision") == "deny")

    @property
    def count(self) -> int:
        """How many refusals a merged leaf stands for."""
        return int(self.body.get("count", 1)) if self.kind == "refused" else 1


class Tail:
    """Follows a log: each call of `new` gives the leaves written since the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._at: dict[Path, int] = {}

    def new(self) -> list[Leaf]:
        """All whole leaves not seen yet. A record cut off by a crash waits for its rest."""
        leaves = []
        for segment in sorted((self.folder / "segments").glob("*.log")):
            at = self._at.get(segment, 0)
            with segment.open("rb") as file:
                file.seek(at)
                data = file.read()
            start = 0
            while start + 2 <= len(data):
                (length,) = struct.unpack_from(">H", data, start)
                raw = data[start + 2 : start + 2 + length]
                if length == 0 or len(raw) < length:
                    break
                leaves.append(Leaf(raw, hashlib.sha256(raw).hexdigest(), json.loads(raw)))
                start += 2 + length
            self._at[segment] = at + start
        return leaves

    def until(self, enough: Callable[[list[Leaf]], bool], seconds: float = 5) -> list[Leaf]:
        """The new leaves once `enough` of them are there, or those there are at the end."""
        leaves, end = self.new(), time.monotonic() + seconds
        while not enough(leaves) and time.monotonic() < end:
            time.sleep(0.01)
            leaves += self.new()
        return leaves


def read(folder: Path) -> list[Leaf]:
    """All whole leaves of a log."""
    return Tail(folder).new()


def check_chain(leaves: list[Leaf]) -> None:
    """Sequence numbers without gaps, each leaf naming the hash of the one before."""
    before = ZEROS
    for number, leaf in enumerate(leaves):
        assert leaf["seq"] == number, f"leaf {number} says it is {leaf['seq']}"
        assert leaf["prev_receipt_hash"] == before, f"chain broken at {number}"
        before = leaf.hash


def verify(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`aegis-verify-receipts` on a folder or bundle."""
    command = [environment.verifier(), folder, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment.clean())
