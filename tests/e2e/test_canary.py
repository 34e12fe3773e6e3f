"""The real credential appears nowhere that an agent, a log, a metric, a file or a receipt can show."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from conftest import CANARY
from harness import canary, raw
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.faults import Fault
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

ECHOES = [
    {"where": where, "encoding": encoding, "chunks": chunks, "status": status}
    for where in ("header", "body", "both", "interim")
    for encoding in ("identity", "gzip", "deflate", "unknown")
    for chunks in (0, 1, 7, 40)
    for status in (200, 500)
    if (where, encoding) != ("header", "unknown") and (chunks in (0, 7) or encoding == "identity")
]


def exchange(
    gateway: Gateway, agent: Agent, path: str, more: str = "", method: str = "GET", body: str = ""
) -> raw.Answer:
    """Over a raw socket, so that nothing the gateway says is hidden by a client library."""
    head = f"{method} /github{path} HTTP/1.1\r\nHost: {gateway.listen}\r\nAuthorization: Bearer {agent.token}\r\n{more}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return raw.exchange(gateway.listen, f"{head}\r\n{body}".encode(), seconds=15)


@pytest.mark.parametrize("options", ECHOES, ids=lambda o: "-".join(str(value) for value in o.values()))
def test_an_echoed_credential_never_reaches_the_agent(
    options: dict, gateway: Gateway, agent: Agent, origin: StrictOrigin
) -> None:
    before = origin.mark()
    origin.fault(Fault("echo", options=options))
    answer = exchange(gateway, agent, "/user", "Accept-Encoding: gzip, deflate, br\r\n")
    assert origin.since(before)[1], "the origin must have been asked, or this shows nothing"
    assert answer.raw
    assert canary.find(answer.raw, [CANARY]) == []
    assert canary.find(answer.body, [CANARY]) == []


def test_the_rest_of_an_echo_still_arrives(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    """Masks have the length of what they hide, so a scrubbed answer is still the answer."""
    origin.fault(Fault("echo", options={"where": "body"}))
    answer = gateway.call(agent, "GET", "/user")
    assert answer.json()["message"] == "you sent"
    assert len(answer.json()["echo"][1]) == len(CANARY) or CANARY not in answer.text
    assert answer.json()["padding"] == "p" * 300


@pytest.mark.parametrize(
    "kind", ["reset", "close", "garbage", "reset_body", "long_length", "two_lengths", "both_framings", "huge_headers"]
)
def test_broken_upstreams_do_not_make_errors_talkative(
    kind: str, gateway: Gateway, agent: Agent, origin: StrictOrigin
) -> None:
    origin.fault(Fault(kind))
    answer = exchange(gateway, agent, "/user")
    assert canary.find(answer.raw, [CANARY]) == []
    assert answer.status in (0, 200, 502, 503, 504)


def test_redirects_and_cookies_carry_nothing(gateway: Gateway, agent: Agent, origin: StrictOrigin) -> None:
    origin.fault(Fault("redirect", options={"location": f"https://elsewhere.test/?token={CANARY}"}))
    assert canary.find(exchange(gateway, agent, "/user").raw, [CANARY]) == []


def test_nothing_is_left_anywhere(tmp_path: Path) -> None:
    """Everything the gateway does in one run, then every byte that it wrote or said."""
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as gateway:
            agent, heard = gateway.enrol(), b""
            for options in ({"where": "both"}, {"where": "both", "status": 500}, {"where": "both", "chunks": 7}):
                origin.fault(Fault("echo", times=1, options=options))
                heard += exchange(gateway, agent, "/user").raw
            heard += exchange(gateway, agent, "/repos/octo/hello/issues", method="POST", body='{"title":"a"}').raw
            heard += exchange(gateway, agent, "/repos/octo/hello", method="DELETE").raw
            heard += exchange(gateway, agent, "/nonsense%2e").raw
            for path in (
                "/metrics",
                "/health",
                "/ready",
                "/v1/credentials",
                "/v1/receipts",
                "/v1/decisions",
                "/v1/agents",
            ):
                heard += gateway.api("GET", path).content
            origin.rotate("Bearer rotated")
            heard += exchange(gateway, agent, "/user").raw
            origin.violations.clear()
            for words in (("doctor",), ("routes", "check"), ("credential", "list"), ("receipts", "tail")):
                done = gateway.cli(*words, ok=False)
                heard += (done.stdout + done.stderr).encode()
            assert origin.requests[0].one("authorization") == f"Bearer {CANARY}"
            assert canary.find(heard, [CANARY]) == []
            assert canary.scan_folder(gateway.folder, [CANARY]) == []
            assert canary.scan_folder(gateway.folder, [agent.token]) == []
        # Once more after the shutdown, when buffers are written out and the database is closed.
        assert canary.scan_folder(gateway.folder, [CANARY, agent.token]) == []


def test_the_scanner_finds_what_it_looks_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number, form in enumerate(canary.forms(CANARY).values()):
        (tmp_path / "a" / str(number)).write_bytes(b"x" + form + b"x")
    hit = {line.partition(":")[0] for line in canary.scan_folder(tmp_path, [CANARY])}
    assert len(hit) == len(canary.forms(CANARY))


def test_secrets_are_not_in_the_process_table_or_environment(gateway: Gateway) -> None:
    assert gateway.process
    for name in ("cmdline", "environ"):
        path = Path(f"/proc/{gateway.process.pid}/{name}")
        try:
            assert canary.find(path.read_bytes(), [CANARY, gateway.admin_token]) == []
        except PermissionError:
            pass  # non-dumpable, which is better still


def test_cores_are_off(gateway: Gateway) -> None:
    assert gateway.process
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"]


def test_state_files_are_the_owners_alone(gateway: Gateway) -> None:
    assert gateway.state.stat().st_mode & 0o077 == 0
    secret = [path for path in gateway.state.rglob("*") if path.suffix in (".token", ".key") or "vault" in path.name]
    assert secret and all(path.stat().st_mode & 0o077 == 0 for path in secret if path.is_file())
    assert requests.get(f"http://{gateway.listen}/github/user", timeout=5).status_code == 401
