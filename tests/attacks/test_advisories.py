"""Advisories that are no single request: what must be true of several, or of what is written down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.target import HOST, OTHER, Target, attacked
from conftest import CANARY
from harness import canary, environment, raw

pytestmark = pytest.mark.binary


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("advisories")) as running:
        yield running
        assert running.origin.violations == []


def get(target: Target, host: str, path: str, more: str = "") -> raw.Answer:
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {target.values['host']['t']}\r\n{more}\r\n"
    return raw.exchange(target.gateway.listen, head.encode())


def test_cve_2026_2836_one_host_is_never_answered_for_another(target: Target) -> None:
    """Pingora's default cache key was the path alone. Here nothing is kept: each host asks its own upstream."""
    target.origin.answer("GET", "/user", lambda _: {"number": len(target.origin.requests)})
    before = target.origin.mark()
    bodies = [get(target, host, "/user").body for host in (HOST, OTHER, HOST, OTHER)]
    assert len(set(bodies)) == 4 and len(target.origin.since(before)[1]) == 4


@pytest.mark.parametrize("named", ["x-note", "accept", "X-Github-Api-Version", "user-agent"])
def test_cve_2026_105299_nominated_headers_stay_behind(target: Target, named: str) -> None:
    """Pingora 0.8 passed on what `Connection` names; a header of this hop is not the next one's."""
    before = target.origin.mark()
    answer = get(target, HOST, "/user", f"Connection: keep-alive, {named}\r\n{named}: smuggled\r\n")
    assert answer.status == 200
    [seen] = target.origin.since(before)[1]
    assert b"smuggled" not in seen.raw


def test_cve_2026_105299_a_nominated_credential_is_still_the_credential(target: Target) -> None:
    """Nominating `Authorization` neither hides the agent's token from us nor the real one from the upstream."""
    before = target.origin.mark()
    assert get(target, HOST, "/user", "Connection: close, authorization\r\n").status in (200, 400)
    for seen in target.origin.since(before)[1]:
        assert seen.one("authorization") == f"Bearer {CANARY}"


def test_cve_2023_30610_the_most_talkative_log_holds_no_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aws-sigv4 wrote the keys it signed with to the log at the level TRACE."""
    quiet = environment.clean
    monkeypatch.setattr(environment, "clean", lambda extra=None: {**quiet(extra), "AEGIS_LOG": "trace"})
    with attacked(tmp_path / "talkative") as target:
        for ingress in ("host", "path"):
            assert get(target, target.values[ingress]["h"], f"{target.values[ingress]['p']}/user").status == 200
        assert get(target, HOST, "/user", "X-Api-Key: a\r\n").status == 400
        log = target.gateway.stderr.read_bytes()
        secrets = [CANARY, target.values["host"]["t"], target.gateway.admin_token]
    assert len(log) > 10_000, "the log is not talkative at all"
    assert canary.find(log, secrets) == []
