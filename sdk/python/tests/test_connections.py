"""Connections, time-outs, resends, settings and TLS."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from fake import TOKEN, Gateway, problem, slow

from aegisagent import (
    AegisClient,
    AegisError,
    AsyncAegisClient,
    ConfigurationError,
    GatewayTimeoutError,
    GatewayUnavailableError,
    RateLimitedError,
    TlsError,
    protect_tool,
)


def refund_of(client: AegisClient) -> Any:
    @protect_tool(client=client, tool="shop", action="refund")
    def refund(amount: int) -> int:
        return amount

    return refund


def arefund_of(client: AegisClient) -> Any:
    @protect_tool(client=client, tool="shop", action="refund")
    async def refund(amount: int) -> int:
        return amount

    return lambda amount: asyncio.run(refund(amount))


@pytest.fixture(params=[refund_of, arefund_of])
def refund(request: pytest.FixtureRequest, client: AegisClient) -> Any:
    return request.param(client)


def test_one_connection_is_enough(gateway: Gateway, client: AegisClient) -> None:
    for _ in range(3):
        refund_of(client)(5)
    assert gateway.connections == 1


def test_an_async_program_needs_one_too(gateway: Gateway) -> None:
    async def main() -> None:
        async with AsyncAegisClient(gateway.url, TOKEN) as client:

            @protect_tool(client=client, tool="shop", action="refund")
            async def refund(amount: int) -> int:
                return amount

            assert [await refund(n) for n in range(3)] == [0, 1, 2]

    asyncio.run(main())
    assert gateway.connections == 1


@pytest.mark.parametrize("lost", [None, problem(502, "bad_gateway"), problem(503, "x"), problem(504, "x")])
def test_a_question_is_sent_again_byte_for_byte(lost: Any, refund: Any, gateway: Gateway) -> None:
    gateway.script["authorize"] = [lost, lost]
    assert refund(5) == 5
    assert gateway.steps == ["catalog", "authorize", "authorize", "authorize", "outcome"]
    assert len({raw for raw in gateway.raw if b"tool_call" in raw}) == 1


def test_three_times_is_the_end(refund: Any, gateway: Gateway) -> None:
    gateway.script["authorize"] = [None] * 4
    with pytest.raises(GatewayUnavailableError):
        refund(5)
    assert gateway.steps.count("authorize") == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 500, 302])
def test_what_is_not_sent_again(status: int, refund: Any, gateway: Gateway) -> None:
    gateway.script["authorize"] = [problem(status, "some_reason")]
    with pytest.raises(AegisError) as refused:
        refund(5)
    assert (refused.value.status, gateway.steps.count("authorize")) == (status, 1)


def test_retry_after_is_kept_to(refund: Any, gateway: Gateway) -> None:
    status, body = problem(429, "slow_down")
    gateway.script["authorize"] = [(status, {**body, "headers": {"Retry-After": "1"}})]
    started = time.monotonic()
    assert refund(5) == 5
    assert time.monotonic() - started >= 1
    gateway.script["authorize"] = [(status, {**body, "headers": {"Retry-After": "60"}})]
    with pytest.raises(RateLimitedError):
        refund(5)


def test_a_silent_gateway_is_asked_again_and_given_up(gateway: Gateway) -> None:
    with AegisClient(gateway.url, TOKEN, timeout=2) as client:
        for make in (refund_of, arefund_of):
            refund = make(client)
            gateway.script["authorize"] = [slow(4, None), "default"]
            assert refund(5) == 5
            gateway.script["authorize"] = [slow(4, None)] * 3
            started = time.monotonic()
            with pytest.raises(GatewayTimeoutError):
                refund(5)
            assert time.monotonic() - started < 3


@pytest.mark.parametrize("make", [refund_of, arefund_of])
def test_an_answer_that_drips_is_no_answer_in_time(make: Any) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        while True:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65_536)
                    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Long: " + b"x" * 500:
                        connection.send(bytes((byte,)))
                        time.sleep(0.05)
            except OSError:
                return

    threading.Thread(target=drip, daemon=True).start()
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    started = time.monotonic()
    with AegisClient(url, TOKEN, timeout=0.5) as client, pytest.raises(AegisError) as refused:
        make(client)(5)
    assert refused.value.code == "gateway_timeout"
    assert time.monotonic() - started < 3
    server.close()


def test_a_forked_child_opens_connections_of_its_own(gateway: Gateway, client: AegisClient) -> None:
    refund = refund_of(client)
    refund(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if refund(2) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert refund(3) == 3
    assert gateway.connections == 2


def test_the_token_is_shown_nowhere(gateway: Gateway, client: AegisClient, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    gateway.script["authorize"] = [problem(403, "agent_frozen", detail=f"no {TOKEN}")]
    with pytest.raises(AegisError) as refused:
        refund_of(client)(5)
    assert refused.value.message == "no ***"
    refund_of(client)(5)
    assert TOKEN not in caplog.text + repr(client) + repr(vars(client)) + repr(refused.value)


@pytest.mark.parametrize(
    "url, token",
    [
        ("", TOKEN),
        ("http://192.0.2.1:8080", TOKEN),
        ("http://127.0.0.1.example.test", TOKEN),
        ("http://127.0.0.1@192.0.2.1", TOKEN),
        ("https://user:secret@example.test", TOKEN),
        ("https://example.test/?a=b", TOKEN),
        ("https://example.test/#x", TOKEN),
        ("ftp://127.0.0.1", TOKEN),
        ("https://", TOKEN),
        ("https://exa mple.test", TOKEN),
        ("http://127.0.0.1:port", TOKEN),
        ("https://example.test", ""),
        ("https://example.test", "a\r\nb"),
        ("https://example.test", "aegis_agt_é"),
    ],
)
def test_settings_that_do_not_hold(url: str, token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AegisClient(url, token)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1/", "http://localhost", "https://a.test/base/"])
def test_settings_that_hold(url: str) -> None:
    AegisClient(url, TOKEN).close()
    AegisClient("http://192.0.2.1:1", TOKEN, danger_plaintext=True).close()


def test_the_environment_stands_in(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_GATEWAY_URL", gateway.url + "/")
    monkeypatch.setenv("AEGIS_AGENT_TOKEN", TOKEN)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert refund_of(AegisClient())(5) == 5
    monkeypatch.setenv("AEGIS_CA_FILE", "/nonexistent/ca.pem")
    assert refund_of(AegisClient())(5) == 5
    monkeypatch.setenv("AEGIS_GATEWAY_URL", "https://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="CA file"):
        AegisClient()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for make in (refund_of, arefund_of):
        with AegisClient(f"http://127.0.0.1:{port}", TOKEN, timeout=1) as client, pytest.raises(AegisError) as refused:
            make(client)(5)
        assert refused.value.code == "gateway_unavailable"


@pytest.mark.parametrize("make", [refund_of, arefund_of])
def test_certificates_are_verified(make: Any, gateway: Gateway, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    gateway.server.socket = context.wrap_socket(gateway.server.socket, server_side=True)
    url = gateway.url.replace("http://", "https://")
    roots = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(roots))
    with AegisClient(url, TOKEN, ca_file=str(roots)) as client:
        assert make(client)(5) == 5
    with AegisClient(url, TOKEN) as client, pytest.raises(TlsError):
        make(client)(5)
    by_name = url.replace("127.0.0.1", "localhost")
    with AegisClient(by_name, TOKEN, ca_file=str(roots)) as client, pytest.raises(TlsError):
        make(client)(5)
