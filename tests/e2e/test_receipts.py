"""The record, read with tools of our own: chained, canonical, complete, and honest about tampering."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import rfc8785

from harness import receipts
from harness.gateway import Agent, Gateway
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


@pytest.fixture()
def busy(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> Gateway:
    for _ in range(3):
        gateway.call(agent, "GET", "/user")
        gateway.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "a"})
        gateway.call(agent, "DELETE", "/repos/octo/hello")
        gateway.call(agent, "GET", "/repos/octo/%2e%2e")
    return gateway


@pytest.fixture()
def copy(busy: Gateway, tmp_path: Path) -> Path:
    return Path(shutil.copytree(busy.receipts, tmp_path / "receipts"))


def test_every_leaf_is_canonical_and_chained(busy: Gateway) -> None:
    leaves = busy.leaves()
    receipts.check_chain(leaves)
    for leaf in leaves:
        assert leaf.raw == rfc8785.dumps(leaf.body)
        assert len(leaf.raw) <= 65_535
        assert {"type", "node", "seq", "ts", "prev_receipt_hash"} <= set(leaf.body)


def test_an_intent_comes_before_its_outcome_and_holds_no_parameters(busy: Gateway, agent: Agent) -> None:
    marker = "a-title-that-must-not-be-in-a-leaf"
    answer = busy.call(agent, "POST", "/repos/octo/hello/issues", json={"title": marker})
    leaf = busy.leaf_of(answer.headers["aegis-receipt"])
    assert (leaf.kind, leaf["decision"], leaf["action"], leaf["agent_id"]) == (
        "intent",
        "allow",
        "create_issue",
        agent.agent_id,
    )
    assert all(marker.encode() not in each.raw for each in busy.leaves())
    assert answer.headers["aegis-action-hash"].encode() not in leaf.raw, "a hash of few values could be guessed"


def test_verify_says_ok(busy: Gateway) -> None:
    done = receipts.verify(busy.receipts)
    assert done.returncode == 0, done.stdout + done.stderr
    report = receipts.verify(busy.receipts, "--json")
    assert report.returncode == 0 and json.loads(report.stdout)


def segment_of(folder: Path) -> Path:
    return sorted((folder / "segments").glob("*.log"))[-1]


@pytest.mark.parametrize("where", [0.1, 0.35, 0.6, 0.9])
def test_a_changed_byte_is_found(where: float, copy: Path) -> None:
    segment = segment_of(copy)
    data = bytearray(segment.read_bytes())
    data[int(len(data) * where)] ^= 0x01
    segment.write_bytes(bytes(data))
    done = receipts.verify(copy)
    assert done.returncode in (1, 2), done.stdout
    assert done.returncode == 2 or any(character.isdigit() for character in done.stdout + done.stderr)


def test_a_removed_leaf_is_found(copy: Path) -> None:
    segment = segment_of(copy)
    data = segment.read_bytes()
    first = 2 + int.from_bytes(data[:2], "big")
    second = first + 2 + int.from_bytes(data[first : first + 2], "big")
    segment.write_bytes(data[:first] + data[second:])
    assert receipts.verify(copy).returncode == 1


def test_swapped_leaves_are_found(copy: Path) -> None:
    segment = segment_of(copy)
    data = segment.read_bytes()
    first = 2 + int.from_bytes(data[:2], "big")
    second = first + 2 + int.from_bytes(data[first : first + 2], "big")
    segment.write_bytes(data[first:second] + data[:first] + data[second:])
    assert receipts.verify(copy).returncode == 1


def test_what_cannot_be_read_is_2(tmp_path: Path) -> None:
    assert receipts.verify(tmp_path / "nowhere").returncode == 2
    empty = tmp_path / "file"
    empty.write_text("hello")
    assert receipts.verify(empty).returncode == 2


def test_an_exported_bundle_verifies_alone_and_not_when_changed(busy: Gateway, agent: Agent, tmp_path: Path) -> None:
    answer = busy.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "exported"})
    receipt = answer.headers["aegis-receipt"]
    done = busy.cli("receipts", "export", receipt)
    bundle = tmp_path / "bundle.json"
    bundle.write_text(done.stdout)
    assert receipts.verify(bundle).returncode == 0, done.stdout[:500]
    assert answer.headers["aegis-action-hash"] in done.stdout, "the commitment opens"
    bundle.write_text(done.stdout.replace("exported", "exportee"))
    if "exported" in done.stdout:
        assert receipts.verify(bundle).returncode != 0


def test_the_api_shows_the_bytes_that_were_hashed(busy: Gateway) -> None:
    leaf = [each for each in busy.leaves() if each.kind == "intent"][-1]
    shown = busy.api("GET", f"/v1/receipts/rcp_{leaf['node']}_{leaf['seq']}")
    assert shown.status_code == 200, shown.text
    assert leaf.hash in shown.text
    listed = busy.api("GET", "/v1/receipts?from_seq=0&limit=5")
    assert listed.status_code == 200


def test_decisions_are_listed_from_the_projection(busy: Gateway, agent: Agent) -> None:
    listed = busy.api("GET", f"/v1/decisions?agent_id={agent.agent_id}&decision=deny")
    assert listed.status_code == 200, listed.text
    assert "delete_repository" in listed.text
    assert "create_issue" not in listed.text


def test_one_canonical_line_per_decision(busy: Gateway, agent: Agent) -> None:
    offset = busy.stderr.stat().st_size
    answer = busy.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "a"})
    busy.wait_log(answer.headers["aegis-receipt"], offset)
    lines = [line for line in busy.logged(offset) if line.get("receipt_id") == answer.headers["aegis-receipt"]]
    assert len(lines) == 1
    line = lines[0]
    assert (line["decision"], line["resource"], line["agent_id"]) == ("allow", "octo/hello", agent.agent_id)
    assert line["action_hash"] == answer.headers["aegis-action-hash"]


def test_metrics_have_bounded_labels(busy: Gateway, agent: Agent) -> None:
    before = len(busy.api("GET", "/metrics").text.splitlines())
    for number in range(30):
        busy.call(agent, "GET", f"/repos/octo/r{number}")
        busy.call(agent, "GET", f"/no/such/{number}")
    text = busy.api("GET", "/metrics").text
    assert len(text.splitlines()) <= before + 10
    assert "aegis_decisions_total" in text and "r29" not in text and agent.agent_id not in text


def test_health_and_readiness(gateway: Gateway) -> None:
    assert gateway.api("GET", "/health", token="").status_code == 200
    assert gateway.api("GET", "/ready", token="").status_code == 200
    assert gateway.api("GET", "/openapi.json", token="").json()["openapi"].startswith("3.")
