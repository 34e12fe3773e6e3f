"""What an upstream does wrong stays the upstream's problem, is on record, and is never retried silently."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness import raw
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.faults import Fault
from upstreams.github import free_port
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
ISSUES = "/repos/octo/hello/issues"


def outcome_of(gateway: Gateway, receipt: str, seconds: float = 5) -> dict:
    """The outcome entry of an intent, merged or not."""
    seq, end = int(receipt.rpartition("_")[2]), time.monotonic() + seconds
    while time.monotonic() < end:
        for leaf in gateway.leaves():
            entries = (
                [leaf.body]
                if leaf.kind == "outcome"
                else (leaf["entries"] or leaf["outcomes"] or [])
                if leaf.kind == "outcomes"
                else []
            )
            for entry in entries:
                if entry["intent_seq"] == seq:
                    return entry
        time.sleep(0.05)
    raise AssertionError(f"no outcome of {receipt}")


def test_errors_pass_through_with_their_status(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    origin.fault(Fault("status", options={"status": 422, "body": {"message": "Validation Failed"}}))
    answer = gateway.call(agent, "POST", ISSUES, json={"title": "a"})
    assert (answer.status_code, answer.json()["message"]) == (422, "Validation Failed")
    entry = outcome_of(gateway, answer.headers["aegis-receipt"])
    assert entry["upstream_status"] == 422


@pytest.mark.parametrize("kind", ["reset", "close", "garbage", "two_lengths"])
def test_no_usable_answer_is_502_and_sent_once(kind: str, gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    assert gateway.call(agent, "GET", "/user").status_code == 200  # a connection in the pool to break
    before = origin.mark()
    origin.fault(Fault(kind))
    answer = gateway.call(agent, "POST", ISSUES, json={"title": "a"})
    assert answer.status_code == 502, answer.text
    assert len(origin.since(before)[1]) == 1, "sent again without anybody asking"
    entry = outcome_of(gateway, answer.headers["aegis-receipt"])
    assert entry["state"] in ("unknown", "failed")
    if kind in ("reset", "close"):
        assert entry["state"] == "unknown", "something was sent; nobody knows what came of it"


def test_an_answer_that_breaks_off_is_not_passed_for_whole(
    gateway: Gateway, agent: Agent, origin: StrictOrigin
) -> None:
    origin.answer("GET", "/repos/octo/half", {"text": "x" * 100_000})
    for kind in ("reset_body", "long_length"):
        origin.fault(Fault(kind, path="/repos/octo/half", times=1))
        head = f"GET /github/repos/octo/half HTTP/1.1\r\nHost: {gateway.listen}\r\nAuthorization: Bearer {agent.token}\r\n\r\n"
        answer = raw.exchange(gateway.listen, head.encode(), quiet=1)
        whole = answer.status == 200 and not answer.closed
        assert not whole, f"{kind}: {answer.raw[:300]!r}"


def test_an_answer_in_both_framings_goes_on_in_one(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    """RFC 9112, 6.3: chunks win and the length is taken out, so that nobody behind us can read it otherwise."""
    origin.fault(Fault("both_framings"))
    head = f"GET /github/user HTTP/1.1\r\nHost: {gateway.listen}\r\nAuthorization: Bearer {agent.token}\r\n\r\n"
    answer = raw.exchange(gateway.listen, head.encode(), quiet=0.5)
    assert (answer.status, answer.header("transfer-encoding")) == (200, "chunked")
    assert answer.header("content-length") is None
    assert json.loads(answer.body) == {"ok": True, "method": "GET", "path": "/user"} and answer.rest == b""


EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@pytest.mark.parametrize("fault", [("short_length", {}), ("both_framings", {"extra": EVIL})], ids=lambda f: f[0])
def test_extra_bytes_after_an_answer_reach_nobody(
    fault: tuple[str, dict], gateway: Gateway, agent: Agent, origin: StrictOrigin
) -> None:
    """A response longer than its framing says must not become the start of somebody else's."""
    origin.answer("GET", "/repos/octo/long", {"text": "tail-of-the-first"})
    origin.fault(Fault(fault[0], path="/repos/octo/long", times=1, options=fault[1]))
    gateway.call(agent, "GET", "/repos/octo/long")
    for _ in range(5):
        answer = gateway.call(gateway.enrol(), "GET", "/user")
        assert answer.json() == {"ok": True, "method": "GET", "path": "/user"}


def test_interim_answers_and_slow_ones_work(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    origin.fault(Fault("interim", times=1))
    assert gateway.call(agent, "GET", "/user").json()["ok"] is True
    origin.fault(Fault("slow_body", times=1, options={"piece": 8, "pause": 0.02}))
    assert gateway.call(agent, "GET", "/user").json()["ok"] is True
    origin.fault(Fault("huge_headers", times=1))
    assert gateway.call(agent, "GET", "/user").status_code in (200, 502)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """Short time-outs, small bodies, and routes that lead where they must not."""
    short = {"upstream_timeout_seconds": 1, "body_timeout_seconds": 1, "max_body_bytes": 10_000}
    port = one_origin.port
    routes = [
        Route("github", one_origin.url, more=short),
        Route("nobody", f"http://127.0.0.1:{free_port()}", more=short),
        Route("inside", f"http://127.0.0.1:{port}", connector="http", more={"allow_internal": []}),
        Route("metadata", "http://169.254.169.254", connector="http", credential=None, more={"allow_internal": []}),
        Route("mapped", f"http://[::ffff:127.0.0.1]:{port}", connector="http", more={"allow_internal": []}),
        Route("named", f"http://localhost:{port}", connector="http", more={"allow_internal": []}),
    ]
    with Gateway(tmp_path_factory.mktemp("hasty"), routes, [Credential(CANARY)]) as running:
        yield running


def test_a_silent_upstream_times_out(hasty: Gateway, origin: StrictOrigin) -> None:
    origin.fault(Fault("stall", options={"seconds": 20}))
    agent, started = hasty.enrol(), time.monotonic()
    answer = hasty.call(agent, "GET", "/user")
    assert answer.status_code == 504 and time.monotonic() - started < 5
    origin.clear()
    assert hasty.call(agent, "GET", "/user").status_code == 200


def test_nobody_listening_is_502(hasty: Gateway) -> None:
    assert hasty.call(hasty.enrol(), "GET", "/user", route="nobody").status_code == 502


@pytest.mark.parametrize("route", ["inside", "metadata", "mapped", "named"])
def test_internal_addresses_are_not_dialled(route: str, hasty: Gateway, origin: StrictOrigin) -> None:
    before = origin.mark()
    answer = hasty.call(hasty.enrol(), "GET", "/user", route=route)
    assert answer.status_code in (403, 502), answer.text
    assert origin.since(before) == (0, [])


def test_a_body_that_never_ends_times_out(hasty: Gateway, origin: StrictOrigin) -> None:
    before, agent = origin.mark(), hasty.enrol()
    head = f"POST /github{ISSUES} HTTP/1.1\r\nHost: {hasty.listen}\r\nAuthorization: Bearer {agent.token}\r\n"
    answer = raw.exchange(
        hasty.listen, f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{".encode(), seconds=8
    )
    assert answer.status == 408
    assert origin.since(before) == (0, [])


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_over_the_bound_is_413(framing: str, hasty: Gateway, origin: StrictOrigin) -> None:
    before, agent = origin.mark(), hasty.enrol()
    body = b'{"title":"' + b"a" * 20_000 + b'"}'
    data = body if framing == "length" else (body[at : at + 1000] for at in range(0, len(body), 1000))
    answer = hasty.call(agent, "POST", ISSUES, data=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert origin.since(before) == (0, [])


def test_a_body_cut_short_is_never_sent(hasty: Gateway, origin: StrictOrigin) -> None:
    before, agent = origin.mark(), hasty.enrol()
    head = f"POST /github{ISSUES} HTTP/1.1\r\nHost: {hasty.listen}\r\nAuthorization: Bearer {agent.token}\r\n"
    raw.exchange(
        hasty.listen,
        f'{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"title":"a"}}'.encode(),
        half_close=True,
    )
    time.sleep(0.3)
    assert origin.since(before) == (0, [])


def test_a_rotated_credential_is_used_at_once(tmp_path: Path) -> None:
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as gateway:
            agent = gateway.enrol()
            assert gateway.call(agent, "GET", "/user").status_code == 200
            origin.rotate("Bearer ghp_fresh")
            gateway.cli("credential", "rotate", "github", stdin="ghp_fresh")
            assert gateway.call(agent, "GET", "/user").status_code == 200
            assert origin.requests[-1].one("authorization") == "Bearer ghp_fresh"
            assert origin.violations == []


@pytest.mark.parametrize(
    "credential, header, value",
    [
        (Credential("s3cret", kind="basic", more={"username": "bot"}), "authorization", "Basic Ym90OnMzY3JldA=="),
        (Credential("s3cret", kind="header", more={"header": "x-api-key"}), "x-api-key", "s3cret"),
        (Credential("s3cret", kind="bearer", more={"scheme": "token"}), "authorization", "token s3cret"),
    ],
    ids=["basic", "header", "scheme"],
)
def test_kinds_of_credential(credential: Credential, header: str, value: str, tmp_path: Path) -> None:
    with StrictOrigin((header, value)) as origin:
        with Gateway(tmp_path / "gw", [Route("github", origin.url)], [credential]) as gateway:
            assert gateway.call(gateway.enrol(), "GET", "/user").status_code == 200
            assert origin.violations == []
