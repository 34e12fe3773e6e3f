"""The offline verifier, on logs and bundles written here from docs/receipts.md."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import rfc8785

from aegisagent.verify import Report, verify_path

SALT = bytes(range(32))
ACTION = {"tool": "shop", "action": "refund", "resource": None, "mutates_state": True, "parameters": {"amount": 5}}


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def commit(raw: bytes) -> str:
    return sha(b"aegis-commitment-1\0" + SALT + hashlib.sha256(raw).digest())


def intent(**more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "intent.v1",
        "tool": "shop",
        "action": "refund",
        "mutates_state": True,
        "action_commitment": commit(rfc8785.dumps(ACTION)),
        "parameters_commitment": commit(rfc8785.dumps(ACTION["parameters"])),
        "agent_binding": "bearer",
        "class": "money",
        "risk": "high",
        "decision": "allow",
        "decision_id": "dec_1",
        "reason": "allowed",
        "door": "route",
        "route": "shop",
        "snapshot": "0" * 64,
        "source_trust": "unknown",
        "tenant": "default",
        "user": "é",
    }
    return {**made, **more}


def outcome(seq: int, **more: Any) -> dict[str, Any]:
    return {"type": "outcome.v1", "decision_id": "dec_1", "intent_seq": seq, "state": "completed", **more}


EVENT = {"type": "event.v1", "kind": "agent_frozen", "at": 1, "event_id": "e", "body": {"n": 1.5}}
LEAVES = [EVENT, intent(), outcome(1), intent(), {"type": "outcomes.v1", "entries": [outcome(3)]}, intent()]


def chained(leaves: list[dict[str, Any]], step: int = 10) -> list[bytes]:
    made, prev = [], "0" * 64
    for seq, leaf in enumerate(leaves):
        stamp: dict[str, Any] = {
            "node": "n1",
            "seq": seq,
            "ts": 1_700_000_000_000 + seq * step,
            "prev_receipt_hash": prev,
        }
        made.append(rfc8785.dumps({**stamp, **leaf}))
        prev = sha(made[-1])
    return made


def record(leaf: bytes) -> bytes:
    return len(leaf).to_bytes(2, "big") + leaf


def head_of(count: int, digest: str) -> bytes:
    text = f"aegis-receipts-head-1 {count:020} {digest}"
    return f"{text} {sha(text.encode())[:16]}\n".encode()


class Log:
    def __init__(self, folder: Path, leaves: list[bytes], per_segment: int = 4) -> None:
        self.folder, self.leaves = folder, leaves
        (folder / "segments").mkdir(parents=True)
        for first in range(0, len(leaves), per_segment):
            self.segment(first).write_bytes(b"".join(map(record, leaves[first : first + per_segment])))
        self.head(len(leaves))

    def segment(self, first: int) -> Path:
        return self.folder / "segments" / f"{first:020}.log"

    def head(self, count: int) -> None:
        (self.folder / "head").write_bytes(head_of(count, sha(self.leaves[count - 1])))


@pytest.fixture()
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", chained(LEAVES))


def test_a_whole_log(log: Log) -> None:
    report = verify_path(log.folder)
    size = sum(len(leaf) + 2 for leaf in log.leaves)
    assert report.as_json() == {
        "verdict": "verified",
        "node": "n1",
        "leaves": 6,
        "segments": 2,
        "bytes": size,
        "first_ts": 1_700_000_000_000,
        "last_ts": 1_700_000_000_050,
        "last_hash": sha(log.leaves[-1]),
        "types": {"event.v1": 1, "intent.v1": 3, "outcome.v1": 1, "outcomes.v1": 1},
        "without_outcome": 1,
        "beyond_head": 0,
        "openings": 0,
        "findings": [],
        "more_findings": 0,
    }
    assert str(report).startswith(
        f"verified: 6 leaves of node `n1`, {size} bytes\n  from 2023-11-14T22:13:20Z to 2023-"
    )


def flip(log: Log) -> None:
    raw = bytearray(log.segment(0).read_bytes())
    raw[40] ^= 1
    log.segment(0).write_bytes(raw)


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    leaves = chained([EVENT, intent(), outcome(1)])
    whole = b"".join(map(record, leaves))
    log = Log(tmp_path / "log", leaves)
    for at in range(0, len(whole), 3):
        log.segment(0).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert verify_path(log.folder).exit_code == 1, at


def rewritten(change: Callable[[list[dict[str, Any]]], None], head: int | None = None) -> Callable[[Log], None]:
    """Another log, consistent but for what the change breaks."""

    def rewrite(log: Log) -> None:
        leaves = [dict(leaf) for leaf in LEAVES]
        change(leaves)
        log.leaves = chained(leaves)
        for first in range(0, 6, 4):
            log.segment(first).write_bytes(b"".join(map(record, log.leaves[first : first + 4])))
        log.head(head or len(log.leaves))

    return rewrite


TAMPERED: dict[str, tuple[Callable[[Log], Any], int, str, str]] = {
    "a flipped byte": (flip, 0, "segments/00000000000000000000.log", ""),
    "a cut tail": (lambda log: log.segment(4).write_bytes(record(log.leaves[4])), 5, "head", "6 leaves are durable"),
    "a torn tail that the head covers": (
        lambda log: log.segment(4).write_bytes(log.segment(4).read_bytes()[:-3]),
        5,
        "segments/00000000000000000004.log",
        "no whole record",
    ),
    "a missing segment": (
        lambda log: log.segment(0).unlink(),
        0,
        "segments/00000000000000000004.log",
        "starts at leaf 4",
    ),
    "an empty segment": (
        lambda log: log.segment(0).write_bytes(b""),
        0,
        "segments/00000000000000000000.log",
        "with 0 bytes",
    ),
    "another head": (
        lambda log: (log.folder / "head").write_bytes(head_of(6, "5" * 64)),
        5,
        "segments/00000000000000000004.log",
        "the hash in the head file",
    ),
    "an outcome of the future": (
        rewritten(lambda leaves: leaves[2].update(intent_seq=3)),
        2,
        "segments/00000000000000000000.log",
        "it is the outcome of leaf 3, which is not before it",
    ),
    "an outcome of another decision": (
        rewritten(lambda leaves: leaves[2].update(decision_id="dec_2")),
        2,
        "segments/00000000000000000000.log",
        "`decision_id` is not that of leaf 1",
    ),
    "an unknown type": (
        rewritten(lambda leaves: leaves[0].update(type="event.v2")),
        0,
        "segments/00000000000000000000.log",
        "unknown type `event.v2`",
    ),
    "time going back a little": (
        rewritten(lambda leaves: leaves[1].update(ts=1_700_000_000_000 - 5_000)),
        1,
        "segments/00000000000000000000.log",
        "5000 ms before",
    ),
    "another node": (
        rewritten(lambda leaves: leaves[1].update(node="n2")),
        1,
        "segments/00000000000000000000.log",
        "its `node` is `n2`",
    ),
}


@pytest.mark.parametrize("way", TAMPERED)
def test_tampering(way: str, log: Log) -> None:
    tamper, seq, file, why = TAMPERED[way]
    tamper(log)
    report = verify_path(log.folder)
    assert (report.verdict, report.seq, report.file, report.exit_code) == ("tampered", seq, file, 1)
    assert why in str(report.why)


def test_what_is_odd_and_no_tampering(log: Log) -> None:
    (log.folder / "segments" / "notes.txt").write_text("x")
    log.head(5)
    torn = log.segment(4).read_bytes() + b"\x01\x00{"
    log.segment(4).write_bytes(torn)
    log.segment(6).write_bytes(b"")
    log.segment(6).unlink()
    report = verify_path(log.folder)
    assert (report.verdict, report.beyond_head, report.leaves) == ("verified", 1, 6)
    assert "`segments/notes.txt` is no segment" in report.findings
    assert any("3 bytes behind the last leaf are torn (leaf 6" in finding for finding in report.findings)


def test_a_clock_set_back_and_an_outcome_twice(log: Log) -> None:
    def change(leaves: list[dict[str, Any]]) -> None:
        leaves[5] = {**outcome(1), "ts": 1_600_000_000_000}

    rewritten(change)(log)
    report = verify_path(log.folder)
    assert report.verdict == "verified"
    assert report.findings == [
        "leaf 5 has an outcome for leaf 1, which does not wait for one",
        "the clock was set back by 100000000040 ms at leaf 5",
    ]


@pytest.mark.parametrize("way", ["no head", "damaged head", "no segments", "nothing"])
def test_unreadable(way: str, log: Log) -> None:
    path = log.folder
    if way == "no head":
        (path / "head").unlink()
    elif way == "damaged head":
        (path / "head").write_bytes((path / "head").read_bytes()[:-1])
    elif way == "no segments":
        for first in (0, 4):
            log.segment(first).unlink()
        (path / "segments").rmdir()
    else:
        path = path / "nothing"
    report = verify_path(path)
    assert (report.verdict, report.exit_code) == ("unreadable", 2)


def bundle_of(leaves: list[bytes], *seqs: int, **opening: Any) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [
        {"seq": seq, "receipt_hash": sha(leaves[seq]), "leaf": leaves[seq].decode()} for seq in seqs
    ]
    action = rfc8785.dumps(ACTION).decode()
    made = {"action": action, "action_hash": sha(action.encode()), "salt": SALT.hex(), **opening}
    entries[0]["opening"] = made
    return {"format": "aegis-receipt-bundle-1", "node": "n1", "leaves": entries}


def verified(bundle: Any, folder: Path) -> Report:
    path = folder / "bundle.json"
    path.write_text(json.dumps(bundle))
    return verify_path(path)


def test_a_bundle(tmp_path: Path) -> None:
    leaves = chained(LEAVES)
    report = verified(bundle_of(leaves, 1, 2), tmp_path)
    assert (report.verdict, report.leaves, report.openings, report.last_hash) == ("verified", 2, 1, sha(leaves[2]))
    assert verified(bundle_of(leaves, 1, 4), tmp_path).findings == [
        "leaves 1 and 4 are not neighbours: nothing here links them"
    ]


def test_bundles_that_do_not_hold(tmp_path: Path) -> None:
    leaves = chained(LEAVES)
    other = rfc8785.dumps({**ACTION, "parameters": {"amount": 6}}).decode()
    swapped = bundle_of(leaves, 1, 2)
    swapped["leaves"][1]["leaf"] = leaves[3].decode()
    for bundle, why in [
        (bundle_of(leaves, 1, action=other), "the opened action does not have its `action_hash`"),
        (
            bundle_of(leaves, 1, action=other, action_hash=sha(other.encode())),
            "`action_commitment` is not a commitment",
        ),
        (bundle_of(leaves, 1, salt="0" * 64), "`action_commitment` is not a commitment"),
        (bundle_of(leaves, 3, 1), "it is not behind the leaf before it"),
        (bundle_of(leaves, 0), "it has an opening and no commitments"),
        (
            bundle_of(chained([EVENT, intent(action="give_back")]), 1),
            "the leaf names another action than the opened one",
        ),
        (swapped, "its bytes do not have its `receipt_hash`"),
        ({**bundle_of(leaves, 1), "node": "n2"}, "its `node` is `n1`"),
    ]:
        report = verified(bundle, tmp_path)
        assert report.verdict == "tampered"
        assert why in str(report.why)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    good = bundle_of(chained(LEAVES), 1)
    for bundle in [{}, 5, {**good, "more": 1}, {**good, "format": "x"}, {**good, "leaves": [{"seq": 1}]}]:
        assert verified(bundle, tmp_path).verdict == "unreadable"


def test_the_program(log: Log) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "aegisagent.verify", *words]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    done = run("--json", str(log.folder))
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "verified")
    assert done.stdout == json.dumps(verify_path(log.folder).as_json(), indent=2) + "\n"
    flip(log)
    done = run(str(log.folder))
    assert (done.returncode, done.stdout.startswith("TAMPERED at leaf 0")) == (1, True)
    assert run(str(log.folder / "nothing")).returncode == 2
    assert run().returncode == 2
