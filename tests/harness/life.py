"""Gateways that replace each other, and clients that notice when one of them drops a request."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness import raw
from harness.gateway import Agent, Gateway


class Succession(Gateway):
    """A gateway whose process may be another one by now."""

    pid = 0

    def start(self) -> Succession:
        super().start()
        assert self.process
        self.pid = self.process.pid
        return self

    def upgrade(self, seconds: float = 30) -> int:
        """SIGUSR2, as an operator does it; the successor's process id once it serves."""
        before, offset = self.pid, self.stdout.stat().st_size
        os.kill(before, signal.SIGUSR2)
        said = self.said("listening", offset, seconds)
        assert said["listen"] == self.listen and said["pid"] != before
        self.pid = said["pid"]
        # The admins' door may have another port, where the file names none.
        self.admin = said["admin"]
        return before

    def said(self, event: str, offset: int, seconds: float = 30) -> dict:
        """The line on stdout with this event, after a byte offset."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.stdout.read_bytes()[offset:].split(b"\n")[:-1]:
                if line.startswith(b"{") and json.loads(line).get("event") == event:
                    return json.loads(line)
            time.sleep(0.005)
        raise AssertionError(f"no {event!r} line:\n{self.tail()}")

    def stop(self, seconds: float = 15) -> int:
        if self.process and self.pid in (0, self.process.pid):
            return super().stop(seconds)
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            gone(self.pid, seconds)
            self.pid = 0
        if self.process:
            self.process.wait(seconds)
        return 0

    def kill(self) -> None:
        if self.pid and alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        super().kill()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float = 15) -> None:
    eventually(lambda: not alive(pid), f"process {pid} ends", seconds)


def eventually(check: Callable[[], object], what: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Connection:
    """One connection of a client that insists on an answer to everything it sent."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=20)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, seconds: float = 20) -> raw.Answer:
        return raw.receive(self.sock, seconds, None, bodiless=False)

    def closed(self) -> bool:
        """Whether the other side has closed it, as seen before anything is sent."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.sock.settimeout(20)

    def close(self) -> None:
        self.sock.close()


def request(agent: Agent, method: str, path: str, body: bytes = b"", more: str = "") -> bytes:
    """Bytes of a request to the route `github`."""
    head = f"{method} /github{path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {agent.token}\r\n{more}"
    if body or method != "GET":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Load:
    """Clients with and without kept connections. A drop is a request that was sent and not answered."""

    def __init__(self, address: str, agent: Agent, kept: int = 3, fresh: int = 2) -> None:
        self.address, self.agent = address, agent
        self.numbers = itertools.count(1)
        self.answered: list[tuple[int, str, int]] = []
        self.drops: list[str] = []
        self.slowest = 0.0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(keep,), daemon=True)
                        for keep in [True] * kept + [False] * fresh]  # fmt: skip

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def connect(self) -> Connection | None:
        """`None` where nobody listens: then nothing was accepted."""
        try:
            return Connection(self.address)
        except ConnectionRefusedError:
            time.sleep(0.01)
            return None

    def work(self, keep: bool) -> None:
        connection: Connection | None = None
        while not self.stopping.is_set():
            # A clean end before anything was sent is no drop: every client reconnects then.
            if connection is not None and (not keep or connection.closed()):
                connection.close()
                connection = None
            connection = connection or self.connect()
            if connection is not None and not self.once(connection):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def once(self, connection: Connection) -> bool:
        """One request; whether the connection can be used again."""
        number = next(self.numbers)
        method = "POST" if number % 2 else "GET"
        path = f"/repos/octo/hello/issues/{number}" + ("/comments" if number % 2 else "")
        started = time.monotonic()
        try:
            connection.send(request(self.agent, method, path, b'{"body":"x"}' if number % 2 else b""))
            answer = connection.answer()
        except OSError as error:
            self.drops.append(f"{method} {number}: {error!r}")
            return False
        if answer.status != 200:
            self.drops.append(f"{method} {number}: {answer.status} {answer.raw[:300]!r} closed={answer.closed}")
            return False
        self.answered.append((number, method, answer.status))
        self.slowest = max(self.slowest, time.monotonic() - started)
        return answer.header("connection") != "close"
