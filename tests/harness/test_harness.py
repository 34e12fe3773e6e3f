"""The tools the tests trust: each must be able to say no."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import threading
import zlib
from pathlib import Path

import pytest

from harness import attackfile, canary, environment, raw, receipts

SECRET = "ghp_canary7Qx2LmZ9vT4kW8sYbR3nDf6HjC1pA"


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc", b"x-access-token:"])
@pytest.mark.parametrize("after", [b"", b"z", b"zz"])
def test_base64_is_found_at_every_alignment(before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert canary.find(b"<<" + encode(before + SECRET.encode() + after) + b">>", [SECRET])


def test_compressed_content_is_looked_into() -> None:
    text = b"y" * 100 + SECRET.encode()
    assert canary.find(b"head\r\n\r\n" + gzip.compress(text), [SECRET])
    assert canary.find(zlib.compress(text), [SECRET])


def test_innocent_bytes_are_not_found() -> None:
    assert canary.find(base64.b64encode(b"nothing here" * 50) + SECRET[:-3].encode(), [SECRET]) == []


def write(folder: Path, text: str) -> Path:
    path = folder / "a.txt"
    path.write_text(text)
    return path


def test_a_case_becomes_its_bytes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# note\ndefault origin nothing\n=== one\nWhy it\nmatters.\n> POST {p}/x HTTP/1.1\n> {head}\n> Content-Length: {len}\n"
        "> A: {b*3}\\x00\\\\\n>\n> {\\\\r}\n> end\\\nexpect 400 413 close\nreceipt deny a b\non path\n",
    )
    [case] = attackfile.parse(path)
    assert (case.why, case.statuses, case.closes, case.reasons) == ("Why it matters.", {400, 413}, True, {"a", "b"})
    sent = case.bytes({"p": "/r", "h": "host", "t": "tok"})
    assert sent == (
        b"POST /r/x HTTP/1.1\r\nHost: host\r\nAuthorization: Bearer tok\r\nContent-Length: 9\r\nA: bbb\0\\\r\n\r\n{\\r}\r\nend"
    )


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("words\n", "before the first case"),
        ("=== Bad Name\n", "bad case name"),
        ("=== a\nwhy\n> x\nexpect 400\n", "lacks"),
        ("=== a\nwhy\n> x\norigin anything\n", "never reach"),
        ("=== a\nwhy\n> x\nexpct 400\n", "no keyword"),
        ("=== a\nwhy\n> x\non tunnel\n", "unknown ingress"),
        ("=== a\nwhy\n> x\nreceipt maybe\n", "receipt is"),
    ],
)
def test_a_slip_in_the_corpus_is_an_error_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        attackfile.parse(write(tmp_path, text))
    assert "a.txt:" in str(error.value)


def test_answers_are_cut_where_they_end() -> None:
    answer = raw.parse(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n"
    )
    assert answer and (answer.status, answer.body, answer.rest) == (200, b"ok", b"HTTP/1.1 200 OK\r\n\r\n")
    chunked = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    assert raw.parse(chunked[:-3]) is None
    parsed = raw.parse(chunked)
    assert parsed and (parsed.status, parsed.body, parsed.rest) == (403, b"ok", b"")


def test_a_close_is_told_from_silence() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for close in (True, False):
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
            if close:
                peer.close()
            else:
                kept.append(peer)

    kept: list[socket.socket] = []
    threading.Thread(target=serve, daemon=True).start()
    address = f"127.0.0.1:{server.getsockname()[1]}"
    assert raw.exchange(address, b"x", quiet=1).closed is True
    assert raw.exchange(address, b"x", quiet=0.1).closed is False
    server.close()


def test_sources_are_networks_of_their_own() -> None:
    sources = {raw.own_source() for _ in range(600)}
    assert len({source.rpartition(".")[0] for source in sources}) == 600


def leaf(number: int, before: str, **more: object) -> bytes:
    return json.dumps({"seq": number, "prev_receipt_hash": before, "type": "intent.v1", **more}).encode()


def test_the_log_is_followed_record_by_record(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    folder.mkdir()
    first = leaf(0, receipts.ZEROS, decision="deny")
    second = leaf(1, "not the hash of the first", decision="allow")
    log = folder / f"{0:020}.log"
    log.write_bytes(struct.pack(">H", len(first)) + first + struct.pack(">H", len(second)) + second[:5])
    tail = receipts.Tail(tmp_path)
    [found] = tail.new()
    assert found.is_denial and found.raw == first
    assert tail.new() == []
    log.write_bytes(struct.pack(">H", len(first)) + first + struct.pack(">H", len(second)) + second)
    [found] = tail.new()
    assert not found.is_denial
    with pytest.raises(AssertionError, match="chain broken at 1"):
        receipts.check_chain(receipts.read(tmp_path))


def test_a_build_machine_does_not_bend_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "https_proxy", "GITHUB_TOKEN", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.setenv(name, "x")
    kept = environment.clean({"A": "b"})
    assert not {"SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "https_proxy", "GITHUB_TOKEN", "NODE_EXTRA_CA_CERTS"} & set(kept)
    assert kept["A"] == "b" and kept["NO_PROXY"] == "*"
