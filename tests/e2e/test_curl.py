"""The same through curl, in the three ways a client can be pointed at the gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.clients import curl
from harness.gateway import Agent, Gateway
from upstreams.strict_origin import Reply, StrictOrigin

pytestmark = pytest.mark.binary
ISSUES = "/repos/octo/hello/issues"


def bearer(agent: Agent) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {agent.token}"


@pytest.fixture()
def ways(gateway: Gateway) -> dict[str, tuple[str, tuple[str, ...]]]:
    """URL prefix and further words, by ingress."""
    return {
        "path": (gateway.base(), ()),
        "host": (f"http://{gateway.listen}", ("-H", "Host: api.github.test")),
        "port": (f"http://{gateway.route_listen['github-port']}", ()),
        "enterprise": (f"{gateway.base()}/api/v3", ()),
    }


@pytest.mark.parametrize("way", ["path", "host", "port", "enterprise"])
def test_read_write_and_denial(
    way: str, ways: dict, gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    prefix, words = ways[way]
    before = origin.mark()
    status, headers, body = curl(prefix + ISSUES, *words, *bearer(agent), folder=tmp_path)
    assert (status, headers["aegis-decision"]) == (200, "allow"), body
    assert json.loads(body)["path"] == ISSUES

    status, headers, _ = curl(
        prefix + ISSUES,
        *words,
        *bearer(agent),
        "-d",
        '{"title":"hello"}',
        "-H",
        "Content-Type: application/json",
        folder=tmp_path,
    )
    assert (status, headers["aegis-decision"]) == (200, "allow")
    assert len(headers["aegis-action-hash"]) == 64

    status, headers, body = curl(f"{prefix}/repos/octo/hello", *words, *bearer(agent), "-X", "DELETE", folder=tmp_path)
    assert (status, headers["aegis-decision"]) == (403, "deny")
    assert headers["aegis-reason"] and json.loads(body)["message"]

    sent = [(r.method, r.target) for r in origin.since(before)[1]]
    assert sent == [("GET", ISSUES), ("POST", ISSUES)]
    assert origin.requests[-1].json() == {"title": "hello"}


@pytest.mark.parametrize(
    "words",
    [
        ("-H", "Authorization: Bearer {token}"),
        ("-H", "Authorization: token {token}"),
        ("-u", "{token}:x-oauth-basic"),
        ("-u", "x-access-token:{token}"),
        ("-H", "X-Api-Key: {token}"),
        ("-H", "Aegis-Agent-Token: {token}"),
    ],
    ids=["bearer", "token", "basic user", "basic password", "x-api-key", "own header"],
)
def test_the_token_is_found_where_clients_put_it(
    words: tuple, gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    before = origin.mark()
    filled = [word.format(token=agent.token) for word in words]
    status, _, body = curl(gateway.base() + "/user", *filled, folder=tmp_path)
    assert status == 200, body
    assert [r.one("authorization") for r in origin.since(before)[1]] == [origin.credential[1]]


def test_link_and_location_lead_back_to_the_gateway(
    gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    link = f'<{origin.url}{ISSUES}?page=2>; rel="next", <https://elsewhere.test/x>; rel="last"'
    origin.answer("GET", ISSUES, Reply(200, [("Link", link), ("Content-Type", "application/json")], b"[]"))
    _, headers, _ = curl(gateway.base() + ISSUES, *bearer(agent), folder=tmp_path)
    assert f"<{gateway.base()}{ISSUES}?page=2>" in headers["link"]
    assert "<https://elsewhere.test/x>" in headers["link"]

    origin.answer("GET", "/repos/octo/old", Reply(301, [("Location", f"{origin.url}/repositories/7")], b"{}"))
    status, headers, _ = curl(gateway.base() + "/repos/octo/old", *bearer(agent), folder=tmp_path)
    assert (status, headers["location"]) == (301, f"{gateway.base()}/repositories/7")


def test_a_redirect_elsewhere_is_shown_and_not_followed(
    gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    before = origin.mark()
    origin.answer("GET", "/repos/octo/moved", Reply(302, [("Location", "https://elsewhere.test/steal")], b""))
    status, headers, _ = curl(gateway.base() + "/repos/octo/moved", *bearer(agent), folder=tmp_path)
    assert (status, headers["location"]) == (302, "https://elsewhere.test/steal")
    assert len(origin.since(before)[1]) == 1


def test_hop_by_hop_and_forwarding_headers_go_no_further(
    gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    """A nominated header is dropped before the credential goes in, never after."""
    before = origin.mark()
    extra = []
    for line in (
        "Connection: close, authorization, x-note", "X-Note: a", "Proxy-Authorization: Basic eDp5", "X-Forwarded-For: 1.2.3.4",
        "Forwarded: for=1.2.3.4", "Via: 1.1 me", "X_Under: a", "Cookie: a=b", "TE: trailers", "Keep-Alive: timeout=5",
    ):  # fmt: skip
        extra += ["-H", line]
    status, _, body = curl(gateway.base() + "/user", *bearer(agent), *extra, folder=tmp_path)
    assert status == 200, body
    [request] = origin.since(before)[1]
    names = {name.lower() for name, _ in request.headers}
    assert not names & {"x-note", "proxy-authorization", "x-forwarded-for", "forwarded", "x_under", "cookie", "te"}


def test_a_trace_id_is_passed_on_and_recorded(
    gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    before = origin.mark()
    words = ("-H", f"traceparent: 00-{trace}-00f067aa0ba902b7-01")
    _, headers, _ = curl(gateway.base() + "/user", *bearer(agent), *words, folder=tmp_path)
    assert trace in (origin.since(before)[1][0].one("traceparent") or "")
    assert gateway.leaf_of(headers["aegis-receipt"])["trace_id"] == trace


def upload(gateway: Gateway, agent: Agent, origin: StrictOrigin, folder: Path, size: int, *words: str) -> tuple:
    """A file of `size` bytes of content put through the gateway: status, headers, and what the origin got of it."""
    content, file = "QUFB" * (size // 4), folder / "body.json"
    file.write_text(json.dumps({"message": "m", "content": content, "branch": "topic"}))
    # A write to a branch asks first whether the branch is protected.
    origin.answer("GET", "/repos/octo/hello/branches/topic", {"name": "topic", "protected": False})
    before = origin.mark()
    words = (*bearer(agent), "-T", str(file), "-H", "Content-Type: application/json", *words)
    status, headers, _ = curl(gateway.base() + "/repos/octo/hello/contents/a.txt", *words, folder=folder)
    arrived = [each for each in origin.since(before)[1] if each.method == "PUT"]
    assert all(each.json()["content"] == content for each in arrived)
    return status, headers, len(arrived)


@pytest.mark.parametrize("size", [1_000, 60_000, 64 * 1024, 400_000])
@pytest.mark.parametrize("words", [(), ("-H", "Expect: 100-continue"), ("-H", "Expect:")], ids=["", "wait", "no-wait"])
def test_an_upload_arrives_whole(
    words: tuple, size: int, gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    """On both sides of the 64 KiB that are buffered at first."""
    status, _, arrived = upload(gateway, agent, origin, tmp_path, size, *words)
    assert (status, arrived) == (200, 1)


def test_chunks_are_taken_up_to_the_buffer_and_refused_beyond(
    gateway: Gateway, agent: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    chunked = ("-H", "Transfer-Encoding: chunked")
    for size in (1_000, 60_000):
        status, _, arrived = upload(gateway, agent, origin, tmp_path, size, *chunked)
        assert (status, arrived) == (200, 1)
    for size in (70_000, 400_000):
        before = origin.mark()
        status, headers, _ = upload(gateway, agent, origin, tmp_path, size, *chunked)
        assert (status, headers["aegis-reason"]) == (411, "length_required")
        assert origin.since(before) == (0, [])
        assert gateway.leaf_of(headers["aegis-receipt"]).is_denial
