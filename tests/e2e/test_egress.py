"""The gateway dials only what it may, verifies whom it reaches, and shows itself to nobody else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness import canary
from harness.certificates import Authority, server_context
from harness.gateway import Credential, Gateway, Route
from upstreams.connect_proxy import ConnectProxy
from upstreams.github import free_port
from upstreams.paced_origin import PacedOrigin

pytestmark = pytest.mark.binary
BEARER = f"Bearer {CANARY}"
ALLOW = '@id("all")\npermit (principal, action in Action::"http", resource);\n'
GENERIC = {"connector": "http", "default_trust": "trusted_internal_signed"}


def gateway(folder: Path, routes: list[Route], credentials: list[Credential] | None = None) -> Gateway:
    made = Gateway(folder, routes, credentials if credentials is not None else [Credential(CANARY)])
    (made.folder / "policies" / "all.cedar").write_text(ALLOW)
    return made


def check(folder: Path, text: str) -> list[str]:
    """What `aegis routes check` says, line by line."""
    made = Gateway(folder, [], [])
    (folder / "routes.toml").write_text(text)
    done = made.cli("routes", "check", str(folder / "routes.toml"), "--json", ok=False)
    return [f"{p['line']}: {p['message']}" for p in json.loads(done.stdout)["problems"] if p["severity"] == "error"]


# Addresses.

# A resolver or a kernel takes each of these for an address inside. Some are refused as written, some when they
# are looked up, and none is dialled.
INSIDE = """
127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254 0.0.0.0 0.0.0.1 localhost localhost.localdomain ip6-localhost
127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 017700000001 0177.0.0.1 0177.1 127.0.0.01 127.000.000.001
0 0x0 00 1 0x7f.0x0.0x0.0x1 0300.0250.0.1 3232235777 0xc0a80101 10.1 172.16.257 192.168.257 2852039166 0xa9fea9fe
0251.0376.0251.0376 169.254.43518 169.254.169.0xfe
10.0.0.1 10.255.255.254 172.16.0.1 172.31.255.254 192.168.0.1 192.168.1.1 100.64.0.1 100.127.255.254 198.18.0.1
192.0.0.1 192.88.99.1 169.254.169.254 169.254.170.2 169.254.0.1 100.100.100.200 168.63.129.16 192.0.2.1 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
[::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:7f00:1] [::ffff:10.0.0.1]
[::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [::127.0.0.1] [::7f00:1] [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1]
[64:ff9b::7f00:1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::1] [2002:7f00:1::] [2002:a9fe:a9fe::] [2002:a00:1::1] [fe80::1]
[fc00::1] [fd00:ec2::254] [fec0::1] [ff02::1] [2001:db8::1] [3fff::1] [2001::1] [100::1] [5f00::1]
[2606:4700::5efe:7f00:1]
""".split()


def test_no_spelling_of_an_internal_address_is_dialled(tmp_path: Path) -> None:
    assert len(INSIDE) >= 80
    refused, routes = [], []
    with PacedOrigin() as origin:
        text = "".join(
            f'[[route]]\nname = "r{n}"\nupstream = "http://{host}:{origin.port}"\ndanger_plaintext_upstream = true\n'
            for n, host in enumerate(INSIDE)
        )
        as_written = check(tmp_path / "check", text)
        for number, host in enumerate(INSIDE):
            if any(f"route `r{number}`" in problem for problem in as_written):
                refused.append(host)
            else:
                more = {"allow_internal": [], "danger_plaintext_upstream": True}
                routes.append(Route(f"r{number}", f"http://{host}:{origin.port}", **GENERIC, more=more))
        assert len(refused) >= 20, "numbers that only some read as addresses are no host names"
        with gateway(tmp_path / "gw", routes) as running:
            agent = running.enrol()
            for route in routes:
                answer = running.call(agent, "GET", "/x", route.name)
                reason = answer.headers["aegis-reason"]
                assert answer.status_code == 502 and reason in ("address_forbidden", "upstream_unresolved"), (
                    route.upstream,
                    answer.text,
                )
                if "localdomain" not in route.upstream and "ip6-" not in route.upstream:
                    assert reason == "address_forbidden", route.upstream
        assert origin.connections == 0


def test_a_route_never_leads_back_to_the_gateway(tmp_path: Path) -> None:
    doors = [free_port(), free_port(), free_port()]
    names = ["agents", "admins", "port", "mapped", "any"]
    hosts = [f"127.0.0.1:{doors[0]}", f"127.0.0.1:{doors[1]}", f"127.0.0.1:{doors[2]}", f"[::ffff:127.0.0.1]:{doors[0]}",
        f"0.0.0.0:{doors[0]}"]  # fmt: skip
    more = {"allow_internal": ["0.0.0.0/0", "::/0"]}
    routes = [Route(name, f"http://{host}", **GENERIC, more=more) for name, host in zip(names, hosts, strict=True)]
    routes.append(Route("own", "http://127.0.0.1:9", **GENERIC, listen=f"127.0.0.1:{doors[2]}"))
    made = gateway(tmp_path / "gw", routes)
    text = made.config.read_text()
    text = text.replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{doors[0]}"', 1)
    made.config.write_text(text.replace('admin_listen = "127.0.0.1:0"', f'admin_listen = "127.0.0.1:{doors[1]}"', 1))
    with made as running:
        agent = running.enrol()
        for name in names:
            answer = running.call(agent, "GET", "/health", name)
            assert (answer.status_code, answer.headers["aegis-reason"]) == (502, "address_forbidden"), name


def test_only_the_blocks_that_a_route_allows_are_dialled(tmp_path: Path) -> None:
    with PacedOrigin() as origin:
        routes = [
            Route("exact", origin.url, **GENERIC, more={"allow_internal": ["127.0.0.1/32"]}),
            Route("beside", origin.url, **GENERIC, more={"allow_internal": ["127.0.0.2/31", "10.0.0.0/8"]}),
            Route("mapped", f"http://[::ffff:127.0.0.1]:{origin.port}", **GENERIC, more={"allow_internal": ["127.0.0.1/32"]}),
        ]  # fmt: skip
        with gateway(tmp_path / "gw", routes) as running:
            agent = running.enrol()
            assert running.call(agent, "GET", "/a", "exact").status_code == 200
            assert running.call(agent, "GET", "/a", "mapped").status_code == 200
            assert running.call(agent, "GET", "/a", "beside").headers["aegis-reason"] == "address_forbidden"


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_shown_and_never_followed(status: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("redirect")
    with PacedOrigin() as origin, gateway(folder, [Route("paced", origin.url, **GENERIC)]) as running:
        answer = running.call(running.enrol(), "GET", f"/redirect/{status}", "paced")
        assert (answer.status_code, answer.headers["location"]) == (status, "http://elsewhere.test/stolen")
        assert len(origin.seen) == 1


# Trust.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "corporate root")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "strange root")


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[PacedOrigin]:
    with PacedOrigin(server_context(authority.server("127.0.0.1", "named.example"))) as running:
        yield running


def test_upstream_certificates_are_verified(
    tmp_path: Path, authority: Authority, stranger: Authority, secure: PacedOrigin
) -> None:
    inside = {"allow_internal": ["127.0.0.0/8"]}
    misnamed = server_context(authority.server("other.example"))
    with PacedOrigin(misnamed) as wrong:
        routes = [
            Route("trusted", secure.url, **GENERIC, more={**inside, "ca_file": str(authority.root)}),
            Route("system", secure.url, **GENERIC, more=inside),
            Route("stranger", secure.url, **GENERIC, more={**inside, "ca_file": str(stranger.root)}),
            Route("misnamed", wrong.url, **GENERIC, more={**inside, "ca_file": str(authority.root)}),
        ]  # fmt: skip
        with gateway(tmp_path / "gw", routes) as running:
            agent = running.enrol()
            # First the one that works: what is refused must not ride on its connection.
            assert running.call(agent, "GET", "/trusted", "trusted").status_code == 200, running.tail()
            for name in ("system", "stranger", "misnamed"):
                assert running.call(agent, "GET", f"/{name}", name).status_code == 502, name
        assert [seen.path for seen in secure.seen] == ["/trusted"]
        assert wrong.seen == []


def test_client_certificates_are_shown(tmp_path: Path, authority: Authority) -> None:
    context = server_context(authority.server("127.0.0.1"), client_root=authority.root)
    with PacedOrigin(context) as origin:
        one, two = authority.client("agent-gateway"), authority.client("from-the-vault")
        common = {"allow_internal": ["127.0.0.1/32"], "ca_file": str(authority.root)}
        routes = [
            Route("file", origin.url, **GENERIC, more={**common, "client_certificate": str(one.certificate), "client_key": str(one.key)}),
            Route("vault", origin.url, **GENERIC, more={**common, "client_certificate": str(two.certificate), "client_key_credential": "mtls"}),
            Route("none", origin.url, **GENERIC, more=common),
        ]  # fmt: skip
        credentials = [Credential(CANARY), Credential(two.key_on_one_line(), name="mtls", kind="client_key")]
        with gateway(tmp_path / "gw", routes, credentials) as running:
            agent = running.enrol()
            assert running.call(agent, "GET", "/a", "file").json()["client"] == "agent-gateway"
            assert running.call(agent, "GET", "/a", "vault").json()["client"] == "from-the-vault"
            assert running.call(agent, "GET", "/a", "none").status_code == 502
            # The key of another certificate: refused before anything is dialled.
            running.cli("credential", "rotate", "mtls", stdin=one.key_on_one_line())
            before = len(origin.seen)
            answer = running.call(agent, "GET", "/a", "vault")
            assert (answer.status_code, answer.headers["aegis-reason"]) == (503, "credential_unavailable")
            assert len(origin.seen) == before
            secrets = [one.key_on_one_line()[40:120], two.key_on_one_line()[40:120]]
            assert canary.find(running.stderr.read_bytes(), secrets) == []


def test_a_new_certificate_is_taken_over_by_a_reload(tmp_path: Path, authority: Authority) -> None:
    context = server_context(authority.server("127.0.0.1"), client_root=authority.root)
    with PacedOrigin(context) as origin:
        folder = tmp_path / "gw"
        folder.mkdir()
        first, second = authority.client("first"), authority.client("second")
        for name, part in (("client.pem", first.certificate), ("client.key", first.key)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_bytes(part.read_bytes())
        more = {"allow_internal": ["127.0.0.1/32"], "ca_file": str(authority.root)}
        more |= {"client_certificate": "client.pem", "client_key": "client.key"}
        with gateway(folder, [Route("file", origin.url, **GENERIC, more=more)]) as running:
            agent = running.enrol()
            assert running.call(agent, "GET", "/a", "file").json()["client"] == "first"
            (folder / "client.pem").write_bytes(second.certificate.read_bytes())
            (folder / "client.key").write_bytes(second.key.read_bytes())
            assert running.api("POST", "/v1/reload").ok
            assert running.call(agent, "GET", "/a", "file").json()["client"] == "second"


def test_mistakes_are_named_with_their_line(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "check"
    folder.mkdir()
    one, two = authority.client("one"), authority.client("two")
    loose = folder / "loose.key"
    loose.write_bytes(one.key.read_bytes())
    loose.chmod(0o640)
    no_key = folder / "no.key"
    no_key.touch(mode=0o600)
    no_key.write_bytes(one.certificate.read_bytes())
    (folder / "empty.pem").write_text("nothing here\n")
    cases = [
        (f'ca_file = "{folder}/missing.pem"', "cannot be read"),
        (f'ca_file = "{folder}/empty.pem"', "has no certificate"),
        (f'ca_file = "{folder}"', "is not a regular file"),
        (f'client_certificate = "{one.certificate}"', "`client_key_credential` is required beside it"),
        (f'client_key = "{one.key}"', "`client_certificate` is required beside it"),
        (f'client_certificate = "{one.certificate}"\nclient_key = "{loose}"', "run `chmod 600` on it"),
        (f'client_certificate = "{one.certificate}"\nclient_key = "{two.key}"', "does not belong to"),
        (f'client_certificate = "{one.certificate}"\nclient_key = "{no_key}"', "has no private key"),
        (f'client_certificate = "{one.certificate}"\nclient_key_credential = "nobody"', "`nobody` is not declared"),
        (f'client_certificate = "{one.certificate}"\nclient_key_credential = "bearer"', "not `client_key`"),
        ('credential = "key"', "not one that can be sent"),
        ('upstream_proxy = "https://proxy.example"', "must be `http://host:port`"),
        ('upstream_proxy = "http://user:pass@proxy.example"', "scheme, host, port"),
        ('danger_proxy_resolves = true', "with `upstream_proxy` only"),
        ('upstream_proxy = "http://10.0.0.1:1"\nupstream_proxy_credential = "bearer"', "not `basic`"),
        ('grpc = true\nhttp2 = false', "gRPC is HTTP/2"),
        ('connector = "github"\nwebsocket = true', "needs `connector = \"http\"`"),
        ('stream_idle_timeout_seconds = 5', "with `grpc` or `websocket` only"),
        ('websockets = true', "did you mean `websocket`"),
    ]
    for number, (lines, told) in enumerate(cases):
        text = f'[[route]]\nname = "r"\nupstream = "https://api.example"\n{lines}\n'
        text += '[[credential]]\nname = "bearer"\n[[credential]]\nname = "key"\nkind = "client_key"\n'
        problems = check(tmp_path / f"case{number}", text)
        assert any(told in problem for problem in problems), (lines, problems)
        assert all(re.match(r"[1-5]: ", problem) for problem in problems), problems
    plain = '[[route]]\nname = "r"\nupstream = "http://a.example"\ndanger_plaintext_upstream = true\n'
    assert any("https://" in p for p in check(tmp_path / "plain", f'{plain}ca_file = "{authority.root}"\n'))


# Through a proxy.


def test_a_corporate_proxy_gets_vetted_addresses_only(tmp_path: Path, authority: Authority, secure: PacedOrigin) -> None:
    basic = "Basic " + base64.b64encode(b"aegis:proxy-pass").decode()
    with ConnectProxy(basic, names={"named.example": "127.0.0.1", "other.example": "127.0.0.1"}) as proxy, PacedOrigin() as plain:
        common = {"allow_internal": ["127.0.0.1/32"], "upstream_proxy": proxy.url}
        password = {"upstream_proxy_credential": "corporate"}
        trusted = {**common, **password, "ca_file": str(authority.root)}
        routes = [
            Route("secure", secure.url, **GENERIC, more=trusted),
            Route("secure-named", f"https://named.example:{secure.port}", **GENERIC, more={**trusted, "danger_proxy_resolves": True}),
            Route("misnamed", f"https://other.example:{secure.port}", **GENERIC, more={**trusted, "danger_proxy_resolves": True}),
            Route("plain", plain.url, **GENERIC, more={**common, **password}),
            Route("refused", plain.url, **GENERIC, more=common),
            Route("inside", "https://10.1.2.3", **GENERIC, more={**common, **password}),
            Route("named", f"http://named.example:{plain.port}", **GENERIC, more={**common, **password, "danger_proxy_resolves": True}),
            Route("unnamed", f"http://named.example:{plain.port}", **GENERIC, more={**common, **password}),
            Route("literal", "http://169.254.169.254", **GENERIC, more={**common, **password, "danger_proxy_resolves": True}),
        ]  # fmt: skip
        proxy_credential = Credential("proxy-pass", name="corporate", kind="basic", more={"username": "aegis"})
        with gateway(tmp_path / "gw", routes, [Credential(CANARY), proxy_credential]) as running:
            agent = running.enrol()
            for _ in range(3):
                for name in ("secure", "secure-named", "plain", "named"):
                    assert running.call(agent, "GET", "/a", name).status_code == 200, running.tail()
            # Whatever the proxy resolves to, the certificate must be for the name.
            for name in ("misnamed", "refused"):
                assert running.call(agent, "GET", "/a", name).status_code == 502, name
            for name in ("inside", "literal"):
                assert running.call(agent, "GET", "/a", name).headers["aegis-reason"] == "address_forbidden"
            assert running.call(agent, "GET", "/a", "unnamed").headers["aegis-reason"] == "upstream_unresolved"
        # One tunnel a route and agent, each to an address that was looked at here; by name where the route says so.
        at, by_name = "127.0.0.1", "named.example"
        assert sorted(proxy.targets()) == sorted(
            [f"{at}:{secure.port}", f"{at}:{plain.port}", f"{at}:{plain.port}"]
            + [f"{by_name}:{secure.port}", f"{by_name}:{plain.port}", f"other.example:{secure.port}"]
        )
        # What is for the upstream is seen by the upstream alone, and the other way round.
        assert all(CANARY not in head for head in proxy.heads)
        assert all(seen.headers["authorization"] == BEARER for seen in plain.seen)
        assert all("proxy-authorization" not in seen.headers for seen in [*plain.seen, *secure.seen])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["502", "early", "garbage", "closes"],
)
def test_a_proxy_that_misbehaves_gets_nothing(answer: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    with ConnectProxy() as proxy, PacedOrigin() as origin:
        proxy.refuse = answer
        more = {"allow_internal": ["127.0.0.1/32"], "upstream_proxy": proxy.url}
        folder = tmp_path_factory.mktemp("proxy")
        with gateway(folder, [Route("r", origin.url, **GENERIC, more=more)]) as running:
            told = running.call(running.enrol(), "GET", "/a", "r")
            assert told.status_code == 502 and told.content != b"hi"
            assert origin.connections == 0
            assert all(CANARY not in head for head in proxy.heads)
