"""Routes and policies change while it runs: a good file swaps everything, a bad one changes nothing and says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import CANARY
from harness.gateway import Agent, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary


@pytest.fixture()
def own(tmp_path: Path, origin: StrictOrigin) -> Iterator[Gateway]:
    with Gateway(tmp_path / "gw", [Route("github", origin.url)], [Credential(CANARY)]) as running:
        yield running


def eventually(check: Callable[[], bool], what: str, gateway: Gateway, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{gateway.tail()}"
        time.sleep(0.05)


def status(gateway: Gateway, agent: Agent, route: str = "github") -> int:
    return gateway.call(agent, "GET", "/user", route=route).status_code


def test_a_new_route_is_served_and_an_old_one_ends(own: Gateway, origin: StrictOrigin) -> None:
    agent = own.enrol()
    own.write_routes([Route("code", origin.url)])
    eventually(lambda: status(own, agent, "code") == 200, "the new route", own)
    assert status(own, agent) == 404


def test_a_bad_file_keeps_the_old_and_names_every_error_with_its_line(own: Gateway, origin: StrictOrigin) -> None:
    agent, offset = own.enrol(), own.stderr.stat().st_size
    bad = Route("broken", "ftp://x", more={"colour": "red"})
    own.write_routes([Route("code", origin.url), bad])
    text = own.wait_log("colour", offset)
    lines = (own.folder / "routes.toml").read_text().splitlines()
    for needle in ("colour", "ftp://"):
        number = next(n for n, line in enumerate(lines, start=1) if needle in line)
        assert f"routes.toml:{number}" in text, text
    assert status(own, agent) == 200
    assert status(own, agent, "code") == 404
    assert own.api("POST", "/v1/reload").status_code in (400, 409, 422)

    own.write_routes([Route("github", origin.url), Route("code", origin.url)])
    eventually(lambda: status(own, agent, "code") == 200, "the repaired file", own)


def test_policies_swap_too(own: Gateway) -> None:
    agent = own.enrol()
    assert status(own, agent) == 200
    extra = own.folder / "policies" / "extra.cedar"
    extra.write_text('@id("no-users")\nforbid (principal, action == Action::"github.get_me", resource);\n')
    eventually(lambda: status(own, agent) == 403, "the new policy", own)
    answer = own.call(agent, "GET", "/user")
    assert own.leaf_of(answer.headers["aegis-receipt"])["policies"] == ["no-users"]
    extra.unlink()
    eventually(lambda: status(own, agent) == 200, "the policy gone", own)


def test_a_bad_policy_changes_nothing(own: Gateway) -> None:
    agent, offset = own.enrol(), own.stderr.stat().st_size
    extra = own.folder / "policies" / "extra.cedar"
    extra.write_text('@id("typo")\nforbid (principal, action == Action::"github.delete_repositry", resource);\n')
    text = own.wait_log("extra.cedar", offset)
    assert "delete_repository" in text, "a slip gets a suggestion"
    assert status(own, agent) == 200


def test_sighup_reloads_at_once(own: Gateway, origin: StrictOrigin) -> None:
    agent = own.enrol()
    own.write_routes([Route("github", origin.url), Route("code", origin.url)])
    assert own.process
    os.kill(own.process.pid, signal.SIGHUP)
    eventually(lambda: status(own, agent, "code") == 200, "SIGHUP", own, 5)


def test_every_swap_is_a_leaf_and_every_leaf_names_its_snapshot(own: Gateway, origin: StrictOrigin) -> None:
    agent = own.enrol()
    first = own.leaf_of(own.call(agent, "GET", "/user").headers["aegis-receipt"])
    own.write_routes([Route("github", origin.url), Route("code", origin.url)])
    eventually(lambda: status(own, agent, "code") == 200, "the new route", own)
    second = own.leaf_of(own.call(agent, "GET", "/user").headers["aegis-receipt"])
    assert first["snapshot"] != second["snapshot"]
    between = [leaf for leaf in own.leaves() if first["seq"] < leaf["seq"] < second["seq"] and leaf.kind == "event"]
    assert any(second["snapshot"] in str(leaf.body) for leaf in between)


def test_a_bad_file_at_the_start_is_refused(own: Gateway) -> None:
    own.stop()
    (own.folder / "routes.toml").write_text('[[route]]\nname = "x"\nconector = "github"\n')
    done = own.cli("serve", "--json", ok=False)
    assert done.returncode not in (0, 101)
    assert "routes.toml:3" in done.stderr and "connector" in done.stderr, done.stderr
