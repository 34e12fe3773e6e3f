"""The strict origin must refuse what it is there to refuse, or no other test means anything."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from harness import canary, environment, raw
from upstreams.faults import KINDS, Fault
from upstreams.github import free_port
from upstreams.strict_origin import StrictOrigin

TOKEN = "ghp_0123456789abcdefghijklmnopqrstuvwxyzA"
BEARER = f"Bearer {TOKEN}"


@pytest.fixture()
def origin() -> Iterator[StrictOrigin]:
    with StrictOrigin(("authorization", BEARER)) as running:
        yield running


def send(origin: StrictOrigin, text: str) -> raw.Answer:
    return raw.exchange(f"127.0.0.1:{origin.port}", text.replace("\n", "\r\n").encode("latin-1"), seconds=3)


def get(origin: StrictOrigin, path: str = "/x", authorization: str = BEARER) -> requests.Response:
    headers = {"Authorization": authorization, "Connection": "keep-alive"}
    return requests.get(origin.url + path, headers=headers, timeout=5, allow_redirects=False)


def test_a_clean_request_passes_and_is_kept_byte_for_byte(origin: StrictOrigin) -> None:
    text = f"POST /x?a=1 HTTP/1.1\nHost: 127.0.0.1:{origin.port}\nAuthorization: {BEARER}\nContent-Length: 2\n\nhi"
    answer = send(origin, text)
    assert answer.status == 200
    assert origin.violations == []
    assert origin.requests[0].raw == text.replace("\n", "\r\n").encode()
    assert origin.bytes_seen == len(text.replace("\n", "\r\n"))


@pytest.mark.parametrize("wrong", [None, "Bearer other", "bearer " + TOKEN, BEARER + " ", "token " + TOKEN])
def test_anything_but_the_real_credential_is_refused(origin: StrictOrigin, wrong: str | None) -> None:
    line = "" if wrong is None else f"Authorization: {wrong}x\n"
    assert send(origin, f"GET / HTTP/1.1\nHost: 127.0.0.1:{origin.port}\n{line}\n").status == 401
    assert "authorization is not the real credential" in origin.violations


BAD_LINES = {
    "dot segment": ("/a/../b", ""),
    "encoded dot segment": ("/a/%2e%2E/b", ""),
    "empty segment": ("/a//b", ""),
    "encoded letter": ("/%61", ""),
    "backslash": ("/a\\b", ""),
    "encoded backslash": ("/a%5Cb", ""),
    "lower-case escape": ("/a%c3%a9", ""),
    "double encoding": ("/a%252e", ""),
    "absolute form": ("http://127.0.0.1/", ""),
    "two values": ("/a", "Accept: a\nAccept: b\n"),
    "forwarding": ("/a", "X-Forwarded-For: 1.2.3.4\n"),
    "method override": ("/a", "X-HTTP-Method-Override: DELETE\n"),
    "underscore": ("/a", "X_Y: 1\n"),
    "nomination": ("/a", "Connection: close, authorization\n"),
    "proxy credential": ("/a", "Proxy-Authorization: Basic eDp5\n"),
    "agent token": ("/a", "User-Agent: aegis_agt_zzz\n"),
    "another agent credential": ("/a", "X-Api-Key: k\n"),
    "control byte in a value": ("/a", "Accept: a\x01b\n"),
    "body on GET": ("/a", "Content-Length: 1\n"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_unclean_requests_are_violations(origin: StrictOrigin, name: str) -> None:
    target, line = BAD_LINES[name]
    tail = "x" if name == "body on GET" else ""
    text = f"GET {target} HTTP/1.1\nHost: 127.0.0.1:{origin.port}\nAuthorization: {BEARER}\n{line}\n{tail}"
    assert send(origin, text).status == 400
    assert origin.violations, name


BROKEN = {
    "both framings": "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
    "two lengths": "Content-Length: 5\nContent-Length: 5\n\nhello",
    "plus sign": "Content-Length: +5\n\nhello",
    "unknown coding": "Transfer-Encoding: gzip, chunked\n\n0\n\n",
    "bad chunk": "Transfer-Encoding: chunked\n\n5;ext\nhello\n0\n\n",
    "trailers": "Transfer-Encoding: chunked\n\n0\nX: y\n\n",
    "folded header": "X: a\n b\n\n",
    "space before colon": "X : a\n\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_lost_framing_ends_the_connection(origin: StrictOrigin, name: str) -> None:
    head = f"POST /x HTTP/1.1\nHost: 127.0.0.1:{origin.port}\nAuthorization: {BEARER}\n"
    answer = send(origin, head + BROKEN[name])
    assert answer.status == 400
    assert origin.violations and origin.violations[0].startswith("malformed")


@pytest.mark.parametrize("line", ["GET / HTTP/1.0", "GET  / HTTP/1.1", "GET / HTTP/1.1 x", "GET /\x80 HTTP/1.1"])
def test_bad_request_lines(origin: StrictOrigin, line: str) -> None:
    assert send(origin, f"{line}\nHost: 127.0.0.1:{origin.port}\nAuthorization: {BEARER}\n\n").status == 400
    assert origin.violations


def test_duplicate_json_keys_are_a_violation(origin: StrictOrigin) -> None:
    headers = {"Authorization": BEARER, "Content-Type": "application/json"}
    answer = requests.post(origin.url + "/x", '{"a":1,"a":2}', headers=headers, timeout=5)
    assert answer.status_code == 400
    assert origin.violations == ["body: duplicate key"]


def test_rotation_takes_effect_at_once(origin: StrictOrigin) -> None:
    assert get(origin).status_code == 200
    origin.rotate("Bearer new")
    assert get(origin).status_code == 401
    assert get(origin, authorization="Bearer new").status_code == 200


def test_answers_can_be_set_and_the_newest_wins(origin: StrictOrigin) -> None:
    origin.answer("GET", "/user", {"login": "a"})
    origin.answer("GET", "/user", lambda request: {"login": request.target}, status=203, headers={"X-A": "b"})
    answer = get(origin, "/user")
    assert (answer.status_code, answer.json(), answer.headers["X-A"]) == (203, {"login": "/user"}, "b")


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("chunks", [0, 7])
def test_echo_reflects_every_form_the_scanner_knows(origin: StrictOrigin, encoding: str, chunks: int) -> None:
    origin.fault(Fault("echo", options={"encoding": encoding, "chunks": chunks}))
    address = f"127.0.0.1:{origin.port}"
    text = f"GET / HTTP/1.1\r\nHost: {address}\r\nAuthorization: {BEARER}\r\n\r\n"
    answer = raw.exchange(address, text.encode())
    in_body = set(canary.find(answer.body, [TOKEN]))
    in_head = set(canary.find(answer.raw[: answer.raw.index(b"\r\n\r\n")], [TOKEN]))
    expected = {
        f"secret 0 as {name}" for name in ["raw", "hex", "hex upper", "url", "url all", "base64 +0", "base64 +1"]
    }
    assert expected <= in_head
    assert expected <= in_body


def test_other_faults_do_what_they_say(origin: StrictOrigin) -> None:
    def faulty(kind: str, **options: object) -> None:
        origin.clear()
        origin.fault(Fault(kind, options=options))

    for kind in ("reset", "close", "garbage", "reset_body", "long_length", "two_lengths"):
        faulty(kind)
        with pytest.raises(
            (requests.ConnectionError, requests.exceptions.InvalidHeader, requests.exceptions.ChunkedEncodingError)
        ):
            get(origin)
    faulty("status", status=503, body={"message": "down"})
    assert (get(origin).status_code, get(origin).json()) == (503, {"message": "down"})
    faulty("redirect", location="http://elsewhere.test/")
    assert get(origin).headers["Location"] == "http://elsewhere.test/"
    faulty("interim")
    answer = send(origin, f"GET /x HTTP/1.1\nHost: 127.0.0.1:{origin.port}\nAuthorization: {BEARER}\n\n")
    assert answer.raw.startswith(b"HTTP/1.1 100 ") and json.loads(answer.body)["ok"] is True
    faulty("slow_body", pause=0.001)
    assert get(origin).json()["ok"] is True
    faulty("stall", seconds=0.2)
    assert get(origin).elapsed.total_seconds() >= 0.2
    with pytest.raises(ValueError, match="unknown fault"):
        Fault("nonsense")
    assert "huge_headers" in KINDS and "both_framings" in KINDS


def test_a_fault_can_be_for_one_path_and_once(origin: StrictOrigin) -> None:
    origin.fault(Fault("status", path="/a", times=1, options={"status": 500}))
    assert [get(origin, path).status_code for path in ("/b", "/a", "/a")] == [200, 500, 200]


def test_it_runs_alone_with_a_control_port_and_a_log(tmp_path: Path) -> None:
    control, log = free_port(), tmp_path / "requests.jsonl"
    program = Path(__file__).with_name("strict_origin.py")
    words = [sys.executable, program, "--control", f"127.0.0.1:{control}", "--credential-env", "REAL", "--log", log]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment.clean({"REAL": TOKEN}))
    try:
        assert process.stdout
        address = json.loads(process.stdout.readline())["listen"]
        headers = {"Authorization": BEARER}
        assert requests.get(f"http://{address}/x", headers=headers, timeout=5).status_code == 200
        order = {"do": "rotate", "credential": ["authorization", "Bearer z"]}
        assert order_to(control, order) == {"ok": True}
        assert requests.get(f"http://{address}/x", headers=headers, timeout=5).status_code == 401
        assert order_to(control, {"do": "seen"})["requests"] == 2
        assert [json.loads(line)["status"] for line in log.read_text().splitlines()] == [200, 401]
    finally:
        process.kill()
        process.wait()


def order_to(port: int, order: dict[str, object]) -> dict[str, object]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(json.dumps(order).encode() + b"\n")
        return json.loads(sock.makefile().readline())
