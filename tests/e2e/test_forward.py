"""The forward proxy: clients that know nothing but HTTPS_PROXY and a certificate to trust."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import github as pygithub
import pytest
import requests

from conftest import CANARY
from harness import environment, raw, receipts, tunnels
from harness.clients import curl, denial_of
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.github import GitHub
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
HOST = "api.github.test"
ISSUES = "/repos/octo/hello/issues"


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """One route under a name of its own, which challenges inside; the others as they come."""
    routes = [
        Route("github", one_origin.url, hosts=[HOST]),
        Route("inner", one_origin.url, hosts=["inner.test"], more={"proxy_auth": "inner"}),
        Route("secure", "https://secure.test", connector="http", credential=None),
    ]
    with Gateway(tmp_path_factory.mktemp("forward"), routes, [Credential(CANARY)]) as running:
        yield running
        done = receipts.verify(running.receipts)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture()
def worker(forward: Gateway) -> Agent:
    return forward.enrol()


def through(gateway: Gateway, agent: Agent | None) -> list[str]:
    """curl's own words for what HTTPS_PROXY and CURL_CA_BUNDLE say."""
    return ["--noproxy", "", "--proxy", gateway.proxy(agent), "--cacert", str(gateway.ca)]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_reaches_a_routed_host_without_holding_anything_else(
    version: str, forward: Gateway, worker: Agent, origin: StrictOrigin, tmp_path: Path
) -> None:
    before = origin.mark()
    words = [*through(forward, worker), version, "-w", "%{http_version}"]
    status, headers, body = curl(f"https://{HOST}{ISSUES}", *words, folder=tmp_path)
    assert (status, json.loads(body)["path"]) == (200, ISSUES)
    [request] = origin.since(before)[1]
    assert request.one("authorization") == f"Bearer {CANARY}"
    leaf = forward.leaf_of(headers["aegis-receipt"])
    assert (leaf["door"], leaf["route"], leaf["agent_id"]) == ("connect", "github", worker.agent_id)
