"""Connections to upstreams: an agent keeps its own, and nobody rides on another's."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from conftest import CANARY
from e2e.test_egress import GENERIC, gateway
from harness.certificates import Authority, server_context
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.h2_origin import H2Origin
from upstreams.paced_origin import PacedOrigin

pytestmark = pytest.mark.binary
OTHER = "ghp_other5Kp8WqTn2ZrXv7LmJc4HdBy9SgF1aE"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def shared(connections: dict[int, set[str]]) -> dict[int, set[str]]:
    """Those that more than one used."""
    return {number: whose for number, whose in connections.items() if len(whose) > 1}


def calls(running: Gateway, agents: list[Agent], routes: list[str], rounds: int = 4) -> None:
    """Each agent on each route, all at once and then in turn, so that idle connections are there to be taken."""
    failed: list[str] = []

    def one(agent: Agent, route: str) -> None:
        answer = running.call(agent, "GET", f"/who/{agent.agent_id}", route)
        if answer.status_code != 200:
            failed.append(f"{route}: {answer.status_code} {answer.text}")

    for number in range(rounds):
        threads = [threading.Thread(target=one, args=(agent, route)) for agent in agents for route in routes]
        for thread in threads:
            thread.start()
            if number % 2:
                thread.join(20)
        for thread in threads:
            thread.join(20)
    assert failed == []


def test_agents_never_share_a_connection_and_each_keeps_its_own(tmp_path: Path) -> None:
    with PacedOrigin() as origin, gateway(tmp_path / "gw", [Route("r", origin.url, **GENERIC)]) as running:
        agents = [running.enrol() for _ in range(6)]
        for _ in range(8):
            for agent in agents:
                assert running.call(agent, "GET", f"/who/{agent.agent_id}", "r").status_code == 200
        users = defaultdict(set)
        for seen in origin.seen:
            users[seen.connection].add(seen.path)
        assert shared(users) == {}
        assert len(users) == len(agents), "one after the other, an agent needs one connection"


def slow(running: Gateway, agent: Agent, milliseconds: int) -> threading.Thread:
    path = f"/slow/{milliseconds}/{agent.agent_id}"
    thread = threading.Thread(target=running.call, args=(agent, "GET", path, "r"))
    thread.start()
    return thread


def test_agents_never_share_an_http2_connection_and_each_keeps_its_own(tmp_path: Path) -> None:
    with H2Origin() as origin:
        routes = [Route("r", origin.url, **GENERIC, more={"http2": True})]
        with gateway(tmp_path / "gw", routes) as running:
            agents = [running.enrol() for _ in range(4)]
            for agent in agents:
                assert running.call(agent, "GET", f"/who/{agent.agent_id}", "r").status_code == 200
            before = origin.connections
            # One stream of each first: two that look for the idle connection at once may miss it.
            threads = [slow(running, agent, 1500) for agent in agents]
            deadline = time.monotonic() + 10
            while sum(stream.path.startswith("/slow/1500/") for stream in origin.streams) < len(agents):
                assert time.monotonic() < deadline, "the first streams did not arrive"
                time.sleep(0.01)
            threads += [slow(running, agent, 300) for agent in agents for _ in range(4)]
            for thread in threads:
                thread.join(20)
            assert origin.connections == before == len(agents), "streams of one agent meet on its connection"
        users = defaultdict(set)
        for stream in origin.streams:
            users[stream.connection].add(stream.path.rpartition("/")[2])
        assert shared(users) == {}


def test_credentials_never_share_a_connection(tmp_path: Path) -> None:
    """Routes with different credentials, and one credential before and after its rotation."""
    with PacedOrigin() as origin:
        routes = [
            Route("one", origin.url, **GENERIC),
            Route("two", origin.url, **{**GENERIC, "credential": "other"}),
            Route("none", origin.url, **{**GENERIC, "credential": None}),
        ]
        credentials = [Credential(CANARY), Credential(OTHER, name="other")]
        with gateway(tmp_path / "gw", routes, credentials) as running:
            agent = running.enrol()
            calls(running, [agent], ["one", "two", "none"])
            running.cli("credential", "rotate", "other", stdin=OTHER + "2")
            calls(running, [agent], ["one", "two", "none"])
        users = defaultdict(set)
        for seen in origin.seen:
            users[seen.connection].add(seen.headers.get("authorization", "none"))
        assert shared(users) == {}
        assert {who for whose in users.values() for who in whose} == {
            f"Bearer {CANARY}", f"Bearer {OTHER}", f"Bearer {OTHER}2", "none",
        }  # fmt: skip


@pytest.mark.parametrize("version", ["h1", "h2"])
def test_client_certificates_with_one_serial_number_stay_apart(version: str, tmp_path: Path, authority: Authority) -> None:
    """Pingora's own pool tells client certificates apart by serial number alone."""
    alpn = ("h2",) if version == "h2" else ()
    context = server_context(authority.server("127.0.0.1"), client_root=authority.root, alpn=alpn)
    one, two = authority.client("one", serial=4711), authority.client("two", serial=4711)
    with H2Origin(context) if version == "h2" else PacedOrigin(context) as origin:
        common = {"allow_internal": ["127.0.0.1/32"], "ca_file": str(authority.root), "http2": version == "h2"}
        routes = [
            Route(name, origin.url, **GENERIC, more={**common, "client_certificate": str(c.certificate), "client_key": str(c.key)})
            for name, c in (("one", one), ("two", two))
        ]  # fmt: skip
        with gateway(tmp_path / "gw", routes) as running:
            agent = running.enrol()
            for _ in range(4):
                for name in ("one", "two"):
                    assert running.call(agent, "GET", "/who", name).json()["client"] == name
            assert origin.connections == 2


@pytest.mark.parametrize("version", ["h1", "h2"])
def test_roots_of_one_route_open_no_connection_of_another(version: str, tmp_path: Path, authority: Authority) -> None:
    """Pingora's own pool does not know whom a connection was verified for."""
    stranger = Authority(tmp_path / "stranger", "another root")
    alpn = ("h2",) if version == "h2" else ()
    context = server_context(authority.server("127.0.0.1"), alpn=alpn)
    with H2Origin(context) if version == "h2" else PacedOrigin(context) as origin:
        inside = {"allow_internal": ["127.0.0.1/32"], "http2": version == "h2"}
        routes = [
            Route("trusting", origin.url, **GENERIC, more={**inside, "ca_file": str(authority.root)}),
            Route("strict", origin.url, **GENERIC, more={**inside, "ca_file": str(stranger.root)}),
            Route("system", origin.url, **GENERIC, more=inside),
        ]
        with gateway(tmp_path / "gw", routes) as running:
            agent = running.enrol()
            for _ in range(3):
                assert running.call(agent, "GET", "/who", "trusting").status_code == 200
                assert running.call(agent, "GET", "/who", "strict").status_code == 502
                assert running.call(agent, "GET", "/who", "system").status_code == 502


def test_a_reload_that_changes_trust_leaves_old_connections_behind(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path / "stranger", "another root")
    context = server_context(authority.server("127.0.0.1"))
    with PacedOrigin(context) as origin:
        more = {"allow_internal": ["127.0.0.1/32"]}
        trusting = Route("r", origin.url, **GENERIC, more={**more, "ca_file": str(authority.root)})
        with gateway(tmp_path / "gw", [trusting]) as running:
            agent = running.enrol()
            assert running.call(agent, "GET", "/who", "r").status_code == 200
            running.write_routes([Route("r", origin.url, **GENERIC, more={**more, "ca_file": str(stranger.root)})])
            assert running.api("POST", "/v1/reload").ok
            assert running.call(agent, "GET", "/who", "r").status_code == 502
