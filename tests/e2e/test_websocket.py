"""WebSockets: denied unless the route opts in, then judged, counted, scrubbed and ended like anything else."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from conftest import CANARY
from e2e.test_egress import ALLOW, GENERIC
from e2e.test_upstream import outcome_of
from harness import canary, raw
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.ws_origin import WebSocketOrigin, frame, read_frame

pytestmark = pytest.mark.binary
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module")
def ws() -> Iterator[WebSocketOrigin]:
    with WebSocketOrigin(f"Bearer {CANARY}") as running:
        yield running
        assert running.violations == []


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory, ws: WebSocketOrigin) -> Iterator[Gateway]:
    routes = [
        Route("live", ws.url, **GENERIC, more={"websocket": True}),
        Route("closed", ws.url, **GENERIC),
        Route("idle", ws.url, **GENERIC, more={"websocket": True, "stream_idle_timeout_seconds": 1}),
    ]
    made = Gateway(tmp_path_factory.mktemp("sockets"), routes, [Credential(CANARY)])
    only_reads = '@id("no-sockets-for-readers")\nforbid (principal, action == Action::"http.websocket", resource)'
    (made.folder / "policies" / "all.cedar").write_text(
        f'{ALLOW}{only_reads}\nwhen {{ principal in Team::"readers" }};\n'
    )
    with made:
        yield made


@pytest.fixture()
def agent(sockets: Gateway) -> Agent:
    return sockets.enrol()


def dial(sockets: Gateway, agent: Agent, path: str, route: str = "live", **more: object) -> ClientConnection:
    """With a real client, which offers compression as they all do."""
    headers = {"Authorization": f"Bearer {agent.token}"}
    url = f"ws://{sockets.listen}/{route}{path}"
    return connect(url, additional_headers=headers, proxy=None, open_timeout=15, close_timeout=5, **more)


def shake(sockets: Gateway, agent: Agent, path: str, *more: str, route: str = "live", method: str = "GET") -> str:
    """The bytes of a handshake."""
    lines = [f"{method} /{route}{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {agent.token}", *more]
    if not any(line.lower().startswith("upgrade:") for line in more):
        lines += ["Connection: Upgrade", "Upgrade: websocket"]
    if not any(line.lower().startswith("sec-websocket-key:") for line in more):
        lines += [f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    return "\r\n".join(lines) + "\r\n\r\n"


def by_hand(sockets: Gateway, agent: Agent, path: str, route: str = "live") -> tuple[socket.socket, dict[str, str]]:
    """A socket after the handshake, and the headers of the 101."""
    host, _, port = sockets.listen.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=15)
    sock.sendall(shake(sockets, agent, path, route=route).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, head
        head += piece
    line, *fields = head.decode().rstrip().split("\r\n")
    assert line.startswith("HTTP/1.1 101"), head
    return sock, {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}


def closed(sock: socket.socket, seconds: float) -> float:
    sock.settimeout(seconds)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        raise AssertionError("still open") from None
    except OSError:
        pass
    return time.monotonic()


def test_a_real_client_talks_both_ways(sockets: Gateway, agent: Agent, ws: WebSocketOrigin) -> None:
    with dial(sockets, agent, "/echo", subprotocols=["chat", "superchat"]) as connection:
        assert connection.subprotocol == "chat"
        for message in ("hello", "", "ü" * 1000, b"\0\xff" * 40_000, "x" * 200_000):
            connection.send(message)
            assert connection.recv(10) == message
        connection.send(iter(["in ", "three ", "parts"]))
        assert connection.recv(10) == "in three parts"
        assert connection.ping().wait(10)
    headers = ws.shaken[-1].headers
    assert headers["host"] == f"127.0.0.1:{ws.port}" and headers["connection"] == "Upgrade"


def test_frames_are_counted_both_ways_and_on_record(sockets: Gateway, agent: Agent) -> None:
    sock, headers = by_hand(sockets, agent, "/echo")
    with sock:
        for number in range(7):
            sock.sendall(frame(1, b"message %d" % number, mask=b"abcd"))
            assert read_frame(sock) == (1, b"message %d" % number)
        sock.sendall(frame(9, b"ping", mask=b"wxyz"))
        assert read_frame(sock) == (10, b"ping")
        sock.sendall(frame(8, b"\x03\xe8", mask=b"0000"))
        assert read_frame(sock) == (8, b"\x03\xe8")
        closed(sock, 5)
    entry = outcome_of(sockets, headers["aegis-receipt"])
    assert (entry["state"], entry["upstream_status"]) == ("completed", 101)
    assert entry["sent"]["frames"] == entry["received"]["frames"] == 9
    assert entry["sent"]["bytes"] == 7 * (6 + 9) + 6 + 4 + 6 + 2
    intent = sockets.leaf_of(headers["aegis-receipt"])
    assert (intent["tool"], intent["action"], intent["mutates_state"]) == ("http", "websocket", True)


def test_the_answer_shows_nothing_that_was_not_asked_for(sockets: Gateway, agent: Agent) -> None:
    sock, headers = by_hand(sockets, agent, "/echo")
    sock.close()
    assert "x-inside" not in headers and "content-length" not in headers
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert {"aegis-receipt", "aegis-decision", "aegis-action-hash"} <= set(headers)


def test_echoes_are_masked_within_messages(sockets: Gateway, agent: Agent) -> None:
    with dial(sockets, agent, "/leak") as connection:
        heard = [connection.recv(10) for _ in range(4)]
    stars = "*" * len(CANARY)
    assert heard[0] == f"you sent Bearer {stars}"
    assert heard[2] == f"first {stars} second"
    assert heard[3] == f"cut {stars} here".encode()
    assert canary.find(str(heard).encode(), [CANARY]) == []


def test_routes_take_no_upgrade_unless_they_say_so(sockets: Gateway, agent: Agent, ws: WebSocketOrigin) -> None:
    before = len(ws.shaken)
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        dial(sockets, agent, "/echo", route="closed")
    assert refused.value.response.status_code == 400
    assert refused.value.response.headers["aegis-reason"] == "upgrade_refused"
    assert len(ws.shaken) == before


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: Upgrade", "Upgrade: websocket, h2c"),
        ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: websocket"),
        ("Connection: keep-alive", "Upgrade: websocket"),
        (f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 8"),
        (f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"),
        ("Sec-WebSocket-Key: short", "Sec-WebSocket-Version: 13"),
        ("Content-Length: 5",),
        ("Transfer-Encoding: chunked",),
    ],
)
def test_a_handshake_is_whole_or_nothing(
    lines: tuple[str, ...], sockets: Gateway, agent: Agent, ws: WebSocketOrigin
) -> None:
    before = len(ws.shaken)
    answer = raw.exchange(sockets.listen, shake(sockets, agent, "/echo", *lines).encode() + b"hello")
    assert (answer.status, answer.header("aegis-reason")) == (400, "upgrade_refused")
    assert len(ws.shaken) == before


def test_the_api_takes_no_upgrade(sockets: Gateway, agent: Agent) -> None:
    head = shake(sockets, agent, "/x").replace("/live/x", "/v1/authorize")
    assert raw.exchange(sockets.listen, head.encode()).status == 400


def test_whoever_may_read_may_not_for_that_reason_talk(sockets: Gateway, ws: WebSocketOrigin) -> None:
    reader = sockets.enrol(owner_team="readers")
    assert sockets.call(reader, "GET", "/plain", "live").status_code == 200
    before = len(ws.shaken)
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        dial(sockets, reader, "/echo")
    assert refused.value.response.status_code == 403
    assert len(ws.shaken) == before


def test_an_upstream_that_does_not_switch_is_answered_as_ever(sockets: Gateway, agent: Agent) -> None:
    answer = raw.exchange(sockets.listen, shake(sockets, agent, "/plain").encode())
    assert (answer.status, answer.body) == (200, b"plain")


@pytest.mark.parametrize("path", ["/extension", "/protocol", "/other"])
def test_an_upstream_that_agrees_to_more_is_refused(path: str, sockets: Gateway, agent: Agent) -> None:
    answer = raw.exchange(sockets.listen, shake(sockets, agent, path).encode())
    assert answer.status == 502, answer.raw
    entry = outcome_of(sockets, answer.header("aegis-receipt") or "")
    assert (entry["state"], entry["tamper"]) == ("failed", "bad_handshake")


@pytest.mark.parametrize("side", ["upstream", "agent"])
def test_what_is_no_frame_ends_both_sides(side: str, sockets: Gateway, agent: Agent, ws: WebSocketOrigin) -> None:
    path = "/bad" if side == "upstream" else f"/echo?{time.monotonic_ns()}"
    sock, headers = by_hand(sockets, agent, path)
    with sock:
        sock.sendall(frame(1, b"hello", mask=b"abcd" if side == "upstream" else b""))
        closed(sock, 5)
    ws.wait_closed(path, 5)
    entry = outcome_of(sockets, headers["aegis-receipt"])
    assert (entry["state"], entry["tamper"]) == ("failed", "bad_frame")


@pytest.mark.parametrize("verb", ["freeze", "revoke"])
def test_open_sockets_end_within_five_seconds(verb: str, sockets: Gateway, agent: Agent, ws: WebSocketOrigin) -> None:
    other = sockets.enrol()
    path = f"/silent?{verb}"
    silent, headers = by_hand(sockets, agent, path)
    bystander, _ = by_hand(sockets, other, "/echo")
    busy, _ = by_hand(sockets, agent, "/echo")
    stop = threading.Event()

    def talk() -> None:
        try:
            while not stop.is_set():
                busy.sendall(frame(1, b"still here", mask=b"abcd"))
                read_frame(busy)
                time.sleep(0.02)
        except (OSError, EOFError):
            pass

    talker = threading.Thread(target=talk)
    talker.start()
    with silent, bystander, busy:
        started = time.monotonic()
        assert sockets.set_agent(agent, verb).ok
        assert closed(silent, 6) - started < 5
        talker.join(6)
        assert not talker.is_alive() and time.monotonic() - started < 6
        stop.set()
        assert ws.wait_closed(path, 5) - started < 5
        bystander.sendall(frame(1, b"nobody else", mask=b"abcd"))
        assert read_frame(bystander) == (1, b"nobody else")
    entry = outcome_of(sockets, headers["aegis-receipt"])
    assert entry["state"] == "failed"
    assert entry["tamper"] == ("agent_frozen" if verb == "freeze" else "agent_revoked")


def test_a_socket_may_be_silent_only_so_long(sockets: Gateway, agent: Agent) -> None:
    sock, _ = by_hand(sockets, agent, "/silent", route="idle")
    with sock:
        started = time.monotonic()
        assert 0.9 < closed(sock, 8) - started < 5


def test_the_client_that_goes_frees_the_upstream(sockets: Gateway, agent: Agent, ws: WebSocketOrigin) -> None:
    sock, _ = by_hand(sockets, agent, "/silent?gone")
    sock.close()
    ws.wait_closed("/silent?gone", 5)


def test_no_form_of_the_credential_is_left(sockets: Gateway) -> None:
    found = canary.find(sockets.stderr.read_bytes(), [CANARY, base64.b64encode(CANARY.encode()).decode()])
    assert found == []
