"""Real clients, given nothing but a base URL and an agent's token."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import github as pygithub

from harness import environment
from harness.gateway import Agent, Gateway


def pygithub_client(gateway: Gateway, agent: Agent, route: str = "github") -> pygithub.Github:
    """PyGithub as its users make it; only its own politeness pauses are off."""
    auth = pygithub.Auth.Token(agent.token)
    base = gateway.base(route)
    return pygithub.Github(base_url=base, auth=auth, retry=0, seconds_between_requests=0, seconds_between_writes=0)


def curl(url: str, *words: str, folder: Path) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    head, body = folder / "curl.head", folder / "curl.body"
    command = [environment.tool("curl"), "-sS", "--max-time", "30", "-D", str(head), "-o", str(body)]
    done = subprocess.run([*command, *words, url], capture_output=True, text=True, env=environment.clean(), timeout=60)
    assert done.returncode == 0, done.stderr
    # Interim answers have heads of their own in front. As bytes: line ends must stay what they are.
    last = head.read_bytes().decode("latin-1").strip().split("\r\n\r\n")[-1]
    status, *fields = last.split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(status.split(" ")[1]), headers, body.read_bytes() if body.exists() else b""


def denial_of(error: pygithub.GithubException) -> dict[str, Any]:
    """What the gateway says in GitHub's error shape."""
    data = error.data if isinstance(error.data, dict) else json.loads(error.data)
    return dict(data["aegis"])
