"""Tunnels, TLS and frames as the attack tests use them: each must be able to say no."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from harness import attackfile, doors, framefile, frames, raw
from harness.doors import Door
from upstreams.strict_origin import StrictOrigin
from upstreams.tls_front import Authority, TlsFront

BEARER = "Bearer ghp_0123456789abcdefghijklmnopqrstuvwxyzA"
VALUES = {"h": "localhost", "t": "token", "p": ""}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_a_tls_link_is_closed_one_way_and_read_the_other(authority: Authority) -> None:
    with StrictOrigin(("authorization", BEARER)) as origin, TlsFront(origin.port, authority.issue("localhost")) as front:
        origin.hosts = {"localhost"}
        link = doors.enter(Door(f"127.0.0.1:{front.port}", b"", "localhost"), authority.certificate)
        head = f"GET /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\n\r\n".encode()
        assert raw.converse(link, head, 5).status == 200
        assert raw.drain(link, head, 5).startswith(b"HTTP/1.1 200 ")
        assert front.handshakes[0].server_name == "localhost"


def test_a_certificate_of_a_stranger_is_an_error_not_a_case(authority: Authority, tmp_path: Path) -> None:
    with StrictOrigin(("a", "b")) as origin, TlsFront(origin.port, Authority(tmp_path).issue("localhost")) as front:
        with pytest.raises(OSError, match="certificate verify failed"):
            doors.enter(Door(f"127.0.0.1:{front.port}", b"", "localhost"), authority.certificate)


def test_what_is_no_tls_turns_us_away(authority: Authority) -> None:
    with StrictOrigin(("authorization", BEARER)) as origin:
        for door in (
            Door(f"127.0.0.1:{origin.port}", b"", "localhost"),
            Door(f"127.0.0.1:{origin.port}", b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", "localhost"),
        ):
            with pytest.raises(doors.Turned):
                doors.enter(door, authority.certificate, seconds=1)


def test_a_case_becomes_the_same_request_in_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "=== one\nWhy.\n> POST /x?a=1 HTTP/1.1\n> {head}\n> X-Note: a\n> Content-Length: {len}\n>\n> {}\\\n"
        "expect 400\nreceipt deny\n"
    )
    fields, body = attackfile.parse(path)[0].as_http2(VALUES)
    assert fields == [
        (b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/x?a=1"),
        (b"authorization", b"Bearer token"), (b"x-note", b"a"),
    ]  # fmt: skip
    assert body == b"{}"


@pytest.fixture()
def server() -> Iterator[tuple[str, list[object]]]:
    """A server made of the `h2` package, which answers 200 and keeps its events."""
    events: list[object] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            answer(listener.accept()[0])
        except OSError:
            pass  # the client has gone

    def answer(sock: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        while data := sock.recv(65536):
            try:
                for event in connection.receive_data(data):
                    events.append(event)
                    if isinstance(event, h2.events.StreamEnded):
                        connection.send_headers(event.stream_id, [(":status", "200")])
                        connection.send_data(event.stream_id, b"ok", end_stream=True)
            except h2.exceptions.ProtocolError:
                pass
            sock.sendall(connection.data_to_send())
        sock.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host, port = listener.getsockname()
    yield f"{host}:{port}", events
    listener.close()


def play(tmp_path: Path, address: str, text: str) -> tuple[bool, frames.Peer]:
    path = tmp_path / "h2.txt"
    path.write_text(text)
    [case] = framefile.load(path)
    link = doors.enter(Door(address))
    peer = frames.Peer(link)
    came = case.play(peer, VALUES, 3)
    link.close()
    return came, peer


def test_frames_are_read_by_another_implementation(tmp_path: Path, server: tuple[str, list[object]]) -> None:
    address, events = server
    script = "> HEADERS open\n| POST /x\n> CONTINUATION\n| x-note: a\\\\b\n> DATA end padded=4 text={}\n> PING\n"
    came, peer = play(tmp_path, address, f"=== one\nWhy.\n{script}expect 200\n")
    assert came and peer.stream(1).body == b"ok" and peer.acks == 1 and peer.pongs == [b"fence..."]
    [request] = [event for event in events if isinstance(event, h2.events.RequestReceived)]
    assert (":path", "/x") in request.headers and ("x-note", "a\\b") in request.headers
    assert [event.data for event in events if isinstance(event, h2.events.DataReceived)] == [b"{}"]


def test_what_is_not_expected_is_said(tmp_path: Path, server: tuple[str, list[object]]) -> None:
    address, _ = server
    came, peer = play(tmp_path, address, "=== one\nWhy.\n> HEADERS end\n| GET /x\nexpect 400 reset goaway:CANCEL\n")
    assert not came and peer.stream(1).status == 200


def test_a_connection_error_is_seen(tmp_path: Path, server: tuple[str, list[object]]) -> None:
    address, _ = server
    came, peer = play(tmp_path, address, "=== one\nWhy.\n> PING raw=00\nexpect goaway:FRAME_SIZE_ERROR\n")
    assert came, peer.goaway


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("=== a\nwhy\n> HEADRS\nexpect 400\n", "HEADRS"),
        ("=== a\nwhy\n> HEADERS\nexpect rest\n", "cannot be expected"),
        ("=== a\nwhy\n| x: y\nexpect 400\n", "before the first frame"),
        ("=== a\nwhy\n> HEADERS\n", "lacks"),
        ("=== a\nwhy\n> HEADERS\nexpct 400\n", "no keyword"),
    ],
)
def test_a_slip_in_a_case_is_an_error(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "h2.txt"
    path.write_text(text)
    with pytest.raises((ValueError, KeyError), match=complaint):
        framefile.load(path)
