"""What verification found, for people and for programs. The words are those of the gateway's own verifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

MAX_FINDINGS = 100


class Broken(Exception):
    """Why a leaf does not hold."""


class Tampered(Exception):
    """Something was changed, removed or added."""

    def __init__(self, seq: int, file: str, why: str) -> None:
        super().__init__(why)
        self.seq, self.file, self.why = seq, file, why


class Unreadable(Exception):
    """It cannot be told."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    @classmethod
    def io(cls, what: str, error: OSError) -> Unreadable:
        """An error of the operating system."""
        return cls(f"cannot read {what}: {error.strerror} (os error {error.errno})")


@dataclass
class Report:
    """The result of a verification."""

    verdict: str = "verified"
    """`verified`, `tampered` or `unreadable`."""
    seq: int | None = None
    """The first leaf that does not hold."""
    file: str | None = None
    """The file, relative to the log's directory."""
    why: str | None = None
    node: str | None = None
    """Node of the log; `None` where there is no leaf."""
    leaves: int = 0
    """Leaves that hold."""
    segments: int = 0
    bytes: int = 0
    first_ts: int | None = None
    """Time of the first leaf, milliseconds since the epoch."""
    last_ts: int | None = None
    last_hash: str | None = None
    """Hash of the last leaf that holds: keep it, and a later verification can be held against it."""
    types: dict[str, int] = field(default_factory=dict)
    """Leaves by type."""
    without_outcome: int = 0
    """Allowed intents of the gateway's own doors without an outcome."""
    beyond_head: int = 0
    """Leaves behind the head file's: written, not known to be synced."""
    openings: int = 0
    """Openings in a bundle that open their commitments."""
    findings: list[str] = field(default_factory=list)
    """What is odd and no tampering, at most 100 of them."""
    more_findings: int = 0

    @property
    def exit_code(self) -> int:
        """0 verified, 1 tampered, 2 unreadable."""
        return ("verified", "tampered", "unreadable").index(self.verdict)

    def fail(self, fault: Exception) -> Report:
        """Takes a verdict over."""
        if isinstance(fault, Tampered):
            self.verdict, self.seq, self.file, self.why = "tampered", fault.seq, fault.file, fault.why
        else:
            self.verdict, self.why = "unreadable", str(fault)
        return self

    def find(self, finding: str) -> None:
        """Notes something odd."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.more_findings += 1

    def count(self, type_name: str, ts: int, size: int) -> None:
        """A leaf that holds. `size` is 0 where the bytes are counted elsewhere."""
        self.types[type_name] = self.types.get(type_name, 0) + 1
        self.leaves += 1
        self.bytes += size
        if self.first_ts is None:
            self.first_ts = ts
        self.last_ts = ts

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        verdict: dict[str, Any] = {"verdict": self.verdict}
        if self.verdict == "tampered":
            verdict.update(seq=self.seq, file=self.file)
        if self.verdict != "verified":
            verdict["why"] = self.why
        names = ("node", "leaves", "segments", "bytes", "first_ts", "last_ts", "last_hash")
        more = ("without_outcome", "beyond_head", "openings", "findings", "more_findings")
        verdict.update((name, getattr(self, name)) for name in names)
        verdict["types"] = dict(sorted(self.types.items()))
        verdict.update((name, getattr(self, name)) for name in more)
        return verdict

    def __str__(self) -> str:
        if self.verdict == "unreadable":
            return f"unreadable: {self.why}\n"
        if self.verdict == "tampered":
            lines = [f"TAMPERED at leaf {self.seq} ({self.file}): {self.why}", f"  {self.leaves} leaves before it hold"]
        else:
            node = "-" if self.node is None else self.node
            lines = [f"verified: {self.leaves} leaves of node `{node}`, {self.bytes} bytes"]
        if self.leaves:
            lines.append(f"  from {_time(self.first_ts)} to {_time(self.last_ts)}")
            lines.append("  " + ", ".join(f"{name} {count}" for name, count in sorted(self.types.items())))
        if self.last_hash is not None:
            lines.append(f"  last receipt hash {self.last_hash}")
        for count, what in (
            (self.without_outcome, "allowed intents without an outcome (outcome unknown)"),
            (self.beyond_head, "leaves behind the last sync, which the head file does not cover"),
            (self.openings, "commitments opened"),
        ):
            if count:
                lines.append(f"  {count} {what}")
        lines.extend(f"  note: {finding}" for finding in self.findings)
        if self.more_findings:
            lines.append(f"  note: and {self.more_findings} more")
        return "\n".join(lines) + "\n"


def _time(ts: int | None) -> str:
    if ts is None:
        return "-"
    try:
        at = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ts)
    except OverflowError:
        return "-"
    fraction = f".{ts % 1000:03}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f"{fraction}Z"
