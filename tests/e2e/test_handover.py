"""One process takes over from another: nobody is refused, nothing is lost, one log has one writer at a time."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness import environment, receipts
from harness.gateway import Agent, Credential, Route
from harness.life import Connection, Load, Succession, alive, eventually, gone, request
from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
UPGRADES = 6


@pytest.fixture()
def own(tmp_path: Path, origin: StrictOrigin) -> Iterator[Succession]:
    with Succession(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as running:
        yield running


def status(gateway: Succession, agent: Agent) -> int:
    """Of one request, on a connection that does not outlive it."""
    with gateway.call(agent, "GET", "/user", headers={"Connection": "close"}) as answer:
        return answer.status_code


def outcomes(leaves: list[receipts.Leaf]) -> Counter[int]:
    """How many outcomes each intent has."""
    entries = [leaf.body for leaf in leaves if leaf.kind == "outcome"]
    for leaf in leaves:
        if leaf.kind == "outcomes":
            entries += leaf["entries"]
    return Counter(entry["intent_seq"] for entry in entries)


def state_of(leaves: list[receipts.Leaf], seq: int) -> str | None:
    entries = [leaf.body for leaf in leaves if leaf.kind == "outcome"]
    entries += [entry for leaf in leaves if leaf.kind == "outcomes" for entry in leaf["entries"]]
    return next((entry["state"] for entry in entries if entry["intent_seq"] == seq), None)


def allowed(leaves: list[receipts.Leaf]) -> list[receipts.Leaf]:
    return [leaf for leaf in leaves if leaf.kind == "intent" and leaf["decision"] == "allow"]


def check_record(gateway: Succession) -> list[receipts.Leaf]:
    """The log verifies, and every permitted request has exactly one outcome."""
    done = receipts.verify(gateway.receipts)
    assert done.returncode == 0, done.stdout + done.stderr
    leaves = gateway.leaves()
    receipts.check_chain(leaves)
    assert outcomes(leaves) == Counter(leaf["seq"] for leaf in allowed(leaves))
    return leaves


def test_upgrades_under_load_drop_nothing(own: Succession, origin: StrictOrigin) -> None:
    agent, mark = own.enrol(), origin.mark()
    starts = sum(leaf["kind"] == "snapshot_loaded" for leaf in own.leaves())
    with Load(own.listen, agent) as load:
        for _ in range(UPGRADES):
            before = len(load.answered)
            eventually(lambda: len(load.answered) > before + 20, "the load goes on", 30)  # noqa: B023
            gone(own.upgrade())
    assert load.drops == []
    sent = Counter(f"{r.method} {m[1]}" for r in origin.since(mark)[1] if (m := re.search(r"/issues/(\d+)", r.path)))
    assert sent == Counter(f"{method} {number}" for number, method, _ in load.answered), "each exactly once"
    pauses = [line["pause_ms"] for line in own.logged() if line.get("event") == "handed_over"]
    assert len(pauses) == UPGRADES and statistics.median(pauses) < 1000, pauses
    own.stop()
    leaves = check_record(own)
    assert len(allowed(leaves)) == len(load.answered)
    assert sum(leaf["kind"] == "snapshot_loaded" for leaf in leaves) == starts + UPGRADES


def test_a_kept_connection_that_was_silent_is_answered_by_the_successor(own: Succession) -> None:
    agent, idle, unused = own.enrol(), Connection(own.listen), Connection(own.listen)
    idle.send(request(agent, "GET", "/user"))
    assert idle.answer().status == 200
    old = own.upgrade()
    for connection in (idle, unused):
        assert not connection.closed()
        connection.send(request(agent, "GET", "/user"))
        answer = connection.answer()
        assert answer.status == 200 and answer.header("connection") == "close", answer.raw
        assert connection.answer(2).closed
    gone(old)


def test_what_has_arrived_of_a_request_arrives_at_the_successor(own: Succession, origin: StrictOrigin) -> None:
    """Half a head, and half a body that the decision waits for."""
    agent = own.enrol()
    whole = request(agent, "POST", "/repos/octo/hello/issues/7/comments", b'{"body":"' + b"x" * 5000 + b'"}')
    cuts = [30, whole.index(b"\r\n\r\n") + 4, len(whole) - 100]
    connections = [Connection(own.listen) for _ in cuts]
    for connection, cut in zip(connections, cuts):
        connection.send(whole[:cut])
    time.sleep(0.2)
    mark = origin.mark()
    old = own.upgrade()
    for connection, cut in zip(connections, cuts):
        connection.send(whole[cut:])
        assert connection.answer().status == 200
    gone(old)
    assert len(origin.since(mark)[1]) == len(cuts)
    own.stop()
    leaves = check_record(own)
    assert len(allowed(leaves)) == len(cuts)
    assert not any(leaf.is_denial for leaf in leaves), "moving a request is not a refusal"


def test_an_answer_in_flight_goes_on_and_its_outcome_is_brought(own: Succession, origin: StrictOrigin) -> None:
    agent = own.enrol()
    origin.answer("GET", "/repos/octo/slow", b"x" * 4000)
    origin.fault(Fault("slow_body", path="/repos/octo/slow", options={"piece": 100, "pause": 0.1}))
    stream = Connection(own.listen)
    stream.send(request(agent, "GET", "/repos/octo/slow"))
    eventually(lambda: stream.sock.recv(1, 2), "the answer begins")
    old = own.upgrade()
    assert status(own, agent) == 200, "the successor serves beside it"
    assert alive(old)
    answer = stream.answer(30)
    assert answer.status == 200 and answer.body == b"x" * 4000
    stream.close()
    gone(old)
    own.stop()
    leaves = check_record(own)
    (slow,) = (leaf for leaf in allowed(leaves) if "slow" in str(leaf["resource"]))
    assert state_of(leaves, slow["seq"]) == "completed"


def test_freezing_an_agent_reaches_what_the_process_before_still_streams(own: Succession, origin: StrictOrigin) -> None:
    agent = own.enrol()
    origin.answer("GET", "/repos/octo/endless", b"x" * 100_000)
    origin.fault(Fault("slow_body", path="/repos/octo/endless", options={"piece": 10, "pause": 0.05}))
    stream = Connection(own.listen)
    stream.send(request(agent, "GET", "/repos/octo/endless"))
    eventually(lambda: stream.sock.recv(1, 2), "the answer begins")
    old = own.upgrade()
    frozen = time.monotonic()
    assert own.set_agent(agent, "freeze").ok
    answer = stream.answer(10)
    assert answer.closed and len(answer.body) < 100_000
    assert time.monotonic() - frozen < 5
    stream.close()
    gone(old)


def test_a_successor_that_cannot_start_changes_nothing(own: Succession) -> None:
    agent, offset = own.enrol(), own.stderr.stat().st_size
    good = own.config.read_text()
    own.config.write_text(good + "[nonsense]\n")
    os.kill(own.pid, signal.SIGUSR2)
    own.wait_log("upgrade_failed", offset, 30)
    own.config.write_text(good)
    assert status(own, agent) == 200
    gone(own.upgrade())
    assert status(own, agent) == 200


def test_a_successor_that_dies_at_any_moment_loses_nothing(own: Succession, origin: StrictOrigin) -> None:
    """Killed before, while and after it takes over: whoever has the sockets then goes on."""
    agent, mark = own.enrol(), origin.mark()
    command = [environment.aegis(), "serve", "--config", own.config, "--json", "--takeover"]
    with Load(own.listen, agent) as load:
        taken = failed = 0
        for round_ in range(8):
            offset = own.stderr.stat().st_size
            with (own.folder / "other.log").open("wb") as out, own.stderr.open("ab") as err:
                other = subprocess.Popen(command, stdout=out, stderr=err, env=environment.clean(), cwd=own.folder)
            # The moment that matters: the old one lets go, the new one has not opened yet. Stopped, it can be looked at.
            eventually(lambda: asks(own, offset), "it asks", 30)  # noqa: B023
            time.sleep(round_ * 0.005)
            other.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            if b"handed_over" in own.stderr.read_bytes()[offset:]:
                other.send_signal(signal.SIGCONT)
                taken += 1
                gone(own.pid, 30)
                own.pid, own.process = other.pid, other
                continue
            other.kill()
            other.wait()
            failed += 1
            before = len(load.answered)
            eventually(lambda: len(load.answered) > before + 20, "it is served", 30)  # noqa: B023
    assert failed >= 2, (taken, failed)
    assert load.drops == []
    sent = Counter(f"{r.method} {m[1]}" for r in origin.since(mark)[1] if (m := re.search(r"/issues/(\d+)", r.path)))
    assert sent == Counter(f"{method} {number}" for number, method, _ in load.answered)
    own.stop()
    check_record(own)


def asks(gateway: Succession, offset: int) -> bool:
    """Whether a handover is under way, or over: the old one has withdrawn its admin address."""
    return not (gateway.state / "admin.addr").exists() or b"hand" in gateway.stderr.read_bytes()[offset:]


def test_an_sdk_call_is_reported_to_the_successor(own: Succession) -> None:
    agent = own.enrol()
    call = {
        "tool": "github", "action": "create_issue", "resource": "octo/hello", "mutates_state": True,
        "parameters": {"title": "a"},
    }  # fmt: skip
    decided = own.authorize(agent, call).json()
    assert decided["decision"] == "allow", decided
    gone(own.upgrade())
    path = f"/v1/decisions/{decided['decision_id']}/outcome"
    done = own.api("POST", path, {"status": "completed"}, agent.token, admin=False)
    assert done.ok, done.text
    own.stop()
    check_record(own)


def test_takeover_without_anybody_to_take_over_from_is_a_start(tmp_path: Path, origin: StrictOrigin) -> None:
    gateway = Succession(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)])
    with gateway:
        gateway.kill()
        command = [environment.aegis(), "serve", "--config", gateway.config, "--json", "--takeover"]
        with gateway.stdout.open("ab") as out, gateway.stderr.open("ab") as err:
            offset = out.tell()
            other = subprocess.Popen(command, stdout=out, stderr=err, env=environment.clean(), cwd=gateway.folder)
        said = gateway.said("listening", offset)
        gateway.process, gateway.pid, gateway.admin, gateway.listen = other, other.pid, said["admin"], said["listen"]
        assert status(gateway, gateway.enrol()) == 200


def test_the_new_configuration_of_the_file_is_in_force(own: Succession, origin: StrictOrigin) -> None:
    """What a reload cannot change, an upgrade does: a listener of a route's own, kept and added."""
    agent = own.enrol()
    own.write_routes([Route("github", origin.url), Route("code", origin.url, listen="127.0.0.1:0")])
    offset = own.stdout.stat().st_size
    gone(own.upgrade())
    said = own.said("listening", offset)
    first = own.route_listen = said["routes"]
    assert list(first) == ["code"]
    offset = own.stdout.stat().st_size
    gone(own.upgrade())
    assert own.said("listening", offset)["routes"] == first, "the same socket"
    stream = Connection(first["code"])
    stream.send(request(agent, "GET", "/user").replace(b"/github/", b"/"))
    assert stream.answer().status == 200


def test_a_request_that_is_held_for_people_gives_way_and_its_question_stands(
    tmp_path: Path, origin: StrictOrigin
) -> None:
    pull = {"head": {"sha": "a" * 40, "ref": "topic"}, "base": {"ref": "main"}, "draft": False, "user": {"login": "m"}}
    origin.answer("GET", r"/repos/octo/hello/pulls/\d+", pull)
    origin.answer("GET", "/repos/octo/hello/branches/main", {"name": "main", "protected": True})
    routes = [Route("github", origin.url, more={"approvals": "hold", "approval_hold_seconds": 60})]
    with Succession(tmp_path / "gw", routes, [Credential(CANARY)]) as own:
        agent, approver = own.enrol(), own.approver()
        merge = request(agent, "PUT", "/repos/octo/hello/pulls/7/merge", b'{"merge_method":"squash"}')
        held = Connection(own.listen)
        held.send(merge)
        questions = f"/v1/approvals?status=pending&agent_id={agent.agent_id}"
        eventually(lambda: own.api("GET", questions).json()["approvals"], "somebody is asked")
        own.upgrade()
        answer = held.answer(10)
        assert (answer.status, answer.header("aegis-decision")) == (403, "require_approval")
        [question] = own.api("GET", questions).json()["approvals"]
        own.settle(approver, question["approval_id"])
        again = Connection(own.listen)
        again.send(merge)
        assert again.answer().status == 200
