"""The forward proxy: clients that know nothing but HTTPS_PROXY and a certificate to trust."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import github as pygithub
import pytest
import requests

from conftest import CANARY
from harness import raw, receipts, tunnels
from harness.clients import curl, denial_of
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.github import GitHub
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
HOST = "api.github.test"
ISSUES = "/repos/octo/hello/issues"


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """A route under a name of its own, one that asks inside, and one whose upstream takes TLS only."""
    routes = [
        Route("github", one_origin.url, hosts=[HOST]),
        Route("inner", one_origin.url, hosts=["inner.test"], more={"proxy_auth": "inner"}),
        Route("secure", "https://secure.test:8443", connector="http", credential=None),
    ]
    with Gateway(tmp_path_factory.mktemp("forward"), routes, [Credential(CANARY)]) as running:
        yield running
        done = receipts.verify(running.receipts)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture()
def worker(forward: Gateway) -> Agent:
    return forward.enrol()


@pytest.fixture()
def tail(forward: Gateway) -> receipts.Tail:
    """Leaves from here on."""
    following = receipts.Tail(forward.receipts)
    following.new()
    return following


def through(gateway: Gateway, agent: Agent | None) -> list[str]:
    """curl's own words for what HTTPS_PROXY and CURL_CA_BUNDLE say."""
    return ["--noproxy", "", "--proxy", gateway.proxy(agent), "--cacert", str(gateway.ca)]


def session(gateway: Gateway, agent: Agent | None) -> requests.Session:
    """requests, told by its own variables' equivalents."""
    made = requests.Session()
    made.trust_env = False
    made.proxies = {"http": gateway.proxy(agent), "https": gateway.proxy(agent)}
    made.verify = str(gateway.ca)
    return made


def the_denial(tail: receipts.Tail) -> receipts.Leaf:
    """The one denial since, and no second."""
    denials = [leaf for leaf in tail.until(lambda leaves: any(each.is_denial for each in leaves)) if leaf.is_denial]
    denials += [leaf for leaf in tail.new() if leaf.is_denial]
    assert len(denials) == 1 and denials[0].count == 1, [leaf.body for leaf in denials]
    return denials[0]


def eventually(check: Callable[[], bool], what: str, gateway: Gateway, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{gateway.tail()}"
        time.sleep(0.05)


# Unmodified clients.


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_reaches_a_routed_host_without_holding_anything_else(
    version: str, forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    before = origin.mark()
    status, headers, body = curl(f"https://{HOST}{ISSUES}", *through(forward, worker), version, folder=tmp_path)
    assert (status, json.loads(body)["path"]) == (200, ISSUES)
    assert f"HTTP/{version[6]}" in (tmp_path / "curl.head").read_text().strip().split("\n\n")[-1]
    [request] = origin.since(before)[1]
    assert request.one("authorization") == f"Bearer {CANARY}"
    leaf = forward.leaf_of(headers["aegis-receipt"])
    assert (leaf["door"], leaf["route"], leaf["agent_id"]) == ("connect", "github", worker.agent_id)


def test_requests_keeps_one_tunnel_for_many_requests(forward: Gateway, worker: Agent, origin: StrictOrigin) -> None:
    before = origin.mark()
    with session(forward, worker) as client:
        for number in range(5):
            answer = client.get(f"https://{HOST}{ISSUES}", params={"page": number + 1}, timeout=20)
            assert answer.status_code == 200, answer.text
        answer = client.post(f"https://{HOST}{ISSUES}", json={"title": "t" * 100_000}, timeout=20)
        assert answer.status_code == 200, answer.text
    assert [each.method for each in origin.since(before)[1]] == ["GET"] * 5 + ["POST"]


def test_pygithub_unmodified(
    tmp_path_factory: pytest.TempPathFactory, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own default base URL, and a token that is nobody's."""
    routes = [Route("github", github.url, hosts=["api.github.com"])]
    with Gateway(tmp_path_factory.mktemp("pygithub"), routes, [Credential(github.token)]) as gateway:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", gateway.proxy(gateway.enrol()))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(gateway.ca))
        client = pygithub.Github(auth=pygithub.Auth.Token("ghp_placeholder"), retry=0, seconds_between_writes=0)
        repo = client.get_repo("octo/hello")
        issue = repo.create_issue("through the proxy")
        assert issue.url == f"https://api.github.com/repos/octo/hello/issues/{issue.number}"
        # A lazy object completes itself from its url, and pages follow `Link`.
        assert repo.get_issue(issue.number).user.name == "Octo"
        for number in range(31):
            repo.create_issue(f"page {number}")
        assert len({each.number for each in repo.get_issues(state="all")}) >= 32
        with pytest.raises(pygithub.GithubException) as refused:
            repo.delete()
        assert (refused.value.status, denial_of(refused.value)["reason"]) == (403, "forbidden")


def test_an_address_is_a_host_like_any_other(forward: Gateway, worker: Agent, origin: StrictOrigin) -> None:
    """The certificate names the address; URLs in answers lead back already."""
    target = f"127.0.0.1:{origin.port}"
    origin.answer("GET", "/repos/octo/hello", {"url": f"{origin.url}/repos/octo/hello"})
    with session(forward, worker) as client:
        answer = client.get(f"https://{target}/repos/octo/hello", timeout=20)
    assert answer.status_code == 200, answer.text
    sock = tunnels.open_tunnel(forward.listen, target, worker.token)
    with tunnels.tls(sock, forward.ca, "127.0.0.1") as inside:
        certificate = inside.getpeercert()
        assert certificate and certificate["subjectAltName"] == (("IP Address", "127.0.0.1"),)


def test_urls_of_the_upstream_become_those_of_the_host_that_was_asked(
    forward: Gateway, worker: Agent, origin: StrictOrigin
) -> None:
    origin.answer("GET", "/repos/octo/hello", {"url": f"{origin.url}/repos/octo/hello", "name": "hello"})
    with session(forward, worker) as client:
        assert client.get(f"https://{HOST}/repos/octo/hello", timeout=20).json()["url"] == f"https://{HOST}/repos/octo/hello"
        same = client.get(f"http://127.0.0.1:{origin.port}/repos/octo/hello", timeout=20)
    assert same.json()["url"] == f"{origin.url}/repos/octo/hello"


# Who it is.


def test_a_stranger_is_asked_once_and_may_answer_on_the_same_connection(
    forward: Gateway, worker: Agent, tail: receipts.Tail
) -> None:
    with tunnels.dial(forward.listen) as sock:
        sock.sendall(tunnels.connect_head(f"{HOST}:443", None))
        answer = raw.receive(sock, 5, None, False)
        assert (answer.status, answer.header("proxy-authenticate")) == (407, 'Basic realm="aegis"')
        assert answer.header("aegis-reason") == "no_credential"
        sock.sendall(tunnels.connect_head(f"{HOST}:443", worker.token))
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    # Outcomes of reads before this are written together, a moment later.
    assert [leaf for leaf in tail.new() if leaf.kind not in ("outcome", "outcomes")] == [], "a challenge is no refusal"


def test_a_route_may_leave_the_question_to_the_tools_own_api(
    forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path, tail: receipts.Tail
) -> None:
    status, headers, _ = curl("https://inner.test/user", *through(forward, None), folder=tmp_path)
    assert (status, headers["aegis-reason"]) == (401, "no_credential")
    assert headers["www-authenticate"].startswith("Basic")
    assert tail.new() == []
    words = [*through(forward, None), "-H", f"Authorization: token {worker.token}"]
    status, headers, _ = curl("https://inner.test/user", *words, folder=tmp_path)
    assert status == 200
    assert forward.leaf_of(headers["aegis-receipt"])["agent_id"] == worker.agent_id


@pytest.mark.parametrize("state, status, reason", [
    ("unknown", 407, "unknown_token"), ("revoke", 407, "agent_revoked"), ("freeze", 403, "agent_frozen"),
])  # fmt: skip
def test_who_may_not_act_gets_no_tunnel(
    state: str, status: int, reason: str, forward: Gateway, tail: receipts.Tail
) -> None:
    agent = forward.enrol()
    token = agent.token
    if state == "unknown":
        token = token[:15] + ("A" if token[15] != "A" else "B") + token[16:]
    else:
        assert forward.set_agent(agent, state).ok
    answer = raw.exchange(forward.listen, tunnels.connect_head(f"{HOST}:443", token), quiet=5)
    assert (answer.status, answer.header("aegis-reason"), answer.closed) == (status, reason, True)
    leaf = the_denial(tail)
    assert (leaf["reason"], leaf["door"], leaf["route"]) == (reason, "connect", "github")
    assert leaf["agent_id"] == (None if state == "unknown" else agent.agent_id)
    assert answer.header("aegis-receipt", ) and forward.leaf_of(answer.header("aegis-receipt") or "").raw == leaf.raw


def test_an_open_tunnel_ends_with_its_agent(forward: Gateway, origin: StrictOrigin, tail: receipts.Tail) -> None:
    agent = forward.enrol()
    with session(forward, agent) as client:
        assert client.get(f"https://{HOST}/user", timeout=20).status_code == 200
        assert forward.set_agent(agent, "revoke").ok
        before = origin.mark()
        answer = client.get(f"https://{HOST}/user", timeout=20)
    assert (answer.status_code, answer.headers["aegis-reason"]) == (401, "agent_revoked")
    assert origin.since(before) == (0, [])


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "X-Api-Key: {}", "Authorization: Basic {basic}"])
@pytest.mark.parametrize("whose, status", [("placeholder", 200), ("own", 200), ("other", 400), ("admin", 400)])
def test_inside_a_placeholder_is_taken_but_no_other_agents_token(
    whose: str, status: int, header: str, forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    """Tools insist on sending something; it goes nowhere."""
    token = {
        "placeholder": "ghp_placeholder0000000000000000000000000", "own": worker.token,
        "other": forward.enrol().token, "admin": forward.admin_token,
    }[whose]  # fmt: skip
    before = origin.mark()
    line = header.format(token, basic=tunnels.basic(token).removeprefix("Basic "))
    got, headers, body = curl(f"https://{HOST}/user", *through(forward, worker), "-H", line, folder=tmp_path)
    assert got == status, body
    requests_seen = origin.since(before)[1]
    assert [each.one("authorization") for each in requests_seen] == ([f"Bearer {CANARY}"] if status == 200 else [])
    assert all(token.encode() not in each.raw for each in requests_seen)
    if status == 400:
        assert headers["aegis-reason"] == "conflicting_credentials"
        assert forward.leaf_of(headers["aegis-receipt"])["agent_id"] == worker.agent_id


# What is not let through.


def test_an_unrouted_host_is_denied_on_record(forward: Gateway, worker: Agent, tail: receipts.Tail) -> None:
    answer = raw.exchange(forward.listen, tunnels.connect_head("files.example.test:443", worker.token), quiet=5)
    assert (answer.status, answer.header("aegis-decision"), answer.closed) == (403, "deny", True)
    leaf = the_denial(tail)
    assert (leaf["tool"], leaf["action"], leaf["resource"]) == ("tunnel", "connect", "files.example.test:443")
    assert (leaf["decision"], leaf["door"], leaf["route"], leaf["agent_id"]) == ("deny", "connect", "tunnel", worker.agent_id)
    assert forward.leaf_of(answer.header("aegis-receipt") or "").raw == leaf.raw
    why = json.loads(forward.cli("why", answer.header("aegis-receipt") or "", "--json").stdout)
    assert "tunnel.connect" in json.dumps(why)


@pytest.mark.parametrize("target, lines, status, reason", [
    (f"{HOST}:8443", [], 403, "port_not_routed"),
    ("secure.test:443", [], 403, "port_not_routed"),
    (f"{HOST}.:443", [], 400, "bad_host"),
    (HOST, [], 400, "bad_host"),
    (f"{HOST}:443", ["Content-Length: 5"], 400, "unexpected_body"),
    (f"{HOST}:443", ["Transfer-Encoding: chunked"], 400, "unexpected_body"),
    (f"{HOST}:443", ["Host: other.test:443"], 400, "bad_host"),
    (f"{HOST}:443", ["Upgrade: websocket"], 400, "bad_header"),
    (f"{HOST}:443", ["Proxy-Authorization: Basic eDp5"], 400, "conflicting_credentials"),
    (f"{HOST}:443", ["X: " + "a" * 17_000], 400, "bad_framing"),
])  # fmt: skip
def test_an_odd_connect_is_refused_and_closed(
    target: str, lines: list[str], status: int, reason: str, forward: Gateway, worker: Agent, tail: receipts.Tail
) -> None:
    answer = raw.exchange(forward.listen, tunnels.connect_head(target, worker.token, *lines), quiet=5)
    assert (answer.status, answer.header("aegis-reason"), answer.closed) == (status, reason, True), answer.raw
    leaf = the_denial(tail)
    assert (leaf["reason"], leaf["door"]) == (reason, "connect")


def test_our_own_listeners_are_no_host(forward: Gateway, worker: Agent, tail: receipts.Tail) -> None:
    """Neither by an address that a route has at another port, nor by a name that leads here."""
    for address in (forward.listen, forward.admin, forward.listen.replace("127.0.0.1", "localhost")):
        answer = raw.exchange(forward.listen, tunnels.connect_head(address, worker.token), quiet=5)
        assert (answer.status, answer.closed) == (403, True)
        assert the_denial(tail)["door"] == "connect"


@pytest.mark.parametrize("inside, reason", [
    (b"GET /user HTTP/1.1\r\nHost: api.github.test\r\n\r\n", "not_tls"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_tls"),
    (b"SSH-2.0-x\r\n", "not_tls"),
    (b"\x16\x03\x01\x00\x05hello", "bad_tls"),
])  # fmt: skip
def test_only_tls_is_taken_inside(
    inside: bytes, reason: str, forward: Gateway, worker: Agent, tail: receipts.Tail, origin: StrictOrigin
) -> None:
    before = origin.mark()
    with tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token) as sock:
        sock.sendall(inside)
        rest = b"".join(iter(lambda: receive(sock), b""))
    assert b"HTTP/" not in rest
    leaf = the_denial(tail)
    assert (leaf["reason"], leaf["agent_id"], leaf["route"]) == (reason, worker.agent_id, "github")
    assert origin.since(before) == (0, [])


def receive(sock: Any) -> bytes:
    try:
        return bytes(sock.recv(4096))
    except ConnectionError:
        return b""


@pytest.mark.parametrize("name, reason", [(None, "no_sni"), ("other.test", "sni_mismatch"), ("inner.test", "sni_mismatch")])
def test_the_handshake_must_name_the_host_of_the_tunnel(
    name: str | None, reason: str, forward: Gateway, worker: Agent, tail: receipts.Tail
) -> None:
    sock = tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token)
    context = tunnels.context(forward.ca)
    context.check_hostname = False
    with pytest.raises(OSError):
        context.wrap_socket(sock, server_hostname=name)
    leaf = the_denial(tail)
    assert (leaf["reason"], leaf["status"]) == (reason, 421)


@pytest.mark.parametrize("host", ["other.test", "inner.test", f"{HOST}:8443", "127.0.0.1", f"x@{HOST}"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_every_request_inside_must_name_the_host_of_the_tunnel(
    version: str, host: str, forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path, tail: receipts.Tail
) -> None:
    """`Host`, or `:authority`, which curl makes of it."""
    before = origin.mark()
    words = [*through(forward, worker), version, "-H", f"Host: {host}"]
    status, headers, _ = curl(f"https://{HOST}/user", *words, folder=tmp_path)
    if "@" in host:
        # Refused below the path, without a word from it.
        assert status == 400
        assert the_denial(tail)["reason"] == "bad_framing"
    else:
        assert (status, headers["aegis-reason"]) == (421, "authority_mismatch")
        leaf = the_denial(tail)
        assert (leaf["reason"], leaf["door"]) == ("authority_mismatch", "connect")
    assert origin.since(before) == (0, [])


def test_the_hosts_port_may_be_written_or_left_out(
    forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    for host in (f"{HOST}:443", HOST.upper()):
        status, _, body = curl(f"https://{HOST}/user", *through(forward, worker), "-H", f"Host: {host}", folder=tmp_path)
        assert status == 200, body


def test_a_tunnel_is_the_first_thing_on_a_connection(forward: Gateway, worker: Agent, tail: receipts.Tail) -> None:
    request = f"GET /github/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {worker.token}\r\n\r\n".encode()
    with tunnels.dial(forward.listen) as sock:
        sock.sendall(request)
        assert raw.receive(sock, 10, None, False).status == 200
        sock.sendall(tunnels.connect_head(f"{HOST}:443", worker.token))
        answer = raw.receive(sock, 10, 3, False)
    assert (answer.status, answer.header("aegis-reason"), answer.closed) == (405, "bad_method", True)
    assert the_denial(tail)["reason"] == "bad_method"


def test_a_tunnel_in_a_tunnel_is_refused(forward: Gateway, worker: Agent, tail: receipts.Tail) -> None:
    sock = tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token)
    with tunnels.tls(sock, forward.ca, HOST) as inside:
        inside.sendall(tunnels.connect_head(f"{HOST}:443", worker.token))
        answer = raw.receive(inside, 5, 3, False)
    assert (answer.status, answer.closed) == (405, True)
    assert the_denial(tail)["door"] == "connect"


def test_what_pingora_refuses_inside_is_on_record(forward: Gateway, worker: Agent, tail: receipts.Tail) -> None:
    sock = tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token)
    with tunnels.tls(sock, forward.ca, HOST) as inside:
        inside.sendall(f"GET /user HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n".encode())
        answer = raw.receive(inside, 5, 3, False)
    assert (answer.status, answer.closed) == (400, True)
    leaf = the_denial(tail)
    assert (leaf["reason"], leaf["door"]) == ("bad_framing", "connect")


# HTTP/2 inside.


def test_malformed_http2_is_on_record(forward: Gateway, worker: Agent, tail: receipts.Tail, origin: StrictOrigin) -> None:
    """A request without `:path` is reset below the path, where nobody is asked."""
    before = origin.mark()
    sock = tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token)
    with tunnels.tls(sock, forward.ca, HOST, "h2") as inside:
        assert inside.selected_alpn_protocol() == "h2"
        inside.sendall(tunnels.h2_request([(":method", "GET"), (":scheme", "https"), (":authority", HOST)]))
        leaf = the_denial(tail)
    assert (leaf["reason"], leaf["door"]) == ("bad_framing", "connect")
    assert origin.since(before) == (0, [])


@pytest.mark.parametrize("fields", [
    [(":authority", HOST), ("host", "other.test")], [(":authority", "other.test"), ("host", HOST)], [("host", HOST)],
])  # fmt: skip
def test_authority_and_host_must_not_differ(
    fields: list[tuple[str, str]], forward: Gateway, worker: Agent, tail: receipts.Tail, origin: StrictOrigin
) -> None:
    before = origin.mark()
    sock = tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token)
    head = [(":method", "GET"), (":scheme", "https"), (":path", "/user")]
    with tunnels.tls(sock, forward.ca, HOST, "h2") as inside:
        inside.sendall(tunnels.h2_request(head + fields))
        if fields == [("host", HOST)]:
            # RFC 9113, section 8.3.1: the target then comes from `Host`.
            eventually(lambda: len(origin.since(before)[1]) == 1, "the request", forward)
            return
        the_denial(tail)
    assert origin.since(before) == (0, [])


def test_a_request_may_end_in_a_frame_of_its_own(forward: Gateway, worker: Agent, origin: StrictOrigin) -> None:
    """It has no body for that."""
    before = origin.mark()
    sock = tunnels.open_tunnel(forward.listen, f"{HOST}:443", worker.token)
    fields = [(":method", "GET"), (":scheme", "https"), (":path", "/user"), (":authority", HOST)]
    with tunnels.tls(sock, forward.ca, HOST, "h2") as inside:
        inside.sendall(tunnels.h2_request(fields, ends_later=True))
        eventually(lambda: len(origin.since(before)[1]) == 1, "the request", forward)


@pytest.mark.parametrize("size", [10, 100_000, 2_000_000])
def test_an_early_refusal_on_http2_reaches_the_client(
    size: int, forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path, tail: receipts.Tail
) -> None:
    """The body is still on its way when the answer is known."""
    file = tmp_path / "body"
    file.write_bytes(b"x" * size)
    before = origin.mark()
    words = [*through(forward, worker), "--http2", "-X", "POST", "-H", "Content-Type: text/plain", "--data-binary", f"@{file}"]
    status, headers, body = curl(f"https://{HOST}/no/such/operation", *words, folder=tmp_path)
    assert (status, headers["aegis-reason"]) == (404, "unknown_operation"), body
    assert json.loads(body)["aegis"]["reason"] == "unknown_operation"
    assert the_denial(tail)["reason"] == "unknown_operation"
    assert origin.since(before) == (0, [])


@pytest.mark.parametrize("size", [0, 100, 60_000])
def test_a_body_of_unknown_length_on_http2(
    size: int, forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    file = tmp_path / "body"
    file.write_text(json.dumps({"title": "t" * size}) if size else "")
    before = origin.mark()
    words = [*through(forward, worker), "--http2", "-X", "POST", "-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked"]
    status, headers, body = curl(f"https://{HOST}{ISSUES}", *words, "--data-binary", f"@{file}", folder=tmp_path)
    if size:
        [request] = origin.since(before)[1]
        assert (status, request.json()["title"]) == (200, "t" * size), body
    else:
        # A title is required: the connector says so, having read to the end of nothing.
        assert status in (400, 422), body


def test_many_streams_at_once_have_receipts_of_their_own(
    forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    before = origin.mark()
    tail = receipts.Tail(forward.receipts)
    tail.new()
    url = f"https://{HOST}/repos/octo/hello/issues?page=[1-20]"
    words = [*through(forward, worker), "--http2", "--parallel", "--parallel-immediate", "--parallel-max", "20", "-g"]
    words.remove("-g")
    status, _, _ = curl(url, *words, folder=tmp_path)
    assert status == 200
    assert len(origin.since(before)[1]) == 20
    intents = [leaf for leaf in tail.until(lambda leaves: len([x for x in leaves if x.kind == "intent"]) >= 20) if leaf.kind == "intent"]
    assert len({leaf["decision_id"] for leaf in intents}) == 20


# Plain HTTP.


def test_a_plain_url_takes_the_same_way(forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path) -> None:
    before = origin.mark()
    for url in (f"http://{HOST}/user", f"http://{HOST}:80/user", f"{origin.url}/user"):
        status, headers, body = curl(url, *through(forward, worker), folder=tmp_path)
        assert status == 200, body
        leaf = forward.leaf_of(headers["aegis-receipt"])
        assert (leaf["door"], leaf["route"], leaf["agent_id"]) == ("connect", "github", worker.agent_id)
    assert [each.one("authorization") for each in origin.since(before)[1]] == [f"Bearer {CANARY}"] * 3


@pytest.mark.parametrize("line, status, reason", [
    ("GET https://api.github.test/user HTTP/1.1\r\nHost: api.github.test", 400, "bad_scheme"),
    ("GET ftp://api.github.test/user HTTP/1.1\r\nHost: api.github.test", 400, "bad_scheme"),
    ("GET http://secure.test:8443/user HTTP/1.1\r\nHost: secure.test:8443", 403, "tls_required"),
    ("GET http://api.github.test:81/user HTTP/1.1\r\nHost: api.github.test:81", 403, "port_not_routed"),
    ("GET http://files.example.test/ HTTP/1.1\r\nHost: files.example.test", 403, "unrouted_host"),
    ("GET http://{listen}/v1/actions HTTP/1.1\r\nHost: {listen}", 403, "port_not_routed"),
    ("GET http://api.github.test HTTP/1.1\r\nHost: other.test", 400, "bad_framing"),
    ("GET http://api.github.test?x=1 HTTP/1.1\r\nHost: api.github.test?x=1", 400, "bad_framing"),
    ("GET http://api.github.test/a/../user HTTP/1.1\r\nHost: api.github.test", 400, "bad_path"),
])  # fmt: skip
def test_a_plain_url_that_is_refused(
    line: str, status: int, reason: str, forward: Gateway, worker: Agent, tail: receipts.Tail, origin: StrictOrigin
) -> None:
    before = origin.mark()
    text = line.replace("{listen}", forward.listen)
    data = f"{text}\r\nProxy-Authorization: {tunnels.basic(worker.token)}\r\n\r\n".encode()
    answer = raw.exchange(forward.listen, data)
    assert answer.status == status, answer.raw
    assert the_denial(tail)["reason"] == reason
    assert origin.since(before) == (0, [])


def test_the_gateways_own_api_is_not_reached_under_a_routes_name(
    forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    for url in (f"https://{HOST}/v1/actions", f"http://{HOST}/v1/actions", f"https://{HOST}/health"):
        status, headers, _ = curl(url, *through(forward, worker), folder=tmp_path)
        assert (status, headers["aegis-reason"]) == (404, "unknown_operation"), url


def test_a_plain_url_of_a_stranger_is_challenged(forward: Gateway, tmp_path: Path, tail: receipts.Tail) -> None:
    for url in (f"http://{HOST}/user", "http://files.example.test/"):
        status, headers, _ = curl(url, *through(forward, None), folder=tmp_path)
        assert (status, headers["proxy-authenticate"]) == (407, 'Basic realm="aegis"')
    status, headers, _ = curl("http://inner.test/user", *through(forward, None), folder=tmp_path)
    assert status == 401 and headers["www-authenticate"]
    assert tail.new() == []


# Routes come and go.


def test_a_new_route_needs_no_new_installation_at_clients(
    tmp_path: Path, origin: StrictOrigin, one_origin: StrictOrigin
) -> None:
    with Gateway(tmp_path / "gw", [Route("github", origin.url, hosts=[HOST])], [Credential(CANARY)]) as gateway:
        agent, trusted = gateway.enrol(), gateway.ca.read_bytes()
        with session(gateway, agent) as client:
            with pytest.raises(requests.exceptions.ProxyError):
                client.get("https://new.test/user", timeout=20)
            assert client.get(f"https://{HOST}/user", timeout=20).status_code == 200
            gateway.write_routes([Route("github", origin.url, hosts=["new.test"])])

            def served() -> bool:
                try:
                    return client.get("https://new.test/user", timeout=20).status_code == 200
                except requests.exceptions.ProxyError:
                    return False

            eventually(served, "the new host", gateway)
        assert gateway.ca.read_bytes() == trusted
        issued = [leaf for leaf in gateway.leaves() if leaf["kind"] == "ca_intermediate_issued"]
        assert [leaf["body"]["permitted"] for leaf in issued] == [[HOST, "127.0.0.1"], ["new.test", "127.0.0.1"]]
