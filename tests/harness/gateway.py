"""The gateway as an operator runs it: a folder, a process, two addresses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from harness import environment, receipts

START_SECONDS = 30.0


@dataclass
class Route:
    """One `[[route]]` of routes.toml; `None` leaves a key out."""

    name: str
    upstream: str
    connector: str = "github"
    credential: str | None = "github"
    default_trust: str = "semi_trusted_customer"
    hosts: list[str] = field(default_factory=list)
    listen: str | None = None
    unmapped: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def toml(self) -> str:
        keys: dict[str, Any] = {"name": self.name, "connector": self.connector, "upstream": self.upstream}
        if self.upstream.startswith("http://"):
            keys |= {"danger_plaintext_upstream": True, "allow_internal": ["127.0.0.1/32"]}
        keys |= {"credential": self.credential, "default_trust": self.default_trust, "hosts": self.hosts or None}
        keys |= {"listen": self.listen, "unmapped": self.unmapped, **self.more}
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
        return "[[route]]\n" + "\n".join(lines) + "\n"


@dataclass
class Credential:
    """One `[[credential]]` of routes.toml, with the value the vault gets."""

    value: str
    name: str = "github"
    kind: str = "bearer"
    vault: str = "embedded"
    more: dict[str, Any] = field(default_factory=dict)

    def toml(self) -> str:
        keys = {"name": self.name, "vault": self.vault, "kind": self.kind, **self.more}
        return "[[credential]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()) + "\n"


@dataclass
class Webhook:
    """One `[[webhook]]` of routes.toml."""

    name: str
    credential: str
    more: dict[str, Any] = field(default_factory=dict)

    def toml(self) -> str:
        keys = {"name": self.name, "credential": self.credential, **self.more}
        return "[[webhook]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()) + "\n"


@dataclass
class Agent:
    """An enrolled agent."""

    agent_id: str
    token: str


@dataclass
class Approver:
    """A person who approves."""

    person_id: str
    token: str


class Gateway:
    """A state folder and the process that runs on it. Can be stopped, killed and started again."""

    def __init__(
        self,
        folder: Path,
        routes: list[Route],
        credentials: list[Credential],
        extra: str = "",
        webhooks: list[Webhook] | None = None,
    ) -> None:
        self.folder = folder
        self.routes, self.credentials = routes, credentials
        self.webhooks = webhooks or []
        self.config = folder / "aegis.toml"
        self.state = folder / "state"
        self.receipts = self.state / "receipts"
        self.stderr = folder / "stderr.log"
        self.stdout = folder / "stdout.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.listen = self.admin = self.tls = ""
        self.route_listen: dict[str, str] = {}
        # Whose processes these are, as `subprocess` takes it; empty for the tests' own user.
        self.user: dict[str, Any] = {}
        self._agents = 0
        self._write(extra)

    def _write(self, extra: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # A file of the tests' own would hide a mistake in the shipped pack.
        shutil.copytree(environment.ROOT / "policies", self.folder / "policies", dirs_exist_ok=True)
        self.write_routes(self.routes)
        self.config.write_text(
            '[server]\nlisten = "127.0.0.1:0"\nadmin_listen = "127.0.0.1:0"\n'
            '[state]\ndir = "state"\n'
            '[files]\nroutes = "routes.toml"\npolicies = "policies"\n'
            f'[log]\nformat = "json"\n{extra}'
        )

    def write_routes(self, routes: list[Route]) -> None:
        """Replaces routes.toml, as an editor does: a new file renamed over the old."""
        text = "\n".join(part.toml() for part in [*routes, *self.credentials, *self.webhooks])
        draft = self.folder / "routes.toml.new"
        draft.write_text(text)
        draft.rename(self.folder / "routes.toml")

    # Life.

    def __enter__(self) -> Gateway:
        for credential in self.credentials:
            if credential.vault == "embedded":
                self.cli("credential", "add", credential.name, stdin=credential.value)
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> Gateway:
        words = [environment.aegis(), "serve", "--config", self.config, "--json"]
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            start_of_output = out.tell()
            self.process = subprocess.Popen(
                words, stdout=out, stderr=err, cwd=self.folder, env=environment.clean(), **self.user
            )
        said = self._listening(start_of_output)
        self.listen, self.admin, self.route_listen = said["listen"], said["admin"], said.get("routes", {})
        self.tls = said.get("tls") or ""
        return self

    def _listening(self, offset: int) -> dict[str, Any]:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for line in self.stdout.read_bytes()[offset:].split(b"\n")[:-1]:
                if line.startswith(b"{") and json.loads(line).get("event") == "listening":
                    return json.loads(line)
            if self.process and self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"the gateway did not start:\n{self.tail()}")

    def stop(self, seconds: float = 15) -> int:
        """SIGTERM, and the exit code. A gateway that will not go is a failure."""
        if not self.process or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not stop on SIGTERM:\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL: no chance to write anything."""
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def tail(self, count: int = 3000) -> str:
        return self.stderr.read_text(errors="replace")[-count:] if self.stderr.exists() else ""

    # What operators do.

    def cli(self, *words: str, stdin: str | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """An `aegis` subcommand on this installation."""
        command = [environment.aegis(), *words, "--config", self.config]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, env=environment.clean(), cwd=self.folder,
            **self.user,
        )  # fmt: skip
        assert not ok or done.returncode == 0, f"aegis {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    @property
    def admin_token(self) -> str:
        return (self.state / "admin.token").read_text().strip()

    def api(
        self, method: str, path: str, body: Any = None, token: str | None = None, admin: bool = True
    ) -> requests.Response:
        """The admin listener with the admin's token, unless told otherwise."""
        address = self.admin if admin else self.listen
        headers = {"Authorization": f"Bearer {token if token is not None else self.admin_token}"}
        return requests.request(method, f"http://{address}{path}", json=body, headers=headers, timeout=20)

    def enrol(self, key: str | None = None, **more: Any) -> Agent:
        self._agents += 1
        key = key or f"agent-{self._agents}-{time.monotonic_ns()}"
        body = {
            "agent_key": key, "name": "Test agent", "owner_team": "platform", "owner_email": "team@example.test",
            "environment": "test", "risk_tier": "medium", **more,
        }  # fmt: skip
        answer = self.api("POST", "/v1/agents/register", body)
        assert answer.status_code == 201, answer.text
        return Agent(answer.json()["agent_id"], answer.json()["agent_token"])

    def set_agent(self, agent: Agent, transition: str) -> requests.Response:
        return self.api("POST", f"/v1/agents/{agent.agent_id}/{transition}")

    def approver(
        self, name: str = "Lead", groups: tuple[str, ...] = ("platform-leads",), **more: Any
    ) -> Approver:
        answer = self.api("POST", "/v1/approvers", {"name": name, "groups": list(groups), **more})
        assert answer.status_code == 201, answer.text
        return Approver(answer.json()["person_id"], answer.json()["approver_token"])

    def settle(self, approver: Approver, approval_id: str, verb: str = "approve") -> requests.Response:
        return self.api("POST", f"/v1/approvals/{approval_id}/{verb}", token=approver.token)

    # What agents do.

    @property
    def ca(self) -> Path:
        """What clients of the forward proxy and of the TLS listener trust."""
        return self.state / "ca" / "root.crt"

    def proxy(self, agent: Agent | None) -> str:
        """The value of `HTTPS_PROXY` for an agent."""
        return f"http://agent:{agent.token}@{self.listen}" if agent else f"http://{self.listen}"

    def base(self, route: str = "github") -> str:
        return f"http://{self.listen}/{route}"

    def call(self, agent: Agent, method: str, path: str, route: str = "github", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {agent.token}", **more.pop("headers", {})}
        more.setdefault("timeout", 30)
        more.setdefault("allow_redirects", False)
        return requests.request(method, self.base(route) + path, headers=headers, **more)

    def authorize(self, agent: Agent, tool_call: dict[str, Any], **more: Any) -> requests.Response:
        return self.api("POST", "/v1/authorize", {"tool_call": tool_call, **more}, agent.token, admin=False)

    # What is on record.

    def leaves(self) -> list[receipts.Leaf]:
        return receipts.read(self.receipts)

    def leaf_of(self, receipt_id: str) -> receipts.Leaf:
        """The leaf that a response named; ids end in the sequence number."""
        seq = int(receipt_id.rpartition("_")[2])
        return self.leaves()[seq]

    def logged(self, offset: int = 0) -> list[dict[str, Any]]:
        """The JSON lines on stderr from a byte offset on."""
        lines = self.stderr.read_bytes()[offset:].split(b"\n")
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def wait_log(self, words: str, offset: int, seconds: float = 10) -> str:
        """Until the log holds `words`; the text logged since `offset`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.stderr.read_bytes()[offset:].decode(errors="replace")
            if words in text:
                return text
            time.sleep(0.02)
        raise AssertionError(f"{words!r} is not in the log:\n{self.tail()}")
