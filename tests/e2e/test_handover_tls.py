"""What a handover does to TLS and tunnels: what nobody has begun moves, the rest ends where it is, and ends well."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from e2e.test_handover import allowed, check_record, state_of
from e2e.test_tls import HOST, TLS, Echo, Tunnels
from harness import raw, tunnels
from harness.gateway import Agent, Credential, Route
from harness.life import Connection, Load, Succession, alive, eventually, gone
from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


@pytest.fixture()
def own(tmp_path: Path, origin: StrictOrigin) -> Iterator[Succession]:
    """With a TLS listener, and tunnels to this machine."""
    settings = Tunnels('allow_internal = ["127.0.0.1/32"]')
    routes = [Route("github", origin.url, hosts=[HOST]), settings]
    made = Succession(tmp_path / "gw", routes, [Credential(CANARY)], TLS)  # type: ignore[list-item]
    (made.folder / "policies" / "t.cedar").write_text(
        '@id("t")\npermit (principal, action == Action::"tunnel.connect", resource);\n'
    )
    with made as running:
        yield running


def request(agent: Agent, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {agent.token}\r\n\r\n".encode()


def answer(sock: socket.socket, seconds: float = 20) -> raw.Answer:
    return raw.receive(sock, seconds, None, bodiless=False)


def opened(sock: socket.socket) -> bytes:
    """What a CONNECT is answered: it ends with its head."""
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, said
        said += piece
    return said


def tunnel(gateway: Succession, agent: Agent) -> ssl.SSLSocket:
    sock = tunnels.open_tunnel(gateway.listen, f"{HOST}:443", agent.token)
    return tunnels.tls(sock, gateway.ca, HOST, "http/1.1")


class InsideTls(Connection):
    """A connection in a tunnel. Whatever comes before anything was asked says that it is over."""

    def __init__(self, gateway: Succession, agent: Agent) -> None:
        self.sock = tunnel(gateway, agent)
        self.sock.settimeout(20)
        self.used = False

    def send(self, data: bytes) -> None:
        super().send(data.replace(b" /github/", b" /", 1).replace(b"Host: gateway", b"Host: " + HOST.encode(), 1))

    def answer(self, seconds: float = 20) -> raw.Answer:
        self.used = True
        return super().answer(seconds)

    def closed(self) -> bool:
        return self.used and bool(select.select([self.sock], [], [], 0)[0])


class LoadInside(Load):
    """The same clients, through tunnels."""

    def __init__(self, gateway: Succession, agent: Agent) -> None:
        self.gateway = gateway
        super().__init__(gateway.listen, agent, kept=3, fresh=0)

    def connect(self) -> Connection | None:
        try:
            return InsideTls(self.gateway, self.agent)
        except OSError as error:
            self.drops.append(f"no tunnel: {error!r}")
            return None


def test_upgrades_under_load_drop_nothing_inside_tunnels(own: Succession) -> None:
    agent = own.enrol()
    with LoadInside(own, agent) as load:
        for _ in range(3):
            before = len(load.answered)
            eventually(lambda: len(load.answered) > before + 20, "the load goes on", 30)  # noqa: B023
            gone(own.upgrade())
    assert load.drops == []
    own.stop()
    assert len(allowed(check_record(own))) == len(load.answered)


def test_who_has_said_nothing_yet_is_served_by_the_successor(own: Succession) -> None:
    """On the TLS listener, and before a CONNECT: half of its first word is nothing yet."""
    agent, tls_at = own.enrol(), own.tls
    silent, late, half = tunnels.dial(own.tls), tunnels.dial(own.listen), tunnels.dial(own.listen)
    word = tunnels.connect_head(f"{HOST}:443", agent.token)
    half.sendall(word[:5])
    time.sleep(0.2)
    offset = own.stdout.stat().st_size
    old = own.upgrade()
    assert own.said("listening", offset)["tls"] == tls_at, "the same socket"
    late.sendall(word)
    half.sendall(word[5:])
    for sock in (late, half):
        assert opened(sock).startswith(b"HTTP/1.1 200 ")
    for sock in (silent, late, half):
        inside = tunnels.tls(sock, own.ca, HOST, "http/1.1")
        inside.settimeout(20)
        inside.sendall(request(agent, "/user"))
        assert answer(inside).status == 200
        inside.close()
    gone(old)
    fresh = tunnels.tls(tunnels.dial(own.tls), own.ca, HOST, "http/1.1")
    fresh.settimeout(20)
    fresh.sendall(request(agent, "/user"))
    assert answer(fresh).status == 200


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_a_waiting_connection_inside_tls_ends_and_one_in_flight_is_answered(
    alpn: str, own: Succession, origin: StrictOrigin
) -> None:
    agent, mark = own.enrol(), origin.mark()
    origin.answer("GET", "/repos/octo/slow", b"x" * 2000)
    origin.fault(Fault("slow_body", path="/repos/octo/slow", options={"piece": 100, "pause": 0.1}))
    waiting, busy = (tunnels.open_tunnel(own.listen, f"{HOST}:443", agent.token) for _ in range(2))
    waiting, busy = (tunnels.tls(sock, own.ca, HOST, alpn) for sock in (waiting, busy))
    if alpn == "h2":
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/repos/octo/slow")]
        busy.sendall(tunnels.h2_request([*fields, ("authorization", f"Bearer {agent.token}")]))
    else:
        busy.sendall(request(agent, "/repos/octo/slow"))
    eventually(lambda: origin.since(mark)[1], "it is sent")
    old = own.upgrade()
    waiting.settimeout(5)
    while waiting.recv(4096):
        pass
    assert alive(old)
    busy.settimeout(20)
    whole = b""
    while piece := busy.recv(65536):
        whole += piece
    assert whole.count(b"x") >= 2000
    gone(old)
    own.stop()
    leaves = check_record(own)
    (slow,) = (leaf for leaf in allowed(leaves) if "slow" in str(leaf["resource"]))
    assert state_of(leaves, slow["seq"]) == "completed"


def test_an_opaque_tunnel_outlives_an_upgrade_but_not_its_agent(own: Succession) -> None:
    agent = own.enrol()
    with Echo() as echo:
        sock = tunnels.open_tunnel(own.listen, f"localhost:{echo.port}", agent.token)
        old = own.upgrade()
        time.sleep(1.5)
        sock.sendall(b"still there?")
        sock.settimeout(5)
        assert sock.recv(64) == b"still there?" and alive(old)
        frozen = time.monotonic()
        assert own.set_agent(agent, "freeze").ok
        assert sock.recv(64) == b""
        assert time.monotonic() - frozen < 5
    gone(old)
    own.stop()
    leaves = check_record(own)
    [intent] = allowed(leaves)
    assert state_of(leaves, intent["seq"]) == "unknown"


def test_a_session_renewed_at_the_successor_lasts_and_one_ended_there_ends(
    own: Succession, origin: StrictOrigin
) -> None:
    agent = own.enrol()
    path = f"/v1/agents/{agent.agent_id}/sessions"
    made = own.api("POST", path, {"lease_seconds": 6}).json()
    origin.answer("GET", "/repos/octo/endless", b"x" * 1_000_000)
    origin.fault(Fault("slow_body", path="/repos/octo/endless", options={"piece": 2000, "pause": 0.1}))
    stream = Connection(own.listen)
    run = Agent(agent.agent_id, made["agent_token"])
    stream.send(request(run, "/repos/octo/endless"))
    eventually(lambda: stream.sock.recv(1, socket.MSG_PEEK), "the answer begins")
    old, until = own.upgrade(), time.monotonic() + 8
    while time.monotonic() < until:
        assert own.api("POST", f"{path}/{made['session_id']}/renew", {"lease_seconds": 6}).ok
        time.sleep(1)
    collected = threading.Event()

    def collect() -> None:
        stream.answer(20)
        collected.set()

    threading.Thread(target=collect, daemon=True).start()
    time.sleep(0.5)
    assert alive(old) and not collected.is_set(), "its lease was over twice by now"
    ended = time.monotonic()
    assert own.api("DELETE", f"{path}/{made['session_id']}").ok
    assert collected.wait(5), "cut"
    assert time.monotonic() - ended < 5
    gone(old)
