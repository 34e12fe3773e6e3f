"""What comes in parts goes on in parts, both ways; what an agent has open ends when the agent is contained."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from conftest import CANARY
from e2e.test_upstream import outcome_of
from harness import canary, environment, raw
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.h2_origin import H2Origin
from upstreams.paced_origin import PacedOrigin

pytestmark = pytest.mark.binary
BEARER = f"Bearer {CANARY}"

ALLOW = 'permit (principal, action in Action::"http", resource);\n'


@pytest.fixture(scope="module")
def paced() -> Iterator[PacedOrigin]:
    with PacedOrigin() as running:
        yield running


@pytest.fixture(scope="module")
def h2() -> Iterator[H2Origin]:
    with H2Origin() as running:
        yield running


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory, paced: PacedOrigin, h2: H2Origin) -> Iterator[Gateway]:
    """Generic routes to both, where everything is permitted."""
    generic = {"connector": "http", "default_trust": "trusted_internal_signed"}
    routes = [
        Route("paced", paced.url, **generic, hosts=["paced.test"]),
        Route("h2", h2.url, **generic, more={"http2": True}),
        Route("bare", paced.url, **{**generic, "credential": None}),
    ]
    gateway = Gateway(tmp_path_factory.mktemp("streams"), routes, [Credential(CANARY)])
    (gateway.folder / "policies" / "streams.cedar").write_text(f'@id("streams")\n{ALLOW}')
    with gateway:
        yield gateway


@pytest.fixture()
def agent(streams: Gateway) -> Agent:
    return streams.enrol()


def open_stream(gateway: Gateway, agent: Agent, path: str, route: str = "paced") -> socket.socket:
    """A GET whose answer is read by hand."""
    host, _, port = gateway.listen.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=20)
    sock.sendall(f"GET /{route}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\n\r\n".encode())
    return sock


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        assert piece, f"closed before {mark!r}: {data!r}"
        data += piece
    return data


def until_closed(sock: socket.socket, seconds: float) -> float:
    """When the gateway closed; what still came is dropped."""
    sock.settimeout(seconds)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        raise AssertionError("still open") from None
    except OSError:
        pass
    return time.monotonic()


# Pacing.


def test_events_arrive_as_they_are_sent(streams: Gateway, agent: Agent) -> None:
    """Gaps between events are kept within 50 ms, and the first is not held back."""
    late = []
    with streams.call(agent, "GET", "/sse/10/150", "paced", stream=True) as answer:
        for line in answer.iter_lines(chunk_size=1):
            if line.startswith(b"data: "):
                late.append(time.monotonic() - float(line.split()[2]))
    assert len(late) == 10
    # The same clock on both ends. One hiccup of a busy machine is not a held-back event.
    assert sorted(late)[-2] < 0.05, late


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_events_arrive_as_they_are_sent_through_a_tunnel(version: str, streams: Gateway, agent: Agent) -> None:
    """The same by `CONNECT`, TLS ended by the gateway, HTTP/2 inside."""
    command = [environment.tool("curl"), "-sS", "-N", "--max-time", "30", f"--http{version}", "--noproxy", ""]
    command += ["--proxy", streams.proxy(agent), "--cacert", str(streams.ca), "-w", "%{stderr}%{http_version}"]
    late = []
    with subprocess.Popen(
        [*command, "https://paced.test/sse/10/150"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment.clean()
    ) as client:
        assert client.stdout and client.stderr
        for line in client.stdout:
            if line.startswith(b"data: "):
                late.append(time.monotonic() - float(line.split()[2]))
        assert client.stderr.read().decode() == version
    assert len(late) == 10 and sorted(late)[-2] < 0.05, late


def test_an_upload_is_passed_on_while_it_comes(streams: Gateway, agent: Agent, paced: PacedOrigin) -> None:
    seen_before_the_end = []

    def parts() -> Iterator[bytes]:
        yield b"first"
        seen = paced.wait("/upload", lambda seen: seen.body == b"first")
        seen_before_the_end.append(seen.body)
        yield b"second" * 20_000

    answer = streams.call(
        agent, "POST", "/upload", "paced", data=parts(), headers={"Content-Type": "application/octet-stream"}
    )
    assert seen_before_the_end == [b"first"]
    assert answer.json()["bytes"] == 5 + 6 * 20_000
    entry = outcome_of(streams, answer.headers["aegis-receipt"])
    assert entry["sent"]["bytes"] == 5 + 6 * 20_000 and entry["sent"]["sha256"]


def test_a_body_that_breaks_off_is_never_taken_for_whole(streams: Gateway, agent: Agent, paced: PacedOrigin) -> None:
    """The credential went out with the head: the upstream must not see an end, nor anything behind it."""
    for number, tail in enumerate([b"zz\r\nbad", b"5\r\nhe", b"3\r\nabcGET /smuggled HTTP/1.1\r\n\r\n"]):
        path = f"/upload?{number}"
        head = f"POST /paced{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\n"
        head += "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        host, _, port = streams.listen.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(head.encode())
            paced.wait(path, lambda seen: seen.body == b"first")
            sock.sendall(tail)
            sock.shutdown(socket.SHUT_WR)
            answer = raw.receive(sock, 10, None, False)
        assert answer.status in (0, 400), answer.raw
        seen = paced.wait(path, lambda seen: not seen.whole)
        assert b"smuggled" not in seen.body
    assert paced.of("/smuggled") == []


def test_trailers_of_a_request_go_nowhere(streams: Gateway, agent: Agent, paced: PacedOrigin) -> None:
    head = f"POST /paced/upload?trailers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\nTrailer: authorization\r\n"
    head += "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = "5\r\nfirst\r\n0\r\nauthorization: Bearer stolen\r\nx-late: 1\r\n\r\n"
    answer = raw.exchange(streams.listen, (head + body).encode())
    assert answer.status == 200, answer.raw
    seen = paced.of("/upload?trailers")[-1]
    assert seen.headers["authorization"] == BEARER and "x-late" not in seen.headers and "trailer" not in seen.headers


def test_trailers_of_an_answer_are_dropped(streams: Gateway, agent: Agent) -> None:
    answer = streams.call(agent, "GET", "/trailers", "h2")
    assert answer.content == b"the body"
    assert CANARY not in str(answer.headers) and "x-checksum" not in answer.headers


def test_http2_upstream_serves_every_kind_of_request(streams: Gateway, agent: Agent, h2: H2Origin) -> None:
    assert streams.call(agent, "GET", "/a?b=1", "h2").json()["path"] == "/a?b=1"
    assert streams.call(agent, "POST", "/json", "h2", json={"a": 1}).json()["bytes"] == 7
    octets = {"Content-Type": "application/octet-stream"}
    assert streams.call(agent, "PUT", "/long", "h2", data=b"x" * 200_000, headers=octets).json()["bytes"] == 200_000
    parts = (b"x" * 1000 for _ in range(100))
    assert streams.call(agent, "PUT", "/parts", "h2", data=parts, headers=octets).json()["bytes"] == 100_000
    assert streams.call(agent, "HEAD", "/head", "h2").status_code == 200
    assert streams.call(agent, "DELETE", "/gone", "h2").json()["path"] == "/gone"
    for stream in h2.streams:
        assert stream.headers["authorization"] == BEARER
        assert stream.headers[":authority"] == f"127.0.0.1:{h2.port}" and "host" not in stream.headers
        assert not {"te", "connection", "transfer-encoding", "x-forwarded-for"} & set(stream.headers)


# Encoded answers.


def test_an_echo_within_gzip_is_masked(streams: Gateway, agent: Agent) -> None:
    answer = streams.call(agent, "GET", "/gzip/echo", "paced", headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    assert answer.text == f"you sent Bearer {'*' * len(CANARY)} and more"
    assert outcome_of(streams, answer.headers["aegis-receipt"])["tamper"] == "credential_echo"


def test_gzip_is_asked_for_when_the_agent_asks(streams: Gateway, agent: Agent, paced: PacedOrigin) -> None:
    for asked, sent in [
        ("gzip, deflate, br", "gzip"),
        ("br, zstd", "identity"),
        ("gzip;q=0", "identity"),
        ("deflate", "deflate"),
        ("identity", "identity"),
    ]:
        streams.call(agent, "GET", "/gzip/text", "paced", headers={"Accept-Encoding": asked})
        assert paced.of("/gzip/text")[-1].headers["accept-encoding"] == sent, asked
    ranged = {"Accept-Encoding": "gzip", "Range": "bytes=0-9"}
    streams.call(agent, "GET", "/gzip/text", "paced", headers=ranged)
    assert paced.of("/gzip/text")[-1].headers["accept-encoding"] == "identity"


def test_a_decoded_answer_is_whole_and_says_so(streams: Gateway, agent: Agent) -> None:
    answer = streams.call(agent, "GET", "/gzip/text", "paced", headers={"Accept-Encoding": "gzip"})
    assert answer.text == "some text that is long enough to be worth it " * 1000
    # Another representation than the one that the strong tag names.
    assert answer.headers["etag"] == 'W/"strong"'
    assert "content-length" not in answer.headers


def test_without_a_credential_nothing_is_decoded(streams: Gateway, agent: Agent) -> None:
    with streams.call(agent, "GET", "/gzip/text", "bare", headers={"Accept-Encoding": "gzip"}, stream=True) as answer:
        assert answer.headers["content-encoding"] == "gzip" and answer.headers["etag"] == '"strong"'


def test_events_within_gzip_are_not_held_back(streams: Gateway, agent: Agent) -> None:
    late = []
    asked = {"Accept-Encoding": "gzip"}
    with streams.call(agent, "GET", "/gzip/sse", "paced", headers=asked, stream=True) as answer:
        for line in answer.iter_lines(chunk_size=1):
            if line.startswith(b"data: "):
                late.append(time.monotonic() - float(line.split()[2]))
    assert len(late) == 5 and sorted(late)[-2] < 0.05, late


@pytest.mark.parametrize("what, fault", [("bomb", "decompression_bomb"), ("cut", "bad_encoding")])
def test_bombs_and_fragments_break_off(what: str, fault: str, streams: Gateway, agent: Agent) -> None:
    head = f"GET /paced/gzip/{what} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\nAccept-Encoding: gzip\r\n\r\n"
    answer = raw.exchange(streams.listen, head.encode())
    assert len(answer.raw) < 16 << 20
    assert not answer.raw.endswith(b"\r\n0\r\n\r\n"), "passed for whole"
    entry = outcome_of(streams, answer.header("aegis-receipt") or "")
    assert entry["tamper"] == fault and entry["state"] == "failed"


# Containment.


@pytest.mark.parametrize("verb", ["freeze", "revoke"])
@pytest.mark.parametrize("path", ["/silent", "/stalled", "/never"])
def test_silent_streams_end_within_five_seconds(
    path: str, verb: str, streams: Gateway, agent: Agent, paced: PacedOrigin
) -> None:
    bystander = streams.enrol()
    target = f"{path}?{verb}"
    mark = b"first\n\n" if path == "/silent" else None
    with open_stream(streams, agent, target) as sock, open_stream(streams, bystander, "/silent?by") as other:
        if mark:
            read_until(sock, mark)
        read_until(other, b"first\n\n")
        paced.wait(target, lambda seen: True)
        started = time.monotonic()
        assert streams.set_agent(agent, verb).ok
        assert until_closed(sock, 6) - started < 5
        seen = paced.wait(target, lambda seen: seen.closed is not None, 6)
        assert seen.closed and seen.closed - started < 5, "the upstream's side too"
        other.settimeout(1)
        with pytest.raises(TimeoutError):
            other.recv(1)  # nobody else is touched


def test_what_was_cut_off_is_on_record(streams: Gateway, agent: Agent) -> None:
    with open_stream(streams, agent, "/silent") as sock:
        head = read_until(sock, b"first\n\n").decode()
        receipt = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("aegis-receipt:"))
        assert streams.set_agent(agent, "freeze").ok
        until_closed(sock, 6)
    entry = outcome_of(streams, receipt)
    assert (entry["state"], entry["tamper"], entry["upstream_status"]) == ("failed", "agent_frozen", 200)
    assert entry["received"]["bytes"] == len("data: first\n\n")


def test_a_silent_stream_over_http2_ends_too(streams: Gateway, agent: Agent, h2: H2Origin) -> None:
    other = streams.enrol()
    with open_stream(streams, agent, "/silent?h2", "h2") as sock, open_stream(streams, other, "/silent?other", "h2") as by:
        read_until(sock, b"first\n\n")
        read_until(by, b"first\n\n")
        started = time.monotonic()
        assert streams.set_agent(agent, "freeze").ok
        assert until_closed(sock, 6) - started < 5
        assert h2.wait_ended("/silent?h2", 6) - started < 5
        assert not h2.of("/silent?other")[0].ended
    assert streams.set_agent(agent, "unfreeze").ok
    assert streams.call(agent, "GET", "/again", "h2").status_code == 200


def test_an_upload_that_stands_still_ends_too(streams: Gateway, agent: Agent, paced: PacedOrigin) -> None:
    head = f"POST /paced/upload?still HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\n"
    head += "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\nfirst"
    host, _, port = streams.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(head.encode())
        paced.wait("/upload?still", lambda seen: seen.body == b"first")
        started = time.monotonic()
        assert streams.set_agent(agent, "revoke").ok
        assert until_closed(sock, 6) - started < 5
        paced.wait("/upload?still", lambda seen: not seen.whole, 6)


def test_a_token_that_expires_ends_its_streams(streams: Gateway) -> None:
    agent = streams.enrol(ttl_seconds=3)
    with open_stream(streams, agent, "/silent") as sock:
        read_until(sock, b"first\n\n")
        until_closed(sock, 9)


def test_the_client_that_goes_frees_the_upstream(streams: Gateway, agent: Agent, paced: PacedOrigin) -> None:
    with open_stream(streams, agent, "/silent?gone") as sock:
        read_until(sock, b"first\n\n")
    paced.wait("/silent?gone", lambda seen: seen.closed is not None, 6)


def test_a_hundred_silent_streams_end_together(streams: Gateway, agent: Agent) -> None:
    socks = [open_stream(streams, agent, "/silent?many") for _ in range(100)]
    try:
        for sock in socks:
            read_until(sock, b"first\n\n")
        started = time.monotonic()
        assert streams.set_agent(agent, "freeze").ok
        ended: list[float] = []
        threads = [threading.Thread(target=lambda s=sock: ended.append(until_closed(s, 6))) for sock in socks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(ended) == 100 and max(ended) - started < 5
    finally:
        for sock in socks:
            sock.close()


def test_nothing_of_it_shows_the_credential(streams: Gateway) -> None:
    assert canary.find(streams.stderr.read_bytes(), [CANARY]) == []
    assert requests.get(f"http://{streams.admin}/health", timeout=5).ok
