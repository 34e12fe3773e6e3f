"""The verifiers of the SDKs say what the Rust program says, of real logs, whole and tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sdks
from conftest import CANARY
from harness import receipts
from harness.gateway import Credential, Gateway, Route
from tampering import BUNDLES, DIRECTORIES, FILES, Log
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary
ISSUE = {
    "tool": "github", "action": "create_issue", "resource": "octo/hello", "mutates_state": True,
    "parameters": {"title": "exported, é and \u2028"},
}  # fmt: skip


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, one_origin: StrictOrigin) -> Iterator[tuple[Path, str]]:
    """A log with leaves of each kind, one restart and one kill in it, and an exported bundle."""
    folder = tmp_path_factory.mktemp("logged")
    with Gateway(folder, [Route("github", one_origin.url)], [Credential(CANARY)]) as gateway:
        agent = gateway.enrol()
        record = gateway.authorize(agent, ISSUE).json()
        outcome = f"/v1/decisions/{record['decision_id']}/outcome"
        assert gateway.api("POST", outcome, {"status": "completed"}, agent.token, admin=False).status_code == 204
        for _ in range(3):
            gateway.call(agent, "GET", "/user")
            gateway.call(agent, "POST", "/repos/octo/hello/issues", json={"title": "a"})
            gateway.call(agent, "DELETE", "/repos/octo/hello")
            gateway.call(agent, "GET", "/repos/octo/%2e%2e")
        gateway.authorize(agent, ISSUE, dry_run=True)
        gateway.call(agent, "GET", "/user", headers={"Authorization": "Bearer aegis_agt_wrong"})
        gateway.kill()
        gateway.start()
        gateway.authorize(agent, ISSUE)
        gateway.set_agent(agent, "freeze")
        bundle = gateway.cli("receipts", "export", record["receipt"]["receipt_id"]).stdout
    one_origin.violations.clear()
    yield gateway.receipts, bundle


@pytest.fixture(scope="module")
def drivers() -> Iterator[dict[str, sdks.Driver]]:
    made = {name: sdks.Driver(name) for name in sdks.names()}
    yield made
    for driver in made.values():
        driver.stop()


def compare(driver: sdks.Driver, path: Path, wanted_exit: tuple[int, ...] = (0, 1, 2)) -> None:
    done = receipts.verify(path, "--json")
    assert done.returncode in wanted_exit, done.stdout
    told = driver.ask({"op": "verify", "id": "v", "path": str(path)})
    assert (told["exit"], comparable(told["verdict"])) == (done.returncode, comparable(json.loads(done.stdout)))


def comparable(verdict: dict[str, Any]) -> dict[str, Any]:
    """All of it, but for the words of a parser or of the system: each language has its own."""
    why = verdict.get("why", "")
    for words in ("not valid JSON", "not a bundle", "cannot read"):
        if why.startswith(words):
            return {**verdict, "why": words}
    return verdict


@pytest.mark.parametrize("way", DIRECTORIES)
@pytest.mark.parametrize("sdk", sdks.names())
def test_a_log(sdk: str, way: str, logged: tuple[Path, str], drivers: dict[str, sdks.Driver], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(logged[0], tmp_path / "receipts"))
    DIRECTORIES[way](Log(folder))
    compare(drivers[sdk], folder, (0,) if way == "intact" else (0, 1, 2))


@pytest.mark.parametrize("way", BUNDLES)
@pytest.mark.parametrize("sdk", sdks.names())
def test_a_bundle(
    sdk: str, way: str, logged: tuple[Path, str], drivers: dict[str, sdks.Driver], tmp_path: Path
) -> None:
    bundle = json.loads(logged[1])
    BUNDLES[way](bundle)
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(bundle))
    compare(drivers[sdk], path, (0,) if way == "intact" else (0, 1, 2))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("sdk", sdks.names())
def test_a_file(sdk: str, name: str, drivers: dict[str, sdks.Driver], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[name])
    compare(drivers[sdk], path)


@pytest.mark.parametrize("sdk", sdks.names())
def test_no_file(sdk: str, drivers: dict[str, sdks.Driver], tmp_path: Path) -> None:
    compare(drivers[sdk], tmp_path / "nowhere", (2,))
    compare(drivers[sdk], tmp_path, (2,))


def test_the_ways_of_tampering_are_told_apart(logged: tuple[Path, str], tmp_path: Path) -> None:
    """If most of them came to the same, a verifier could be right by saying it always."""
    ends: dict[str, int] = {}
    for number, (way, change) in enumerate(DIRECTORIES.items()):
        folder = Path(shutil.copytree(logged[0], tmp_path / str(number)))
        change(Log(folder))
        ends[way] = receipts.verify(folder).returncode
    assert sum(code == 1 for code in ends.values()) >= 30, ends
    assert sum(code == 0 for code in ends.values()) >= 8, ends
    assert sum(code == 2 for code in ends.values()) >= 4, ends
