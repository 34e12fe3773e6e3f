"""What the environment may say to an SDK, and what it may not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

import sdks
from casefile import CALL, TOKEN, Case
from played import stage
from verdicts import faults


def play(sdk: str, case: Case, env: dict[str, str]) -> Any:
    driver = sdks.Driver(sdk, {**sdks.surroundings(), **env})
    try:
        played = stage().play_with(driver, case, sdk, "plain")
        assert TOKEN[14:30] not in driver.said()
        return played
    finally:
        driver.stop()


@pytest.fixture()
def open_port() -> Iterator[int]:
    gateway = stage().gateway
    port = gateway.order(op="open", token=TOKEN, script={}, tls=None)["port"]
    yield port
    gateway.order(op="close", port=port)


@pytest.mark.parametrize("sdk", sdks.names())
def test_what_is_not_given_comes_from_the_environment(sdk: str, open_port: int) -> None:
    env = {"AEGIS_GATEWAY_URL": f"http://127.0.0.1:{open_port}", "AEGIS_AGENT_TOKEN": TOKEN}
    driver = sdks.Driver(sdk, {**sdks.surroundings(), **env})
    call = {**copy.deepcopy(CALL), "op": "call", "id": "env", "mode": "plain", "gateway_url": None, "agent_token": None}
    answer = driver.ask(call)
    driver.stop()
    assert (answer["error"], answer["ran"]) == (None, 1)


@pytest.mark.parametrize("missing", ["AEGIS_GATEWAY_URL", "AEGIS_AGENT_TOKEN"])
@pytest.mark.parametrize("sdk", sdks.names())
def test_what_is_nowhere_given_is_an_error(sdk: str, missing: str, open_port: int) -> None:
    env = {"AEGIS_GATEWAY_URL": f"http://127.0.0.1:{open_port}", "AEGIS_AGENT_TOKEN": TOKEN}
    del env[missing]
    driver = sdks.Driver(sdk, {**sdks.surroundings(), **env})
    call = {**copy.deepcopy(CALL), "op": "call", "id": "env", "mode": "plain", "gateway_url": None, "agent_token": None}
    answer = driver.ask(call)
    driver.stop()
    assert answer["error"]["code"] == "configuration" and answer["ran"] == 0
    assert missing in answer["error"]["message"], answer["error"]["message"]


@pytest.mark.parametrize("listen", ["tls_expired", "tls_wrong_name", "tls_self_signed", "tls_other_root"])
@pytest.mark.parametrize("sdk", sdks.names())
def test_no_variable_turns_the_verification_off(sdk: str, listen: str) -> None:
    off = {
        "NODE_TLS_REJECT_UNAUTHORIZED": "0", "PYTHONHTTPSVERIFY": "0", "GODEBUG": "x509ignoreCN=0,tlsmaxrsasize=1",
        "GIT_SSL_NO_VERIFY": "1", "CURL_INSECURE": "1",
    }  # fmt: skip
    case = Case(
        f"{listen} with the verification turned off",
        listen=listen,
        code="tls_error",
        asked=[],
        call={"ca_file": "good"},
    )
    assert faults(play(sdk, case, off)) == []


@pytest.mark.parametrize("sdk", sdks.names())
def test_the_roots_of_the_environment_are_added(sdk: str) -> None:
    case = Case("a root that the environment names", listen="tls", call={})
    played = play(sdk, case, {"AEGIS_CA_FILE": str(stage().certificates.ca("good"))})
    assert faults(played) == []
