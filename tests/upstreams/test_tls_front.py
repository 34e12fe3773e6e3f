"""The TLS front must refuse what it says it refuses and change no byte of what it lets in."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin
from upstreams.tls_front import Authority, Issued, TlsFront

BEARER = "Bearer ghp_0123456789abcdefghijklmnopqrstuvwxyzA"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture()
def origin() -> Iterator[StrictOrigin]:
    with StrictOrigin(("authorization", BEARER)) as running:
        yield running


def get(front: TlsFront, authority: Authority, path: str = "/x", cert: Issued | None = None) -> requests.Response:
    headers = {"Authorization": BEARER, "Connection": "keep-alive"}
    client = cert and (str(cert.chain), str(cert.key))
    return requests.get(front.url + path, headers=headers, verify=str(authority.certificate), cert=client, timeout=5)


def test_requests_pass_unchanged_and_are_counted(authority: Authority, origin: StrictOrigin) -> None:
    with TlsFront(origin.port, authority.issue("localhost", "127.0.0.1")) as front:
        origin.hosts = {f"localhost:{front.port}"}
        assert get(front, authority).json()["path"] == "/x"
        assert [h.server_name for h in front.handshakes] == ["localhost"]
        assert origin.violations == [] and origin.requests[0].one("host") == f"localhost:{front.port}"


def test_alpn_is_what_was_asked_for(authority: Authority, origin: StrictOrigin) -> None:
    with TlsFront(origin.port, authority.issue("localhost"), alpn=("h2", "http/1.1")) as front:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.set_alpn_protocols(["http/1.1", "h2"])
        with socket.create_connection(("127.0.0.1", front.port), timeout=5) as sock:
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                assert tls.selected_alpn_protocol() == "h2"
        assert front.hellos == ["localhost"]


def test_a_reset_behind_it_is_an_error_in_front(authority: Authority, origin: StrictOrigin) -> None:
    origin.fault(Fault("reset"))
    with TlsFront(origin.port, authority.issue("localhost")) as front:
        origin.hosts = {f"localhost:{front.port}"}
        with pytest.raises(requests.ConnectionError):
            get(front, authority)


EXPIRED = (-3 * datetime.timedelta(days=1), -datetime.timedelta(days=1))


def test_wrong_certificates_are_wrong(authority: Authority, origin: StrictOrigin, tmp_path: Path) -> None:
    stranger = Authority(tmp_path)
    for wrong in (
        authority.issue("elsewhere.test"), authority.issue("localhost", valid=EXPIRED), stranger.issue("localhost"),
    ):  # fmt: skip
        with TlsFront(origin.port, wrong) as front:
            front.name = "localhost"
            with pytest.raises(requests.exceptions.SSLError):
                get(front, authority)
            assert front.hellos == ["localhost"]
    assert origin.bytes_seen == 0


def test_client_certificates_are_insisted_on(authority: Authority, origin: StrictOrigin, tmp_path: Path) -> None:
    stranger = Authority(tmp_path)
    with TlsFront(origin.port, authority.issue("localhost"), clients=authority) as front:
        origin.hosts = {f"localhost:{front.port}"}
        assert get(front, authority, cert=authority.issue("gateway", client=True)).ok
        assert front.handshakes[0].client == "gateway"
        for wrong in (None, stranger.issue("gateway", client=True)):
            with pytest.raises(requests.ConnectionError):
                get(front, authority, cert=wrong)
        assert len(front.handshakes) == 1
