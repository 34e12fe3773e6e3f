"""When the record cannot be written, nothing is forwarded, and nobody has to help afterwards."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness import environment, receipts
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


@pytest.fixture()
def own(tmp_path: Path, origin: StrictOrigin) -> Iterator[Gateway]:
    with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as running:
        yield running
        if running.process and running.process.poll() is None:
            limit(running, "unlimited")


def limit(gateway: Gateway, size: str) -> None:
    """Files cannot grow beyond `size`: to the process the same as a full disk."""
    assert gateway.process
    words = [environment.tool("prlimit"), "--pid", str(gateway.process.pid), f"--fsize={size}:unlimited"]
    subprocess.run(words, check=True)


def full(gateway: Gateway) -> None:
    """Not one byte more than there is: limits apply from the first byte behind the smallest file."""
    limit(gateway, "1")


def eventually(check: Callable[[], bool], what: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def settled(gateway: Gateway) -> None:
    """Until every allowed intent has its outcome, so that nothing is left to be written."""

    def open_intents() -> int:
        leaves = gateway.leaves()
        merged = sum(len(leaf["entries"] or leaf["outcomes"] or []) for leaf in leaves if leaf.kind == "outcomes")
        allowed = sum(leaf.kind == "intent" and leaf["decision"] == "allow" for leaf in leaves)
        return allowed - merged - sum(leaf.kind == "outcome" for leaf in leaves)

    eventually(lambda: open_intents() == 0, "every intent has its outcome")


def test_full_disk_means_503_and_nothing_forwarded_until_there_is_room(own: Gateway, origin: StrictOrigin) -> None:
    agent = own.enrol()
    assert own.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "before"}).status_code == 200
    settled(own)
    before = origin.mark()
    full(own)
    for _ in range(5):
        for method, path, body in (
            ("POST", "/repos/octo/hello/issues", {"title": "x"}), ("GET", "/user", None), ("DELETE", "/repos/octo/hello", None),
        ):  # fmt: skip
            answer = own.call(agent, method, path, json=body)
            assert answer.status_code == 503, answer.text
            assert "application/" in answer.headers["content-type"]
        asked = own.authorize(agent, {"tool": "github", "action": "get_me", "resource": None,
                                      "mutates_state": False, "parameters": {}})  # fmt: skip
        assert asked.status_code == 503, asked.text
    assert own.api("GET", "/ready").status_code == 503
    assert origin.since(before) == (0, [])

    limit(own, "unlimited")
    assert recovers(own, agent) < 5
    assert own.api("GET", "/ready").status_code == 200
    own.stop()
    done = receipts.verify(own.receipts)
    assert done.returncode == 0, done.stdout + done.stderr
    receipts.check_chain(own.leaves())


def recovers(gateway: Gateway, agent: Agent) -> float:
    """Seconds until a write goes through again."""
    started = time.monotonic()
    while time.monotonic() < started + 10:
        if gateway.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "after"}).status_code == 200:
            return time.monotonic() - started
        time.sleep(0.1)
    raise AssertionError(f"no recovery:\n{gateway.tail()}")


def test_outcomes_in_flight_still_fit(own: Gateway, origin: StrictOrigin) -> None:
    """An intent is only taken when there is room for its outcome too."""
    agent, before = own.enrol(), origin.mark()
    origin.fault(Fault("stall", path="/repos/octo/hello/issues", times=1, options={"seconds": 1}))
    answers: list[int] = []
    writer = threading.Thread(
        target=lambda: answers.append(
            own.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "x"}).status_code
        )
    )
    writer.start()
    eventually(lambda: origin.since(before)[1] != [], "the origin has the request")
    segment = max((own.receipts / "segments").glob("*.log"), key=lambda path: path.stat().st_mtime)
    own_size = segment.stat().st_size
    # Room that was reserved when the intent was taken stays usable: only growth is refused.
    limit(own, str(own_size + 16 * 1024 * 1024))
    writer.join(10)
    limit(own, "unlimited")
    assert answers == [200]
    own.stop()
    outcomes = [leaf for leaf in own.leaves() if leaf.kind == "outcome"]
    assert [leaf["state"] for leaf in outcomes][-1] == "completed"


def test_an_unwritable_log_stops_the_start(tmp_path: Path, origin: StrictOrigin) -> None:
    gateway = Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)])
    with gateway:
        pass
    segments = gateway.receipts / "segments"
    segments.rename(gateway.receipts / "aside")
    segments.write_text("a file where the folder should be")
    before = origin.mark()
    done = gateway.cli("serve", "--json", ok=False)
    assert done.returncode not in (0, 101), done.stderr
    assert "receipts" in done.stderr or "segments" in done.stderr
    assert origin.since(before) == (0, [])
    segments.unlink()
    (gateway.receipts / "aside").rename(segments)
    gateway.start()
    gateway.stop()


def test_a_damaged_log_stops_the_start_and_says_where(tmp_path: Path, origin: StrictOrigin) -> None:
    with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as gateway:
        agent = gateway.enrol()
        for _ in range(5):
            gateway.call(agent, "GET", "/user")
    segment = sorted((gateway.receipts / "segments").glob("*.log"))[0]
    data = bytearray(segment.read_bytes())
    data[data.index(b'"agent_id"') + 14] ^= 1
    segment.write_bytes(bytes(data))
    done = gateway.cli("serve", "--json", ok=False)
    assert done.returncode not in (0, 101), done.stdout
    assert receipts.verify(gateway.receipts).returncode == 1
