"""`aegis run` as a person types it: a command, a folder to work in, an environment with secrets in it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from harness import environment
from harness.gateway import Gateway

# What a developer's shell may hold. No command run through the gateway may see any of it.
SECRETS = {
    "GITHUB_TOKEN": "ghp_runCanary0123456789abcdefghijklmnop",
    "OPENAI_API_KEY": "sk-runCanary",
    "AWS_ACCESS_KEY_ID": "AKIARUNCANARY0000000",
    "AWS_SECRET_ACCESS_KEY": "runCanary/aws",
    "AWS_SESSION_TOKEN": "runCanary-session",
    "DATABASE_PASSWORD": "runCanary-db",
    "LINEAR_API_KEY": "runCanary-linear",
    "SSH_AUTH_SOCK": "/tmp/runCanary.sock",
    "AEGIS_ADMIN_TOKEN": "",
}


class Runner:
    """Starts `aegis run` on a gateway's installation."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.home, self.temporary, self.work = folder / "home", folder / "tmp", folder / "work"
        for made in (self.home, self.temporary, self.work):
            made.mkdir(exist_ok=True)
        self.env = environment.clean(
            {**SECRETS, "HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
        )
        del self.env["AEGIS_ADMIN_TOKEN"]
        self._there = set(self._files())

    def words(self, *words: str) -> list[str]:
        """Options of ours go before `--`, which `words` holds."""
        return [str(environment.aegis()), "--config", str(self.gateway.config), "run", *words]

    def __call__(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Runs to the end."""
        kept = {"capture_output": True, "text": True, "timeout": 60, "cwd": self.work, "env": self.env}
        return subprocess.run(self.words(*words), **{**kept, **self.gateway.user, **more})

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Starts, with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        kept = {"cwd": self.work, "env": self.env, "bufsize": 1}
        return subprocess.Popen(self.words(*words), **{**pipes, **kept, **self.gateway.user, **more})

    def left_behind(self) -> list[str]:
        """Whatever has come into the folders for temporary files and the user's own."""
        return sorted(set(self._files()) - self._there)

    def _files(self) -> list[str]:
        return [str(path) for folder in (self.home, self.temporary) for path in folder.rglob("*")]


class Terminal:
    """A command with a terminal of its own, read and typed at."""

    def __init__(self, words: list[str], **more: Any) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, preexec_fn=lambda: os.login_tty(slave), **more
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, words: str, seconds: float = 30) -> str:
        """Until the terminal shows `words`; everything shown since the last time."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{words!r} is not in {self.seen!r}"
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert words in self.seen, f"it ended: {self.seen!r}"
        shown, _, self.seen = self.seen.partition(words)
        return shown + words

    def close(self) -> None:
        os.close(self.master)
        self.process.kill()
        self.process.wait()
