"""Unit files and the container file: held against the tools that will read them, and against what they promise."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import environment

DEPLOY = environment.ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
# What the gateway needs, or what cannot be had with it: systemd's own list has 80 questions.
EXPOSURE = 20
ANALYZE = shutil.which("systemd-analyze")


class Unit(configparser.RawConfigParser):
    """Names in units have their case, and may come several times."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, comment_prefixes=("#",), delimiters=("=",))
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read_string((DEPLOY / name).read_text())


@pytest.fixture()
def units(tmp_path: Path) -> Path:
    """The units, with a program at the place that they name."""
    for path in [*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")]:
        text = path.read_text().replace("/usr/local/bin/aegis", "/bin/true")
        (tmp_path / path.name).write_text(text)
    return tmp_path


@pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
def test_systemd_reads_every_unit_without_a_word(units: Path) -> None:
    files = sorted(units.iterdir())
    assert len(files) == 4
    done = subprocess.run([str(ANALYZE), "verify", *files], capture_output=True, text=True, timeout=60)
    about_ours = [line for line in (done.stdout + done.stderr).splitlines() if "aegis" in line]
    assert done.returncode == 0 and not about_ours, done.stdout + done.stderr


@pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
def test_the_service_is_confined(units: Path) -> None:
    command = [str(ANALYZE), "security", "--offline=yes", f"--threshold={EXPOSURE}", units / "aegis.service"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_service_waits_longer_than_the_gateway_drains() -> None:
    service = Unit("aegis.service")["Service"]
    guide = (environment.ROOT / "docs" / "operations.md").read_text()
    drain = re.search(r"drain_seconds = (\d+)", guide)
    assert drain and int(service["TimeoutStopSec"]) > int(drain[1])
    assert service["Type"] == "notify" and service["NotifyAccess"] == "all", "a successor reports for itself"
    assert service["KillMode"] == "mixed"


def test_the_sockets_have_the_names_that_the_gateway_looks_for() -> None:
    names = {Unit(path.name)["Socket"]["FileDescriptorName"] for path in DEPLOY.glob("*.socket")}
    assert names == {"agents", "admin", "tls"}


def test_hadolint_has_nothing_to_say(cache: Path) -> None:
    linter = cache / "venv" / "bin" / "hadolint"
    done = subprocess.run([linter, "--format", "json", DEPLOY / "Containerfile"], capture_output=True, text=True)
    assert json.loads(done.stdout) == [], done.stdout
    assert done.returncode == 0


def test_the_image_is_not_root_and_holds_only_what_was_built() -> None:
    final = CONTAINERFILE.rpartition("\nFROM ")[2]
    lines = [line.split() for line in final.splitlines() if line and not line.startswith(("#", " "))]
    words = [line[0] for line in lines[1:]]
    assert "RUN" not in words and words.count("COPY") == 1
    assert ["COPY", "--from=build", "/out/", "/"] in lines
    user = next(line[1] for line in lines if line[0] == "USER")
    chart = (environment.ROOT / "charts" / "aegis" / "templates" / "statefulset.yaml").read_text()
    assert user == "65532:65532" and "runAsUser: 65532" in chart and "fsGroup: 65532" in chart
    assert words.index("USER") < words.index("ENTRYPOINT")
    version = re.search(r'^rust-version = "(.+)"', (environment.ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version and f"RUST_VERSION={version[1]}" in CONTAINERFILE


def test_everything_that_is_built_in_is_in_the_build_context() -> None:
    """What `.containerignore` leaves out, the binary does not include."""
    left_out = [line.strip("*/ ") for line in (environment.ROOT / ".containerignore").read_text().split()]
    for name in ("routes.toml", "policies", "connectors", "Cargo.lock", "store"):
        assert name not in left_out
    members = re.findall(r'^    "([a-z-]+)",', (environment.ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert len(members) >= 10 and not set(members) & set(left_out)
