"""TLS that the gateway ends: its own listener, whose certificates, and the root that clients trust."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from conftest import CANARY
from harness import environment, raw, receipts, tunnels
from harness.clients import curl
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
HOST = "api.github.test"
NAME = "gateway.internal"
TLS = f'[tls]\nlisten = "127.0.0.1:0"\nnames = ["{NAME}"]\n'


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    routes = [Route("github", one_origin.url, hosts=[HOST])]
    with Gateway(tmp_path_factory.mktemp("tls"), routes, [Credential(CANARY)], TLS) as running:
        yield running
        done = receipts.verify(running.receipts)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture()
def worker(door: Gateway) -> Agent:
    return door.enrol()


@pytest.fixture()
def tail(door: Gateway) -> receipts.Tail:
    following = receipts.Tail(door.receipts)
    following.new()
    return following


def port(gateway: Gateway) -> str:
    return gateway.tls.rpartition(":")[2]


def steered(gateway: Gateway, agent: Agent, *names: str) -> list[str]:
    """What a hosts file does, and the agent's token where the tool's own would be."""
    words = ["--cacert", str(gateway.ca), "-H", f"Authorization: Bearer {agent.token}"]
    for name in names:
        words += ["--connect-to", f"{name}:443:127.0.0.1:{port(gateway)}", "--resolve", f"{name}:{port(gateway)}:127.0.0.1"]
    return words


def eventually(check: Callable[[], bool], what: str, gateway: Gateway, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{gateway.tail()}"
        time.sleep(0.05)


def the_denial(tail: receipts.Tail) -> receipts.Leaf:
    denials = [leaf for leaf in tail.until(lambda leaves: any(each.is_denial for each in leaves)) if leaf.is_denial]
    assert len(denials) == 1, [leaf.body for leaf in denials]
    return denials[0]


# The listener.


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_steered_client_reaches_its_route_by_the_name_it_asked_for(
    version: str, door: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    origin.answer("GET", "/repos/octo/hello", {"url": f"{origin.url}/repos/octo/hello"})
    for base in (f"https://{HOST}", f"https://{HOST}:{port(door)}"):
        status, headers, body = curl(f"{base}/repos/octo/hello", *steered(door, worker, HOST), version, folder=tmp_path)
        assert (status, json.loads(body)["url"]) == (200, f"{base}/repos/octo/hello")
        leaf = door.leaf_of(headers["aegis-receipt"])
        assert (leaf["door"], leaf["route"]) == ("route", "github")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_base_urls_work_over_tls_under_the_gateways_own_name(
    version: str, door: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    origin.answer("GET", "/repos/octo/hello", {"url": f"{origin.url}/repos/octo/hello"})
    for host in (NAME, "127.0.0.1"):
        base = f"https://{host}:{port(door)}"
        words = [*steered(door, worker, NAME), version]
        status, _, body = curl(f"{base}/github/repos/octo/hello", *words, folder=tmp_path)
        assert (status, json.loads(body)["url"]) == (200, f"{base}/github/repos/octo/hello")
        status, _, _ = curl(f"{base}/v1/actions?q=merge", *words, folder=tmp_path)
        assert status == 200, "the API is there as well"


def test_python_s_strictest_checks_pass(door: Gateway) -> None:
    for name in (HOST, NAME, "127.0.0.1"):
        with tunnels.tls(tunnels.dial(door.tls), door.ca, name, "h2", "http/1.1") as inside:
            assert inside.selected_alpn_protocol() == "h2"
            certificate = inside.getpeercert()
        assert certificate
        kind = "IP Address" if name[0].isdigit() else "DNS"
        assert certificate["subjectAltName"] == ((kind, name),)
        life = ssl.cert_time_to_seconds(certificate["notAfter"]) - ssl.cert_time_to_seconds(certificate["notBefore"])
        assert life <= 7 * 86_400
        assert ssl.cert_time_to_seconds(certificate["notBefore"]) < time.time() - 3000


def test_no_other_name_gets_a_certificate(door: Gateway, tail: receipts.Tail) -> None:
    with pytest.raises(ssl.SSLError):
        tunnels.tls(tunnels.dial(door.tls), door.ca, "evil.example")
    leaf = the_denial(tail)
    assert (leaf["reason"], leaf["status"], leaf["door"]) == ("unknown_sni", 421, "route")


@pytest.mark.parametrize("sni, host", [(HOST, NAME), (NAME, HOST), (HOST, "other.test"), ("127.0.0.1", HOST), (HOST, f"{HOST}:1")])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_the_request_must_name_the_host_of_the_handshake(
    version: str, sni: str, host: str, door: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path, tail: receipts.Tail
) -> None:
    before = origin.mark()
    words = [*steered(door, worker, sni), version, "-H", f"Host: {host}"]
    status, headers, _ = curl(f"https://{sni}:{port(door)}/github/user", *words, folder=tmp_path)
    assert (status, headers["aegis-reason"]) == (421, "authority_mismatch")
    assert the_denial(tail)["reason"] == "authority_mismatch"
    assert origin.since(before) == (0, [])


def test_plain_http_on_the_listener_is_refused(door: Gateway, tail: receipts.Tail) -> None:
    answer = raw.exchange(door.tls, b"GET /github/user HTTP/1.1\r\nHost: x\r\n\r\n", seconds=5)
    assert answer.closed and answer.raw == b""
    assert the_denial(tail)["reason"] == "not_tls"


# Certificates of the operator's own.


class Issuer:
    """A certificate authority in a few lines, another implementation than the gateway's."""

    def __init__(self, name: str, above: Issuer | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above
        self.certificate = self._sign(name, self.key.public_key(), above or self, None)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A server's certificate and key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        return pem(self._sign(name, key.public_key(), self, name)), key_pem(key)

    def _sign(self, name: str, public: ec.EllipticCurvePublicKey, by: Issuer, host: str | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if by is self and host is None else by.certificate.subject
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        made = made.not_valid_after(now + datetime.timedelta(days=60))
        made = made.add_extension(x509.BasicConstraints(host is None, None), critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), critical=False)
        if host is None:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            made = made.add_extension(usage, critical=True)
        else:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return made.sign(by.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def test_the_gateways_name_may_have_a_certificate_of_the_operators(tmp_path: Path, origin: StrictOrigin) -> None:
    issuer, folder = Issuer("Corporate root"), tmp_path / "gw"
    extra = '[tls]\nlisten = "127.0.0.1:0"\ncertificate = "gw.crt"\nkey = "gw.key"\n'
    gateway = Gateway(folder, [Route("github", origin.url, hosts=[HOST])], [Credential(CANARY)], extra)
    certificate, key = issuer.issue("gw.corp.test")
    (folder / "gw.crt").write_bytes(certificate)
    private(folder / "gw.key", key)
    trusted = tmp_path / "corp.crt"
    trusted.write_bytes(pem(issuer.certificate))

    def serial() -> int:
        with tunnels.tls(tunnels.dial(gateway.tls), trusted, "gw.corp.test") as inside:
            return x509.load_der_x509_certificate(inside.getpeercert(True) or b"").serial_number

    with gateway:
        assert serial() == x509.load_pem_x509_certificate(certificate).serial_number
        # Steered clients still get one of ours.
        with tunnels.tls(tunnels.dial(gateway.tls), gateway.ca, HOST):
            pass
        renewed, key = issuer.issue("gw.corp.test")
        (folder / "gw.crt").write_bytes(renewed)
        private(folder / "gw.key", key)
        assert gateway.process
        os.kill(gateway.process.pid, signal.SIGHUP)
        wanted = x509.load_pem_x509_certificate(renewed).serial_number
        eventually(lambda: serial() == wanted, "the renewed certificate", gateway)
    (folder / "gw.key").chmod(0o644)
    with pytest.raises(RuntimeError, match="others can read it"):
        gateway.start()


def test_an_intermediate_of_the_operators_signs_what_clients_trust_already(
    tmp_path: Path, origin: StrictOrigin
) -> None:
    root = Issuer("Corporate root")
    middle, folder = Issuer("Corporate intermediate", root), tmp_path / "gw"
    extra = '[ca]\nintermediate_certificate = "middle.crt"\nintermediate_key = "middle.key"\n'
    gateway = Gateway(folder, [Route("github", origin.url, hosts=[HOST])], [Credential(CANARY)], extra)
    (folder / "middle.crt").write_bytes(pem(middle.certificate) + pem(root.certificate))
    private(folder / "middle.key", key_pem(middle.key))
    trusted = tmp_path / "root.crt"
    trusted.write_bytes(pem(root.certificate))
    with gateway:
        sock = tunnels.open_tunnel(gateway.listen, f"{HOST}:443", gateway.enrol().token)
        with tunnels.tls(sock, trusted, HOST):
            pass
        assert gateway.ca.read_bytes() == trusted.read_bytes()
        assert not (gateway.state / "ca" / "root.key.sealed").exists()
        refused = gateway.cli("ca", "rotate", ok=False)
        assert refused.returncode == 1 and "rotated where it is kept" in refused.stderr
    private(folder / "middle.key", key_pem(root.key))
    with pytest.raises(RuntimeError, match="not the key of the certificate"):
        gateway.start()


# The root.


def test_keys_are_for_their_owner_and_the_root_is_sealed(door: Gateway) -> None:
    folder = door.state / "ca"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"root.crt": 0o644, "root.key.sealed": 0o600, "intermediate.crt": 0o600, "intermediate.key": 0o600}
    sealed = (folder / "root.key.sealed").read_bytes()
    root = x509.load_pem_x509_certificate(door.ca.read_bytes())
    assert b"PRIVATE" not in sealed and root.public_bytes(serialization.Encoding.DER) not in sealed
    assert root.not_valid_after_utc - root.not_valid_before_utc > datetime.timedelta(days=3600)
    intermediate = x509.load_pem_x509_certificates((folder / "intermediate.crt").read_bytes())[0]
    limits = intermediate.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical and {str(each.value) for each in limits.value.permitted_subtrees or []} == {
        HOST, NAME, str(ipaddress.ip_network("127.0.0.1/32")),
    }  # fmt: skip


def test_anyone_may_ask_what_to_trust(door: Gateway, tail: receipts.Tail) -> None:
    answer = requests.get(f"http://{door.listen}/v1/ca", timeout=20)
    assert (answer.status_code, answer.content) == (200, door.ca.read_bytes())
    assert tail.new() == []
    shown = door.cli("ca", "show")
    assert shown.stdout.encode().strip() == door.ca.read_bytes().strip()
    for word in ("update-ca-certificates", "add-trusted-cert", "certutil", "keytool", "NODE_EXTRA_CA_CERTS", str(door.ca)):
        assert word in door.cli("ca", "install").stdout, word


def test_a_restart_makes_nothing_new(tmp_path: Path, origin: StrictOrigin) -> None:
    gateway = Gateway(tmp_path / "gw", [Route("github", origin.url, hosts=[HOST])], [Credential(CANARY)])
    with gateway:
        files = {path.name: path.read_bytes() for path in (gateway.state / "ca").iterdir()}
    gateway.start()
    gateway.stop()
    assert {path.name: path.read_bytes() for path in (gateway.state / "ca").iterdir()} == files
    kinds = [leaf["kind"] for leaf in gateway.leaves() if str(leaf["kind"]).startswith("ca_")]
    assert kinds == ["ca_created", "ca_intermediate_issued"]


def test_a_rotation_lets_clients_catch_up(tmp_path: Path, origin: StrictOrigin) -> None:
    with Gateway(tmp_path / "gw", [Route("github", origin.url, hosts=[HOST])], [Credential(CANARY)]) as gateway:
        agent, old, both = gateway.enrol(), tmp_path / "old.crt", tmp_path / "both.crt"
        old.write_bytes(gateway.ca.read_bytes())

        def trusted(ca: Path) -> bool:
            sock = tunnels.open_tunnel(gateway.listen, f"{HOST}:443", agent.token)
            try:
                with tunnels.tls(sock, ca, HOST):
                    return True
            except ssl.SSLCertVerificationError:
                return False

        early = gateway.cli("ca", "rotate", "--finish", ok=False)
        assert early.returncode == 1 and "no rotation is under way" in early.stderr
        said = json.loads(gateway.cli("ca", "rotate", "--json").stdout)
        assert len(said["roots"]) == 2 and said["rotates_at"]
        both.write_bytes(gateway.ca.read_bytes())
        assert both.read_bytes().startswith(old.read_bytes())
        assert (trusted(old), trusted(both)) == (True, True)
        again = gateway.cli("ca", "rotate", ok=False)
        assert again.returncode == 1 and "--finish" in again.stderr
        assert "a rotation is under way" in gateway.cli("doctor", "--offline", "--json").stdout

        # It outlives the process.
        gateway.stop()
        gateway.start()
        assert (trusted(old), gateway.ca.read_bytes()) == (True, both.read_bytes())

        gateway.cli("ca", "rotate", "--finish")
        assert (trusted(old), trusted(both), trusted(gateway.ca)) == (False, True, True)
        assert gateway.ca.read_bytes() not in (old.read_bytes(), both.read_bytes())
        kinds = [leaf["kind"] for leaf in gateway.leaves() if str(leaf["kind"]).startswith("ca_")]
        assert kinds == [
            "ca_created", "ca_intermediate_issued", "ca_rotation_started", "ca_rotation_finished", "ca_intermediate_issued",
        ]  # fmt: skip


def test_the_overlap_ends_by_itself(tmp_path: Path, origin: StrictOrigin) -> None:
    with Gateway(tmp_path / "gw", [Route("github", origin.url, hosts=[HOST])], [Credential(CANARY)]) as gateway:
        agent, old = gateway.enrol(), gateway.ca.read_bytes()
        gateway.cli("ca", "rotate", "--overlap", "1s")

        def switched() -> bool:
            tunnels.open_tunnel(gateway.listen, f"{HOST}:443", agent.token).close()
            return gateway.ca.read_bytes().count(b"BEGIN") == 1

        eventually(switched, "the new root signs", gateway)
        assert old not in gateway.ca.read_bytes()


def test_doctor_sees_a_key_that_others_can_read(door: Gateway) -> None:
    key = door.state / "ca" / "root.key.sealed"
    key.chmod(0o644)
    try:
        found = json.loads(door.cli("doctor", "--offline", "--json", ok=False).stdout)
    finally:
        key.chmod(0o600)
    [check] = [each for each in found["checks"] if each["check"] == "certificate authority"]
    assert (check["status"], f"chmod 600 {key}") == ("fail", check["fix"])


def test_curl_shows_the_announced_lines(door: Gateway) -> None:
    said = json.loads(door.stdout.read_text().splitlines()[0])
    assert (said["tls"], said["ca"]) == (door.tls, str(door.ca))


# Tunnels that are not looked into.


class Echo:
    """Answers every byte with itself, on loopback."""

    def __enter__(self) -> Echo:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(peer,), daemon=True).start()

    @staticmethod
    def _echo(peer: socket.socket) -> None:
        with peer:
            try:
                while piece := peer.recv(65536):
                    peer.sendall(piece)
            except OSError:
                pass


class Tunnels:
    """The section of routes.toml."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    def toml(self) -> str:
        return "\n".join(["[tunnel]", 'default_trust = "semi_trusted_customer"', *self.lines, ""])


@pytest.fixture(scope="module")
def opaque(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """Policies permit tunnels to two names of this machine."""
    settings = Tunnels('allow_internal = ["127.0.0.1/32"]', "idle_timeout_seconds = 3")
    routes = [Route("github", one_origin.url, hosts=[HOST]), settings]
    gateway = Gateway(tmp_path_factory.mktemp("opaque"), routes, [Credential(CANARY)])  # type: ignore[list-item]
    (gateway.folder / "policies" / "tunnels.cedar").write_text(
        '@id("tunnels")\npermit (principal, action == Action::"tunnel.connect", resource)\n'
        'when { resource in Tunnel::Host::"localhost" || resource in Tunnel::Host::"169.254.169.254" };\n'
    )
    with gateway:
        yield gateway
        done = receipts.verify(gateway.receipts)
        assert done.returncode == 0, done.stdout + done.stderr


def outcomes(leaves: list[receipts.Leaf]) -> list[receipts.Leaf]:
    return [leaf for leaf in leaves if leaf.kind == "outcome"]


def test_a_permitted_tunnel_is_opaque_and_its_sizes_are_on_record(opaque: Gateway) -> None:
    agent, tail = opaque.enrol(), receipts.Tail(opaque.receipts)
    tail.new()
    sent = os.urandom(300_000)
    with Echo() as echo, tunnels.open_tunnel(opaque.listen, f"localhost:{echo.port}", agent.token) as sock:
        threading.Thread(target=sock.sendall, args=(sent,), daemon=True).start()
        got = b""
        while len(got) < len(sent):
            got += sock.recv(65536)
        assert got == sent
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    leaves = tail.until(lambda found: bool(outcomes(found)))
    [intent] = [leaf for leaf in leaves if leaf.kind == "intent"]
    assert (intent["resource"], intent["decision"], intent["door"]) == (f"localhost:{echo.port}", "allow", "connect")
    [outcome] = outcomes(leaves)
    assert (outcome["state"], outcome["sent"]["bytes"], outcome["received"]["bytes"]) == ("completed", 300_000, 300_000)
    assert outcome["started_at"] <= outcome["ended_at"]


@pytest.mark.parametrize("transition", ["freeze", "revoke"])
def test_an_open_tunnel_is_closed_within_five_seconds(transition: str, opaque: Gateway) -> None:
    agent, tail = opaque.enrol(), receipts.Tail(opaque.receipts)
    tail.new()
    with Echo() as echo, tunnels.open_tunnel(opaque.listen, f"localhost:{echo.port}", agent.token) as sock:
        sock.settimeout(10)
        assert opaque.set_agent(agent, transition).ok
        started = time.monotonic()
        try:
            while time.monotonic() - started < 10:
                # It is not idle: that would end it as well.
                sock.sendall(b"x")
                if not sock.recv(1):
                    break
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert time.monotonic() - started < 5
    [outcome] = outcomes(tail.until(lambda found: bool(outcomes(found))))
    assert outcome["tamper"] == "agent_contained"


def test_an_idle_tunnel_is_closed(opaque: Gateway) -> None:
    agent, tail = opaque.enrol(), receipts.Tail(opaque.receipts)
    tail.new()
    with Echo() as echo, tunnels.open_tunnel(opaque.listen, f"localhost:{echo.port}", agent.token) as sock:
        sock.settimeout(15)
        assert sock.recv(1) == b""
    [outcome] = outcomes(tail.until(lambda found: bool(outcomes(found))))
    assert (outcome["state"], outcome["tamper"]) == ("completed", "idle")


@pytest.mark.parametrize("target, reason", [
    ("169.254.169.254:80", "address_forbidden"), ("localhost:{listen}", "address_forbidden"),
    ("localhost:{admin}", "address_forbidden"), ("localhost:1", "upstream_unavailable"),
])  # fmt: skip
def test_a_permitted_tunnel_leads_to_no_forbidden_address(target: str, reason: str, opaque: Gateway) -> None:
    agent = opaque.enrol()
    ports = {"listen": opaque.listen.rpartition(":")[2], "admin": opaque.admin.rpartition(":")[2]}
    answer = raw.exchange(opaque.listen, tunnels.connect_head(target.format(**ports), agent.token), quiet=5)
    assert (answer.status, answer.header("aegis-reason"), answer.closed) == (502, reason, True)


def test_a_routed_host_is_never_tunnelled_opaque(opaque: Gateway) -> None:
    """Permitted or not: at its own port it is looked into, at another it is refused."""
    agent = opaque.enrol()
    answer = raw.exchange(opaque.listen, tunnels.connect_head(f"{HOST}:22", agent.token), quiet=5)
    assert (answer.status, answer.header("aegis-reason")) == (403, "port_not_routed")


def test_a_stop_closes_tunnels_and_records_their_outcome(tmp_path: Path, origin: StrictOrigin) -> None:
    settings = Tunnels('allow_internal = ["127.0.0.1/32"]')
    gateway = Gateway(tmp_path / "gw", [Route("github", origin.url), settings], [Credential(CANARY)])  # type: ignore[list-item]
    (gateway.folder / "policies" / "t.cedar").write_text(
        '@id("t")\npermit (principal, action == Action::"tunnel.connect", resource);\n'
    )
    with gateway, Echo() as echo:
        sock = tunnels.open_tunnel(gateway.listen, f"localhost:{echo.port}", gateway.enrol().token)
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started < 8
        assert sock.recv(1) == b""
    [outcome] = outcomes(gateway.leaves())
    assert outcome["tamper"] == "gateway_stopped"
