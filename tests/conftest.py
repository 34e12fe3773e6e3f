"""Fixtures that more than one folder uses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import environment
from harness.gateway import Agent, Approver, Credential, Gateway, Route
from upstreams.github import GitHub
from upstreams.strict_origin import StrictOrigin

environment.clean_this_process()

CANARY = "ghp_canary7Qx2LmZ9vT4kW8sYbR3nDf6HjC1pA"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing built yet: the tests that need no gateway still run. A named binary must exist."""
    if environment.aegis().is_file() or "AEGIS_BIN" in os.environ:
        return
    for item in items:
        if "binary" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"{environment.aegis()} is not built"))


def pytest_report_header() -> str:
    return f"aegis: {environment.aegis()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each SDK, as `cargo xtask test` prints it at its end."""
    counts: dict[str, dict[str, int]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for sdk in ("python", "typescript", "go", "rust"):
                if re.search(rf"sdk.*\[{sdk}(-|\])|sdk.*-{sdk}\]", report.nodeid):
                    counts.setdefault(sdk, {}).setdefault(outcome, 0)
                    counts[sdk][outcome] += 1
    for sdk, by_outcome in counts.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in by_outcome.items())
        terminalreporter.write_line(f"sdk {sdk}: {told}")


@pytest.fixture(scope="session")
def cache() -> Path:
    return environment.cache_folder()


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[GitHub]:
    """The emulator behind the strict origin. At the end, nothing but clean requests may have arrived."""
    with GitHub(tmp_path_factory.mktemp("github"), cache, environment.clean()) as running:
        yield running
        assert running.origin.violations == []


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, github: GitHub) -> Iterator[Gateway]:
    """A gateway in front of `github`."""
    routes = [Route("github", github.url, hosts=["api.github.test"])]
    with Gateway(tmp_path_factory.mktemp("hub"), routes, [Credential(github.token)]) as running:
        yield running


@pytest.fixture(scope="module")
def one_origin() -> Iterator[StrictOrigin]:
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as running:
        yield running


@pytest.fixture()
def origin(one_origin: StrictOrigin) -> Iterator[StrictOrigin]:
    """A strict origin that answers everything. Only clean requests may reach it; faults end with the test."""
    one_origin.violations.clear()
    yield one_origin
    one_origin.clear()
    assert one_origin.violations == []


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[Gateway]:
    """A gateway in front of `origin`: path, host and own-port routes, and a generic one."""
    with Gateway(tmp_path_factory.mktemp("gateway"), all_routes(one_origin), [Credential(CANARY)]) as running:
        yield running


def all_routes(origin: StrictOrigin) -> list[Route]:
    return [
        Route("github", origin.url),
        Route("github-host", origin.url, hosts=["api.github.test"]),
        Route("github-port", origin.url, listen="127.0.0.1:0"),
        Route("web", origin.url, connector="http"),
    ]


@pytest.fixture()
def agent(gateway: Gateway) -> Agent:
    return gateway.enrol()


@pytest.fixture(scope="module")
def approver(gateway: Gateway) -> Approver:
    return gateway.approver()
